"""Several nets of one table: trained apart, mixed, weighted by held-out entries, stored; and early stopping."""

import numpy as np
import pandas as pd
import pytest
import torch
from mixed_frames import mixed

from pyrovae.data.rows import Rows
from pyrovae.estimators import VAEImputer
from pyrovae.estimators.nets import check_variants
from pyrovae.estimators.prediction import Sampling
from pyrovae.estimators.stacking import EVENNESS, Expectations, weights_of_groups
from pyrovae.estimators.table_training import held_out, held_out_rows
from pyrovae.likelihoods.tables import ColumnFamilies
from pyrovae.metrics.held_entries import held_entry_figures

SMALL = {"n_components": 2, "hidden": (16,), "epochs": 4, "random_state": 0, "trees": False}
VARIANTS = ({}, {"layer": "residual", "n_components": 3, "kl_weight": 0.5})


@pytest.fixture(scope="module")
def frame():
    return mixed(120)


@pytest.fixture(scope="module")
def imputer(frame):
    return VAEImputer(**SMALL, num_nets=3, variants=VARIANTS, likelihoods={"ordinal": "ordered"}).fit(frame)


def test_nets_differ_as_their_variants_say(imputer):
    predictor = imputer.model_.predictor
    first, *others = (predictor.vae, *predictor.others)
    assert [vae.model.prior.latent_dim for vae in (first, *others)] == [2, 3, 2]
    third = dict(others[1].named_parameters())
    assert any(not torch.equal(value, third[name]) for name, value in first.named_parameters())
    assert predictor.net_weights.sum() == pytest.approx(1)
    assert predictor.net_weights[0] == predictor.net_weights[2], "nets of one variant count alike"
    for name, cuts in first.model.likelihood.cuts.items():
        assert all(torch.equal(cuts, vae.model.likelihood.cuts[name]) for vae in others)


def test_expectations_are_the_weighted_mean_over_nets(imputer, frame):
    model = imputer.model_
    x, mask = model.encoded(frame)
    predictor, layout = model.predictor, model.predictor.expectations
    weights = np.array([0.2, 0.5, 0.3])
    both = type(predictor)(predictor.codec, predictor.vae, others=predictor.others, net_weights=weights)
    raws = []
    for rows, mixture in both.mixtures(x, mask, Sampling(6)):
        assert mixture.raw.shape[0] == 6, "the draws of the latent are shared out"
        np.testing.assert_allclose(mixture.weights.sum(0), 1.0)
        np.testing.assert_allclose(mixture.weights[:, 0], np.repeat(weights / 2, 2))
        expected = layout.of(mixture)
        raws = [mixture.raw[[2 * k, 2 * k + 1]] for k in range(3)]
        parts = [layout.of(mixture._replace(raw=raw, weights=torch.full(raw.shape[:2], 0.5).double())) for raw in raws]
        np.testing.assert_allclose(expected, sum(w * part for w, part in zip(weights, parts, strict=True)), atol=1e-9)
        assert rows.stop >= len(x) or len(expected)
    assert raws


def test_a_net_without_weight_is_not_asked(imputer, frame):
    model = imputer.model_
    x, mask = model.encoded(frame)
    predictor = model.predictor
    alone = type(predictor)(predictor.codec, predictor.others[0])
    muted = type(predictor)(
        predictor.codec, predictor.vae, others=predictor.others, net_weights=np.array([0.0, 1.0, 0.0])
    )
    np.testing.assert_array_equal(muted.points(x, mask, Sampling(4)), alone.points(x, mask, Sampling(4)))


def test_saved_and_loaded(imputer, frame, tmp_path):
    imputer.save(tmp_path / "run")
    again = VAEImputer.load(tmp_path / "run")
    assert len(again.model_.predictor.others) == 2
    assert again.num_nets == 3
    pd.testing.assert_frame_equal(again.transform(frame), imputer.transform(frame))
    for first, second in zip(imputer.impute_draws(frame, 2), again.impute_draws(frame, 2), strict=True):
        pd.testing.assert_frame_equal(first, second)
    np.testing.assert_allclose(again.score_samples(frame, 10), imputer.score_samples(frame, 10))
    assert not list(tmp_path.rglob("*.pkl"))


def test_fewer_nets_saved_over_more(imputer, frame, tmp_path):
    imputer.save(tmp_path / "run")
    one = VAEImputer(**SMALL, num_nets=1).fit(frame)
    one.save(tmp_path / "run", overwrite=True)
    again = VAEImputer.load(tmp_path / "run")
    assert not again.model_.predictor.others
    pd.testing.assert_frame_equal(again.transform(frame), one.transform(frame))


