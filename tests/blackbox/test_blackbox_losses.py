"""Losses against sums over all draws, and their records."""

import math

import pytest
import torch
from tiny_networks import DATA, TinyModel, TinyNetwork, exact_gradients, tables
from torch import nn
from torch.distributions import Normal

from pyrovae import blackbox
from pyrovae.blackbox import ELBO, IWAE, NVIL, VIMCO, GenerativeModel, InferenceNetwork, SleepQ, WakeP, WakeQ

CASES = {
    "ELBO": ELBO,
    "IWAE": IWAE,
    "VIMCO": VIMCO,
    "VIMCO-arithmetic": lambda q, p, **options: VIMCO(q, p, control_variate="arithmetic", **options),
    "NVIL": lambda q, p, **options: NVIL(q, p, normalize=False, baseline=nn.Linear(2, 1), **options),
    "WakeP": WakeP,
    "WakeQ": WakeQ,
    "SleepQ": SleepQ,
}


def as_tables(network, model):
    """What the networks say of all data and all latents."""
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).expand(4, 8, 3)
    latents = [bits[..., 0], bits[..., 1:]]
    return model([DATA], latents).log_prob([DATA], latents), network([DATA]).log_prob(latents)


def test_networks_agree_with_the_tables():
    network, model = TinyNetwork(), TinyModel()
    for ours, table in zip(as_tables(network, model), tables(network, model), strict=True):
        assert torch.allclose(ours, table, atol=1e-6)


