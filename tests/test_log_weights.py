"""Log weights and held-out likelihood: counts, memory, independence of the batch, exact values."""

import logging
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pairs import LinearGuide, LinearModel, function_pair, library_pair, linear_pair, pictures
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyrovae import VAE
from pyrovae.infer import KLWeightMessenger, effective_sample_size, log_mean_exp, log_weights
from pyrovae.infer.functional import LogWeightSum
from pyrovae.training import Trainer

# -- a linear-Gaussian pair, whose evidence is known ------------------------------------------------------------------


def probabilistic_pca(num=512):
    """Data whose covariance has two large eigenvalues, and a pair that fits them."""
    torch.manual_seed(1)
    x = torch.randn(num, 2) @ torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5], [0.0, 1.0, -1.5, 0.5, 0.0]])
    x = x + 0.6 * torch.randn(num, 5) + torch.tensor([1.0, 0.0, -1.0, 0.0, 2.0])
    return linear_pair().to(torch.float64), x.double()


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng():
        vae, x = probabilistic_pca()
        trainer = Trainer(
            objective="mean-field", lr=0.03, lr_schedule="cosine", epochs=80, batch_size=64, progress=False
        )
        trainer.fit(vae, x)
    return vae, x


def greatest_likelihood(x):
    """The largest mean log-likelihood of probabilistic PCA with two latents (Tipping and Bishop 1999, equation 8)."""
    centred = x - x.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(x)).flip(0)
    noise = values[2:].mean()
    return -0.5 * (5 * math.log(2 * math.pi) + values[:2].log().sum() + 3 * noise.log() + 5)


def test_trained_pair_reaches_the_evidence(trained):
    vae, x = trained
    with torch.no_grad():
        evidence = vae.model.evidence(x)
        _, nll, kl = vae(x[:40].repeat(4000, 1))
    bound = -(nll + kl).reshape(4000, -1).mean(0)
    estimate = vae.log_likelihood(x, 200)
    assert (bound - evidence[:40]).abs().max() < 0.05
    assert (estimate - evidence).abs().max() < 0.05
    assert evidence.mean() > greatest_likelihood(x) - 0.05


def test_exact_guide_gives_the_evidence_with_one_sample():
    """The pair of functions has the posterior as its guide, so no weight has any variance."""
    vae, x = function_pair(), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    block = torch.eye(32).double() + torch.ones(32, 32).double()
    covariance = torch.block_diag(block, block)
    exact = torch.distributions.MultivariateNormal(torch.zeros(64).double(), covariance).log_prob(x.flatten(1))
    for num_samples in (1, 3):
        torch.testing.assert_close(vae.log_likelihood(x, num_samples), exact)


def test_details(trained):
    vae, x = trained
    details = vae.log_likelihood(x[:3].repeat_interleave(400, 0), 50, return_details=True)
    value, error, size = (field.reshape(3, 400) for field in details)
    # The standard error is the spread over repetitions, and the effective sample size is between its bounds.
    torch.testing.assert_close(error.mean(1), value.std(1), rtol=0.25, atol=0)
    assert ((size >= 1) & (size <= 50)).all()


# -- exact counts and bounded memory ----------------------------------------------------------------------------------