def test_weights_find_the_better_of_two_groups():
    """The least-squares weights by hand, and a level that one group knows and the other does not."""
    generator = np.random.default_rng(0)
    layout = Expectations(ColumnFamilies(("normal", "bernoulli"), (0, 2)))
    truth = np.stack([generator.normal(size=400), generator.integers(0, 2, 400)], 1)
    first, second = np.zeros((400, 3)), np.zeros((400, 3))
    noise = generator.normal(size=(2, 400)) * np.array([[0.5], [1.0]])
    first[:, 0], second[:, 0] = truth[:, 0] + noise[0], truth[:, 0] + noise[1]
    held = np.zeros((400, 2), bool)
    held[:, 0] = True
    found = weights_of_groups([first, second], layout, truth, held, np.array([1.0, 1.0]))
    gap = noise[0] - noise[1]
    # Minimised is sum (noise1 + w gap)^2 / 2 + 2 EVENNESS (w - 1/2)^2.
    by_hand = (2 * EVENNESS - (noise[1] * gap).sum()) / (np.square(gap).sum() + 4 * EVENNESS)
    np.testing.assert_allclose(found, [by_hand, 1 - by_hand], atol=1e-4)
    first[np.arange(400), 1 + truth[:, 1].astype(int)] = 1.0
    second[:, 1:] = 0.5
    held[:] = [False, True]
    np.testing.assert_allclose(weights_of_groups([first, second], layout, truth, held, np.ones(2)), [1, 0], atol=1e-6)
    nothing = np.zeros_like(held)
    np.testing.assert_array_equal(weights_of_groups([first, second], layout, truth, nothing, np.ones(2)), [0.5, 0.5])


def test_held_out_loss_by_hand(imputer, frame):
    """Of the mean of the latent: squared error of numbers over twice the variance, log loss of levels."""
    model = imputer.model_
    scaled, mask = model.codec.scaled(frame)
    held = held_out(mask, 3)
    rows = held_out_rows(scaled, mask, held, 0)
    vae = model.vae
    rows = Rows(rows.x.double(), mask=rows.mask, more=rows.more)
    (name, compute), *rest = held_entry_figures(vae, rows).items()
    assert (name, rest) == ("held_out_loss", [])
    seen = rows.mask & rows.more["seen"]
    asked = (rows.mask & ~rows.more["seen"]).numpy()
    assert asked.any()
    raw = vae.model.decoder(vae.guide.posterior(rows.x, seen).mean).detach()
    layout, total = model.predictor.expectations, 0.0
    mixture = next(iter(model.predictor.mixtures(rows.x, seen, Sampling(3))))[1]
    one = torch.ones(1, len(rows), dtype=torch.float64)
    expected = layout.of(mixture._replace(likelihood=vae.model.likelihood, raw=raw[None], weights=one))
    for column, (start, end) in enumerate(layout.places):
        part, true = expected[asked[:, column], start:end], rows.x.numpy()[asked[:, column], column]
        if layout.is_level[column]:
            total -= np.log(np.maximum(part[np.arange(len(true)), true.astype(int)], 1e-4)).sum()
        else:
            known = rows.x.numpy()[rows.mask.numpy()[:, column], column]
            total += 0.5 * np.square(part[:, 0] - true).sum() / known.var()
    assert compute() == pytest.approx(total / asked.sum(), rel=1e-5)


def test_early_stopping_keeps_the_best_epoch(frame):
    found = VAEImputer(**{**SMALL, "epochs": 60, "lr": 0.05}, patience=3).fit(frame).history_
    losses = [row["held_out_loss"] for row in found.rows]
    assert len(losses) < 60
    assert found.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == found.best_epoch + 3


@pytest.mark.parametrize(
    ("variants", "error", "text"),
    [
        ("residual", TypeError, "variants must be a sequence of dictionaries"),
        ((), TypeError, "variants must be a sequence of dictionaries"),
        (("residual",), TypeError, "variants must hold dictionaries"),
        (({"prior": "vamp"},), ValueError, "variants names 'prior'"),
    ],
)
def test_variants_refused(variants, error, text):
    with pytest.raises(error, match=text):
        check_variants(variants)
    with pytest.raises(error, match=text):
        VAEImputer(**SMALL, variants=variants).fit(mixed(20))


@pytest.mark.parametrize(
    ("variant", "error", "text"),
    [
        ({"encoder": "transformer"}, ValueError, "variants: encoder must be one of dense, set"),
        ({"hidden": 5}, ValueError, "variants: hidden must hold"),
        ({"dropout": 2.0}, ValueError, "variants: dropout == 2.0, must be < 1"),
        ({"epochs": None}, ValueError, "variants: epochs must be given"),
        ({"n_components": 1.5}, TypeError, "variants: n_components must be an instance of"),
    ],
)
def test_values_of_variants_refused_before_training(variant, error, text, monkeypatch):
    monkeypatch.setattr("pyrovae.estimators.table_estimator.train_table", None)
    with pytest.raises(error, match=text):
        VAEImputer(**SMALL, variants=({}, variant)).fit(mixed(20))
