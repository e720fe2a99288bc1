"""Evaluation and plots of pairs that observe several sites, something made of the data, or latents of all data."""

import logging

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE, metrics, plotting
from pyrovae.data import Dataset, Rows

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))


def two_sites() -> VAE:
    """One latent of both columns, with the exact posterior."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("a", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("b", dist.Normal(z, 1.0), obs=x[:, 1])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(1) / 3, 3**-0.5))

    return VAE(model, guide)


def dataset(rows: Rows) -> Dataset:
    return Dataset("mine", rows, rows, rows, "real")


def test_all_observed_sites_count():
    vae, rows = two_sites(), Rows(X)
    found = metrics.evaluate(vae, rows, dataset=dataset(rows), num_samples=20)
    exact = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(X).mean()
    assert found.log_likelihood == pytest.approx(float(exact), abs=1e-4)
    error = (X - X.sum(1, keepdim=True) / 3).square().mean()
    assert found.reconstruction_error == pytest.approx(float(error), abs=1e-5)
    figures = plotting.run_figures(vae, dataset(rows), [])
    assert {"samples_a", "samples_b", "reconstructions_a", "reconstructions_b"} <= figures.keys()


def test_errors_are_those_of_what_the_model_observes():
    """The model observes a permuted picture: compared with the data as they lie, errors would mean nothing."""
    pictures = torch.rand(20, 3, 4, 4)
    loc = torch.tensor([0.0, 0.5, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(loc.expand(*z.shape, 4, 4, 3), 0.5).to_event(3), obs=x.permute(0, 2, 3, 1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean((1, 2, 3)), 1.0))

    rows = Rows(pictures)
    found = metrics.evaluate(VAE(model, guide), rows, num_samples=2)
    expected = (pictures.permute(0, 2, 3, 1) - loc).square().mean()
    assert found.reconstruction_error == pytest.approx(float(expected), rel=1e-5)
    plotting.run_figures(VAE(model, guide), dataset(rows), [])


def test_a_model_that_looks_at_its_data_is_evaluated_and_drawn():
    counts = torch.tensor([[10.0, 20.0, 5.0], [3.0, 3.0, 3.0], [1.0, 2.0, 30.0], [5.0, 5.0, 1.0]])

    def model(x):
        with pyro.plate("cells", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            rate = x.sum(-1, keepdim=True) * z.softmax(-1) + 1e-6
            pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("cells", len(x)):
            pyro.sample("z", dist.Normal(x.log(), 1e-4).to_event(1))

    vae, rows = VAE(model, guide), Rows(counts)
    found = metrics.evaluate(vae, rows, num_samples=5)
    assert found.reconstruction_error == pytest.approx(0, abs=1e-3)
    assert {"samples", "reconstructions", "latent_scatter"} <= plotting.run_figures(vae, dataset(rows), []).keys()


class TestLatentsOfAllData:
    def make(self) -> VAE:
        def model(x):
            mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(mu, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            mu = pyro.sample("mu", dist.Normal(2.0, 0.1))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))

        return VAE(model, guide)

    @pytest.mark.parametrize("mu", [None, 1.0])
    def test_value_of_the_figures(self, mu, caplog):
        """They stand at the guide's mean, which is said, or at the value that is given."""
        x = X[:, 0]
        with caplog.at_level(logging.INFO, "pyrovae"):
            condition = {} if mu is None else {"mu": torch.tensor(mu)}
            found = metrics.evaluate(self.make(), Rows(x), num_samples=10, condition=condition)
        exact = dist.Normal(2.0 if mu is None else mu, 2**0.5).log_prob(x).mean()
        assert found.log_likelihood == pytest.approx(float(exact), abs=1e-4)
        assert found.bound == pytest.approx(float(exact), abs=0.4)
        assert ("mu = 2.0" in caplog.text) == (mu is None)

    def test_unknown_names(self):
        with pytest.raises(ValueError, match="condition names 'nu'; the latents of all data of this pair are: mu"):
            metrics.evaluate(self.make(), Rows(X[:, 0]), num_samples=2, condition={"nu": torch.tensor(1.0)})

    def test_samples_and_figures(self):
        vae, condition = self.make(), {"mu": torch.tensor(50.0)}
        vae.prepare(X[:, 0])
        assert (vae.sample(100, condition=condition) - 50).abs().max() < 10
        rows = Rows(X[:, 0])
        assert "samples" in plotting.run_figures(vae, dataset(rows), [], condition=condition)