class Counter(nn.Module):
    """A decoder that writes down how many latents it gets."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.sizes = net, []

    def forward(self, z):
        self.sizes.append(z[..., 0].numel())
        return self.net(z)


def counted_pair():
    vae = library_pair()
    counter = vae.model.decoder = Counter(vae.model.decoder)
    vae.prepare(pictures(2))
    vae.vectorizes(pictures(2))
    counter.sizes.clear()
    return vae, counter


@pytest.mark.parametrize(
    ("rows", "num_samples", "chunk_size"), [(7, 13, 5), (7, 13, 40), (10, 100, 130), (3, 1, 2), (5, 9, 1)]
)
def test_exactly_so_many_samples_and_never_more_than_a_chunk(rows, num_samples, chunk_size):
    vae, counter = counted_pair()
    assert vae.log_likelihood(pictures(rows), num_samples, chunk_size=chunk_size).shape == (rows,)
    assert sum(counter.sizes) == rows * num_samples
    assert max(counter.sizes) <= chunk_size


def test_chunks_sum_to_what_the_whole_gives():
    weights = 20 * torch.randn(17, 4)
    total = LogWeightSum()
    for part in weights.split(5):
        total.add(part)
    value, error, size = total.result()
    exact = weights.double().exp()
    torch.testing.assert_close(value, exact.mean(0).log())
    torch.testing.assert_close(size, exact.sum(0) ** 2 / exact.square().sum(0))
    # The delta method: the standard error of the mean weight over the mean weight.
    torch.testing.assert_close(error, (exact.var(0, correction=0) / 17).sqrt() / exact.mean(0))
    torch.testing.assert_close(effective_sample_size(weights).double(), size, rtol=1e-4, atol=0)
    torch.testing.assert_close(log_mean_exp(weights).double(), value, rtol=1e-5, atol=1e-5)


def test_nothing_added_is_an_error():
    with pytest.raises(ValueError, match="no log weights were added"):
        LogWeightSum().result()


def test_integer_data_do_not_round_the_likelihood():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    value = VAE(model, guide).log_likelihood(torch.tensor([0, 1, 5]), 20)
    assert value.dtype == torch.float32
    assert (value != value.round()).all()


# -- one number a datum -----------------------------------------------------------------------------------------------


def at(vae, z, *args):
    """The pair's guide with its draws replaced by `z`: replaying does not make observations of them."""
    trace = poutine.trace(vae.guide).get_trace(*args)
    trace.nodes["z"]["value"] = z
    return poutine.replay(vae.guide, trace=trace)


def test_weights_of_a_datum_do_not_depend_on_its_batch():
    """Split, shuffled and in company: one row of draws, one log weight, to 1e-6 in float64."""
    vae = library_pair(prior="mixture", likelihood="normal-predicted").to(torch.float64)
    x, z = pictures(8).double(), torch.randn(8, 2, dtype=torch.float64)

    def weights(rows):
        rows = torch.as_tensor(rows)
        return log_weights(vae.model, at(vae, z[rows], x[rows]), 1, x[rows])

    whole = weights(range(8))
    order = torch.randperm(8)
    for field in ("log_p", "log_q", "log_weight"):
        values = getattr(whole, field)[0]
        split = torch.cat([getattr(weights(part), field)[0] for part in ([0, 1, 2], [3], [4, 5, 6, 7])])
        torch.testing.assert_close(split, values, rtol=0, atol=1e-6)
        torch.testing.assert_close(getattr(weights(order), field)[0], values[order], rtol=0, atol=1e-6)


def test_weights_of_a_datum_do_not_depend_on_masked_padding():
    """Columns that are hidden and rows that are hidden change nothing for the others."""
    vae, x = library_pair().to(torch.float64), pictures(4).double()
    mask = torch.rand(4, 1, 8, 8) < 0.7
    padded = torch.cat([x, torch.full_like(x, torch.nan)])
    padded_mask = torch.cat([mask, torch.zeros_like(mask)])
    z = torch.randn(8, 2, dtype=torch.float64)

    def weights(x, mask, z):
        return log_weights(vae.model, at(vae, z, x, mask), 1, x, mask).log_weight[0]

    alone, together = weights(x, mask, z[:4]), weights(padded, padded_mask, z)
    torch.testing.assert_close(together[:4], alone, rtol=0, atol=1e-6)
    # A row of which nothing is seen has log p(z) - log q(z | nothing) left.
    q, p = vae.encode(padded[4:], mask=padded_mask[4:]), vae.model.prior()
    torch.testing.assert_close(together[4:], p.log_prob(z[4:]) - q.log_prob(z[4:]))


def test_estimate_does_not_depend_on_how_rows_are_split(trained):
    vae, x = trained
    evidence = vae.model.evidence(x[:20]).detach()
    for chunk_size in (7, 64, 8192):
        estimate = vae.log_likelihood(x[:20], 300, chunk_size=chunk_size)
        torch.testing.assert_close(estimate, evidence, rtol=0, atol=0.05)


# -- particles --------------------------------------------------------------------------------------------------------


class UnrollModel(LinearModel):
    """Flattens to two dimensions, so that particles do not fit."""

    def forward(self, x):
        zero = self.offset.new_zeros(self.loadings.shape[1])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            loc = z.reshape(-1, 2) @ self.loadings.T + self.offset
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)


