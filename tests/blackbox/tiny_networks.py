"""A discrete model small enough to sum over, as networks and as tables written apart from them."""

import itertools

import torch
from torch import nn
from torch.distributions import Bernoulli

from pyrovae.blackbox import GenerativeModel, InferenceNetwork

BITS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
"""All values of the latents: the first is a tensor [batch, samples], the other two one [batch, samples, 2]."""
DATA = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))
"""All values of a datum."""


class TinyModel(GenerativeModel):
    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.tensor([0.3, -0.5, 0.8]))
        self.weight = nn.Parameter(torch.tensor([[1.2, -0.7], [0.4, 0.9], [-1.1, 0.6]]))

    def parameterise(self, data, latents):
        return {"logits": torch.cat([latents[0].unsqueeze(-1), latents[1]], -1) @ self.weight}

    def sample(self, num_samples=1):
        z = self.prior.sigmoid().expand(num_samples, 1, 3).bernoulli()
        x = (z @ self.weight).squeeze(1).sigmoid().bernoulli()
        return [x], [z[..., 0], z[..., 1:]]

    def log_prob(self, data, latents):
        prior = Bernoulli(logits=self.prior[0]).log_prob(latents[0])
        prior = prior + Bernoulli(logits=self.prior[1:]).log_prob(latents[1]).sum(-1)
        return prior + Bernoulli(logits=self.params_["logits"]).log_prob(data[0].unsqueeze(1)).sum(-1)


class TinyNetwork(InferenceNetwork):
    """The second latent depends on the first."""

    def __init__(self, num_samples=2):
        super().__init__(num_samples)
        self.first = nn.Parameter(torch.tensor([0.5, -0.3]))
        self.second = nn.Parameter(torch.tensor([[0.2, -0.6], [0.7, 0.1]]))
        self.link = nn.Parameter(torch.tensor([0.9, -0.4]))

    def parameterise(self, data):
        return {"first": data[0] @ self.first, "second": data[0] @ self.second}

    def conditional(self, first):
        return Bernoulli(logits=self.params_["second"].unsqueeze(1) + first.unsqueeze(-1) * self.link)

    def sample(self, num_samples=None):
        first = self.params_["first"].unsqueeze(1).expand(-1, num_samples or self.num_samples).sigmoid().bernoulli()
        return [value.detach() for value in (first, self.conditional(first).sample())]

    def log_prob(self, latents):
        first = Bernoulli(logits=self.params_["first"].unsqueeze(1)).log_prob(latents[0])
        return first + self.conditional(latents[0]).log_prob(latents[1]).sum(-1)


def tables(network, model):
    """Log p(x, z) and log q(z | x) as tables `[4, 8]` over data and latents, by plain arithmetic."""

    def log_bernoulli(probability, value):
        return (probability * value + (1 - probability) * (1 - value)).log()

    prior = log_bernoulli(model.prior.sigmoid(), BITS).sum(-1)
    likelihood = log_bernoulli((BITS @ model.weight).sigmoid(), DATA.unsqueeze(1)).sum(-1)
    first = log_bernoulli((DATA @ network.first).sigmoid().unsqueeze(1), BITS[:, 0])
    logits = (DATA @ network.second).unsqueeze(1) + BITS[:, :1] * network.link
    return prior + likelihood, first + log_bernoulli(logits.sigmoid(), BITS[:, 1:]).sum(-1)


def exact_gradients(loss_name, network, model, num_samples):
    """Gradients of the mean loss over the four data, every tuple of draws summed over; by parameter name."""
    log_p, log_q = tables(network, model)
    picks = torch.cartesian_prod(*[torch.arange(len(BITS))] * num_samples).reshape(-1, num_samples)
    p, q = log_p[:, picks], log_q[:, picks]  # [4, tuples, K]
    mass = q.sum(-1).exp()
    weight = p.exp() / q.exp()
    if loss_name == "ELBO":
        target = (log_q.exp() * (log_p - log_q)).sum(-1)
    elif loss_name in ("IWAE", "VIMCO", "NVIL"):
        target = (mass * weight.mean(-1).log()).sum(-1)
    elif loss_name == "WakeP":
        target = (mass.detach() * (p.exp() / q.exp().detach()).mean(-1).log()).sum(-1)
    elif loss_name == "WakeQ":
        share = (weight / weight.sum(-1, keepdim=True)).detach()
        target = (mass.detach() * (share * q).sum(-1)).sum(-1)
    else:  # SleepQ: data come from the model, not from outside
        target = 4 * (log_p.exp().detach() * log_q).sum(-1)
    parameters = {**dict(network.named_parameters()), **dict(model.named_parameters())}
    gradients = torch.autograd.grad(-target.mean(), list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, gradients, strict=True))
