"""Exact gradients of multi-sample bounds on tiny pairs: every tuple of latents, or of quadrature nodes, is summed over.

A pair is written twice, as Pyro programs and as tables of densities in plain tensors. All parameters of the programs
carry a row dimension, so that one backward pass gives the gradient of every draw of a batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

Values = dict[str, Tensor]


class Atoms(NamedTuple):
    """The values that the latents of one datum can take, or nodes of their noise; each field `[A]`."""

    mass: Tensor
    """Probability under the guide (or weight of a node times that of the discrete latents), summing to 1."""
    log_likelihood: Tensor
    log_prior: Tensor
    log_q: Tensor

    def log_weight(self, beta: float = 1.0) -> Tensor:
        return self.log_likelihood + beta * (self.log_prior - self.log_q)


class Case(NamedTuple):
    """A pair in both forms, with parameters and two data."""

    model: type[PyroModule]
    guide: type[PyroModule]
    atoms: Callable[[Values, Tensor], Atoms]
    values: Values
    """Parameters, without the row dimension."""
    x: Tensor
    """`[2, ...]`"""
    model_names: frozenset[str]

    def programs(self, rows: int) -> tuple[PyroModule, PyroModule]:
        model = {name: value for name, value in self.values.items() if name in self.model_names}
        guide = {name: value for name, value in self.values.items() if name not in self.model_names}
        return self.model(model, rows), self.guide(guide, rows)

    def data(self, rows: int) -> Tensor:
        return self.x.repeat(rows // len(self.x), *[1] * (self.x.dim() - 1))


# -- exact objectives -------------------------------------------------------------------------------------------------


def tuples(mass: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """All K-tuples of atoms, `[T, K]`, and their probability, `[T]`."""
    index = torch.cartesian_prod(*[torch.arange(len(mass))] * count).reshape(-1, count)
    return index, mass[index].prod(1)


def renyi_bound(atoms: Atoms, count: int, alpha: float = 0.0, beta: float = 1.0) -> Tensor:
    """The expectation of the bound of order alpha; 0 is the importance-weighted bound, 1 the ELBO."""
    index, probability = tuples(atoms.mass, count)
    log_weight = atoms.log_weight(beta)[index]
    if alpha == 1:
        return (probability * log_weight.mean(1)).sum()
    order = 1 - alpha
    return (probability * (torch.logsumexp(order * log_weight, 1) - math.log(count)) / order).sum()


def wake(atoms: Atoms, count: int, defensive: float = 0.0) -> tuple[Tensor, Tensor]:
    """Surrogates whose gradients are those of wake-theta (by the model) and wake-phi (by the guide)."""
    proposal = ((1 - defensive) * atoms.mass + defensive / len(atoms.mass)).detach()
    index, probability = tuples(proposal, count)
    weight = ((atoms.log_likelihood + atoms.log_prior).exp() / proposal)[index]
    theta = (probability * weight.mean(1).log()).sum()
    share = (weight / weight.sum(1, keepdim=True)).detach()
    return theta, (probability * (share * atoms.log_q[index]).sum(1)).sum()


def sleep(case: Case, values: Values) -> Tensor:
    """The expectation under the joint of the model of log q, whose gradient by the guide is that of sleep-phi."""
    total = torch.zeros((), dtype=torch.float64)
    for x in bits(case.x.shape[1]):
        atoms = case.atoms(values, x)
        total = total + ((atoms.log_likelihood + atoms.log_prior).exp().detach() * atoms.log_q).sum()
    return total


def gradients(case: Case, objective: Callable[[Values, Tensor], tuple[Tensor, Tensor]]) -> Values:
    """The exact gradient of every parameter, averaged over the two data.

    `objective(values, x)` gives what the model and what the guide climbs; for a single bound they are the same.
    """
    values = {name: value.clone().requires_grad_() for name, value in case.values.items()}
    result = {name: torch.zeros_like(value) for name, value in case.values.items()}
    for x in case.x:
        for_model, for_guide = objective(values, x)
        for climbed, names in (
            (for_model, [name for name in values if name in case.model_names]),
            (for_guide, [name for name in values if name not in case.model_names]),
        ):
            parts = torch.autograd.grad(climbed, [values[name] for name in names], retain_graph=True)
            for name, part in zip(names, parts, strict=True):
                result[name] += part / len(case.x)
    return result


def bound_gradients(case: Case, count: int, alpha: float = 0.0, beta: float = 1.0) -> Values:
    """The exact gradient of a bound, averaged over the two data."""

    def objective(values: Values, x: Tensor) -> tuple[Tensor, Tensor]:
        bound = renyi_bound(case.atoms(values, x), count, alpha, beta)
        return bound, bound

    return gradients(case, objective)


# -- densities in plain tensors ---------------------------------------------------------------------------------------


def bits(count: int) -> Tensor:
    """All binary vectors, `[2 ** count, count]`."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def bernoulli(value: Tensor, logits: Tensor) -> Tensor:
    probability = 1 / (1 + torch.exp(-logits))
    return torch.where(value > 0.5, probability, 1 - probability).log().sum(-1)


