"""How predictions of a pair and of trees are put together, weighed, spread and stored."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from mixed_frames import mixed

from pyrovae.data.schema import Schema
from pyrovae.estimators.calibration import LIMITS, spread_factors
from pyrovae.estimators.prediction import Sampling
from pyrovae.estimators.stacking import FEW, Expectations
from pyrovae.estimators.table_model import TREES, TableModel
from pyrovae.estimators.table_training import train_table
from pyrovae.infer.imputation import Mixture
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood
from pyrovae.storage import CheckpointError

PAIR = {"latent_dim": 2, "hidden": (16,)}
TRAINING = {"epochs": 3, "batch_size": 32, "lr": 2e-3}


@pytest.fixture(scope="module")
def frame():
    return mixed(120)


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "trees"])
def model(request, frame):
    return train_table(
        frame, Schema.infer(frame), seed=0, pair=PAIR, training=TRAINING, trees=request.param, settings={"made": "here"}
    )


@pytest.fixture
def layout():
    """A number, three levels, two levels and four ordered levels."""
    return Expectations(ColumnFamilies(("normal", "categorical", "bernoulli", "categorical"), (0, 3, 2, 4)))


def test_layout(layout):
    assert layout.places == [(0, 1), (1, 4), (4, 6), (6, 10)]
    assert layout.width == 10
    assert layout.is_level.tolist() == [False, True, True, True]
    assert layout.owner.tolist() == [0, 1, 1, 1, 2, 2, 3, 3, 3, 3]


def test_expectations_by_hand(layout):
    """Two draws of the latent with the weights 1/4 and 3/4."""
    likelihood = TableLikelihood(layout.columns, parameterization="canonical")
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64)
    ordered = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.1, 0.3]], dtype=torch.float64)
    flag, mean = torch.tensor([0.2, 0.6], dtype=torch.float64), torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert [family for family, _, _ in likelihood.groups] == ["normal", "bernoulli", "categorical"]
    padded = torch.cat([probs.log(), torch.full((2, 1), 9.0), ordered.log()], -1)  # 3 levels in the place of 4
    raw = torch.cat([mean.unsqueeze(-1), torch.zeros(2, 1), torch.logit(flag).unsqueeze(-1), padded], -1)
    weights = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    mixture = Mixture(likelihood, raw.unsqueeze(1).requires_grad_(), weights)
    expected = layout.of(mixture)
    hand = [-0.5, 0.4, 0.275, 0.325, 0.5, 0.5, 0.4, 0.125, 0.15, 0.325]
    np.testing.assert_allclose(expected, [hand], atol=1e-6)


def test_points_by_hand(layout):
    expected = np.array([[-0.5, 0.4, 0.275, 0.325, 0.3, 0.7, 0.4, 0.125, 0.15, 0.325]])
    in_order = np.array([False, False, False, True])
    assert layout.point(expected, in_order).tolist() == [[-0.5, 0, 1, 1]], "the median of the last is its second level"
    assert layout.point(expected, np.zeros(4, bool)).tolist() == [[-0.5, 0, 1, 0]]
    assert layout.point(7 * expected, in_order)[0, 3] == 1, "medians do not need probabilities whose sum is 1"


def test_stacked_by_hand(layout):
    first, second = np.zeros((2, 10)), np.ones((2, 10))
    stacked = layout.stacked(first, second, np.array([0.0, 0.25, 1.0, 0.5]))
    np.testing.assert_allclose(stacked, [[0, 0.25, 0.25, 0.25, 1, 1, 0.5, 0.5, 0.5, 0.5]] * 2)
    nothing = np.full((2, 10), np.nan)
    np.testing.assert_array_equal(layout.stacked(first, nothing, np.zeros(4)), first)


def test_quantiles_by_hand(layout):
    expected = np.zeros((1, 10))
    expected[0, 1:4] = [0.2, 0.5, 0.3]
    uniform = torch.tensor([[0.1], [0.19], [0.21], [0.69], [0.71], [0.999999]], dtype=torch.float64)
    assert layout.quantiles(expected, 1, uniform)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    many = torch.as_tensor(np.random.default_rng(0).uniform(size=(20000, 1)))
    shares = np.bincount(layout.quantiles(2 * expected, 1, many)[:, 0].int(), minlength=3) / 20000
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.02)


def weighed(rows, noises, few=None):
    """Weights of two columns with numbers and one with levels; the second predictor errs by a share of the first's."""
    layout = Expectations(ColumnFamilies(("normal", "normal", "bernoulli"), (0, 0, 2)))
    generator = np.random.default_rng(0)
    truth = np.concatenate([generator.normal(size=(rows, 2)), generator.integers(0, 2, (rows, 1))], 1)

    def predicted(noise):
        sure = np.where(truth[:, 2:] == 1, 1 - noise[2], noise[2])
        numbers = truth[:, :2] + np.array(noise[:2]) * generator.normal(size=(rows, 2))
        return np.concatenate([numbers, 1 - sure, sure], 1)

    held = np.ones((rows, 3), bool)
    if few is not None:
        held[few:, 0] = False
    first, second = (predicted(noise) for noise in noises)
    return layout.weights(first, second, np.array([True, True, True]), truth, held, truth.var(0))


