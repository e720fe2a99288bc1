"""Pairs for the table: plates, data, distributions. Each is built anew by a function, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


class Pair(NamedTuple):
    """A pair, its data, and what is known of it."""

    model: Callable
    guide: Callable
    x: Tensor
    exact: Callable | None = None
    """From the arguments to log p(x) of each row, given `condition`."""
    atol: float = 1e-6
    """Of the importance-sampled figure; where the guide is the posterior, none."""
    data: Mapping[str, Tensor] = MappingProxyType({})
    condition: Mapping[str, Tensor] = MappingProxyType({})
    path: bool = True
    """Whether a particle's gradient is that of `Trace_ELBO` at the same draws, not only in expectation."""


PAIRS: dict[str, Callable[[], Pair]] = {}


def row(function: Callable[..., Pair], name: str, *args: Any, **options: Any) -> None:
    PAIRS[name] = functools.partial(function, *args, **options)


def numbers(*shape):
    return torch.linspace(-1, 2, int(torch.Size(shape).numel())).sin().reshape(shape)


def nothing(*_):
    return nullcontext()


def rows(x):
    return pyro.plate("data", len(x))


def standard():
    return dist.Normal(0.0, 1.0)


def unit(z):
    return dist.Normal(z + pyro.param("b", torch.tensor(0.0)), 1.0)


def posterior(x):
    """Exact for `standard` and `unit`, and trained."""
    a, v = pyro.param("a", torch.tensor(0.5)), pyro.param("v", torch.tensor(0.5), dist.constraints.positive)
    return dist.Normal(a * x, v.sqrt())


def marginal(x, variance=2.0):
    return dist.Normal(0.0, variance**0.5).log_prob(x)


def mean_of(fn, shift=0.5):
    """A proposal for other pairs."""
    return lambda x: fn(pyro.param("a", torch.tensor(shift)) * x)


def simple(
    x,
    prior=standard,
    likelihood=unit,
    proposal=posterior,
    exact=marginal,
    *,
    plates=rows,
    in_model=nothing,
    in_guide=nothing,
    show=lambda x: x,
    **options,
):
    """One latent and one data site; `in_model` and `in_guide` give a context for each site."""

    def model(x):
        with plates(x):
            with in_model("z", x):
                z = pyro.sample("z", prior())
            with in_model("x", x):
                pyro.sample("x", likelihood(z), obs=show(x))

    def guide(x):
        with plates(x), in_guide("z", x):
            pyro.sample("z", proposal(show(x)))

    return Pair(model, guide, x() if callable(x) else x, exact, **options)


def four():
    return numbers(4)


row(simple, "basic", four)
row(simple, "one row", lambda: numbers(1))

# -- plates -----------------------------------------------------------------------------------------------------------


def crossed(dim, other, size=3):
    def plates(x):
        stack = ExitStack()
        for plate in (pyro.plate("data", len(x), dim=dim), pyro.plate("time", size, dim=other)):
            stack.enter_context(plate)
        return stack

    return plates


def of_rows(x):
    return marginal(x).sum(1)


for count in (4, 3, 1):
    for size in (3, 1):
        data = functools.partial(numbers, count, size)
        for side, dims in {"left": (-1, -2), "right": (-2, -1)}.items():
            show = torch.t if side == "left" else (lambda x: x)
            row(
                simple,
                f"{count} rows, {size} steps {side}",
                data,
                exact=of_rows,
                plates=crossed(*dims, size),
                show=show,
            )
row(simple, "plate at -3", four, plates=lambda x: pyro.plate("data", len(x), dim=-3), show=lambda x: x[:, None, None])
row(simple, "full size", four, plates=lambda x: pyro.plate("data", 10, subsample=torch.arange(len(x))))


def named(model_name, guide_name, x=four):
    def model(x):
        with pyro.plate(model_name, len(x)):
            z = pyro.sample("z", standard())
        with pyro.plate("again", len(x)):
            pyro.sample("x", unit(z), obs=x)

    def guide(x):
        with pyro.plate(guide_name, len(x)):
            pyro.sample("z", posterior(x))

    return Pair(model, guide, x(), marginal)