def normal(value: Tensor, mean: Tensor, scale: Tensor | float) -> Tensor:
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return -((value - mean) ** 2) / (2 * scale**2) - scale.log() - math.log(2 * math.pi) / 2


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes and weights for a standard normal."""
    point, weight = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(point), torch.from_numpy(weight / weight.sum())


# -- the pairs --------------------------------------------------------------------------------------------------------


class Program(PyroModule):
    """Parameters with a row for each datum."""

    def __init__(self, values: Values, rows: int) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, nn.Parameter(value.expand(rows, *value.shape).clone()))


def affine(weight: Tensor, offset: Tensor, value: Tensor) -> Tensor:
    """Each row with a matrix of its own."""
    return (weight * value.unsqueeze(-2)).sum(-1) + offset


def sample_bits(name: str, logits: Tensor, obs: Tensor | None = None) -> Tensor:
    return pyro.sample(name, dist.Bernoulli(logits=logits).to_event(1), obs=obs)


class ThreeBitsModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = sample_bits("z", self.prior)
            sample_bits("x", affine(self.weight, self.offset, z), obs=x)


class ThreeBitsGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            sample_bits("z", affine(self.slope, self.level, x))


def three_bits_atoms(v: Values, x: Tensor) -> Atoms:
    z = bits(3)
    log_q = bernoulli(z, (v["slope"] @ x + v["level"]).expand(8, 3))
    return Atoms(log_q.exp(), bernoulli(x, z @ v["weight"].T + v["offset"]), bernoulli(z, v["prior"]), log_q)


class TwoLayersModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = sample_bits("z2", self.prior)
            z1 = sample_bits("z1", affine(self.weight2, self.offset2, z2))
            sample_bits("x", affine(self.weight1, self.offset1, z1), obs=x)


class TwoLayersGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z1 = sample_bits("z1", affine(self.slope1, self.level1, x))
            sample_bits("z2", affine(self.slope2, self.level2, z1))


def two_layers_atoms(v: Values, x: Tensor) -> Atoms:
    z1, z2 = bits(3).split((2, 1), 1)
    log_q = bernoulli(z1, v["slope1"] @ x + v["level1"]) + bernoulli(z2, z1 @ v["slope2"].T + v["level2"])
    prior = bernoulli(z2, v["prior"]) + bernoulli(z1, z2 @ v["weight2"].T + v["offset2"])
    return Atoms(log_q.exp(), bernoulli(x, z1 @ v["weight1"].T + v["offset1"]), prior, log_q)


class GaussianModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.prior, 1.0))
            pyro.sample("x", dist.Normal(self.weight * z + self.offset, 1.0), obs=x)


class GaussianGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.level + self.slope * x, self.log_scale.exp()))


def gaussian_atoms(v: Values, x: Tensor) -> Atoms:
    noise, weight = nodes(40)
    scale = v["log_scale"].exp()
    z = v["level"] + v["slope"] * x + scale * noise
    log_q = normal(z, v["level"] + v["slope"] * x, scale)
    return Atoms(weight, normal(x, v["weight"] * z + v["offset"], 1.0), normal(z, v["prior"], 1.0), log_q)


class HierarchicalModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(self.prior, 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.weight2 * z2, 1.0))
            pyro.sample("x", dist.Normal(self.weight1 * z1 + self.offset, 1.0), obs=x)


class HierarchicalGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(self.level1 + self.slope1 * x, self.log_scale1.exp()))
            pyro.sample("z2", dist.Normal(self.level2 + self.slope2 * z1, self.log_scale2.exp()))


def hierarchical_atoms(v: Values, x: Tensor) -> Atoms:
    noise, weight = nodes(16)
    first, second = torch.cartesian_prod(noise, noise).unbind(1)
    mean1, scale1 = v["level1"] + v["slope1"] * x, v["log_scale1"].exp()
    z1 = mean1 + scale1 * first
    mean2, scale2 = v["level2"] + v["slope2"] * z1, v["log_scale2"].exp()
    z2 = mean2 + scale2 * second
    prior = normal(z2, v["prior"], 1.0) + normal(z1, v["weight2"] * z2, 1.0)
    likelihood = normal(x, v["weight1"] * z1 + v["offset"], 1.0)
    return Atoms(
        torch.outer(weight, weight).flatten(), likelihood, prior, normal(z1, mean1, scale1) + normal(z2, mean2, scale2)
    )


class BitFirstModel(Program):
    """A bit, then a normal latent around a mean that depends on it."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(logits=self.prior))
            z = pyro.sample("z", dist.Normal(self.mean * b, 1.0))
            pyro.sample("x", dist.Normal(self.weight * z + self.jump * b, 1.0), obs=x)


class BitFirstGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(logits=self.level + self.slope * x))
            pyro.sample("z", dist.Normal(self.gain * x + self.shift * b, self.log_scale.exp()))


