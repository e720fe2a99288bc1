"""VAE over every kind of pair: what its methods return."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from every_pair import every_pair
from pairs import (
    PAIRS,
    SHAPE,
    data_for,
    function_pair,
    library_pair,
    linear_pair,
    pictures,
    plain_module_pair,
    tutorial_pair,
    weights_of,
)
from torch import nn

from pyrovae import VAE
from pyrovae.training import Trainer


@every_pair
@pytest.mark.usefixtures("store")
def test_every_method_of_every_pair(kind):
    """The shapes and the sites of each method, with the parameter store untouched throughout (fixture `store`)."""
    x = data_for(kind, 6)
    vae = PAIRS[kind]()
    (latent,) = vae.prepare(x).sites.latent
    assert vae.posterior(x)[latent].batch_shape == (6,)
    assert vae.encode(x).event_shape == (2,)
    assert vae.decode(torch.zeros(4, 2)).batch_shape == (4,)
    assert vae.decode({latent: torch.zeros(4, 2)}).event_shape.numel() == 64
    for output in ("draw", "mean", "mode"):
        assert vae.sample(5, output).shape == (5, *x.shape[1:])
    assert vae.reconstruct(x).shape == x.shape
    assert vae.log_likelihood(x, num_samples=7).shape == (6,)
    reconstruction, nll, kl = vae(x)
    assert (reconstruction.shape, nll.shape, kl.shape) == (x.shape, (6,), (6,))


def test_sites_of_the_tutorial_program_are_found_by_role():
    vae = tutorial_pair().prepare(pictures(3))
    assert vae.sites.observed == "obs"
    assert vae.sites.latent == ("latent",)


def test_tutorial_program_takes_flat_data_as_well():
    vae, x = tutorial_pair(), pictures(5).flatten(1)
    assert vae.reconstruct(x).shape == vae.sample(5).shape == (5, 64)


def test_draws_are_data_and_means_are_probabilities():
    vae = tutorial_pair().prepare(pictures(3))
    assert set(vae.sample(10, "draw").unique().tolist()) == {0.0, 1.0}
    assert set(vae.sample(10, "mode").unique().tolist()) <= {0.0, 1.0}
    mean = vae.sample(10, "mean")
    assert ((mean > 0) & (mean < 1)).all()


def test_reconstruction_is_the_mean_at_the_mean():
    vae, x = tutorial_pair(), pictures(4)
    net = vae.model.__self__
    expected = net.decoder(net.encoder(x.flatten(1)).chunk(2, -1)[0]).sigmoid()
    torch.testing.assert_close(vae.reconstruct(x).flatten(1), expected)


def test_forward_against_closed_forms():
    vae, x = linear_pair().to(torch.float64), torch.randn(6, 5, dtype=torch.float64)
    model, guide = vae.model, vae.guide
    reconstruction, nll, kl = vae(x)
    with torch.no_grad():
        noise, scale, mean = model.noise, guide.scale, guide.mean(x)
        squared = (x - reconstruction).square().sum(-1)
        torch.testing.assert_close(nll, squared / (2 * noise**2) + 2.5 * (2 * math.pi * noise**2).log())
        per_coordinate = (scale**2 + mean**2 - 1) / 2 - scale.log()
        torch.testing.assert_close(kl, per_coordinate.sum(-1))


def test_forward_draws_the_kl_that_torch_does_not_know():
    """With a mixture prior there is no closed form: the draw's log q - log p, right on average."""
    vae, x = library_pair(prior="mixture"), pictures(1).expand(4000, *SHAPE)
    kl = vae(x).kl.detach()
    q, p = vae.encode(x[:1]), vae.model.prior()
    z = q.sample((100_000,))
    expected = (q.log_prob(z) - p.log_prob(z)).mean()
    assert (kl.mean() - expected).abs() < 5 * kl.std() / 4000**0.5 + 0.02