def test_weights_pick_the_better():
    assert weighed(2000, [(1.0, 0.1, 0.4), (0.01, 2.0, 0.1)]) == pytest.approx([1, 0, 1], abs=0.11)


def test_weights_share():
    """Independent errors a and b: the best weight of the second is a ** 2 / (a ** 2 + b ** 2)."""
    assert weighed(20000, [(1.0, 1.0, 0.3), (1.0, 2.0, 0.3)])[:2] == pytest.approx([0.5, 0.2], abs=0.051)


def test_weights_of_columns_with_few_entries():
    """Such a column shares a weight with others like it, here with none but itself, and not with many."""
    found = weighed(2000, [(1.0, 0.1, 0.4), (0.01, 2.0, 0.1)], few=FEW // 2)
    assert found[0] == pytest.approx(1, abs=0.11)
    both = weighed(FEW // 2, [(1.0, 1.0, 0.4), (0.01, 0.01, 0.1)])
    assert both[0] == both[1] == pytest.approx(1, abs=0.11)


def test_weights_of_what_the_second_does_not_know():
    layout = Expectations(ColumnFamilies(("normal", "normal"), (0, 0)))
    truth = np.random.default_rng(0).normal(size=(300, 2))
    second = np.stack([truth[:, 0], np.full(300, np.nan)], 1)
    held, known = np.ones((300, 2), bool), np.array([True, False])
    assert layout.weights(truth + 1, second, known, truth, held, truth.var(0)).tolist() == [1, 0]
    assert layout.weights(truth + 1, second, known, truth, ~held, truth.var(0)).tolist() == [0, 0]


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_spread_factors(spread):
    """Normal values about means that are known, and draws of the standard deviation 1."""
    generator, rows = np.random.default_rng(0), 4000
    mean, draws = generator.normal(size=(rows, 2)), generator.normal(size=(400, rows, 2))
    truth = mean + spread * generator.normal(size=(rows, 2))
    held = generator.uniform(size=(rows, 2)) < 0.5
    held[30:, 1] = False
    factors = spread_factors(np.where(held, truth, np.nan), mean, mean + draws, held)
    assert factors[0] == pytest.approx(spread, rel=0.06)
    assert factors[1] == pytest.approx(factors[0], rel=0.02), "few entries share the factor of all"


def test_spread_factors_have_limits():
    generator = np.random.default_rng(0)
    mean, held = np.zeros((100, 1)), np.ones((100, 1), bool)
    draws = generator.normal(size=(100, 100, 1))
    assert spread_factors(mean + 1000, mean, draws, held)[0] == LIMITS[1]
    assert spread_factors(mean, mean, draws, held)[0] == LIMITS[0]
    assert spread_factors(mean + 1, mean, draws, ~held)[0] == 1
    assert spread_factors(mean + 1, mean, 0 * draws, held)[0] == LIMITS[1], "draws without a spread"


def test_few_entries_do_not_narrow_draws():
    generator = np.random.default_rng(0)
    mean, held, draws = np.zeros((100, 2)), np.zeros((100, 2), bool), generator.normal(size=(400, 100, 2))
    truth = 0.5 * generator.normal(size=(100, 2))
    held[:30, 0] = True
    assert spread_factors(truth, mean, draws, held).tolist() == [1, 1]
    assert spread_factors(6 * truth, mean, draws, held)[0] > 2, "they do widen them"
    held[:60, 1] = True
    assert (spread_factors(truth, mean, draws, held) < 0.8).all()


def test_draws_keep_observed_entries(frame, model):
    x, mask = model.encoded(frame)
    for by_row in (True, False):
        drawn = model.predictor.draws(x, mask, 7, Sampling(5, seed=1), by_row=by_row)
        assert drawn.shape == (7, *x.shape)
        seen = mask.numpy()
        np.testing.assert_array_equal(drawn[:, seen], np.broadcast_to(x.numpy()[seen], (7, seen.sum())))
        assert np.isfinite(drawn).all()
        levels = model.predictor.expectations.is_level
        np.testing.assert_array_equal(drawn[:, :, levels], drawn[:, :, levels].round())
        sizes = np.array(model.codec.families.num_levels)[levels]
        assert ((drawn[:, :, levels] >= 0) & (drawn[:, :, levels] < sizes)).all()


def test_draws_have_the_calibrated_spread(frame, model, monkeypatch):
    """A factor 3 makes the spread about the same mean three times as large, and leaves levels."""
    x, mask = model.encoded(frame)
    nothing, sampling = torch.zeros_like(mask), Sampling(5, seed=1)
    draw = partial(model.predictor.draws, x, nothing, 200, sampling, by_row=False)
    numbers, size = ~model.predictor.expectations.is_level, x.shape[1]
    monkeypatch.setattr(model.predictor, "spread", np.ones(size))
    plain = draw()
    monkeypatch.setattr(model.predictor, "spread", np.where(numbers, 3.0, 1.0))
    wide, means = draw(), model.predictor.points(x, nothing, sampling)
    np.testing.assert_allclose(wide.std(0)[:, numbers], 3 * plain.std(0)[:, numbers], rtol=1e-6)
    centred = (wide - means)[..., numbers]
    assert np.abs(centred.mean(0) / centred.std(0)).max() < 0.3
    np.testing.assert_array_equal(wide[..., ~numbers], plain[..., ~numbers])


def test_weights_of_trees_change_points(frame, monkeypatch):
    """Numbers are (1 - w) of the pair and w of the trees."""
    some = frame[["real", "tail", "flag"]]
    kinds = {"real": "real", "tail": "real"}
    model = train_table(some, Schema.infer(some, kinds), seed=0, pair=PAIR, training=TRAINING, trees=True)
    x, mask = model.encoded(some)
    for name in ("forest_weights", "factor_shares"):
        monkeypatch.setattr(model.predictor, name, np.zeros(3))

    def points(weight):
        monkeypatch.setattr(model.predictor, "tree_weights", np.full(3, weight))
        return model.predictor.points(x, mask, Sampling(5, seed=1))

    alone, theirs, mixed_points = points(0.0), points(1.0), points(0.3)
    trees = model.predictor.trees.predict(np.where(mask, x, np.nan))
    assert model.predictor.trees.layout == [(0, 0, 1), (1, 1, 1), (2, 2, 2)]
    np.testing.assert_allclose(theirs[:, :2], trees[:, :2])
    np.testing.assert_array_equal(theirs[:, 2], trees[:, 2:].argmax(1))
    np.testing.assert_allclose(mixed_points[:, :2], 0.7 * alone[:, :2] + 0.3 * trees[:, :2])
    assert np.abs(alone[:, :2] - theirs[:, :2]).max() > 0.1


def test_levels_are_drawn_from_the_trees_as_often_as_they_count(frame, monkeypatch):
    """The pair gives each level about the same probability, trees that are sure give one."""
    some = frame[["real", "flag"]].dropna()
    some = pd.DataFrame({"real": np.where(some["flag"], 1.0, -1.0), "flag": some["flag"]}, index=some.index)
    rows = pd.concat([some] * 3, ignore_index=True).assign(other=np.arange(3.0 * len(some)))
    kinds = {"real": "real", "other": "real"}
    model = train_table(rows, Schema.infer(rows, kinds), seed=0, pair=PAIR, training=TRAINING, trees=True)
    x, mask = model.encoded(rows)
    position = model.codec.schema.names.index("flag")
    mask[:, position] = False
    truth = x[:, position].numpy()

    def share(weight):
        monkeypatch.setattr(model.predictor, "tree_weights", np.full(mask.shape[1], weight))
        return (model.predictor.draws(x, mask, 200, Sampling(5, seed=1))[:, :, position] == truth).mean()

    alone, theirs = share(0.0), share(1.0)
    assert theirs > 0.95
    assert share(0.4) == pytest.approx(0.6 * alone + 0.4 * theirs, abs=0.03)


def test_round_trip(frame, model, tmp_path):
    model.save(tmp_path / "model")
    again, settings = TableModel.load(tmp_path / "model")
    assert settings == {"made": "here"}
    x, mask = model.encoded(frame)
    for found, expected in zip(again.encoded(frame), (x, mask), strict=True):
        assert torch.equal(found, expected)
    sampling = Sampling(5, seed=1)
    np.testing.assert_array_equal(again.predictor.spread, model.predictor.spread)
    np.testing.assert_array_equal(again.predictor.tree_weights, model.predictor.tree_weights)
    np.testing.assert_array_equal(again.points(x, mask, sampling), model.points(x, mask, sampling))
    np.testing.assert_array_equal(again.draws(x, mask, 3, sampling), model.draws(x, mask, 3, sampling))
    np.testing.assert_array_equal(again.log_prob(x, mask, sampling), model.log_prob(x, mask, sampling))
    np.testing.assert_array_equal(again.latents(x, mask), model.latents(x, mask))
    pd.testing.assert_frame_equal(again.sample(5), model.sample(5))
    pd.testing.assert_frame_equal(again.sample(5, {"text": "a"}), model.sample(5, {"text": "a"}))
    with pytest.raises(CheckpointError, match="already holds a run"):
        model.save(tmp_path / "model")


def test_folder_without_its_trees(frame, tmp_path):
    some = frame[["real", "flag"]].assign(copy=2 * frame["real"])
    model = train_table(some, Schema.infer(some), seed=0, pair=PAIR, training=TRAINING, trees=True)
    model.predictor.tree_weights = np.ones(3)
    model.write_down()
    model.save(tmp_path / "model")
    (tmp_path / "model" / TREES).unlink()
    with pytest.raises(CheckpointError, match=r"trees\.npz cannot be read .* and its run needs it; restore it"):
        TableModel.load(tmp_path / "model")


@pytest.mark.parametrize("trees", [False, True])
def test_training_repeats(frame, trees, caller_rng, store):
    train = partial(train_table, frame, Schema.infer(frame), pair=PAIR, training=TRAINING, trees=trees)
    first, again, other = train(seed=3), train(seed=3), train(seed=4)
    x, mask = first.encoded(frame)
    sampling = Sampling(5)
    np.testing.assert_array_equal(first.points(x, mask, sampling), again.points(x, mask, sampling))
    np.testing.assert_array_equal(first.predictor.tree_weights, again.predictor.tree_weights)
    np.testing.assert_array_equal(first.predictor.spread, again.predictor.spread)
    pd.testing.assert_frame_equal(first.sample(9), again.sample(9))
    assert not np.array_equal(first.latents(x, mask), other.latents(x, mask))
