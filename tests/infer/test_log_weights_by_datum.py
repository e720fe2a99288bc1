"""Log weights of each datum: independence of the batch and of padding, and the KL weight inside them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import library_pair, linear_pair, pictures
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO

from pyrovae.infer import KLWeightMessenger, log_weights

# -- one number per datum ---------------------------------------------------------------------------------------------


def at(vae, z, *args):
    """The pair's guide with its draws replaced by `z`: replaying does not make observations of them."""
    trace = poutine.trace(vae.guide).get_trace(*args)
    trace.nodes["z"]["value"] = z
    return poutine.replay(vae.guide, trace=trace)


def test_weights_of_a_datum_do_not_depend_on_its_batch():
    """Rows, shuffled and in company: one row of draws, one log weight, to 1e-6 in float64."""
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
