"""Latents that the model marks for enumeration are summed out, as `TraceEnum_ELBO` does."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn

from pyrovae import VAE
from pyrovae.infer import IWAE, VIMCO, CompiledLoss, KLWeightMessenger, Renyi, log_weights, make_objective

WEIGHTS, LOCS = torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([-1.0, 2.0], dtype=torch.float64)


@config_enumerate
def mixture(x):
    locs = pyro.param("locs", LOCS.clone())
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        y = pyro.sample("y", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(z + locs[y], 1.0), obs=x)


@config_enumerate
def words(x):
    """A class of a datum, a class of each of its words, and two kinds of observations."""
    locs = pyro.param("locs", LOCS.clone())
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros((len(x), 1), dtype=x.dtype), 1.0))
        y = pyro.sample("y", dist.Categorical(WEIGHTS))
        with pyro.plate("words", x.shape[1], dim=-1):
            w = pyro.sample("w", dist.Categorical(torch.stack([WEIGHTS, 1 - WEIGHTS])[y]))
            pyro.sample("x", dist.Normal(z + locs[w], 1.0), obs=x)


@config_enumerate
def chain(x):
    """A hidden Markov model."""
    locs = pyro.param("locs", LOCS.clone())
    stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=x.dtype)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        y = torch.tensor(0)
        for t in pyro.markov(range(x.shape[1])):
            y = pyro.sample(f"y_{t}", dist.Categorical(stay[y]))
            pyro.sample(f"x_{t}", dist.Normal(z + locs[y], 1.0), obs=x[:, t])


def guide(x):
    a = pyro.param("a", torch.tensor(0.3, dtype=torch.float64))
    mean = x if x.dim() == 1 else x.mean(1)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(a * mean, 0.8))


def guide_of_words(x):
    a = pyro.param("a", torch.tensor(0.3, dtype=torch.float64))
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(a * x.mean(1, keepdim=True), 0.8))


PAIRS = {
    "mixture": (mixture, guide, 1, ()),
    "words": (words, guide_of_words, 2, (4,)),
    "chain": (chain, guide, 1, (5,)),
}


def by_hand(kind, x, z):
    """log p(x | z) of each row."""
    emission = dist.Normal(z.unsqueeze(-1) + LOCS, 1.0)
    if kind == "mixture":
        return (emission.log_prob(x.unsqueeze(-1)) + WEIGHTS.log()).logsumexp(-1)
    if kind == "words":
        given = emission.log_prob(x.unsqueeze(-1))  # [.., B, words, w]
        mixed = (given.unsqueeze(-2) + torch.stack([WEIGHTS, 1 - WEIGHTS]).log()).logsumexp(-1).sum(-2)
        return (mixed + WEIGHTS.log()).logsumexp(-1)
    stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=x.dtype).log()
    state = torch.tensor([0.0, -torch.inf], dtype=x.dtype)
    for t in range(x.shape[1]):
        state = (state.unsqueeze(-1) + stay).logsumexp(-2) + emission.log_prob(x[:, t : t + 1])
    return state.logsumexp(-1)


def data(shape, rows=3):
    return torch.randn(rows, *shape, dtype=torch.float64)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("rows", [3, 1])
@pytest.mark.parametrize(("particles", "vectorize"), [(1, None), (4, True), (4, False), (4, None)])
def test_log_weights_by_hand(kind, rows, particles, vectorize):
    model, program, _, shape = PAIRS[kind]
    x = data(shape, rows)
    weights = log_weights(model, program, particles, x, vectorize=vectorize, return_draws=True)
    z = weights.draws["z"]
    expected = dist.Normal(0.0, 1.0).log_prob(z) + by_hand(kind, x, z.unsqueeze(-1) if kind == "words" else z)
    torch.testing.assert_close(weights.log_p, expected)
    assert weights.log_p.shape == weights.log_q.shape == (particles, rows)


@pytest.mark.parametrize("kind", PAIRS)
def test_one_particle_is_trace_enum_elbo(kind):
    model, program, nesting, shape = PAIRS[kind]
    x, found = data(shape), []
    for objective in (TraceEnum_ELBO(max_plate_nesting=nesting), IWAE(1), Renyi(0.3, 1)):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        loss = objective.loss_and_grads(model, program, x)
        gradients = [p.grad.flatten() for _, p in sorted(pyro.get_param_store().named_parameters())]
        found.append(torch.cat([torch.tensor([loss], dtype=torch.float64), *gradients]))
    for ours in found[1:]:
        torch.testing.assert_close(ours, found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", PAIRS)
def test_held_out_figures(kind):
    model, program, _, shape = PAIRS[kind]
    x = data(shape)
    vae = VAE(model, program, example=x)
    z, weight = torch.linspace(-8, 8, 4001, dtype=torch.float64), 16 / 4000
    at = z.reshape(-1, 1, 1) if kind == "words" else z.reshape(-1, 1)
    joint = by_hand(kind, x, at.expand(4001, 3, 1) if kind == "words" else at.expand(4001, 3))
    exact = (joint + dist.Normal(0.0, 1.0).log_prob(z).unsqueeze(1)).logsumexp(0) + torch.tensor(weight).log()
    torch.testing.assert_close(vae.log_likelihood(x, 20_000), exact, rtol=0, atol=0.05)
    assert vae.sites.latent == ("z",)
    assert vae.sites.shared == ()
    sampled = vae.sample(5)
    assert (sampled if kind != "chain" else sampled["x_0"]).shape == (5, *shape[: kind != "chain"])


def test_what_cannot_be_summed_is_refused():
    x = data(())
    message = r"has a weight of its own, and latents \('y',\) of the model are summed out"
    with pytest.raises(ValueError, match=message), KLWeightMessenger(0.5):
        IWAE(2).loss(mixture, guide, x)
    with pytest.raises(ValueError, match="the sleep phase cannot dream latents that are summed out"):
        make_objective("wake-sleep").loss(mixture, guide, x)
    unmarked = poutine.infer_config(mixture, lambda site: {"enumerate": None})
    with pytest.raises(ValueError, match="latent site 'y' of the model is missing from the guide"):
        log_weights(unmarked, guide, 2, x)


def test_scales_of_all_sites_stay_outside():
    x = data(())
    losses = []
    for factor in (1.0, 3.0):
        pyro.set_rng_seed(0)
        pair = (poutine.scale(program, scale=factor) for program in (mixture, guide))
        losses.append(VIMCO(3, vectorize_particles=True).loss(*pair, x))
    assert losses[1] == pytest.approx(3 * losses[0])


def test_a_net_in_the_model():
    net = nn.Linear(1, 2).double()

    @config_enumerate
    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            y = pyro.sample("y", dist.Categorical(logits=net(z.unsqueeze(-1))))
            pyro.sample("x", dist.Normal(LOCS[y], 1.0), obs=x)

    x = data(())
    weights = log_weights(model, guide, 5, x, return_draws=True)
    z = weights.draws["z"]
    mixed = (net(z.unsqueeze(-1)).log_softmax(-1) + dist.Normal(LOCS, 1.0).log_prob(x.unsqueeze(-1))).logsumexp(-1)
    torch.testing.assert_close(weights.log_p, dist.Normal(0.0, 1.0).log_prob(z) + mixed)


@pytest.mark.parametrize("kind", PAIRS)
def test_compiled_steps(kind):
    model, program, _, shape = PAIRS[kind]
    x = data(shape)
    objective, vae = IWAE(3, vectorize_particles=True), VAE(model, program, example=x)
    step = CompiledLoss(vae, objective, backend="eager")
    pyro.set_rng_seed(0)
    compiled = step(x)
    gradients = {name: p.grad.clone() for name, p in vae.named_parameters()}
    vae.zero_grad()
    pyro.set_rng_seed(0)
    with vae.scope():
        assert objective.loss_and_grads(model, program, x) == pytest.approx(compiled.item())
    for name, parameter in vae.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])
