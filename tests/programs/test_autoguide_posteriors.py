"""AutoGuides put a Delta at an auxiliary draw: what is shown of a latent is the distribution of that draw."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal

from pyrovae import VAE, metrics
from pyrovae.training import Trainer

X = 3 * torch.randn(20, generator=torch.Generator().manual_seed(0))


def real(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 2.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def positive(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.LogNormal(0.0, 0.5))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def test_normal_latents_have_the_guides_normal():
    vae = VAE(real, AutoNormal(real))
    Trainer(epochs=20, lr=0.05, batch_size=20, progress=False).fit(vae, X)
    q = vae.encode(X)
    with vae.scope():
        torch.testing.assert_close(q.mean, vae.guide.median(X)["z"])
        low, high = vae.guide.quantiles([0.1587, 0.8413], X)["z"]
    torch.testing.assert_close(q.stddev, (high - low) / 2, rtol=1e-3, atol=0)
    assert torch.equal(q.mean, vae.encode(X).mean), "no draw"
    torch.testing.assert_close(metrics.latent_means(vae, X)[:, 0], q.mean)


def test_positive_latents_have_the_transformed_normal():
    vae = VAE(positive, AutoNormal(positive))
    q = vae.encode(X.abs())
    reference = dist.LogNormal(0.0, 0.1).expand([20])
    assert q.batch_shape == (20,)
    assert (q.sample((2000,)) > 0).all()
    assert q.log_prob(torch.ones(20)).isfinite().all()
    spread = q.sample((4000,)).log().std(0)
    assert (spread - reference.base_dist.stddev).abs().max() < 0.02, "the initial scale of AutoNormal is 0.1"


def test_joint_guides_are_refused_and_points_are_points():
    joint = VAE(real, AutoDiagonalNormal(real))
    with pytest.raises(
        ValueError, match=r"site 'z' of the guide is a Delta at a function of the auxiliary draw '_Auto"
    ):
        joint.encode(X)
    point = VAE(real, AutoDelta(real))
    assert torch.equal(point.encode(X).mean, point.encode(X).mean)
