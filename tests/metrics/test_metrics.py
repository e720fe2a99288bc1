"""Metrics against values known in closed form, and what they refuse."""

import itertools
import json
import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import nn

from pyrovae import VAE, data, metrics
from pyrovae.data import Dataset, LinearGaussian, Rows
from pyrovae.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, NormalLikelihood
from pyrovae.pairs import find_pair

DIMENSION, LATENT, SCALE = 4, 2, 0.7


def linear_pair(widening: float = 1.0, shift: float = 0.0) -> tuple[VAE, LinearGaussian, torch.Tensor]:
    """Probabilistic PCA with its exact posterior, made wrong by a wider covariance and a shift of the mean."""
    truth = LinearGaussian.random(DIMENSION, LATENT, torch.Generator().manual_seed(3), SCALE)
    loading, loc = truth.loading.float(), truth.loc.float()
    covariance = torch.linalg.inv(torch.eye(LATENT) + loading.T @ loading / SCALE**2)
    gain = covariance @ loading.T / SCALE**2

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(LATENT), torch.eye(LATENT)))
            pyro.sample("x", dist.Normal(z @ loading.T + loc, SCALE).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal((x - loc) @ gain.T + shift, widening * covariance))

    return VAE(model, guide), truth, covariance


def rows(truth: LinearGaussian, number: int) -> torch.Tensor:
    return truth.sample(number, torch.Generator().manual_seed(4))


