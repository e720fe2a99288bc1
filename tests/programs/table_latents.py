"""Pairs for the table: enumeration, latents of one program, names, parameters, layers."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from table_pairs import Pair, counts, four, marginal, numbers, posterior, row, rows, simple, standard, unit

WEIGHTS, LOCS = torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([-1.0, 2.0], dtype=torch.float64)


def beside(name="v", **infer):
    """A draw of the guide that the model does not have."""
    pair = simple(four)

    def guide(x):
        with rows(x):
            v = pyro.sample(name, dist.Normal(x, 2.0), infer=infer)
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x + 0 * v, 0.5**0.5))

    return pair._replace(guide=guide)


def missing(**infer):
    def model(x):
        with rows(x):
            u = pyro.sample("u", dist.Bernoulli(0.5), infer=infer)
            pyro.sample("x", unit(pyro.sample("z", standard()) + u), obs=x)

    def exact(x):
        return torch.logaddexp(marginal(x), marginal(x - 1)) - torch.tensor(2.0).log()

    return simple(four)._replace(model=model, exact=exact if infer else None, atol=0.6)


row(beside, "auxiliary draw", is_auxiliary=True)
row(beside, "draw of the guide alone")
row(missing, "latent that the guide lacks")
row(missing, "enumerated latent", enumerate="parallel")
row(missing, "latent summed from a few draws", enumerate="parallel", num_samples=5)
row(missing, "latent enumerated sequentially", enumerate="sequential")


def chain(lengths=None, x=lambda: numbers(4, 3)):
    """A hidden Markov model, perhaps with a mask over what is beyond the end."""
    stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    ends = None if lengths is None else torch.tensor(lengths)

    @config_enumerate
    def model(x):
        y = torch.tensor(0)
        with rows(x):
            z = pyro.sample("z", standard())
            for t in pyro.markov(range(3)):
                with poutine.mask(mask=True if ends is None else t < ends):
                    y = pyro.sample(f"y_{t}", dist.Categorical(stay[y]))
                    pyro.sample(f"x_{t}", dist.Normal(z + LOCS[y], 1.0), obs=x[:, t])

    def guide(x):
        with rows(x):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.25)) * x.sum(1), 0.8))

    def exact(x):
        z = torch.linspace(-8, 8, 2001)
        total = standard().log_prob(z) + torch.tensor(16 / 2000).log()
        alpha = torch.tensor([0.0, -torch.inf]).expand(len(x), 2001, 2)
        for t in range(3):
            new = (alpha.unsqueeze(-1) + stay.log()).logsumexp(-2)
            new = new + dist.Normal(z.unsqueeze(-1) + LOCS, 1.0).log_prob(x[:, t, None, None])
            alpha = new if ends is None else torch.where((t < ends)[:, None, None], new, alpha)
        return (alpha.logsumexp(-1) + total).logsumexp(-1)

    return Pair(model, guide, x(), exact, 0.6)


row(chain, "Markov chain")
row(chain, "Markov chain, one row", x=lambda: numbers(1, 3))
row(chain, "Markov chains of several lengths", [3, 1, 2, 3])


def discrete(mark=None):
    """A class that the guide draws, and one that the model sums out."""

    def model(x):
        with rows(x):
            v = pyro.sample("v", dist.Categorical(WEIGHTS), infer={"enumerate": mark})
            y = pyro.sample(
                "y", dist.Categorical(torch.stack([WEIGHTS, 1 - WEIGHTS])[v]), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(LOCS[y] + v, 1.0), obs=x)

    def guide(x):
        with rows(x):
            probs = pyro.param("p", torch.tensor([0.4, 0.6]), dist.constraints.simplex)
            pyro.sample("v", dist.Categorical(probs), infer={"enumerate": mark})

    def exact(x):
        v, y = torch.tensor([0.0, 1.0])[:, None], LOCS
        joint = WEIGHTS.log()[:, None] + torch.stack([WEIGHTS, 1 - WEIGHTS]).log()
        return (joint + dist.Normal(y + v, 1.0).log_prob(x[:, None, None])).flatten(1).logsumexp(1)

    return Pair(model, guide, four(), exact, 0.3, path=False)


for mark in (None, "parallel", "sequential"):
    row(discrete, f"discrete guide, {mark}", mark)


def deterministic(where):
    def model(x):
        with rows(x):
            z = pyro.sample("z", standard())
            z = pyro.deterministic("w", z + 0.0) if where == "model" else z
            pyro.sample("x", unit(z), obs=x)
        if where == "outside":
            pyro.deterministic("w", z.sum())

    def guide(x):
        with rows(x):
            z = pyro.sample("z", posterior(x))
            if where == "guide":
                pyro.deterministic("w", z)

    return Pair(model, guide, four(), marginal)


for where in ("model", "guide", "outside"):
    row(deterministic, f"deterministic: {where}", where)


def parameters(*names):
    """Parameters whose names say something else to torch."""
    pair = simple(four)

    def guide(x):
        product = torch.ones(())
        for name in names:
            product = product * pyro.param(name, torch.ones(()))
        with rows(x):
            pyro.sample("z", dist.Normal(product * x / 2, 0.5**0.5))

    return pair._replace(guide=guide)


row(parameters, "names of parameters", "values", "a.b", "a/b", "training", "model")


def renamed(suffix):
    def model(x):
        with pyro.plate(f"rows{suffix}", len(x)):
            z = pyro.sample(f"z{suffix}", standard())
            pyro.sample(f"x{suffix}", unit(z), obs=x)

    def guide(x):
        with pyro.plate(f"rows{suffix}", len(x)):
            pyro.sample(f"z{suffix}", posterior(x))

    return Pair(model, guide, four(), marginal)


row(renamed, "names with dots", ".of.all")
row(renamed, "names with slashes", "/of/all")
row(simple, "counts of one class", counts(0, 0, 0), likelihood=lambda z: dist.Bernoulli(logits=z), exact=None,
    show=lambda x: x.to(torch.get_default_dtype()))  # fmt: skip


def rows_of_parameters():
    pair = simple(four)

    def guide(x):
        with rows(x):
            mean = pyro.param("mean", lambda: x / 2, event_dim=0)
            pyro.sample("z", dist.Normal(mean, 0.5**0.5))

    return pair._replace(guide=guide)


row(rows_of_parameters, "parameters of each row")


def layers(upwards):
    def model(x):
        with rows(x):
            u = pyro.sample("u", standard())
            z = pyro.sample("z", dist.Normal(u, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        a = pyro.param("a", torch.tensor(1.0))
        with rows(x):
            if upwards:
                z = pyro.sample("z", dist.Normal(a * 2 * x / 3, (2 / 3) ** 0.5))
                pyro.sample("u", dist.Normal(z / 2, 0.5**0.5))
            else:
                u = pyro.sample("u", dist.Normal(a * x / 3, (2 / 3) ** 0.5))
                pyro.sample("z", dist.Normal((x + u) / 2, 0.5**0.5))

    return Pair(model, guide, four(), lambda x: marginal(x, 3.0))


row(layers, "layers upwards", True)
row(layers, "layers downwards", False)