def test_forward_draws_the_kl_between_layers_that_the_guide_draws_in_the_other_order():
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1) under the exact posterior: the bound is the evidence N(x; 0, 3)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0))
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)

    def upward(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(2 * x / 3, (2 / 3) ** 0.5))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.5**0.5))

    def downward(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x / 3, (2 / 3) ** 0.5))
            pyro.sample("z1", dist.Normal((x + z2) / 2, 0.5**0.5))

    x = torch.full((20_000,), 1.5)
    exact = float(dist.Normal(0.0, 3**0.5).log_prob(x[0]))
    for guide in (upward, downward):
        forward = VAE(model, guide)(x)
        bound = -forward.nll - forward.kl
        assert abs(float(bound.mean()) - exact) < 4 * float(bound.std()) / 20_000**0.5
    # In the same order the closed forms hold, and their sum varies with the draw of z2 alone.
    assert float(forward.kl.detach().std()) < 0.3


def test_forward_with_a_plate_of_pixels_outside_the_rows():
    """Rows stand in dimension -1, pixels in -2: summing must not mix them."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            with pyro.plate("pixels", x.shape[1], dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.mean(1), 1e-6))

    x = torch.arange(16.0).reshape(4, 4)  # as many pixels as rows
    expected = -dist.Normal(x.mean(1, keepdim=True), 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(VAE(model, guide)(x).nll, expected, rtol=1e-4, atol=1e-3)


# -- parameters -------------------------------------------------------------------------------------------------------


def test_two_latent_layers():
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x / 2, 1.0).to_event(1))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.7).to_event(1))

    x = torch.randn(4, 2)
    vae = VAE(model, guide, example=x)
    assert list(vae.encode(x)) == ["z1", "z2"]
    assert vae.decode({"z1": torch.full((3, 2), 9.0)}).mean.tolist() == [[9.0, 9.0]] * 3
    with pytest.raises(ValueError, match=r"latent sites \('z1', 'z2'\); give a dictionary by site"):
        vae.decode(torch.zeros(3, 2))
    # The means are passed on: z2's is that of z1's mean, and the reconstruction is z1's mean.
    torch.testing.assert_close(vae.reconstruct(x), x / 2)


def test_reconstruction_with_a_posterior_that_has_no_mean():
    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(len(x), 2), 1.0)
            pyro.sample("z", dist.TransformedDistribution(base, [dist.transforms.SigmoidTransform()]).to_event(1))

    vae = VAE(function_pair().model, guide)
    value = vae.reconstruct(pictures(3))
    assert ((value > 0) & (value < 1)).all()


def test_partial_programs():
    def model(x, *, decoder):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x.flatten(1))

    decoder = nn.Linear(2, 64)
    vae = VAE(functools.partial(model, decoder=decoder), function_pair().guide, example=pictures(2))
    assert {id(p) for p in vae.parameters()} == {id(p) for p in decoder.parameters()}


def test_masks_with_nan_under_them_give_finite_gradients_and_ignore_what_is_hidden():
    x, mask = pictures(6), torch.rand(6, *SHAPE) < 0.6
    for likelihood in ("bernoulli", "normal-predicted", "discretized-logistic"):
        vae = library_pair(likelihood=likelihood)
        hidden = torch.where(mask, x, torch.nan)
        torch.manual_seed(0)
        _, nll, kl = vae(hidden, mask=mask)
        (nll + kl).sum().backward()
        assert all(p.grad.isfinite().all() for p in vae.parameters())
        torch.manual_seed(0)
        other = vae(torch.where(mask, x, 1.0), mask=mask)
        torch.testing.assert_close(nll, other.nll)
        assert vae.log_likelihood(hidden, 5, mask=mask).isfinite().all()


def test_a_row_without_observations_costs_nothing():
    vae, x = library_pair(), pictures(2)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1] = False
    nll = vae(x, mask=mask).nll
    assert nll[0] > 1
    assert nll[1] == 0


def test_the_library_pair_tells_grey_values_from_binary_ones():
    vae = library_pair()
    with pytest.raises(ValueError, match="Expected value"):
        vae(torch.full((2, *SHAPE), 0.5)).nll.sum()


def test_gradients_reach_every_parameter_of_a_plain_module_pair():
    """Stock objectives would differentiate nothing here, for want of a param site; the Trainer sees to one."""
    vae = plain_module_pair()
    before = weights_of(vae)
    Trainer(epochs=1, batch_size=4, progress=False).fit(vae, pictures(8))
    assert all(not torch.equal(before[name], value) for name, value in weights_of(vae).items())
