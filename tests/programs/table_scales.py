"""Pairs for the table: masks, scales, factors."""

from __future__ import annotations

from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from table_pairs import Pair, crossed, four, marginal, nothing, numbers, of_rows, posterior, row, rows, simple, unit

SEEN = torch.tensor([True, False, True, False])
WEIGHTS = torch.tensor([0.5, 1.5, 2.5, 3.5], dtype=torch.float64)


def seen_alone(x):
    return torch.where(SEEN, marginal(x), 0.0)


def masked(*sites):
    return lambda site, x: poutine.mask(mask=SEEN[: len(x)]) if site in sites else nothing()


def scaled(scale, *sites):
    return lambda site, x: poutine.scale(scale=scale) if site in sites else nothing()


row(simple, "mask of all", four, in_model=masked("z", "x"), in_guide=masked("z"), exact=seen_alone)
row(simple, "mask of the data", four, in_model=masked("x"), exact=None)
row(simple, "mask of the prior", four, in_model=masked("z"), exact=None)
row(simple, "mask of the guide", four, in_guide=masked("z"), exact=None)
row(simple, "mask False", four, in_model=lambda site, x: poutine.mask(mask=site != "x"), exact=None)
row(simple, "mask True", four, in_model=lambda site, x: poutine.mask(mask=True))
for name, scale in {"number": 3.0, "tensor": torch.tensor(3.0, dtype=torch.float64), "row": WEIGHTS}.items():
    row(simple, f"{name} scale of all", four, in_model=scaled(scale, "z", "x"), in_guide=scaled(scale, "z"))
    row(simple, f"{name} scale of the data", four, in_model=scaled(scale, "x"))
    row(simple, f"{name} scale of the latent", four, in_model=scaled(scale, "z"), in_guide=scaled(scale, "z"))
    row(simple, f"{name} scale of the guide", four, in_guide=scaled(scale, "z"))
for name, dims in {"left": (-1, -2), "right": (-2, -1)}.items():
    show = torch.t if name == "left" else (lambda x: x)
    for kind, shape in {"rows": (4, 1), "steps": (3,), "entries": (4, 3)}.items():
        scale = 0.5 + torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
        scale = scale.reshape(3, 1) if name == "left" and kind == "steps" else show(scale)
        for sites in ("zx", "x"):
            row(
                simple,
                f"scale of the {kind} of {sites}, {name}",
                lambda: numbers(4, 3),
                exact=of_rows,
                plates=crossed(*dims),
                show=show,
                in_model=scaled(scale, *sites),
                in_guide=scaled(scale, *sites),
            )
        row(
            simple,
            f"mask of the {kind}, {name}",
            lambda: numbers(4, 3),
            exact=None,
            plates=crossed(*dims),
            show=show,
            in_model=lambda site, x, seen=scale % 2 < 1: poutine.mask(mask=seen),
            in_guide=lambda site, x, seen=scale % 2 < 1: poutine.mask(mask=seen),
        )


def around(handler):
    """A handler around both programs, or one of them."""
    pair = simple(four)
    return pair._replace(model=handler(pair.model), guide=handler(pair.guide))


row(around, "scale around both", lambda program: poutine.scale(program, scale=2.0))
row(around, "weights of rows around both", lambda program: poutine.scale(program, scale=WEIGHTS))


def around_model():
    pair = simple(four)
    return pair._replace(model=poutine.scale(pair.model, scale=2.0))


def with_missing(by):
    """NaN that the programs mask themselves, or that `obs_mask=` makes a latent."""

    def model(x):
        seen = ~x.isnan()
        with rows(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if by == "distribution":
                pyro.sample("x", unit(z).mask(seen), obs=x.nan_to_num())
            else:
                pyro.sample("x", unit(z), obs=x.nan_to_num(), obs_mask=seen)

    def guide(x):
        seen = ~x.isnan()
        with rows(x):
            a = pyro.param("a", torch.tensor(0.5))
            z = pyro.sample("z", dist.Normal(a * x.nan_to_num(), torch.where(seen, 0.5**0.5, 1.0)))
            if by == "both":
                with poutine.mask(mask=~seen):
                    pyro.sample("x_unobserved", unit(z))
            elif by == "model":
                pyro.sample("x_unobserved", unit(z))

    def exact(x):
        return torch.where(x.isnan(), 0.0, marginal(x.nan_to_num()))

    x = torch.where(SEEN, numbers(4), torch.nan)
    return Pair(model, guide, x, exact)


row(around_model, "scale around the model")
row(with_missing, "missing, mask of the distribution", "distribution")
row(with_missing, "missing, obs_mask in both", "both")
row(with_missing, "missing, obs_mask in the model", "model")


def missing_entries():
    def model(x):
        with rows(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0)).unsqueeze(-1)
            pyro.sample(
                "x", dist.Normal(z, 1.0).expand((*z.shape[:-1], 3)).mask(~x.isnan()).to_event(1), obs=x.nan_to_num()
            )

    def guide(x):
        count = (~x.isnan()).sum(1)
        with rows(x):
            mean = pyro.param("a", torch.tensor(1.0)) * x.nan_to_num().sum(1) / (count + 1)
            pyro.sample("z", dist.Normal(mean, (count + 1.0) ** -0.5))

    def exact(x):
        kept = [row[~row.isnan()] for row in x]
        normals = [dist.MultivariateNormal(torch.zeros(len(k)), torch.eye(len(k)) + 1) for k in kept if len(k)]
        values = iter([fn.log_prob(k) for fn, k in zip(normals, [k for k in kept if len(k)], strict=True)])
        return torch.stack([next(values) if len(k) else torch.zeros(()) for k in kept])

    x = numbers(4, 3)
    x[1, 1] = x[2] = torch.nan
    return Pair(model, guide, x, exact)


row(missing_entries, "missing entries")


def factors(where, reparameterised=True, scaled=False):
    """A factor in the model or the guide, within the plate or outside of it."""

    def model(x):
        with rows(x), poutine.scale(scale=2.0 if scaled else 1.0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", unit(z), obs=x)
            if where == "model":
                pyro.factor("f", -z.square() * pyro.param("b"))
        if where == "outside the model":
            pyro.factor("f", -pyro.param("b").square())

    def guide(x):
        with ExitStack() as stack:
            stack.enter_context(poutine.scale(scale=2.0 if scaled else 1.0))
            stack.enter_context(rows(x))
            z = pyro.sample("z", posterior(x))
            if where == "guide":
                pyro.factor("f", pyro.param("a") * z, has_rsample=reparameterised)
            elif where == "observed":
                pyro.sample("f", dist.Normal(z * pyro.param("a"), 1.0), obs=x, infer={"is_auxiliary": True})
        if where == "outside the guide":
            pyro.factor("f", pyro.param("a").square(), has_rsample=reparameterised)

    exact = marginal if where in ("guide", "observed", "outside the guide") else None
    return Pair(model, guide, four(), exact)


for where in ("model", "outside the model", "guide", "outside the guide", "observed"):
    row(factors, f"factor: {where}", where)
    row(factors, f"factor: {where}, scaled", where, scaled=True)
row(factors, "factor: guide, not reparameterised", "guide", False)
