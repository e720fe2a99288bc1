"""Latents outside the plate over the data: under minibatches, in held-out figures, in pictures."""

import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, init_to_value
from pyro.nn import PyroModule, PyroSample
from torch import nn

from pyrovae import VAE
from pyrovae.infer import IWAE, MinibatchScale
from pyrovae.models.parts import share_of_global
from pyrovae.training import Trainer


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    m = pyro.param("m", torch.tensor(100.0))
    s = pyro.param("s", torch.tensor(0.1), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(m, s))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))


def full_size(program, total):
    """The same program with a plate that scales its rows up to all data."""

    def run(x):
        mu = program(x)
        return mu

    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 100.0))
        with pyro.plate("data", total, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        m = pyro.param("m", torch.tensor(100.0))
        s = pyro.param("s", torch.tensor(0.1), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(m, s))
        with pyro.plate("data", total, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))

    return model if program is globals()["model"] else guide


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_a_batch_counts_its_share(elbo):
    """As stock SVI with a full-size plate, divided by N / B; value and gradient in float64."""
    x = 100 + torch.randn(8)
    found = []
    for pair in ((model, guide), (full_size(model, 64), full_size(guide, 64))):
        for scaled in (True, False):
            pyro.clear_param_store()
            pyro.set_rng_seed(0)
            run = lambda pair=pair: elbo().loss_and_grads(*pair, x)  # noqa: E731
            if scaled:
                with MinibatchScale(8, 64, {"data"}):
                    loss = run()
            else:
                loss = run()
            gradients = [p.grad for _, p in sorted(pyro.get_param_store().named_parameters())]
            found.append(torch.stack([torch.tensor(loss), *gradients]))
    ours, unscaled, ours_of_full, stock = found
    torch.testing.assert_close(ours, stock / 8, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours_of_full, ours, rtol=1e-5, atol=1e-4)
    assert abs(unscaled[2] - ours[2]) > 0.5


def test_posterior_of_a_mean_is_that_of_all_data_for_every_batch_size():
    """The standard deviation of q(mu) is (N / 2)^-1/2 = 0.0625 for N = 512."""
    x = 100 + 1.4 * torch.randn(512)
    for batch in (512, 64):
        pyro.clear_param_store()
        vae = VAE(model, guide, example=x)
        optimizer = torch.optim.Adam(vae.parameters(), lr=0.03)
        for step in range(600):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 600)
            rows = x[torch.randint(512, (batch,))] if batch < 512 else x
            with vae.scope(), vae.minibatch_scale(len(rows), 512):
                TraceMeanField_ELBO().differentiable_loss(model, guide, rows).div(batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        with vae.scope():
            assert pyro.param("s").item() == pytest.approx(0.0625, rel=0.25)
        assert (vae.sample(4) - 100).abs().max() < 8  # of the posterior, not of the prior


def test_particles_and_programs_without_plates():
    def unplated(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    with MinibatchScale(3, 12, ()):
        found = poutine.trace(unplated).get_trace(torch.zeros(3))
    assert [found.nodes[name]["scale"] for name in ("w", "z", "x")] == [0.25, 1.0, 1.0]
    with MinibatchScale(3, 12, {"data"}), pyro.plate("num_particles_vectorized", 5, dim=-2):
        found = poutine.trace(model).get_trace(torch.zeros(3))
    assert [found.nodes[name]["scale"] for name in ("mu", "z", "x")] == [0.25, 1.0, 1.0]
    with pytest.raises(ValueError, match="a batch and the data have at least one row, got 0 of 4"):
        MinibatchScale(0, 4, ())


def test_a_share_that_the_program_takes_itself_is_not_taken_twice():
    def own(x):
        with share_of_global(len(x), 12):
            pyro.sample("mu", dist.Normal(0.0, 1.0))

    with MinibatchScale(3, 12, {"data"}):
        assert poutine.trace(own).get_trace(torch.zeros(3)).nodes["mu"]["scale"] == 0.25


def test_objectives_of_this_library_divide_a_full_size_plate_out():
    """Also under `MinibatchScale`, inside and outside of the logarithm."""

    def local(x):
        with pyro.plate("data", 64, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with poutine.scale(scale=2.0):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def local_guide(x):
        with pyro.plate("data", 64, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x, losses = torch.randn(8), []
    objective = IWAE(4, vectorize_particles=True)
    for scaled in (True, False):
        pyro.set_rng_seed(0)
        if scaled:
            with MinibatchScale(8, 64, {"data"}):
                losses.append(objective.loss(local, local_guide, x))
        else:
            losses.append(objective.loss(local, local_guide, x))
    assert losses[0] == pytest.approx(losses[1] / 8, rel=1e-5)


def test_data_outside_the_plate_are_no_sum_over_rows():
    def whole(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mu.expand(len(x)), 1.0).to_event(1), obs=x)

    vae = VAE(whole, guide, example=torch.zeros(4))
    with pytest.raises(ValueError, match="observed site 'x' lies outside the plate over the data"):
        vae.minibatch_scale(4, 8)
    with vae.minibatch_scale(4, 4):
        pass


# -- held-out figures and pictures ------------------------------------------------------------------------------------


class BayesianDecoder(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](1, 2)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([2, 1]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    def forward(self, x):
        linear = self.linear
        weight, bias = linear.weight, linear.bias
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, 0.5).to_event(1), obs=x)


class BayesianGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([[2.0], [-1.0]]))
        self.net = nn.Linear(2, 1)

    def forward(self, x):
        pyro.sample("linear.weight", dist.Normal(self.loc, 1e-3).to_event(2))
        pyro.sample("linear.bias", dist.Normal(torch.tensor([5.0, 6.0]), 1e-3).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))


