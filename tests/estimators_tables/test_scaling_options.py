"""Where numbers are scaled, maps of columns with atoms, and balance of columns: densities in raw units, storage."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import clone

from pyrovae.data.schema import Schema
from pyrovae.data.tables import TableCodec
from pyrovae.estimators import VAEImputer
from pyrovae.estimators.prediction import Predictor, Sampling
from pyrovae.infer.imputation import weighted
from pyrovae.likelihoods.balance import lipschitz_weights
from pyrovae.likelihoods.marginals import Marginal
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood, batch_moments

SMALL = {"n_components": 2, "hidden": (16,), "epochs": 5, "random_state": 0, "trees": False, "num_nets": 1}


@pytest.fixture(scope="module")
def frame():
    generator = np.random.default_rng(0)
    size = 120
    income = np.exp(generator.normal(8, 1, size))
    paid = np.where(generator.uniform(size=size) < 0.4, 0.0, 200 + 30 * generator.normal(size=size))
    found = pd.DataFrame({"income": income, "paid": paid, "kind": generator.choice(["a", "b", "c"], size)})
    return found.mask(generator.uniform(size=found.shape) < 0.2)


def test_densities_are_the_same_outside_and_inside(frame):
    kinds = {"income": "positive", "paid": "real"}
    likelihoods = {"income": "log-normal"}
    options = {**SMALL, "kinds": kinds, "likelihoods": likelihoods}
    outside = VAEImputer(**options).fit(frame)
    inside = VAEImputer(**options, scale_where="inside").fit(frame)
    assert outside.model_.codec.scaler.scale != inside.model_.codec.scaler.scale
    assert set(inside.model_.codec.scaler.scale) == {1.0}
    own = dict(inside.model_.vae.state_dict())
    for name, value in outside.model_.vae.state_dict().items():
        if "features" not in name:  # what the encoder standardises by differs with the units
            own[name] = value
    inside.model_.vae.load_state_dict(own)
    found, noise = [], torch.as_tensor(np.random.RandomState(0).standard_normal((20, 2)))
    for each in (outside, inside):
        codec, vae = each.model_.codec, each.model_.vae
        x, mask = each.model_.encoded(frame)
        scale = (codec.log_scale(x.numpy()) * mask.numpy()).sum(-1)
        points = codec.complete(Predictor(codec, vae).points(x, mask, Sampling(50)))
        found.append((weighted(vae, x, mask, noise)[1].numpy() - scale, points))
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["inside", "batch"])
def test_scaled_within_and_stored(frame, where, tmp_path):
    imputer = VAEImputer(**SMALL, scale_where=where).fit(frame)
    assert imputer.transform(frame).notna().all(axis=None)
    imputer.save(tmp_path / "run")
    again = VAEImputer.load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.transform(frame), imputer.transform(frame))
    np.testing.assert_allclose(again.score_samples(frame, 10), imputer.score_samples(frame, 10))
    assert clone(again).scale_where == where


def test_moments_of_a_batch():
    x = torch.tensor([[1.0, 5.0, 0.0], [3.0, 7.0, 1.0]] * 10)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[2:, 1] = False
    shifted = torch.tensor([True, True, False])
    loc, scale = batch_moments(x, mask, torch.zeros(3), torch.full((3,), 9.0), shifted)
    torch.testing.assert_close(loc, torch.tensor([2.0, 0.0, 0.0]))
    torch.testing.assert_close(scale, torch.tensor([1.0, 9.0, 9.0]))


def test_a_likelihood_sees_batches_only_in_training():
    columns = ColumnFamilies(("normal", "bernoulli"), (0, 2))
    likelihood = TableLikelihood(columns, loc=torch.zeros(2), scale=torch.ones(2), by_batch=True)
    x = torch.stack([torch.arange(20.0), torch.zeros(20)], 1)
    raw = torch.zeros(20, *likelihood.raw_shape)
    likelihood.eval().see(x, None)
    assert (likelihood.elementwise(raw).mean[:, 0] == 0).all()
    likelihood.train().see(x, None)
    torch.testing.assert_close(likelihood.elementwise(raw).mean[:, 0], torch.full((20,), 9.5))


def test_marginal_finds_map_and_atoms():
    generator = np.random.default_rng(0)
    rest = np.exp(generator.normal(size=900))
    marginal = Marginal.fit(np.concatenate([np.zeros(100), rest]))
    assert marginal.atoms == (0.0,)
    scores = np.interp(rest, marginal.values, marginal.scores)
    assert stats.kstest(scores, "norm").pvalue > 0.2
    assert Marginal.from_dict(marginal.to_dict()) == marginal
    assert marginal.is_atom(np.array([0.0, 1e-7, 0.1])).tolist() == [True, True, False]
    levels = Marginal.fit(np.array([0.0, 1.0] * 50))
    assert levels.atoms == (0.0, 1.0)
    with pytest.raises(ValueError, match="two different values"):
        Marginal.fit(np.ones(5))
    with pytest.raises(ValueError, match="finite and increase"):
        Marginal((0.0, 0.0), (0.0, 1.0))


def test_mapped_columns_have_densities_in_raw_units(frame):
    """Over the values of one column, the integral of the density and the probability of its atom are 1 together."""
    imputer = VAEImputer(**SMALL, marginals="quantile", kinds={"income": "real"}).fit(frame)
    model = imputer.model_
    assert model.codec.families.families == ("quantile", "quantile", "categorical")
    assert len(model.codec.families.marginals[1].atoms) == 1

    def density(values, column):
        rows = pd.DataFrame({name: [np.nan] * len(values) for name in frame}).astype({"kind": object})
        rows[column] = values
        x, mask = model.encoded(rows)
        # Draws of the prior, not of the guide, which is another one for each value: the same mixture for all values.
        noise = torch.as_tensor(np.random.RandomState(0).standard_normal((20, 2)))
        raw = model.vae.model.decoder(noise).unsqueeze(1)
        likelihood = model.vae.model.likelihood
        scored = likelihood(raw, mask.expand(20, -1, -1)).log_prob(likelihood.fill(x, mask).expand(20, -1, -1))
        scale = (torch.as_tensor(model.codec.log_scale(x.numpy())) * mask).sum(-1)
        return (scored.logsumexp(0) - np.log(20) - scale).exp().detach().numpy()

    assert density(np.array([0.0]), "paid")[0] == pytest.approx(0.4, abs=0.25), "a probability, without a unit"
    for column, atoms, ends in (
        ("income", 0, (-3e5, 0, 1e3, 5e3, 2e4, 1e5, 1e6)),
        ("paid", 1, (-3000, 100, 200, 300, 4000)),
    ):
        total = density(np.zeros(1), column)[0] if atoms else 0.0
        for low, high in pairwise(ends):
            grid = np.linspace(low, high, 20001) + 0.003
            total += np.trapezoid(density(grid, column), grid)
        assert total == pytest.approx(1, abs=2e-2)


def test_mapped_columns_stay_discrete_and_are_stored(frame, tmp_path):
    options = {**SMALL, "trees": True, "marginals": "quantile"}
    imputer = VAEImputer(**options).fit(frame)
    drawn = pd.concat([draw.loc[frame["paid"].isna(), "paid"] for draw in imputer.impute_draws(frame, 20)])
    assert 0.1 < (drawn == 0).mean() < 0.8
    imputer.save(tmp_path / "run")
    again = VAEImputer.load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.transform(frame), imputer.transform(frame))
    np.testing.assert_allclose(again.score_samples(frame, 10), imputer.score_samples(frame, 10))
    with pytest.raises(ValueError, match="scale_where must be 'outside'"):
        VAEImputer(**options, scale_where="inside").fit(frame)


def test_maps_need_all_rows(frame):
    schema = Schema.infer(frame)
    with pytest.raises(ValueError, match="needs all rows at once"):
        TableCodec.fit_chunks(schema, [schema.encode(frame)[0]], likelihoods={"income": "quantile"})


def test_balance_by_hand():
    """Second differences of log-likelihoods at the fit without latents."""
    shares, rate = np.array([0.5, 0.3, 0.2]), 4.0
    codes = np.repeat([0.0, 1.0, 2.0], [50, 30, 20])
    counts = np.resize([2.0, 6.0], 100)
    numbers = np.resize([-1.0, 1.0], 100)
    columns = ColumnFamilies(("normal", "categorical", "poisson"), (0, 3, 0))
    found = lipschitz_weights(columns, np.stack([numbers, codes, counts], 1))
    logits = torch.tensor(np.log(shares))
    curved = torch.autograd.functional.hessian(lambda z: -(torch.tensor(shares) * z.log_softmax(-1)).sum(), logits)
    constants = np.array([1.0, float(torch.linalg.eigvalsh(curved)[-1]), rate])
    np.testing.assert_allclose(found, (1 / constants) / (1 / constants).mean())


def test_balance_counts_in_training_alone(frame):
    imputer = VAEImputer(**SMALL, balance="lipschitz").fit(frame)
    likelihood = imputer.model_.vae.model.likelihood
    assert likelihood.weights is not None
    x, mask = imputer.model_.encoded(frame)
    raw = torch.zeros(len(x), *likelihood.raw_shape, dtype=torch.float64)
    value = likelihood.fill(x, mask)
    plain = likelihood(raw, mask).base_dist.log_prob(value)
    likelihood.train()
    weighted = likelihood(raw, mask).base_dist.log_prob(value)
    likelihood.eval()
    torch.testing.assert_close(weighted, plain * likelihood.weights)
    assert not torch.allclose(weighted, plain)


@pytest.mark.parametrize(("option", "value"), [("scale_where", "within"), ("marginals", "copula"), ("balance", "all")])
def test_refused(frame, option, value):
    with pytest.raises(ValueError, match=f"{option} must be one of"):
        VAEImputer(**SMALL, **{option: value}).fit(frame)


@pytest.mark.parametrize("scaling", ["normalize", "none"])
def test_batches_are_standardised_and_nothing_else(frame, scaling):
    with pytest.raises(ValueError, match=f"scale_where 'batch' needs scaling='standardize', .* got '{scaling}'"):
        VAEImputer(**SMALL, scale_where="batch", scaling=scaling).fit(frame)
