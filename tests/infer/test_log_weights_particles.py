"""Log weights of particles: vectorised or looped over, scales, plates and programs without plates."""

import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pairs import LinearGuide, LinearModel, function_pair, linear_pair, pictures

from pyrovae import VAE
from pyrovae.infer import log_mean_exp, log_weights


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
