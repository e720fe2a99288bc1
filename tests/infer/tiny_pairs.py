"""Tiny pairs, each written as Pyro programs and as tables of densities in plain tensors.

All parameters of the programs carry a row dimension, so that one backward pass gives the gradient of every draw of a
batch. Where latents are continuous the tables are quadrature nodes of their noise, and `fixed` gives the parameters by
which log q is to be scored, if they are not those that the latents are drawn with (sticking the landing).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from enumeration import Atoms, Case, Values, bernoulli, bits, logistic, logistic_nodes, nodes, normal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.nn.variables import RelaxedBits, RelaxedOneHot


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


def gaussian_atoms(v: Values, x: Tensor, fixed: Values | None = None) -> Atoms:
    noise, weight = nodes(40)
    z = v["level"] + v["slope"] * x + v["log_scale"].exp() * noise
    q = fixed or v
    log_q = normal(z, q["level"] + q["slope"] * x, q["log_scale"].exp())
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


def hierarchical_atoms(v: Values, x: Tensor, fixed: Values | None = None) -> Atoms:
    noise, weight = nodes(16)
    first, second = torch.cartesian_prod(noise, noise).unbind(1)
    z1 = v["level1"] + v["slope1"] * x + v["log_scale1"].exp() * first
    z2 = v["level2"] + v["slope2"] * z1 + v["log_scale2"].exp() * second
    prior = normal(z2, v["prior"], 1.0) + normal(z1, v["weight2"] * z2, 1.0)
    likelihood = normal(x, v["weight1"] * z1 + v["offset"], 1.0)
    q = fixed or v
    log_q = normal(z1, q["level1"] + q["slope1"] * x, q["log_scale1"].exp())
    log_q = log_q + normal(z2, q["level2"] + q["slope2"] * z1, q["log_scale2"].exp())
    return Atoms(torch.outer(weight, weight).flatten(), likelihood, prior, log_q)


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


TEMPERATURE = 0.75  # the same in every floating-point type


def relaxed_programs(variable: RelaxedBits | RelaxedOneHot) -> tuple[type[Program], type[Program]]:
    """One concrete bit, or one variable of two classes, behind two bits of data."""

    def logits(value: Tensor) -> Tensor:
        return value.unsqueeze(-2) if isinstance(variable, RelaxedOneHot) else value

    class Model(Program):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", variable(logits(self.prior)))
                sample_bits("x", affine(self.weight, self.offset, variable.features(z)), obs=x)

    class Guide(Program):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", variable(logits(affine(self.slope, self.level, x))))

    return Model, Guide


def relaxed_atoms(v: Values, x: Tensor, straight_through: bool) -> Atoms:
    """Two classes are one bit whose logit is the difference of theirs."""
    prior, location = v["prior"], v["slope"] @ x + v["level"]
    classes = len(prior)
    prior, location = (-value.diff() if classes == 2 else value for value in (prior, location))
    noise, weight = logistic_nodes(60, split=-float(location.detach()))
    z = (location + noise) / TEMPERATURE
    bit = 1 / (1 + torch.exp(-z))
    if straight_through:
        bit = (z > 0).double() + bit - bit.detach()
    seen = torch.stack([bit, 1 - bit], 1) if classes == 2 else bit[:, None]
    log_prior, log_q = (logistic(z, value, TEMPERATURE) for value in (prior, location))
    return Atoms(weight, bernoulli(x, seen @ v["weight"].T + v["offset"]), log_prior, log_q)


def relaxed_case(one_hot: bool, straight_through: bool) -> Case:
    variable = (RelaxedOneHot if one_hot else RelaxedBits)(TEMPERATURE, straight_through=straight_through)
    size = 2 if one_hot else 1
    return case(
        *relaxed_programs(variable),
        partial(relaxed_atoms, straight_through=straight_through),
        [[1.0, 0.0], [1.0, 1.0]],
        {
            "prior": [0.3, -0.2][:size],
            "weight": [row[:size] for row in ([1.4, -0.8], [-1.1, 0.5])],
            "offset": [-0.4, 0.2],
        },
        {"level": [0.2, 0.5][:size], "slope": [[0.8, -0.6], [-0.3, 0.4]][:size]},
    )


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
    "concrete": relaxed_case(one_hot=False, straight_through=False),
    "gumbel-softmax": relaxed_case(one_hot=True, straight_through=False),
    "straight-through bit": relaxed_case(one_hot=False, straight_through=True),
    "straight-through one-hot": relaxed_case(one_hot=True, straight_through=True),
}
