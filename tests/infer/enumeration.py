"""Exact gradients of multi-sample bounds on tiny pairs: every tuple of latents, or of quadrature nodes, is summed over.

The pairs are in tiny_pairs.py, each written twice: as Pyro programs, and as tables of densities in plain tensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from pyro.nn import PyroModule
from torch import Tensor

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
    atoms: Callable[..., Atoms]
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


def path_gradients(case: Case, count: int) -> Values:
    """The gradient of the importance-weighted bound without the derivative of log q by its own parameters."""
    fixed = {name: value.clone() for name, value in case.values.items()}

    def objective(values: Values, x: Tensor) -> tuple[Tensor, Tensor]:
        bound = renyi_bound(case.atoms(values, x, fixed), count)
        return bound, bound

    return gradients(case, objective)


def wake_sleep_gradients(case: Case, count: int, wake_phi: float, sleep_phi: float, defensive: float = 0.0) -> Values:
    """What reweighted wake-sleep follows: wake-theta for the model, wake-phi and sleep-phi for the guide."""

    def objective(values: Values, x: Tensor) -> tuple[Tensor, Tensor]:
        theta, phi = wake(case.atoms(values, x), count, defensive)
        return theta, wake_phi * phi + sleep_phi * sleep(case, values)

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


def logistic(value: Tensor, location: Tensor, temperature: float) -> Tensor:
    """Log density of the logit of a concrete bit: logistic of location / temperature and scale 1 / temperature."""
    centred = torch.as_tensor(temperature * value - location)
    return math.log(temperature) - centred - 2 * torch.log(1 + torch.exp(-centred))


def logistic_nodes(count: int, split: float) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights for standard logistic noise, for functions that may jump at `split`."""
    point, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(count))
    ends = [(-40.0, split), (split, 40.0)]
    noise = torch.cat([(low + high) / 2 + (high - low) / 2 * point for low, high in ends])
    area = torch.cat([(high - low) / 2 * weight for low, high in ends])
    return noise, area * logistic(noise, torch.zeros(()), 1.0).exp()