class Grey(nn.Module):
    """A pair with a latent that the likelihood ignores, for figures about the likelihood alone."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            raw = torch.zeros(len(x), *self.likelihood.raw_shape)
            pyro.sample("x", self.likelihood(raw), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def test_figures_of_the_exact_posterior_are_those_of_the_evidence():
    vae, truth, covariance = linear_pair()
    x = rows(truth, 400)
    evidence = truth(x).double()
    result = metrics.evaluate(vae, Rows(x), num_samples=3, batch_size=150)
    # Every log weight is the evidence, so there is no sampling error.
    assert result.log_likelihood == pytest.approx(float(evidence.mean()), abs=1e-4)
    assert result.sampling_error == pytest.approx(0, abs=1e-4)
    assert result.standard_error == pytest.approx(stats.sem(evidence.numpy()), rel=1e-3)
    assert result.effective_sample_size == pytest.approx(3, rel=1e-3)
    # The draw in the reconstruction term is all that separates the bound from the evidence.
    assert result.bound == pytest.approx(result.log_likelihood, abs=0.25)
    # KL of a Gaussian to the standard normal, from its textbook formula.
    mean = metrics.latent_means(vae, x)
    expected = 0.5 * (covariance.trace() - LATENT - covariance.logdet() + mean.square().sum(1)).mean()
    assert result.kl == pytest.approx(float(expected), rel=1e-4)
    x_hat = mean @ truth.loading.float().T + truth.loc.float()
    assert result.reconstruction_error == pytest.approx(float((x_hat - x).square().mean()), rel=1e-4)
    assert (result.num_rows, result.num_samples, result.latent_dim, result.active_units) == (400, 3, LATENT, LATENT)
    assert result.bits_per_dimension is None


def test_wrong_guide_has_the_evidence_by_sampling_and_the_bound_of_its_kl():
    vae, truth, covariance = linear_pair(widening=2.0, shift=0.2)
    x = rows(truth, 500)
    result = metrics.evaluate(vae, Rows(x), num_samples=1000)
    evidence = float(truth(x).mean())
    assert result.log_likelihood == pytest.approx(evidence, abs=5 * result.sampling_error)
    assert 0 < result.sampling_error < 0.01
    gap = dist.kl.kl_divergence(
        dist.MultivariateNormal(torch.full((LATENT,), 0.2), 2 * covariance),
        dist.MultivariateNormal(torch.zeros(LATENT), covariance),
    )
    assert result.bound == pytest.approx(evidence - float(gap), abs=0.35)
    assert result.bound < result.log_likelihood - 0.3


def test_errors_are_those_seen_over_repetitions():
    vae, truth, _ = linear_pair(widening=2.0)
    x = rows(truth, 50)
    same_rows = [metrics.evaluate(vae, Rows(x), num_samples=20) for _ in range(40)]
    spread = torch.tensor([result.log_likelihood for result in same_rows]).std()
    assert float(spread) == pytest.approx(same_rows[0].sampling_error, rel=0.5)
    generator = torch.Generator().manual_seed(9)
    new_rows = [metrics.evaluate(vae, Rows(truth.sample(50, generator)), num_samples=20) for _ in range(40)]
    spread = torch.tensor([result.log_likelihood for result in new_rows]).std()
    assert float(spread) == pytest.approx(new_rows[0].standard_error, rel=0.5)


def test_record_is_json_with_stable_keys():
    vae, truth, _ = linear_pair()
    record = metrics.evaluate(vae, Rows(rows(truth, 1)), num_samples=2).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["standard_error"] is None  # a single row has no spread
    assert record["standard_errors"] == {"bound": None, "kl": None, "reconstruction_error": None}
    assert list(record) == [
        "log_likelihood",
        "standard_error",
        "sampling_error",
        "num_samples",
        "num_rows",
        "bound",
        "kl",
        "reconstruction_error",
        "active_units",
        "latent_dim",
        "bits_per_dimension",
        "effective_sample_size",
        "standard_errors",
    ]


def test_progress_goes_through_all_rows_and_the_mode_is_left_alone():
    vae, truth, _ = linear_pair()
    vae.train()
    seen = []

    def progress(parts):
        for part in parts:
            seen.append((part.start, part.stop, vae.training))
            yield part

    metrics.evaluate(vae, Rows(rows(truth, 25)), num_samples=2, batch_size=10, progress=progress)
    assert seen == [(0, 10, False), (10, 20, False), (20, 25, False)]
    assert vae.training
    assert not list(pyro.get_param_store().keys())


def test_bad_input_is_refused():
    vae, truth, _ = linear_pair()
    x = rows(truth, 3)
    with pytest.raises(ValueError, match="no rows"):
        metrics.evaluate(vae, Rows(x[:0]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        metrics.evaluate(vae, Rows(x), batch_size=0)
    with pytest.raises(TypeError, match="takes no argument 'mask'"):
        metrics.evaluate(vae, Rows(x, mask=torch.ones_like(x, dtype=torch.bool)), num_samples=2)


def test_missing_entries_count_nowhere():
    digits = data.load("digits", binarize="static")
    split = Rows(digits.test.x[:40], mask=torch.rand(40, 1, 8, 8) > 0.3)
    vae = _gaussian(digits)
    with_zeros = metrics.evaluate(vae, split, num_samples=200, kind="binary")
    blanked = split.replace(x=torch.where(split.mask, split.x, math.nan))
    with_nan = metrics.evaluate(vae, blanked, num_samples=200, kind="binary")
    x_hat = vae.reconstruct(split.x, mask=split.mask)
    expected = float((x_hat - split.x)[split.mask].square().mean())
    for result in (with_zeros, with_nan):
        assert result.reconstruction_error == pytest.approx(expected, rel=1e-4)
        bits = -result.log_likelihood * 40 / (int(split.mask.sum()) * math.log(2))
        assert result.bits_per_dimension == pytest.approx(bits)
    assert with_nan.log_likelihood == pytest.approx(with_zeros.log_likelihood, abs=0.2)


def _gaussian(dataset: Dataset) -> VAE:
    return find_pair("gaussian").build(dataset, latent_dim=3, hidden=(16,))


def test_labels_go_to_pairs_that_take_them():
    split = Rows(torch.randn(6, 2), y=torch.arange(6))
    seen = []

    def model(x, y=None):
        seen.append(y)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def with_label(x, y=None):
        return without_label(x)

    def without_label(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    metrics.evaluate(VAE(model, with_label), split, num_samples=2)
    assert any(y is not None and y.tolist() == [0, 1, 2, 3, 4, 5] for y in seen)
    seen.clear()
    metrics.evaluate(VAE(model, without_label), split, num_samples=2)
    assert all(y is None for y in seen)


@pytest.mark.parametrize(
    ("kind", "likelihood", "x", "bits"),
    [
        ("binary", BernoulliLikelihood((3,)), torch.tensor([[0.0, 1.0, 1.0]]), 1.0),  # three fair coins
        ("real", NormalLikelihood((3,)), torch.zeros(1, 3), None),
        ("8-bit", NormalLikelihood((3,)), torch.zeros(1, 3), None),  # a density of bytes is no code
        ("unit", BernoulliLikelihood((3,), strict=False), torch.full((1, 3), 0.5), None),  # cross-entropy
        ("unit", NormalLikelihood((3,)), torch.zeros(1, 3), math.log2(2 * math.pi) / 2),
        (None, BernoulliLikelihood((3,)), torch.tensor([[0.0, 1.0, 1.0]]), None),
    ],
)
def test_bits_are_counted_where_the_likelihood_measures_the_data(kind, likelihood, x, bits):
    net = Grey(likelihood)
    result = metrics.evaluate(VAE(net.model, net.guide), Rows(x.repeat(5, 1)), num_samples=2, kind=kind)
    assert result.bits_per_dimension == (None if bits is None else pytest.approx(bits, rel=1e-5))


def test_bits_of_bytes_are_the_code_length_of_the_levels():
    levels = torch.arange(256) / 255
    likelihood = DiscretizedLogisticLikelihood((256,))
    net = Grey(likelihood)
    # The oracle is the cdf over the cell of every level, of which the outer ones are open.
    p = stats.logistic(0.5, float(nn.functional.softplus(torch.tensor(-2.0)) + 1e-3))
    edges = [-math.inf, *((torch.arange(255) + 0.5) / 255).tolist(), math.inf]
    expected = -sum(math.log2(p.cdf(high) - p.cdf(low)) for low, high in itertools.pairwise(edges)) / 256
    result = metrics.evaluate(VAE(net.model, net.guide), Rows(levels.repeat(3, 1)), num_samples=2, kind="8-bit")
    assert result.bits_per_dimension == pytest.approx(expected, rel=1e-4)


def test_dequantised_bytes_of_a_uniform_density_cost_eight_bits():
    dataset = data.load("digits")
    split = dataset.test
    unit = replace(dataset, kind="unit", options={"dequantize": True})
    assert metrics.bits_per_dimension(0.0, 64, dataset=unit) == 8
    symmetric = Dataset("mine", split, split, split, "symmetric", options={"dequantize": True})
    assert metrics.bits_per_dimension(-64 * math.log(2), 64, dataset=symmetric) == pytest.approx(8)
    plain = replace(unit, options={})
    assert metrics.bits_per_dimension(0.0, 64, dataset=plain) == 0


def test_active_units_by_hand():
    gain = torch.tensor([2.0, 0.05, 0.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(gain * x + 1, 1.0).to_event(1))

    x = torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [-1.0], [1.0]])  # variance 1
    vae = VAE(model, guide)
    count, variances = metrics.active_units(vae, x, batch_size=4)
    assert variances.tolist() == pytest.approx([4.0, 0.0025, 0.0], abs=1e-6)
    assert count == 1
    assert metrics.active_units(vae, x, threshold=1e-3).count == 2
    assert metrics.evaluate(vae, Rows(x), num_samples=2).active_units == 1


def test_latent_means_of_several_sites_and_of_sites_without_a_mean():
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("b", dist.Normal(a.sum(-1), 1.0))
            pyro.sample("c", dist.Categorical(torch.ones(3)))
            d = pyro.sample(
                "d", dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.SigmoidTransform())
            )
            pyro.sample("x", dist.Normal(d[:, None], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.cat([x, -x], 1), 1.0).to_event(1))
            pyro.sample("b", dist.Normal(3 * a[:, 0], 1.0))
            pyro.sample("c", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            squeezed = [dist.transforms.SigmoidTransform()]
            pyro.sample("d", dist.TransformedDistribution(dist.Normal(x[:, 0], 0.01), squeezed))

    x = torch.linspace(-1, 1, 5)[:, None]
    means = metrics.latent_means(VAE(model, guide), x, batch_size=2)
    chances = torch.tensor([0.2, 0.3, 0.5]).expand(5, 3)
    torch.testing.assert_close(means[:, :6], torch.cat([x, -x, 3 * x, chances], 1))
    torch.testing.assert_close(means[:, 6:], x.sigmoid(), atol=2e-3, rtol=0)


def test_nearest_neighbours_agree_with_a_full_search():
    labels = torch.randint(2, (300,))
    z = torch.randn(300, 3) + labels[:, None]
    train, test = slice(0, 200), slice(200, 300)
    expected = {}
    for k in (1, 3, 5):
        nearest = torch.cdist(z[test], z[train]).topk(k, largest=False).indices
        expected[k] = float((labels[train][nearest].mode(1).values != labels[test]).double().mean())
    # Unknown labels add nothing, wherever they lie.
    z_more, y_more = torch.cat([z[train], z[test]]), torch.cat([labels[train], -torch.ones(100, dtype=torch.long)])
    found = metrics.knn_error(z_more, y_more, z[test], labels[test], k=(1, 3, 5))
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"10 neighbours need as many labelled training rows.*got 2 and 100"):
        metrics.knn_error(z[:2], labels[:2], z[test], labels[test])


def test_data_distribution_without_a_mean():
    """A flow has a density and draws, but no mean: the likelihood is not lost for that."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            flow = dist.TransformedDistribution(dist.Normal(z, 1.0), dist.transforms.ELUTransform()).to_event(1)
            pyro.sample("x", flow, obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1).expand([len(x)]))

    result = metrics.evaluate(VAE(model, guide), Rows(torch.rand(6, 2)), num_samples=20)
    assert math.isfinite(result.log_likelihood)
    assert math.isfinite(result.bound)
    assert result.to_dict()["reconstruction_error"] is None


def test_a_latent_of_all_data_has_no_mean_of_a_row():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(w + z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3, 1.0).to_event(1))

    vae = VAE(model, guide, latent=("w", "z"), example=torch.zeros(5, 2))
    with pytest.raises(ValueError, match="'w' belongs to no single row"):
        metrics.latent_means(vae, torch.zeros(3, 2))
    assert vae.decode({"w": torch.zeros(()), "z": torch.zeros(3, 2)}).batch_shape == (3,)