def test_particles_that_do_not_vectorise_are_looped_over(caplog):
    x = torch.randn(6, 5)
    vae = VAE(UnrollModel(5, 2), LinearGuide(5, 2))
    with torch.no_grad():
        vae.model.loadings.mul_(0.4)
        vae.guide.mean.weight.zero_()
        vae.guide.scale = torch.ones(2)
    with caplog.at_level(logging.INFO, logger="pyrovae"):
        estimate = vae.log_likelihood(x, 500, chunk_size=3)
        vae.log_likelihood(x, 2)
    assert len(caplog.records) == 1
    assert "the particles of UnrollModel are looped over" in caplog.text
    torch.testing.assert_close(estimate, vae.model.evidence(x).detach(), rtol=0, atol=0.15)


def test_program_that_runs_on_particles_but_means_another_dimension_is_found_out(caplog):
    """`softmax(dim=1)` is over the latent without particles and over the rows with them: no error, wrong numbers."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(F.softmax(z, dim=1), 0.3).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    x = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])
    vae = VAE(model, guide)
    with caplog.at_level(logging.INFO, logger="pyrovae"):
        estimate = vae.log_likelihood(x, 1000)
    assert "it changes the value of log_p" in caplog.text
    z = torch.randn(200_000, 1, 3)
    exact = log_mean_exp(dist.Normal(z.softmax(-1), 0.3).log_prob(x).sum(-1))
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.12)


@pytest.mark.parametrize("vectorize", [True, False, None])
def test_vectorised_and_looped_particles_have_one_distribution(vectorize):
    vae, x = linear_pair(), torch.randn(3, 5)
    weights = log_weights(vae.model, vae.guide, 400, x, vectorize=vectorize)
    with torch.no_grad():
        _, nll, kl = vae(x.repeat_interleave(4000, 0))
    expected = -(nll + kl).reshape(3, 4000).mean(1)
    error = 5 * weights.log_weight.std(0) / len(weights.log_p) ** 0.5 + 0.1
    assert ((weights.log_weight.mean(0) - expected).abs() < error).all()


def test_score_part_is_that_of_sites_without_reparameterised_draws():
    def model(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(0.3))
            pyro.sample("z", dist.Normal(b, 2.0))

    torch.manual_seed(3)
    weights = log_weights(model, guide, 50, torch.zeros(4))
    assert sorted(set(weights.log_score.exp().flatten().tolist())) == pytest.approx([0.3, 0.7])
    assert (weights.log_q < weights.log_score).all()


@pytest.mark.parametrize("num_particles", [1, 4])
def test_scale_of_a_subsampling_plate_is_divided_out(num_particles):
    def model(x, size):
        with pyro.plate("data", size, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, size):
        with pyro.plate("data", size, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.randn(5)
    weights = log_weights(model, guide, num_particles, x, 1000)
    torch.testing.assert_close(weights.log_weight, dist.Normal(0.0, 2**0.5).log_prob(x).expand(num_particles, 5))


def test_pair_that_subsamples_by_itself_has_no_likelihood_of_each_row():
    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            pyro.sample("z", dist.Normal(x[rows] / 2, 0.5**0.5))

    x = torch.randn(10)
    assert log_weights(model, guide, 4, x).log_weight.shape == (4, 3)
    with pytest.raises(ValueError, match=r"holds 3 rows for 10 rows of x; a pair that draws a subsample of its own"):
        VAE(model, guide).log_likelihood(x, 4)


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("rows", [4, 6])
def test_two_plates(num_particles, rows):
    """Rows in dimension -2, six pixels in -1; with six rows the sizes alone would not tell them apart."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("pixels", 6, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.sum(-1, keepdim=True) / 7, 7**-0.5))

    x = torch.randn(rows, 6)
    exact = torch.distributions.MultivariateNormal(torch.zeros(6), torch.eye(6) + torch.ones(6, 6)).log_prob(x)
    weights = log_weights(model, guide, num_particles, x)
    torch.testing.assert_close(weights.log_weight, exact.expand(num_particles, rows))
    vae = VAE(model, guide, example=x)
    torch.testing.assert_close(vae.log_likelihood(x, 5), exact)
    assert vae.sample(3).shape == (3, 6)
    torch.testing.assert_close(vae.reconstruct(x), (x.sum(-1, keepdim=True) / 7).expand(rows, 6))