row(named, "three names of a plate", "rows", "data")
row(named, "three names of a plate, one row", "rows", "data", lambda: numbers(1))


def decorated():
    @pyro.plate("data", 4)
    def model(x):
        pyro.sample("x", unit(pyro.sample("z", standard())), obs=x)

    @pyro.plate("data", 4)
    def guide(x):
        pyro.sample("z", posterior(x))

    return Pair(model, guide, four(), marginal)


def by_index(vectorized):
    """Steps that a sequential plate goes through within or instead of the plate over the rows."""

    def model(x):
        with rows(x) if vectorized else nullcontext():
            for i in pyro.plate("steps", 3):
                z = pyro.sample(f"z_{i}", standard())
                pyro.sample(f"x_{i}", unit(z), obs=x[:, i] if vectorized else x[i])

    def guide(x):
        with rows(x) if vectorized else nullcontext():
            for i in pyro.plate("steps", 3):
                pyro.sample(f"z_{i}", posterior(x[:, i] if vectorized else x[i]))

    return Pair(model, guide, numbers(3, 3) if vectorized else numbers(3), of_rows if vectorized else None)


row(decorated, "plate as a decorator")
row(by_index, "sequential plate in the rows", True)
row(by_index, "sequential plate over the rows", False)


def without_plates(x=four):
    def model(x):
        pyro.sample("x", unit(pyro.sample("z", standard().expand([len(x)]))), obs=x)

    return Pair(model, lambda x: pyro.sample("z", posterior(x)), x(), marginal)


row(without_plates, "no plate")
row(without_plates, "no plate, one row", lambda: numbers(1))

# -- data -------------------------------------------------------------------------------------------------------------


def counts(*values):
    return lambda: torch.tensor(values)


def logs(x):
    return marginal(x.log()) - x.log()


def as_numbers(x):
    return x.to(torch.get_default_dtype())


row(simple, "integers", counts(1, 2, 0, 3), exact=lambda x: marginal(as_numbers(x)), show=as_numbers)
row(
    simple,
    "bool",
    counts(True, False, True),
    likelihood=lambda z: dist.Bernoulli(logits=z),
    exact=None,
    show=as_numbers,
)
row(simple, "log of x", lambda: four().exp(), exact=lambda x: marginal(x.log()), show=torch.log)
row(
    simple,
    "twice x",
    four,
    likelihood=lambda z: unit(2 * z),
    exact=lambda x: marginal(2 * x, 5.0),
    show=lambda x: 2 * x,
    atol=0.6,
)


def sum_of(x):
    return dist.MultivariateNormal(torch.zeros(x.shape[1]), torch.eye(x.shape[1]) + 1).log_prob(x)


def pieces(looks=False):
    """Several data sites, each the next piece of x; perhaps given the piece before."""

    def model(x):
        with rows(x):
            z = pyro.sample("z", standard())
            for t in range(3):
                pyro.sample(f"x.{t}", dist.Normal(z + (x[:, t - 1] if looks and t else 0.0), 1.0), obs=x[:, t])

    def guide(x):
        seen = torch.cat([x[:, :1], x.diff(dim=1)], 1) if looks else x
        with rows(x):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.25)) * seen.sum(1), 0.5))

    def exact(x):
        return sum_of(torch.cat([x[:, :1], x.diff(dim=1)], 1) if looks else x)

    return Pair(model, guide, numbers(4, 3), exact)


row(pieces, "pieces")
row(pieces, "teacher forcing", True)


def arguments(**data):
    """A covariate and options."""

    def model(x, y=None, **options):
        with rows(x):
            pyro.sample("x", unit(pyro.sample("z", standard()) + options.get("shift", 0.0) + y), obs=x)

    def guide(x, y=None, **options):
        with rows(x):
            pyro.sample("z", posterior(x - y - options.get("shift", 0.0)))

    given = {name: value() for name, value in data.items()}
    return Pair(model, guide, four(), lambda x, y, shift=0.0: marginal(x - y - shift), data=given)


row(arguments, "labels", y=counts(0, 1, 2, 1))
row(arguments, "labels and options", y=counts(0, 1, 2, 1), shift=lambda: torch.ones(4))