def test_bayesian_decoder():
    x = torch.randn(5, 2) + torch.tensor([5.0, 6.0])
    vae = VAE(BayesianDecoder(), BayesianGuide(), example=x)
    assert vae.sites.shared == ("linear.weight", "linear.bias")
    assert vae.sites.latent == ("z",)
    weight, bias = vae.guide.loc.detach(), torch.tensor([5.0, 6.0])
    with pytest.raises(ValueError, match=r"latent site 'linear.weight' lies outside the plate.*condition="):
        vae.log_likelihood(x, 5)
    means = vae.global_means()
    torch.testing.assert_close(means["linear.weight"], weight)
    exact = dist.MultivariateNormal(bias, weight @ weight.T + 0.25 * torch.eye(2)).log_prob(x)
    with torch.no_grad():
        value = vae.log_likelihood(x, 20_000, condition=means)
    torch.testing.assert_close(value, exact, rtol=0, atol=0.3)
    # Pictures stand at the guide's mean.
    z = torch.randn(4, 1)
    torch.testing.assert_close(vae.decode(z).mean, z @ weight.T + bias)
    torch.testing.assert_close(vae.reconstruct(x), (vae.encode(x).mean @ weight.T + bias).detach())
    assert (vae.sample(500).mean(0) - bias).abs().max() < 0.5
    nll, kl = vae(x)[1:]
    assert nll.shape == kl.shape == (5,)


def test_a_global_latent_that_the_guide_infers_from_data_asks_for_them():
    def amortised(x):
        mu = pyro.sample("mu", dist.Normal(x.mean(), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + mu) / 2, 0.7))

    x = torch.randn(6) + 50
    vae = VAE(model, amortised, example=x)
    for call in (lambda: vae.sample(6), lambda: vae.decode(torch.zeros(6))):
        with pytest.raises(ValueError, match=r"the latents \('mu',\) outside the plate.*depend on data.*data=x"):
            call()
    assert (vae.sample(6, data=x) - 50).abs().max() < 8
    torch.testing.assert_close(vae.global_means(x)["mu"], x.mean())
    assert vae.reconstruct(x).shape == (6,)


def test_marked_latents_stand_at_their_mean_with_a_log_line(caplog):
    def marked(program):
        return poutine.infer_config(program, lambda site: {"is_global": True} if site["name"] == "mu" else {})

    x = 100 + torch.randn(5)
    vae = VAE(marked(model), marked(guide), example=x)
    with caplog.at_level(logging.INFO, logger="pyrovae"):
        value = vae.log_likelihood(x, 3)
        vae.log_likelihood(x, 3)
    assert [record.message for record in caplog.records if "global latents" in record.message] == [
        "global latents are fixed at their posterior means: mu = 100.0; condition= chooses other values"
    ]
    torch.testing.assert_close(value, dist.Normal(100.0, 2**0.5).log_prob(x))


def test_stock_svi_takes_the_context():
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    with MinibatchScale(4, 8, {"data"}):
        assert svi.step(100 + torch.randn(4)) > 0


@pytest.mark.parametrize("kind", ["normal", "joint"])
def test_automatic_guides_of_global_and_local_latents(kind):
    """`AutoNormal` draws each latent by itself; a guide that draws all rows together has no weights of a row."""
    x = 100 + torch.randn(6)
    automatic = (
        AutoNormal(model, init_loc_fn=init_to_value(values={"mu": torch.tensor(100.0), "z": x}))
        if (kind == "normal")
        else AutoDiagonalNormal(model)
    )
    vae = VAE(model, automatic, example=x)
    assert vae.sites.shared == ("mu",)
    with pytest.raises(ValueError, match="latent site 'mu' lies outside"):
        vae.log_likelihood(x, 10)
    if kind == "joint":
        with pytest.raises(ValueError, match="site 'z' of the guide is a Delta that is no function"):
            vae.log_likelihood(x, 10, condition={"mu": torch.tensor(100.0)})
        return
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if "scales" in name:
                parameter.fill_(0.5)
    value = vae.log_likelihood(x, 20_000, condition={"mu": torch.tensor(100.0)})
    torch.testing.assert_close(value, dist.Normal(100.0, 2**0.5).log_prob(x), rtol=0, atol=0.1)
    torch.testing.assert_close(vae.global_means()["mu"], torch.tensor(100.0))


def test_covariates_beside_a_latent_of_all_data():
    """The guide cannot run without the covariates, and its latent of all data does not depend on them."""

    def model(x, c):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu + c + pyro.param("shift", torch.tensor(0.0)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, c):
        mu = pyro.sample("mu", dist.Normal(3.0, 1e-3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + mu + c) / 2, 0.5**0.5))

    x, c = torch.randn(6) + 3, torch.randn(6)
    vae = VAE(model, guide).prepare(x, c=c)
    assert vae.global_means() == {"mu": torch.tensor(3.0)}
    condition = {"mu": torch.tensor(3.0)}
    found = vae.log_likelihood(x, 20, condition=condition, c=c)
    torch.testing.assert_close(found, dist.Normal(3.0 + c, 2**0.5).log_prob(x))
    assert vae.decode(torch.zeros(6), c=c).mean.shape == (6,)
    torch.testing.assert_close(vae.sample(6, "mean", c=c), 3 + c, atol=5.0, rtol=0)
    Trainer(epochs=1, objective="elbo", num_particles=4, progress=False).fit(vae, {"x": x, "c": c})
