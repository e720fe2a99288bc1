"""A latent of all data together counts once per epoch, however the data are cut into batches."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE
from pyrovae.training import Callback, Trainer

N = 512
X = 100 + 1.4 * torch.randn(N, generator=torch.Generator().manual_seed(0))


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    loc = pyro.param("m", torch.tensor(100.0))
    scale = pyro.param("s", torch.tensor(0.1), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(loc, scale))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))


@pytest.mark.parametrize(("batch_size", "epochs"), [(512, 800), (64, 60)])
def test_the_posterior_is_that_of_all_rows(batch_size, epochs):
    """The exact standard deviation is (N / 2) ** -0.5, 0.0625, and not that of the rows of a batch."""
    pair = VAE(model, guide)
    scales = []

    class Watcher(Callback):
        def on_epoch(self, progress):
            scales.append(float(pyro.param("s").detach()))

    settings = {"lr": 0.03, "lr_schedule": "cosine", "progress": False, "callbacks": [Watcher()]}
    history = Trainer(objective="elbo", epochs=epochs, batch_size=batch_size, **settings).fit(pair, X)
    assert scales[-1] == pytest.approx((N / 2) ** -0.5, rel=0.2)  # the epoch of the lowest loss is one of much noise
    covariance = 2 * torch.eye(N, dtype=torch.float64) + 100.0**2  # too close to singular for single precision
    exact = dist.MultivariateNormal(torch.zeros(N, dtype=torch.float64), covariance).log_prob(X.double()) / N
    assert history.rows[-1]["loss"] == pytest.approx(-float(exact), abs=0.15), "nats per datum of the whole data"
    assert (pair.sample(50) - 100).abs().max() < 10, "drawn at the posterior, and not at a prior of deviation 100"


@pytest.mark.parametrize("objective", ["elbo", "mean-field", "graph"])
def test_a_plate_that_knows_all_rows_gives_the_same_loss(objective):
    def whole_model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
        with pyro.plate("data", N, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def whole_guide(x):
        loc = pyro.param("m", torch.tensor(100.0))
        scale = pyro.param("s", torch.tensor(0.1), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(loc, scale))
        with pyro.plate("data", N, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))

    losses = []
    for programs in ((model, guide), (whole_model, whole_guide)):
        history = Trainer(objective=objective, epochs=3, batch_size=64, progress=False).fit(VAE(*programs), X)
        losses.append([row["loss"] for row in history.rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