@pytest.mark.parametrize("num_samples", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_gradient_is_exact_on_average(case, num_samples):
    network, model = TinyNetwork(num_samples), TinyModel()
    loss = CASES[case](network, model)
    exact = exact_gradients(loss.name, network, model, num_samples)
    parameters = {**dict(network.named_parameters()), **dict(model.named_parameters())}
    draws = {name: [] for name in parameters}
    for _ in range(40):
        for parameter in parameters.values():
            parameter.grad = None
        loss([DATA.repeat(1250, 1)]).backward()
        for name, parameter in parameters.items():
            draws[name].append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    updated = {id(parameter) for parameter in loss.parameters()}
    for name, parameter in parameters.items():
        gradients = torch.stack(draws[name])
        if id(parameter) not in updated:
            assert not gradients.any(), name
            continue
        assert exact[name].abs().max() > 1e-3
        error = gradients.std(0) / math.sqrt(len(gradients))
        assert ((gradients.mean(0) - exact[name]).abs() < 4.5 * error + 1e-6).all(), name


@pytest.mark.parametrize("name", ["ELBO", "IWAE", "VIMCO", "NVIL", "WakeP"])
def test_value_of_an_exact_posterior_is_the_evidence(name):
    """With q the posterior every weight is p(x), whatever is drawn."""

    class Posterior(TinyNetwork):
        def log_prob(self, latents):
            log_joint = MODEL([DATA], latents).log_prob([DATA], latents)
            return log_joint - EVIDENCE.unsqueeze(1)

    MODEL = TinyModel()
    EVIDENCE = tables(TinyNetwork(), MODEL)[0].logsumexp(1).detach()
    loss = getattr(blackbox, name)(Posterior(4), MODEL)
    assert loss([DATA]).item() == pytest.approx(-EVIDENCE.mean().item(), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_records(case):
    loss = CASES[case](TinyNetwork(), TinyModel())
    assert loss.name == case.split("-")[0]
    assert math.isnan(loss.mean_log_p_)
    values = [loss([DATA]).item() for _ in range(3)]
    assert loss.loss_history_ == values
    assert loss.mean_log_q_ < 0
    assert math.isnan(loss.mean_log_p_) == (case == "SleepQ")
    assert set(loss.updates) == {
        "WakeP": {"generative_model"},
        "WakeQ": {"inference_network"},
        "SleepQ": {"inference_network"},
    }.get(case, {"inference_network", "generative_model"})


def test_sleep_does_not_score_the_model():
    class Simulator(TinyModel):
        def log_prob(self, data, latents):
            raise AssertionError("a simulator has no density")

    SleepQ(TinyNetwork(), Simulator())([DATA]).backward()


class Gaussian(InferenceNetwork):
    """Reparameterised, for x = z + noise of scale 1, z standard normal: the posterior is N(x / 2, 1 / 2)."""

    reparameterised = True

    def __init__(self, num_samples=1):
        super().__init__(num_samples)
        self.slope, self.log_scale = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.tensor(0.2))

    def parameterise(self, data):
        return {"loc": self.slope * data[0], "scale": self.log_scale.exp().expand(len(data[0]))}

    def distribution(self):
        return Normal(self.params_["loc"].unsqueeze(1), self.params_["scale"].unsqueeze(1))

    def sample(self, num_samples=None):
        return [self.distribution().rsample((num_samples or self.num_samples,))[..., 0].T]

    def log_prob(self, latents):
        return self.distribution().log_prob(latents[0])


class GaussianModel(GenerativeModel):
    def parameterise(self, data, latents):
        return {"loc": latents[0]}

    def sample(self, num_samples=1):
        z = torch.randn(num_samples, 1)
        return [(z + torch.randn_like(z))[:, 0]], [z]

    def log_prob(self, data, latents):
        return Normal(0.0, 1.0).log_prob(latents[0]) + Normal(latents[0], 1.0).log_prob(data[0].unsqueeze(1))


@pytest.mark.parametrize("make", [ELBO, IWAE, VIMCO, NVIL])
def test_reparameterised_draws_reach_the_posterior(make):
    network = Gaussian(2)
    x = 2**0.5 * torch.randn(256)
    blackbox.fit(make(network, GaussianModel()), [x], num_steps=400, batch_size=64, lr=0.02)
    assert network.slope.item() == pytest.approx(0.5, abs=0.05)
    assert network.log_scale.exp().item() == pytest.approx(0.5**0.5, abs=0.05)


def test_baseline_of_nvil_is_trained():
    net = nn.Linear(2, 1)
    loss = NVIL(TinyNetwork(), TinyModel(), baseline=net)
    assert list(loss.networks()) == ["inference_network", "generative_model", "baseline"]
    assert list(NVIL(TinyNetwork(), TinyModel()).networks()) == ["inference_network", "generative_model"]
    blackbox.fit(loss, [DATA.repeat(20, 1)], num_steps=300, lr=0.02)
    with torch.no_grad():
        guessed = loss.baseline(DATA)
        bounds = -torch.tensor([loss([row.expand(500, 2)]).item() for row in DATA])
    assert torch.allclose(guessed, bounds, atol=0.3)


def test_errors():
    network, model = TinyNetwork(1), TinyModel()
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        TinyNetwork(0)
    with pytest.raises(ValueError, match="VIMCO needs at least 2 samples per datum, got 1"):
        VIMCO(network, model)
    with pytest.raises(TypeError, match="inference_network must be an InferenceNetwork, got TinyModel"):
        ELBO(model, network)
    with pytest.raises(TypeError, match="generative_model must be a GenerativeModel, got TinyNetwork"):
        ELBO(network, network)
    loss = ELBO(network, model)
    with pytest.raises(TypeError, match=r"write \[x\] for one tensor"):
        loss(DATA)
    with pytest.raises(ValueError, match="the same number of rows"):
        loss([DATA, DATA[:2]])
    with pytest.raises(TypeError, match="abstract"):
        InferenceNetwork()
    with pytest.raises(ValueError, match="control_variate must be"):
        VIMCO(network, model, control_variate="mean", num_samples=2)([DATA])


def test_wrong_shapes_and_gradients_are_refused():
    class Summed(TinyModel):
        def log_prob(self, data, latents):
            return super().log_prob(data, latents).sum(1)

    with pytest.raises(ValueError, match=r"log_prob of the generative_model must be \[batch, samples\] = \(4, 2\)"):
        ELBO(TinyNetwork(), Summed())([DATA])
    x = torch.zeros(3)
    network = Gaussian()
    network.reparameterised = False
    with pytest.raises(ValueError, match="draws of Gaussian carry gradients"):
        ELBO(network, GaussianModel())([x])
    liar = TinyNetwork()
    liar.reparameterised = True
    with pytest.raises(ValueError, match="its draws carry no gradient"):
        ELBO(liar, TinyModel())([DATA])