def test_square_of_rows_and_pixels_with_the_rows_inside():
    def model(x):
        with pyro.plate("data", 4, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
            with pyro.plate("pixels", 4, dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 4, dim=-1):
            pyro.sample("z", dist.Normal(x.sum(0) / 5, 5**-0.5))

    x = torch.randn(4, 4)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4), torch.eye(4) + torch.ones(4, 4)).log_prob(x.T)
    torch.testing.assert_close(log_weights(model, guide, 3, x).log_weight, exact.expand(3, 4))


def test_program_without_plates():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    x = torch.randn(5, 2)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum(-1)
    torch.testing.assert_close(VAE(model, guide).log_likelihood(x, 6), exact)


def test_data_scored_as_one_event_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(
        ValueError, match=r"observed site 'x' lies outside the plate over the data.*put it into the plate"
    ):
        VAE(model, guide).log_likelihood(torch.zeros(3), 2)


def test_number_of_particles_must_be_positive():
    vae = function_pair()
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        log_weights(vae.model, vae.guide, 0, pictures(2))


# -- the KL weight ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, torch.tensor(0.0), torch.tensor(0.3)], ids=str)
def test_kl_weight_by_hand(beta):
    """Analytic KL and a Gaussian guide with next to no spread: every term is known."""
    loc, scale, x = 0.7, 1e-4, torch.tensor([0.1, -2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale))

    kl = (scale**2 + loc**2 - 1) / 2 - math.log(scale)
    nll = 0.5 * (x - loc) ** 2 + 0.5 * math.log(2 * math.pi)
    expected = float(nll.sum() + beta * 2 * kl)
    with KLWeightMessenger(beta):
        assert TraceMeanField_ELBO().loss(model, guide, x) == pytest.approx(expected, abs=2e-3)
        draws = [Trace_ELBO(num_particles=2000, vectorize_particles=True).loss(model, guide, x) for _ in range(2)]
    # Trace_ELBO draws log q: its deviation is 1/sqrt(2) a row and particle.
    assert draws == pytest.approx([expected] * 2, abs=0.1 * float(beta) + 2e-3)


def test_kl_weight_inside_each_log_weight():
    vae, x = linear_pair().to(torch.float64), torch.randn(3, 5, dtype=torch.float64)
    z = torch.randn(3, 2, dtype=torch.float64)
    guide = at(vae.prepare(x), z, x)
    likelihood = vae.decode(z).log_prob(x)
    latent = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) - vae.encode(x).log_prob(z)
    with KLWeightMessenger(0.25):
        weighted = log_weights(vae.model, guide, 1, x, weighted=True)
        unweighted = log_weights(vae.model, guide, 1, x)
    torch.testing.assert_close(weighted.log_weight[0], likelihood + 0.25 * latent)
    torch.testing.assert_close(unweighted.log_weight[0], likelihood + latent)  # held-out figures know no beta


def test_kl_weight_within_a_subsampling_plate():
    """The scale of the plate is divided out, the KL weight is not."""

    def model(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(x, 1e-3))

    x = torch.randn(4)
    with KLWeightMessenger(0.25):
        weighted = log_weights(model, guide, 1, x, weighted=True)
    latent = dist.Normal(0.0, 1.0).log_prob(x) - weighted.log_q[0] / 0.25
    expected = -0.5 * math.log(2 * math.pi) + 0.25 * latent
    torch.testing.assert_close(weighted.log_weight[0], expected, rtol=1e-3, atol=5e-3)
    assert (weighted.log_q < 0.25 * 7).all()  # log q is at most 6 here, counted a quarter and not 250 times


def test_kl_weight_leaves_labels_alone():
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.2), obs=torch.ones(len(x)))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    torch.manual_seed(0)
    x = torch.zeros(1)
    with KLWeightMessenger(0.0):
        loss = RenyiELBO(alpha=0.0, num_particles=20_000, vectorize_particles=True).loss(model, guide, x)
    exact = math.log(0.2) + float(dist.Normal(1.0, 2**0.5).log_prob(x))
    assert -loss == pytest.approx(exact, abs=0.03)
