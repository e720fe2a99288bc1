"""Pyro pairs as networks: densities, draws and gradients against those of the programs themselves."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_pairs import PAIRS, make_pair
from tiny_networks import DATA, TinyModel, TinyNetwork, tables
from torch import nn

from pyrovae import VAE, blackbox, infer
from pyrovae.blackbox import from_vae
from pyrovae.infer import log_weights

ROWS = 64
UNBIASED = {
    "ELBO": (blackbox.ELBO, lambda k: infer.Renyi(1.0, k)),
    "IWAE": (blackbox.IWAE, infer.IWAE),
    "VIMCO": (blackbox.VIMCO, infer.VIMCO),
    "VIMCO-arithmetic": (
        lambda q, p: blackbox.VIMCO(q, p, control_variate="arithmetic"),
        lambda k: infer.VIMCO(k, control_variate="arithmetic"),
    ),
    "NVIL": (blackbox.NVIL, infer.NVIL),
}


def gradients(module, call):
    """The value of a loss and the gradients that it leaves, with a fixed seed."""
    module.zero_grad(set_to_none=True)
    pyro.set_rng_seed(7)
    value = call()
    return float(value), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same(ours, theirs, rows):
    """A mean over the rows and a sum over them, with the gradients of both."""
    assert ours[0] == pytest.approx(theirs[0] / rows, rel=1e-9)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in ours[1].items():
        torch.testing.assert_close(gradient, theirs[1][name] / rows, rtol=1e-6, atol=1e-9)


def backward(losses, data):
    for loss in losses:
        value = loss(data)
        value.backward()
    return losses[0].loss_history_[-1]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", UNBIASED)
def test_same_draws_give_the_gradient_of_the_objective(name, pair):
    vae, x = make_pair(pair, ROWS)
    make, objective = UNBIASED[name]
    loss, objective = make(*from_vae(vae, num_samples=3)), objective(3)
    for _ in range(2):  # the running mean and variance of NVIL begin to count with the second call
        ours = gradients(vae, lambda: backward([loss], [x]))
        theirs = gradients(vae, lambda: objective.loss_and_grads(vae.model, vae.guide, x))
        assert_same(ours, theirs, ROWS)
        assert len(ours[1]) == len(list(vae.parameters()))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", ["wake-theta", "wake-phi", "sleep"])
def test_same_draws_give_the_gradient_of_wake_and_sleep(pair, kind):
    """One objective of `pyrovae.infer` has both gradients; each loss here has one of them, and nothing else."""
    vae, x = make_pair(pair, ROWS)
    q, p = from_vae(vae, num_samples=3)
    if kind == "sleep":
        losses, objective = [blackbox.WakeP(q, p), blackbox.SleepQ(q, p)], infer.WakeSleep(3)
    else:
        losses = [blackbox.WakeP(q, p) if kind == "wake-theta" else blackbox.WakeQ(q, p)]
        objective = infer.ReweightedWakeSleep(3, wake_phi=1.0, sleep_phi=0.0)
    _, ours = gradients(vae, lambda: backward(losses, [x]))
    _, theirs = gradients(vae, lambda: objective.loss_and_grads(vae.model, vae.guide, x))
    updated = {"wake-theta": ["model"], "wake-phi": ["guide"], "sleep": ["model", "guide"]}[kind]
    assert set(ours) == {name for name in theirs if name.split(".")[1] in updated}
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name] / ROWS, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_densities_are_those_of_the_programs(pair):
    vae, x = make_pair(pair, 8)
    q, p = from_vae(vae, num_samples=4)
    pyro.set_rng_seed(3)
    latents = q([x]).sample()
    log_q, log_p = q.log_prob(latents), p([x], latents).log_prob([x], latents)
    pyro.set_rng_seed(3)
    expected = log_weights(vae.model, vae.guide, 4, x)
    torch.testing.assert_close(log_q, expected.log_q.T)
    torch.testing.assert_close(log_p, expected.log_p.T)
    torch.testing.assert_close(q.log_score(latents, log_q), expected.log_score.T)
    assert [value.shape[:2] for value in latents] == [(8, 4)] * len(q.latent_names)


def test_draws_and_densities_are_those_of_the_tables():
    """The bits of the pair are those of networks whose densities are known as tables."""
    vae, _ = make_pair("bits", 4)
    q, p = from_vae(vae)
    log_p, log_q = (table.detach().double() for table in tables(TinyNetwork(), TinyModel()))
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double().expand(4, 8, 3)
    latents, x = [bits[..., 0], bits[..., 1:]], DATA.double()
    torch.testing.assert_close(q([x]).log_prob(latents), log_q, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(p([x], latents).log_prob([x], latents), log_p, rtol=1e-5, atol=1e-5)
    dreamt, drawn = p.sample(20_000)
    assert [value.shape for value in (*dreamt, *drawn)] == [(20_000, 2), (20_000, 1), (20_000, 1, 2)]
    code = torch.cat([dreamt[0], drawn[0], drawn[1][:, 0]], 1).long() @ torch.tensor([16, 8, 4, 2, 1])
    share = code.bincount(minlength=32) / 20_000
    assert (share - log_p.exp().flatten()).abs().max() < 0.01
    inferred = q([x]).sample(20_000)
    assert (inferred[0].mean(1) - (log_q.exp() * bits[0, :, 0]).sum(1)).abs().max() < 0.02


def test_parameters_of_the_distributions():
    vae, x = make_pair("bits", 4)
    q, p = from_vae(vae, num_samples=3)
    assert q.latent_names == ("z1", "z2")
    assert set(q([x]).params_) == {"z1.logits", "z1.probs", "z2.logits", "z2.probs"}
    torch.testing.assert_close(q.params_["z1.logits"], x @ vae.guide.first)
    latents = q.sample()
    first = torch.cat([latents[0].unsqueeze(-1), latents[1]], -1)[:, 0]
    torch.testing.assert_close(p([x], latents).params_["x.logits"], first @ vae.model.weight)
    assert not q.reparameterised
    assert from_vae(make_pair("normal", 4)[0])[0]([x]).reparameterised


def test_training_by_networks_is_training_of_the_pair():
    vae, x = make_pair("bits", 64)
    q, p = from_vae(vae, num_samples=5)
    assert {id(v) for v in (*q.parameters(), *p.parameters())} == {id(v) for v in vae.parameters()}
    assert not {id(v) for v in q.parameters()} & {id(v) for v in p.parameters()}
    regularizer = blackbox.BetaRegularizer(p, "owners.program.prior", mean=0.5, std=0.2, weight=0.1)
    before = vae.log_likelihood(x, num_samples=200).mean()
    history = blackbox.fit(blackbox.wake_wake(q, p, regularizers=[regularizer]), [x[::4]], num_steps=150, lr=0.05)
    assert vae.log_likelihood(x[::4], num_samples=200).mean() > before + 0.5
    assert set(history) == {"WakeP", "WakeQ"}


def function_pair():
    """Functions with param sites and a module of their own; the particles cannot be vectorised."""
    net = nn.Linear(2, 1).double()

    def model(x, mask=None):
        weight = pyro.param("weight", torch.tensor([0.5, -1.0], dtype=torch.float64))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.4, dtype=torch.float64)))
            noise = dist.Normal(z.reshape(len(x), 1) * weight, 1.0)
            pyro.sample("x", (noise if mask is None else noise.mask(mask)).to_event(1), obs=x)

    def guide(x, mask=None):
        shift = pyro.param("shift", torch.tensor(0.2, dtype=torch.float64))
        filled = x if mask is None else torch.where(mask, x, 0.0)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=net(filled).squeeze(-1) + shift))

    return model, guide


def test_functions_that_do_not_vectorise(store):
    x = torch.randn(6, 2, dtype=torch.float64)
    vae = VAE(*function_pair(), example=x)
    q, p = from_vae(vae, num_samples=3)
    assert not vae.vectorizes(x)
    assert sorted(name for name, _ in q.named_parameters()) == [
        "owners.net.bias",
        "owners.net.weight",
        "param_sites.shift",
    ]
    assert [name for name, _ in p.named_parameters()] == ["param_sites.weight"]
    pyro.set_rng_seed(1)
    loss = blackbox.VIMCO(q, p)([x])
    loss.backward()
    pyro.set_rng_seed(1)
    with vae.scope():
        expected = infer.VIMCO(3).loss(vae.model, vae.guide, x)
    assert loss.item() == pytest.approx(expected / 6)
    assert all(parameter.grad.abs().sum() > 0 for parameter in vae.parameters())
    blackbox.fit(blackbox.wake_sleep(q, p), [x], num_steps=3)


def test_masks_are_data():
    x = torch.randn(6, 2, dtype=torch.float64)
    mask = torch.rand(6, 2) > 0.4
    vae = VAE(*function_pair(), example=x)
    q, p = from_vae(vae, num_samples=2, arguments=["mask"])
    latents = q([x, mask]).sample()
    other = torch.where(mask, x, 5.0)
    seen = p([x, mask], latents).log_prob([x, mask], latents)
    torch.testing.assert_close(p([other, mask], latents).log_prob([other, mask], latents), seen)
    assert not torch.allclose(p([x, mask | True], latents).log_prob([x, mask | True], latents), seen)
    assert blackbox.IWAE(q, p)([x, mask]).isfinite()
    with pytest.raises(ValueError, match="data are the tensors x, mask, got 1 of them"):
        q([x])
    with pytest.raises(ValueError, match="the model dreams x alone, and the data have mask too"):
        blackbox.SleepQ(q, p)([x, mask])


def test_plates_within_a_datum():
    """The rows are dimension -2, and each holds a plate of two latents."""
    level, gain = torch.tensor([0.3, -0.4]), torch.tensor([1.0, 2.0])

    def model(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("within", 2, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=level))
            pyro.sample("x", dist.Normal(z * gain, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("within", 2, dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=x))

    x = torch.randn(5, 2)
    q, p = from_vae(VAE(model, guide, example=x), num_samples=3)
    latents = q([x]).sample()
    z = latents[0]
    assert z.shape == (5, 3, 2)
    torch.testing.assert_close(q.log_prob(latents), dist.Bernoulli(logits=x.unsqueeze(1)).log_prob(z).sum(-1))
    likelihood = dist.Normal(z * gain, 1.0).log_prob(x.unsqueeze(1)).sum(-1)
    prior = dist.Bernoulli(logits=level).log_prob(z).sum(-1)
    torch.testing.assert_close(p([x], latents).log_prob([x], latents), prior + likelihood)
    dreamt, drawn = p.sample(7)
    assert (dreamt[0].shape, drawn[0].shape) == ((7, 2), (7, 1, 2))


def test_errors():
    vae, x = make_pair("bits", 4)
    q, p = from_vae(vae)
    with pytest.raises(RuntimeError, match="call the inference network with data first"):
        q.sample()
    with pytest.raises(ValueError, match=r"the latents are those of the sites \('z1', 'z2'\), got 1 tensors"):
        p([x], q([x]).sample()[:1])
    with pytest.raises(RuntimeError, match="needs data to run"):
        from_vae(VAE(*PAIRS["bits"]()))
    with pytest.raises(ValueError, match="site 'z2' of the guide is not among the latents of the VAE"):
        from_vae(VAE(*PAIRS["bits"](), latent=("z1",), example=x))[0]([x])

    def model(x):
        scale = pyro.sample("scale", dist.Gamma(1.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    def guide(x):
        pyro.sample("scale", dist.Gamma(2.0, 2.0))

    with pytest.raises(ValueError, match="'scale' lies outside the plate over the data"):
        from_vae(VAE(model, guide, example=torch.zeros(3)))[0]([torch.zeros(3)])
