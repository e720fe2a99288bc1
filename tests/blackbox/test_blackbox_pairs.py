"""Networks as Pyro pairs: bounds, gradients, draws and tools."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from tiny_networks import BITS, DATA, TinyModel, TinyNetwork, tables
from torch.distributions import Bernoulli, Normal

from pyrovae import VAE, blackbox, infer
from pyrovae.blackbox import GenerativeModel, InferenceNetwork, as_pair, from_vae
from pyrovae.data import Rows
from pyrovae.metrics import evaluate
from pyrovae.metrics.latents import latent_means
from pyrovae.training import Trainer

X = DATA.repeat(16, 1)


class WholeModel(TinyModel):
    """Also knows its prior and its mean."""

    def log_prior(self, latents):
        first = Bernoulli(logits=self.prior[0]).log_prob(latents[0])
        return first + Bernoulli(logits=self.prior[1:]).log_prob(latents[1]).sum(-1)

    def mean(self, latents):
        return [self.parameterise([], latents)["logits"].sigmoid()]


class WholeNetwork(TinyNetwork):
    def mean(self):
        probability = self.params_["first"].sigmoid()
        off, on = (self.conditional(torch.full((len(probability), 1), value)).mean[:, 0] for value in (0.0, 1.0))
        share = probability.unsqueeze(1)
        return [probability, (1 - share) * off + share * on]


class NormalNetwork(InferenceNetwork):
    """Reparameterised, two latents of which the second is near the first."""

    reparameterised = True

    def __init__(self, num_samples=1):
        super().__init__(num_samples)
        self.net = torch.nn.Linear(2, 1)

    def parameterise(self, data):
        return {"mean": self.net(data[0])}

    def sample(self, num_samples=None):
        mean = self.params_["mean"].expand(-1, num_samples or self.num_samples)
        first = mean + 0.5 * torch.randn_like(mean)
        return [first, (0.7 * first + torch.randn_like(first)).unsqueeze(-1)]

    def log_prob(self, latents):
        first = Normal(self.params_["mean"], 0.5).log_prob(latents[0])
        return first + Normal(0.7 * latents[0], 1.0).log_prob(latents[1].squeeze(-1))


class NormalModel(GenerativeModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.8, -0.3]))

    def parameterise(self, data, latents):
        return {"mean": latents[0].unsqueeze(-1) * self.weight + latents[1]}

    def sample(self, num_samples=1):
        latents = [torch.randn(num_samples, 1), torch.randn(num_samples, 1, 1)]
        mean = self.parameterise([], latents)["mean"][:, 0]
        return [mean + torch.randn_like(mean)], latents

    def log_prob(self, data, latents):
        prior = Normal(0.0, 1.0).log_prob(latents[0]) + Normal(0.0, 1.0).log_prob(latents[1].squeeze(-1))
        return prior + Normal(self.params_["mean"], 1.0).log_prob(data[0].unsqueeze(1)).sum(-1)


NETWORKS = {
    "bits": (TinyNetwork, TinyModel),
    "bits-whole": (WholeNetwork, WholeModel),
    "normal": (NormalNetwork, NormalModel),
}
OBJECTIVES = {
    "ELBO": lambda k: infer.Renyi(1.0, k),
    "IWAE": infer.IWAE,
    "VIMCO": infer.VIMCO,
    "NVIL": infer.NVIL,
}


def make(name, num_samples=3):
    network, model = NETWORKS[name]
    network, model = network(num_samples), model()
    return network, model, VAE(*as_pair(network, model), example=X)


def evidence(model):
    return tables(TinyNetwork(), model)[0].logsumexp(1).detach()


@pytest.mark.parametrize("pair", NETWORKS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_have_the_gradients_of_the_losses(name, pair):
    network, model, vae = make(pair)
    pyro.set_rng_seed(5)
    loss = getattr(blackbox, name)(network, model)([X])
    loss.backward()
    ours = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    pyro.set_rng_seed(5)
    value = OBJECTIVES[name](3).loss_and_grads(vae.model, vae.guide, X)
    assert value / len(X) == pytest.approx(loss.item(), rel=1e-5)
    for gradient, parameter in zip(ours, vae.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad / len(X), gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("pair", NETWORKS)
def test_wake_sleep_has_the_gradients_of_the_sequence(pair):
    network, model, vae = make(pair)
    pyro.set_rng_seed(5)
    for loss in blackbox.wake_sleep(network, model):
        loss([X]).backward()
    ours = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    pyro.set_rng_seed(5)
    infer.WakeSleep(3).loss_and_grads(vae.model, vae.guide, X)
    for gradient, parameter in zip(ours, vae.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad / len(X), gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_path_gradients(gradient):
    """The gradient by the model is the standard one; that by the network has the same mean."""
    _, _, vae = make("normal")
    means = {}
    for kind in ("standard", gradient):
        vae.zero_grad()
        pyro.set_rng_seed(0)
        infer.IWAE(1, gradient=kind).loss_and_grads(vae.model, vae.guide, X.repeat(300, 1))
        means[kind] = [parameter.grad / 300 / len(X) for parameter in vae.parameters()]
    torch.testing.assert_close(means["standard"][0], means[gradient][0])
    for standard, other in zip(means["standard"], means[gradient], strict=True):
        torch.testing.assert_close(standard, other, atol=0.06, rtol=0)
    with pytest.raises(ValueError, match="site 'z1' has no reparameterised draws"):
        infer.IWAE(2, gradient=gradient).loss(*make("bits")[2].owners.values(), X)


@pytest.mark.parametrize("pair", ["bits", "bits-whole"])
def test_held_out_likelihood_is_the_evidence(pair):
    _, model, vae = make(pair)
    exact = evidence(model)
    estimate = vae.log_likelihood(DATA, num_samples=4000, return_details=True)
    assert ((estimate.value - exact).abs() < 4 * estimate.standard_error + 1e-6).all()
    assert vae.vectorizes(DATA)


def test_draws_are_those_of_the_model():
    _, model, vae = make("bits")
    draws = vae.sample(20_000)
    share = (draws.long() @ torch.tensor([2, 1])).bincount(minlength=4) / 20_000
    assert (share - evidence(model).exp()).abs().max() < 0.02
    assert {name: tuple(q.batch_shape) for name, q in vae.posterior(X).items()} == {"z1": (64,), "z2": (64,)}


def test_joint_draws_of_many_particles_have_their_density():
    """Data drawn with every particle are a row each."""
    _, _, vae = make("bits")
    program = pyro.plate("particles", 5, dim=-2)(pyro.poutine.uncondition(vae.model))
    trace = pyro.poutine.trace(program).get_trace(X)
    values = [trace.nodes[name]["value"] for name in ("z1", "z2", "x")]
    assert [value.shape for value in values] == [(5, 64), (5, 64, 2), (5, 64, 2)]
    z = torch.cat([values[0].unsqueeze(-1), values[1]], -1)
    table = tables(TinyNetwork(), TinyModel())[0]
    code = z.long() @ torch.tensor([4, 2, 1]), values[2].long() @ torch.tensor([2, 1])
    torch.testing.assert_close(trace.nodes["x"]["fn"].log_prob(values[2]), table[code[1], code[0]])
    assert torch.equal(BITS[code[0]], z)


def test_trainer():
    vae = make("bits", 5)[2]
    x = DATA[torch.tensor([0, 0, 0, 3]).repeat(64)]
    before = vae.log_likelihood(x[:4], num_samples=500).mean()
    Trainer(objective=infer.VIMCO(5), epochs=40, batch_size=32, lr=0.03, progress=False).fit(vae, x)
    assert vae.log_likelihood(x[:4], num_samples=500).mean() > before + 0.4


@pytest.mark.parametrize("make_loss", [Trace_ELBO, TraceGraph_ELBO, lambda: infer.VIMCO(5)])
def test_stock_svi(make_loss):
    _, model, vae = make("bits")
    before = evidence(model)[[0, 0, 0, 3]].mean()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.03}), make_loss())
    x = DATA[torch.tensor([0, 0, 0, 3]).repeat(64)]
    for _ in range(150):
        assert svi.step(x) > 0
    assert evidence(model)[[0, 0, 0, 3]].mean() > before + 0.2


def test_prior_apart_from_the_joint():
    """With `log_prior` a KL weight has a meaning, and `forward` splits the bound."""
    network, model, vae = make("bits-whole")
    log_p, log_q = tables(network, model)
    prior = model.log_prior([BITS[:, 0].expand(4, 8), BITS[:, 1:].expand(4, 8, 2)])
    half = (log_q.exp() * (log_p - prior + 0.5 * (prior - log_q))).sum(1)
    x = DATA.repeat(2000, 1)
    with infer.KLWeightMessenger(0.5), torch.no_grad():
        bound = -infer.IWAE(1).loss(vae.model, vae.guide, x) / len(x)
    assert bound == pytest.approx(half.mean().item(), abs=0.03)
    result = vae(x)
    assert result.kl.mean().item() == pytest.approx((log_q.exp() * (log_q - prior)).sum(1).mean().item(), abs=0.03)
    assert result.nll.mean().item() == pytest.approx(-(log_q.exp() * (log_p - prior)).sum(1).mean().item(), abs=0.03)


def test_every_tool_works_for_networks_that_know_their_parts():
    network, model, vae = make("bits-whole")
    figures = evaluate(vae, Rows(DATA), num_samples=500)
    assert figures.log_likelihood == pytest.approx(evidence(model).mean().item(), abs=0.05)
    assert 0 < figures.reconstruction_error < 0.5
    assert vae.reconstruct(X).shape == X.shape
    assert vae.sample(3, output="mean").shape == (3, 2)
    log_q = tables(network, model)[1]
    torch.testing.assert_close(latent_means(vae, DATA), log_q.exp() @ BITS, rtol=1e-5, atol=1e-6)
    z = {"z1": torch.tensor([1.0, 0.0]), "z2": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}
    expected = (torch.cat([z["z1"].unsqueeze(1), z["z2"]], 1) @ model.weight).sigmoid()
    torch.testing.assert_close(vae.decode(z).mean, expected)


def test_what_needs_more_than_the_joint_says_so():
    _, _, vae = make("bits")
    with pytest.raises(NotImplementedError, match=r"TinyModel has no mean; override GenerativeModel\.mean"):
        vae.reconstruct(X)
    with pytest.raises(ValueError, match="cannot draw some of them given the values of others"):
        vae.decode({"z1": torch.zeros(3), "z2": torch.zeros(3, 2)}).sample()
    with pytest.raises(ValueError, match="a KL weight scales the prior"), infer.KLWeightMessenger(0.5):
        infer.VIMCO(2).loss(vae.model, vae.guide, X)
    with pytest.raises(TypeError, match="PyroGenerativeModel is half of a Pyro pair already"):
        as_pair(TinyNetwork(), from_vae(vae)[1])
    with pytest.raises(NotImplementedError, match=r"override GenerativeModel\.log_prior"):
        TinyModel().log_prior([])
    with pytest.raises(NotImplementedError, match=r"override InferenceNetwork\.mean"):
        TinyNetwork().mean()


def test_networks_as_a_pair_as_networks():
    network, model, vae = make("bits", 4)
    q, p = from_vae(vae, num_samples=4)
    latents = q([X]).sample()
    torch.testing.assert_close(q.log_prob(latents), network([X]).log_prob(latents))
    torch.testing.assert_close(p([X], latents).log_prob([X], latents), model([X], latents).log_prob([X], latents))
    assert blackbox.SleepQ(q, p)([X]).isfinite()
