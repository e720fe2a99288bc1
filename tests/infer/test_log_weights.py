"""Log weights and held-out likelihood: exact values, exact counts and bounded memory."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import function_pair, library_pair, linear_pair, pictures
from torch import nn

from pyrovae import VAE
from pyrovae.infer import effective_sample_size, log_mean_exp
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
    vae.log_likelihood(pictures(rows), 1, chunk_size=chunk_size, compile=False)  # the first one checks the densities
    assert max(counter.sizes) <= max(2, chunk_size)
    counter.sizes.clear()
    value = vae.log_likelihood(pictures(rows), num_samples, chunk_size=chunk_size, compile=False)
    assert value.shape == (rows,)
    looked_at, *sizes = counter.sizes  # first, whether the rows lie within the support
    assert looked_at == min(rows, chunk_size)
    assert sum(sizes) == rows * num_samples
    assert max(sizes) <= chunk_size


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


# -- one number per datum ---------------------------------------------------------------------------------------------


def test_estimate_does_not_depend_on_how_rows_are_split(trained):
    vae, x = trained
    evidence = vae.model.evidence(x[:20]).detach()
    for chunk_size in (7, 64, 8192):
        estimate = vae.log_likelihood(x[:20], 300, chunk_size=chunk_size)
        torch.testing.assert_close(estimate, evidence, rtol=0, atol=0.05)
