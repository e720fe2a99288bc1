"""Means of latents behind a discrete one, where q(z|x) is the same for all rows: nothing varies over them."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrovae import VAE, metrics
from pyrovae.data import Dataset, Rows
from pyrovae.pairs import find_pair


@pytest.fixture
def dataset():
    torch.manual_seed(0)
    rows = Rows((torch.rand(400, 6) > 0.5).float(), torch.randint(0, 3, (400,)))
    return Dataset("bits", rows, rows.take(slice(20)), rows, "binary")


def class_alone_tells(dataset):
    """q(y|x) is even, and q(z|x, y) depends on the class alone."""
    vae = find_pair("semi-supervised").build(dataset, latent_dim=2, hidden=(8,)).eval()
    with torch.no_grad():
        vae.guide.classifier.linear.weight.zero_()
        vae.guide.classifier.linear.bias.zero_()
        vae.guide.encoder.linear.weight.zero_()
        vae.guide.encoder.by_label.mul_(10)
    return vae


def first_layer_is_even(dataset):
    """q(z1|x) is even, and z2 depends on z1 alone."""
    vae = find_pair("sbn").build(dataset, sizes=(3, 2)).eval()
    with torch.no_grad():
        first, second = (layer.layers[0] for layer in vae.guide.upward)
        first.weight.zero_()
        first.bias.zero_()
        second.weight.mul_(8)
    return vae


@pytest.mark.parametrize("build", [class_alone_tells, first_layer_is_even])
def test_no_unit_is_active(build, dataset):
    vae = build(dataset)
    assert metrics.active_units(vae, dataset.test.x).count == 0
    assert metrics.evaluate(vae, dataset.test, num_samples=5).active_units == 0
    first, again = (metrics.latent_means(vae, dataset.test.x) for _ in range(2))
    assert torch.equal(first, again)


def test_means_are_those_over_the_draws():
    """z is around 4 c - 2 for a coin c: its mean is 0, its variance 0.25 + 4."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(4 * c - 2, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.full((len(x),), 0.5)))
            pyro.sample("z", dist.Normal(4 * c - 2, 0.5))

    torch.manual_seed(0)
    x, vae = torch.randn(500), VAE(model, guide)
    means = metrics.latent_means(vae, x)
    assert means[:, 1].mean().abs() < 0.05
    assert means[:, 1].var() == pytest.approx(4 / 50, rel=0.3)
    assert metrics.active_units(vae, x).variances[1] < 0.01
    alone = torch.cat([metrics.latent_means(vae, row)[:, 1] for row in x[:40].split(1)])
    assert alone.abs().max() < 1.5  # of one row, too, in which two draws agree half of the time
    found = metrics.encodings(vae, Rows(x))
    torch.testing.assert_close(found["z_scale"].mean(), torch.tensor(4.25**0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(found["z_mean"], means[:, 1:])


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_behind_a_class_means_are_exact(batch_size):
    """z is around c for a class c with the probabilities of the row: a sum over the classes, in batches of any size."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(c.to(x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=x.unsqueeze(-1) * torch.tensor([0.0, 1.0, 2.0])))
            pyro.sample("z", dist.Normal(c.to(x.dtype), 0.5))

    torch.manual_seed(0)
    x, vae, values = torch.randn(7), VAE(model, guide), torch.arange(3.0)
    probs = (x.unsqueeze(-1) * values).softmax(-1)
    mean = (probs * values).sum(-1)
    torch.testing.assert_close(metrics.latent_means(vae, x, batch_size)[:, 3], mean)
    scale = (0.25 + (probs * values**2).sum(-1) - mean**2).sqrt()
    torch.testing.assert_close(metrics.encodings(vae, Rows(x), batch_size)["z_scale"][:, 0], scale)
