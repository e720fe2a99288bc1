"""Log weights of a pair: one number per particle and per datum."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.programs import (
    Program,
    describe,
    global_means,
    is_global,
    is_objective_term,
    plate_nesting,
    sample_sites,
)

logger = logging.getLogger(__name__)

PARTICLES = "num_particles_vectorized"


class LogWeights(NamedTuple):
    """Log densities of a pair, each `[K, B]`: particles times batch, in nats."""

    log_p: Tensor
    """log p(x, z_k) under the model."""
    log_q: Tensor
    """log q(z_k | x) under the guide."""
    log_score: Tensor
    """The part of `log_q` from sites without reparameterised draws, which carries the score function."""

    @property
    def log_weight(self) -> Tensor:
        """The log weight, `log p(x, z_k) - log q(z_k | x)`."""
        return self.log_p - self.log_q


def log_weights(
    model: Program,
    guide: Program,
    num_particles: int,
    *args: Any,
    condition: Mapping[str, Tensor] | None = None,
    max_plate_nesting: int | None = None,
    vectorize: bool | None = None,
    weighted: bool = False,
    **kwargs: Any,
) -> LogWeights:
    r"""Draw particles from the guide and score them under guide and model, datum by datum.

    Masks of sites and distributions apply; the scale of a subsampling plate is divided out. The particles are one
    vectorised call where the pair allows it, and a loop otherwise.

    Args:
        model: the model program.
        guide: the guide program, of the same signature.
        num_particles: K.
        *args: arguments of both programs.
        condition: values of latent sites that are fixed instead of drawn, by name; their density is left out. The
            way to have global latent variables; None gives those that are marked so (`programs.is_global`) their
            posterior means, with a log line.
        max_plate_nesting: depth of the plates, if known; otherwise one more run finds it.
        vectorize: True and False insist on one way; None tries the vectorised call and falls back, with a log line.
        weighted: for an objective: keep the weight of latent sites relative to the observed ones (a KL weight), and add
            the guide's `objective_term`s to `log_p`; otherwise every site counts once, and these terms do not.
        **kwargs: keyword arguments of both programs.

    Raises:
        ValueError: if a site lies outside the data plate, or a latent site is missing from the guide.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> def guide(x):
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
    >>> log_weights(model, guide, 7, torch.zeros(3)).log_weight.shape
    torch.Size([7, 3])
    """
    if num_particles < 1:
        raise ValueError(f"num_particles must be at least 1, got {num_particles}")
    settings = {"max_plate_nesting": max_plate_nesting, "vectorize": vectorize, "weighted": weighted}
    try:
        return _log_weights(model, guide, num_particles, args, kwargs, condition, **settings)
    except OutsidePlateError:
        means = global_means(guide, *args, **kwargs) if condition is None else {}
        if not means:
            raise
    log_condition(means)
    return _log_weights(model, guide, num_particles, args, kwargs, means, **settings)


def log_condition(means: Mapping[str, Tensor]) -> None:
    """Say that global sites stand at their posterior means."""
    values = ", ".join(f"{name} = {value.tolist()}" for name, value in means.items())
    logger.info("global latents are fixed at their posterior means: %s; condition= chooses other values", values)


def _log_weights(
    model: Program,
    guide: Program,
    num_particles: int,
    args: tuple,
    kwargs: dict,
    condition: Mapping[str, Tensor] | None,
    *,
    max_plate_nesting: int | None,
    vectorize: bool | None,
    weighted: bool,
) -> LogWeights:
    model, guide = _conditioned(model, guide, condition)
    if num_particles > 1 and vectorize is not False and max_plate_nesting is None:
        max_plate_nesting = guess_plate_nesting(model, guide, *args, **kwargs)
    if num_particles > 1 and vectorize is None:
        vectorize = can_vectorize(model, guide, max_plate_nesting, *args, condition=condition, **kwargs)
    scorer = Scorer(_rows(args), weighted=weighted, fixed=condition or ())

    def run(model: Program, guide: Program, score: Score) -> LogWeights:
        return score(*_traces(model, guide, args, kwargs))

    return over_particles(run, model, guide, num_particles, max_plate_nesting if vectorize else None, scorer)


def over_particles(
    run: Callable[[Program, Program, Score], LogWeights],
    model: Program,
    guide: Program,
    num_particles: int,
    max_plate_nesting: int | None,
    scorer: Scorer,
) -> LogWeights:
    """Run a pair with particles: once inside a plate over them, or as often as there are particles.

    Args:
        run: takes the two programs and a function from a trace of each to their log weights; returns log weights.
        model: the model program.
        guide: the guide program.
        num_particles: K.
        max_plate_nesting: depth of the plates of the pair, for one vectorised call; None loops.
        scorer: reads traces.
    """
    if num_particles > 1 and max_plate_nesting is not None:
        dim = _particle_dim(max_plate_nesting)
        in_plate = [pyro.plate(PARTICLES, num_particles, dim=dim)(program) for program in (model, guide)]
        return run(*in_plate, lambda *traces: scorer(*traces, (dim, num_particles)))
    parts = [run(model, guide, scorer) for _ in range(num_particles)]
    return LogWeights(*(torch.cat(part) for part in zip(*parts, strict=True)))


def guess_plate_nesting(model: Program, guide: Program, *args: Any, **kwargs: Any) -> int:
    """The depth of a pair's plates from one run, which draws nothing from the caller's random numbers."""
    with torch.no_grad(), torch.random.fork_rng():
        return plate_nesting(*_traces(model, guide, args, kwargs))


def can_vectorize(
    model: Program,
    guide: Program,
    max_plate_nesting: int,
    *args: Any,
    condition: Mapping[str, Tensor] | None = None,
    **kwargs: Any,
) -> bool:
    """Whether a few particles of a pair go through in one vectorised call; if not, one log line says why.

    Takes the arguments of `log_weights`, draws nothing from the caller's random numbers. The log weights of the call
    are compared with those of its draws taken one at a time, because a program that means another dimension than it
    says (`softmax(dim=1)`) runs without an error on one dimension more.
    """
    model, guide = _conditioned(model, guide, condition)
    dim, count, scorer = _particle_dim(max_plate_nesting), 3, Scorer(_rows(args), fixed=condition or ())
    try:
        with torch.no_grad(), torch.random.fork_rng():
            _, shapes = _traces(model, guide, args, kwargs)
            in_plate = [pyro.plate(PARTICLES, count, dim=dim)(program) for program in (model, guide)]
            traces = _traces(*in_plate, args, kwargs)
            together = scorer(*traces, (dim, count))
            for particle in range(count):
                draws = _one_particle(traces[1], shapes, dim, particle)
                single = _traces(model, poutine.replay(guide, trace=draws), args, kwargs)
                alone = scorer(*single)
                for name, values, expected in zip(LogWeights._fields, together, alone, strict=True):
                    if not torch.allclose(values[particle], expected[0], rtol=1e-3, atol=1e-3, equal_nan=True):
                        raise ValueError(f"it changes the value of {name}")
    except OutsidePlateError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        logger.info("the particles of %s are looped over: one vectorised call failed (%s)", describe(model), reason)
        return False
    return True


class OutsidePlateError(ValueError):
    """A site has no number per datum."""


def _conditioned(model: Program, guide: Program, condition: Mapping[str, Tensor] | None) -> tuple[Program, Program]:
    if not condition:
        return model, guide
    # The guide's other sites may depend on the fixed ones, so they get the value before they are hidden.
    fixed_guide = poutine.block(poutine.condition(guide, data=condition), hide=list(condition))
    return poutine.condition(model, data=condition), fixed_guide


def _particle_dim(max_plate_nesting: int) -> int:
    """The dimension left of all plates; a program without plates still has its rows in dimension -1."""
    return -max(max_plate_nesting, 1) - 1


def _one_particle(trace: Trace, shapes: Trace, dim: int, particle: int) -> Trace:
    """The draws of one particle out of a vectorised trace, each of the shape that it has in the trace `shapes`."""
    single = trace.copy()
    for name, site in sample_sites(trace).items():
        if site["is_observed"]:
            continue
        value = site["value"].select(dim - site["fn"].event_dim, particle)
        single.nodes[name] = {**site, "value": value.reshape(shapes.nodes[name]["value"].shape)}
    return single


def _traces(model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    return poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs), guide_trace


def _rows(args: tuple) -> int | None:
    return args[0].shape[0] if args and isinstance(args[0], Tensor) and args[0].dim() else None


class Scorer:
    """Reads log weights off a trace of the model and a trace of the guide.

    Args:
        rows: rows of the data, if known.
        weighted: keep the weight of latent sites relative to the observed ones, and add `objective_term`s to log p.
        fixed: names of latent sites that are left out.

    Attributes:
        scale: the scale of the data plate in the last traces read.
        data_dim: the dimension of that plate.
        log_q: log q without any weights, `[K, B]`, of the last traces read.
        latent_weight: the weight, relative to the observed ones, of the guide's site without reparameterised draws, the
            last one where there are several.
    """

    def __init__(self, rows: int | None, *, weighted: bool = False, fixed: Collection[str] = ()) -> None:
        self.rows, self.weighted, self.fixed = rows, weighted, fixed
        self.scale: Any = 1.0
        self.data_dim = -1
        self.latent_weight: Any = 1.0
        self.log_q: Tensor | None = None

    def __call__(self, model_trace: Trace, guide_trace: Trace, particles: tuple[int, int] | None = None) -> LogWeights:
        """Log weights `[K, B]`; `particles` is dimension and size of the plate over particles, if there is one."""
        guide_sites = _without(sample_sites(guide_trace), self.fixed)
        model_sites = _without(sample_sites(model_trace), self.fixed)
        observed = [site for site in model_sites.values() if site["is_observed"]]
        if not observed:
            raise ValueError("the model observes nothing, so it has no log weight")
        data_dim, size, self.scale = data_plate(observed, [*guide_sites.values()], self.rows)
        self.data_dim = data_dim
        self._check(model_sites, guide_sites, data_dim, size)
        keep = data_dim if particles is None else (particles[0], data_dim)

        def log_prob(site: Mapping[str, Any]) -> Tensor:
            value = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
            return per_datum(value, keep, particles, size)

        def weight(site: Mapping[str, Any]) -> Any:
            return site["scale"] / self.scale if self.weighted and not site["is_observed"] else 1.0

        log_p = sum(log_prob(site) * weight(site) for site in model_sites.values())
        log_q = log_score = self.log_q = torch.zeros_like(log_p)
        for site in guide_sites.values():
            if is_objective_term(site):
                if self.weighted:  # for an objective; it stands in no density
                    log_p = log_p - log_prob(site)
                continue
            value = log_prob(site)
            log_q, self.log_q = log_q + value * weight(site), self.log_q + value
            if not site["fn"].has_rsample:
                log_score = log_score + value
                self.latent_weight = weight(site)
        return LogWeights(log_p, log_q, log_score)

    @staticmethod
    def _check(model_sites: Mapping, guide_sites: Mapping, data_dim: int, size: int | None) -> None:
        for name, site in {**model_sites, **guide_sites}.items():
            if not site["is_observed"] and name not in guide_sites:
                raise ValueError(f"latent site {name!r} of the model is missing from the guide; condition= can fix it")
            if not _inside(site, data_dim, size):
                if site["is_observed"]:
                    kind, advice = "observed", "put it into the plate"
                else:
                    kind, advice = "latent", f"fix it with condition={{{name!r}: value}}, or train with an ELBO of Pyro"
                raise OutsidePlateError(
                    f"{kind} site {name!r} lies outside the plate over the data, so it has no weight per datum; "
                    f"{advice}"
                )


Score = Callable[..., LogWeights]


def _without(sites: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: site for name, site in sites.items() if name not in names}


def data_plate(
    observed: Sequence[Mapping[str, Any]], latent: Sequence[Mapping[str, Any]], rows: int | None
) -> tuple[int, int | None, Any]:
    """Dimension, size and scale of the plate over the data.

    It is the plate of the first observed site that has as many rows as the data and, if there are several such, holds
    the latent sites too (a square of rows and pixels has two plates of one size).
    """
    for site in observed:
        frames = [f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
        matching = [f for f in frames if rows in (f.size, f.full_size)] or (frames if len(frames) == 1 else [])
        dims = [{g.dim for g in other["cond_indep_stack"]} for other in latent]
        shared = [f for f in matching if all(f.dim in found for found in dims)] or matching
        if shared:
            frame = min(shared, key=lambda f: f.dim)
            return frame.dim, frame.size, site["scale"]
    return -1, rows, observed[0]["scale"]


def _inside(site: dict[str, Any], data_dim: int, size: int | None) -> bool:
    if is_global(site):
        return False
    if any(frame.dim == data_dim for frame in site["cond_indep_stack"] if frame.vectorized):
        return True
    shape = site["fn"].batch_shape
    return size is not None and len(shape) >= -data_dim and shape[data_dim] == size


def per_datum(value: Tensor, keep: Any, particles: tuple[int, int] | None, size: int | None) -> Tensor:
    """Sum a log-probability over every batch dimension but particles and data: `[K, B]`."""
    particle_dim, data_dim = (None, keep) if particles is None else keep
    depth = -data_dim if particle_dim is None else -particle_dim
    value = value.reshape((1,) * (depth - value.dim()) + value.shape)
    kept = {value.dim() + data_dim} | ({value.dim() + particle_dim} if particle_dim is not None else set())
    others = [d for d in range(value.dim()) if d not in kept]
    if others:
        value = value.sum(others)
    value = value if particle_dim is not None else value.unsqueeze(0)
    count = 1 if particles is None else particles[1]
    return value.expand(count, value.shape[1] if size is None else size)
