"""Many particles of a pair: in one call inside a plate over them, or one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.infer.scoring import LogWeights, Run, Scorer
from pyrovae.layout import OutsidePlateError
from pyrovae.programs import Program, describe, trace_pair, trial
from pyrovae.sites import PARTICLES, latent_sites, nodes_of

logger = logging.getLogger(__name__)


class SubsampleOnce(Messenger):
    """Give every plate that draws a subsample the same one in all runs within the context."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and msg["value"] is None and msg["name"] in self.drawn:
            msg["value"], msg["done"] = self.drawn[msg["name"]], True

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            self.drawn[msg["name"]] = msg["value"]


def over_particles(
    run: Run,
    model: Program,
    guide: Program,
    num_particles: int,
    max_plate_nesting: int | None,
    scorer: Scorer,
) -> LogWeights:
    """Run a pair with particles: once inside a plate over them, or as often as there are particles.

    A plate that draws a subsample draws it once for all of them.

    Parameters
    ----------
    run : callable
        Takes the two programs and a function from a trace of each to their log weights; returns log weights.
    model, guide : callable
        The two programs.
    num_particles : int
        Their number K.
    max_plate_nesting : int or None
        Depth of the plates of the pair, for one vectorised call; None loops.
    scorer : Scorer
        Reads traces.
    """
    if num_particles == 1:
        return run(model, guide, scorer)
    if max_plate_nesting is not None:
        dim = particle_dim(max_plate_nesting)
        model, guide = _in_plate(model, guide, num_particles, dim)
        return run(model, guide, partial(scorer, particles=(dim, num_particles)))
    with SubsampleOnce():
        return LogWeights.joined([run(model, guide, scorer) for _ in range(num_particles)])


def particle_dim(max_plate_nesting: int) -> int:
    """The dimension left of all plates; a program without plates still has its rows in dimension -1."""
    return -max(max_plate_nesting, 1) - 1


def _in_plate(model: Program, guide: Program, count: int, dim: int) -> list[Program]:
    return [pyro.plate(PARTICLES, count, dim=dim)(program) for program in (model, guide)]


def can_vectorize(
    model: Program,
    guide: Program,
    scorer: Scorer,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    max_plate_nesting: int | None = None,
) -> bool:
    """Whether a few particles of a pair go through in one vectorised call; if not, one log line says why.

    The only place that decides it. The log weights of the call are compared with those of its draws taken one at a
    time, because a program that means another dimension than it says (`softmax(dim=1)`) runs without an error on one
    dimension more.

    Parameters
    ----------
    model, guide : callable
        The two programs, with the values of latents that the scorer leaves out in them already.
    scorer : Scorer
        Reads traces of them.
    args, kwargs : tuple and mapping
        Arguments of both.
    max_plate_nesting : int, optional
        Depth of the plates, if it is to be another than that of the scorer's layout.
    """
    nesting = scorer.layout.max_plate_nesting if max_plate_nesting is None else max_plate_nesting
    dim, count = particle_dim(nesting), 3
    try:
        with trial(model, guide):
            shapes = trace_pair(model, guide, args, kwargs).guide
            vectorized = _in_plate(model, guide, count, dim)
            traces = trace_pair(vectorized[0], vectorized[1], args, kwargs)
            together = scorer(traces.model, traces.guide, (dim, count))
            for particle in range(count):
                draws = _one_particle(traces.guide, shapes, dim, particle)
                alone = scorer(*trace_pair(model, poutine.replay(guide, trace=draws), args, kwargs))
                for name in ("log_p", "log_q", "log_score"):
                    values, expected = getattr(together, name), getattr(alone, name)
                    if not torch.allclose(values[particle], expected[0], rtol=1e-3, atol=1e-3, equal_nan=True):
                        raise ValueError(f"it changes the value of {name}")
    except OutsidePlateError:
        raise
    except (RuntimeError, ValueError, IndexError, KeyError, NotImplementedError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.info("the particles of %s are looped over: one vectorised call failed (%s)", describe(model), reason)
        return False
    return True


def _one_particle(trace: Trace, shapes: Trace, dim: int, particle: int) -> Trace:
    """The draws of one particle out of a vectorised trace, each of the shape that it has in the trace `shapes`."""
    single = trace.copy()
    for name, site in latent_sites(trace).items():
        value = site["value"].select(dim - site["fn"].event_dim, particle)
        message: Any = {**site, "value": value.reshape(nodes_of(shapes)[name]["value"].shape)}
        single.nodes[name] = message
    return single