def bit_first_atoms(v: Values, x: Tensor) -> Atoms:
    noise, weight = nodes(24)
    b = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(24)
    log_b = bernoulli(b[:, None], (v["level"] + v["slope"] * x).expand(48, 1))
    mean, scale = v["gain"] * x + v["shift"] * b, v["log_scale"].exp()
    z = mean + scale * noise.repeat(2)
    prior = bernoulli(b[:, None], v["prior"].expand(48, 1)) + normal(z, v["mean"] * b, 1.0)
    likelihood = normal(x, v["weight"] * z + v["jump"] * b, 1.0)
    return Atoms(log_b.exp() * weight.repeat(2), likelihood, prior, log_b + normal(z, mean, scale))


class NormalFirstModel(Program):
    """A normal latent, then a bit whose probability depends on it."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.mean, 1.0))
            b = pyro.sample("b", dist.Bernoulli(logits=self.prior * z))
            pyro.sample("x", dist.Normal(self.weight * z + self.jump * b, 1.0), obs=x)


class NormalFirstGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.gain * x, self.log_scale.exp()))
            pyro.sample("b", dist.Bernoulli(logits=self.level + self.slope * z))


def normal_first_atoms(v: Values, x: Tensor) -> Atoms:
    noise, weight = nodes(24)
    b = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat_interleave(24)
    mean, scale = v["gain"] * x, v["log_scale"].exp()
    z = mean + scale * noise.repeat(2)
    log_b = bernoulli(b[:, None], (v["level"] + v["slope"] * z)[:, None])
    prior = bernoulli(b[:, None], (v["prior"] * z)[:, None]) + normal(z, v["mean"], 1.0)
    likelihood = normal(x, v["weight"] * z + v["jump"] * b, 1.0)
    return Atoms(log_b.exp() * weight.repeat(2), likelihood, prior, log_b + normal(z, mean, scale))


def case(
    model: type[Program], guide: type[Program], atoms: Callable, x: list, for_model: dict, for_guide: dict
) -> Case:
    values = {n: torch.tensor(v, dtype=torch.float64) for n, v in {**for_model, **for_guide}.items()}
    return Case(model, guide, atoms, values, torch.tensor(x, dtype=torch.float64), frozenset(for_model))


THREE_BITS = case(
    ThreeBitsModel,
    ThreeBitsGuide,
    three_bits_atoms,
    [[1.0, 0.0], [1.0, 1.0]],
    {"prior": [0.3, -0.5, 0.1], "weight": [[1.5, -1.0, 0.5], [-0.7, 0.9, 1.2]], "offset": [-0.4, 0.2]},
    {"level": [0.2, 0.4, -0.3], "slope": [[0.8, -0.6], [-0.5, 0.7], [0.3, 0.5]]},
)
TWO_LAYERS = case(
    TwoLayersModel,
    TwoLayersGuide,
    two_layers_atoms,
    [[1.0, 0.0], [0.0, 1.0]],
    {
        **{"prior": [0.4], "weight2": [[1.2], [-0.9]], "offset2": [-0.3, 0.5]},
        **{"weight1": [[1.5, -1.0], [-0.7, 1.1]], "offset1": [-0.2, 0.1]},
    },
    {
        **{"level1": [0.2, -0.4], "slope1": [[0.6, -0.5], [-0.8, 0.4]]},
        **{"level2": [0.3], "slope2": [[0.9, -0.7]]},
    },
)
GAUSSIAN = case(
    GaussianModel,
    GaussianGuide,
    gaussian_atoms,
    [0.7, -1.2],
    {"prior": 0.2, "weight": 0.9, "offset": -0.3},
    {"level": 0.3, "slope": 0.2, "log_scale": -0.1},
)
HIERARCHICAL = case(
    HierarchicalModel,
    HierarchicalGuide,
    hierarchical_atoms,
    [0.9, -0.6],
    {"prior": 0.3, "weight2": 0.8, "weight1": 1.1, "offset": -0.2},
    {"level1": 0.2, "slope1": 0.3, "log_scale1": -0.3, "level2": -0.1, "slope2": 0.7, "log_scale2": -0.2},
)
BIT_FIRST = case(
    BitFirstModel,
    BitFirstGuide,
    bit_first_atoms,
    [0.8, -0.5],
    {"prior": 0.4, "mean": 0.9, "weight": 0.8, "jump": -0.6},
    {"level": -0.2, "slope": 0.5, "gain": 0.3, "shift": 0.4, "log_scale": -0.2},
)
NORMAL_FIRST = case(
    NormalFirstModel,
    NormalFirstGuide,
    normal_first_atoms,
    [0.8, -0.5],
    {"prior": 1.2, "mean": 0.3, "weight": 0.8, "jump": -0.9},
    {"level": -0.2, "slope": 0.7, "gain": 0.4, "log_scale": -0.2},
)
CASES = {
    "three-bits": THREE_BITS,
    "two-layers": TWO_LAYERS,
    "gaussian": GAUSSIAN,
    "hierarchical": HIERARCHICAL,
    "bit-first": BIT_FIRST,
    "normal-first": NORMAL_FIRST,
}
