"""Gradient inference: the posterior of each datum by ascent on its own bound, with the model held fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.data.rows import cut
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.particles import over_particles
from pyrovae.infer.scoring import LogWeights, Score, Scorer
from pyrovae.layout import Layout
from pyrovae.programs import Program, trace_pair
from pyrovae.rng import seeded
from pyrovae.sites import nodes_of

OPTIMIZERS = ("adam", "sgd")
_WINDOW = 20  # steps between two looks at the progress of a row
_PATIENCE = 3  # such looks without progress, after which a row is done
_DRAWS = (16, 48)  # draws that tell whether a row is better than before, each time of those left undecided
_AT_ONCE = 16
_COMPACT = 0.8  # share of rows still at work below which the batch is made smaller


@dataclass(frozen=True)
class Refinement:
    """How posteriors are refined.

    Parameters
    ----------
    steps : int, default 200
        Gradient steps of each row, at most.
    optimizer : {"adam", "sgd"}, default "adam"
        Kind of step. Each row has a state of its own.
    lr : float, default 0.05
        Learning rate, in unconstrained units of the parameters. "sgd" follows the gradient of the row's own bound, in
        nats.
    decay : bool, default True
        Whether the learning rate falls to a twentieth over the steps, by a cosine.
    tol : float, default 0.0
        Progress in nats below which a row is done: where the mean bound of 20 steps has not been so much better than
        the best one for 60 steps. 0 takes all steps.
    num_particles : int, default 1
        Draws of the latents per step.
    kl_weight : float, default 1.0
        Weight of the KL, in nats.

    Raises
    ------
    ValueError
        For a number out of range, or an unknown optimizer.
    """

    steps: int = 200
    optimizer: str = "adam"
    lr: float = 0.05
    decay: bool = True
    tol: float = 0.0
    num_particles: int = 1
    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r} of rows; known are {', '.join(OPTIMIZERS)}")
        for name, low in (("steps", 0), ("num_particles", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, got {self.lr}")
        for name in ("tol", "kl_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


class Refined(NamedTuple):
    """What refinement made of rows."""

    rows: Tensor
    """Their parameters, ``[B, P]``."""
    steps: Tensor
    """Steps that each row took, ``[B]``."""


class RowBounds:
    """The bound of each datum of a batch as a function of the parameters of its posterior.

    Parameters
    ----------
    model : callable
        The model.
    sites : RowSites
        How rows of parameters become the posterior.
    layout : Layout
        How the traces of model and guide are laid out.
    vectorize : bool, default True
        Whether several particles go through in one call.
    """

    def __init__(self, model: Program, sites: Any, layout: Layout, *, vectorize: bool = True) -> None:
        self.model, self.sites, self.layout = enumerated(model, layout), sites, layout
        self.nesting = layout.max_plate_nesting if vectorize else None

    def log_weights(
        self, rows: Tensor, x: Tensor, data: Mapping[str, Any], num_particles: int = 1, beta: float = 1.0
    ) -> LogWeights:
        """Log weights ``[K, B]`` at draws of the guide with these parameters, whose own density is held fixed.

        So their gradient by the parameters runs along the draws alone, which has less variance: none at all where the
        guide is the exact posterior.
        """
        fixed = self.sites.distributions(rows.detach())

        def run(model: Program, guide: Program, score: Score) -> LogWeights:
            traces = trace_pair(model, guide, (x,), data)
            for name, fn in fixed.items():
                if fn.has_rsample:
                    nodes_of(traces.guide)[name]["fn"] = fn
            return score(*traces)

        scorer = Scorer(self.layout, weighted=beta != 1)
        weight = KLWeightMessenger(beta) if beta != 1 else nullcontext()
        with weight:
            return over_particles(run, self.model, self.sites.program(rows), num_particles, self.nesting, scorer)

    def surrogate(self, rows: Tensor, x: Tensor, data: Mapping[str, Any], how: Refinement) -> tuple[Tensor, Tensor]:
        """The bound of each row, ``[B]``, and a number whose gradient is that of their sum."""
        weights = self.log_weights(rows, x, data, how.num_particles, how.kl_weight)
        value = weights.log_weight
        bound = value.detach().mean(0)
        score = weights.log_score
        if not score.requires_grad:
            return bound, value.mean(0).sum()
        # Draws that are not reparameterised: the score, against the mean of the other particles.
        signal = value.detach()
        if len(signal) > 1:
            signal = signal - (signal.sum(0) - signal) / (len(signal) - 1)
        path = value + score - score.detach()
        return bound, path.mean(0).sum() + (signal * score).mean(0).sum()


@contextmanager
def held_fixed(parameters: Any) -> Iterator[None]:
    """A context in which parameters take no gradient; afterwards they do as before."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def refine(
    bounds: RowBounds,
    rows: Tensor,
    x: Tensor,
    data: Mapping[str, Any],
    how: Refinement,
    on_step: Callable[[int], None] | None = None,
) -> Refined:
    """Ascend the bound of every row, from given parameters.

    Call it where the model's parameters take no gradient (`held_fixed`) and Pyro's store is the pair's.

    Parameters
    ----------
    bounds : RowBounds
        The bounds.
    rows : Tensor, shape ``[B, P]``
        Parameters to start from; they stay as they are.
    x, data : Tensor and mapping
        The batch, as the programs get it. Tensors of B rows in `data` are cut with it.
    how : Refinement
        How.
    on_step : callable, optional
        Called after each step with the number of rows that took it.

    Returns
    -------
    Refined
        The parameters after the last step of each row, and how many it took.
    """
    steps_of_adam = _Adam if how.optimizer == "adam" else _SGD
    work = _Work(rows.detach().clone(), x, dict(data))
    result, taken = work.rows.clone(), torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    optimizer = steps_of_adam(work.rows)
    best = torch.full((len(rows),), -math.inf, device=rows.device)
    since, window = torch.zeros_like(taken), torch.zeros_like(best)
    for step in range(how.steps):
        leaf = work.rows.requires_grad_()
        with torch.enable_grad():
            bound, surrogate = bounds.surrogate(leaf, work.x, work.data, how)
            (gradient,) = torch.autograd.grad(surrogate, [leaf], allow_unused=False)
        work.rows = leaf.detach()
        optimizer.step(work.rows, gradient, how.lr * _decayed(step, how.steps, how.decay))
        taken[work.places] += 1
        if on_step is not None:
            on_step(len(work.rows))
        if not how.tol:
            continue
        window += bound
        if (step + 1) % _WINDOW:
            continue
        window /= _WINDOW
        better = window > best + how.tol
        since = torch.where(better, 0, since + 1)
        best = torch.where(better, window, best)
        window = torch.zeros_like(best)
        going = since < _PATIENCE
        if not bool(going.any()):
            break
        if float(going.float().mean()) < _COMPACT:
            result[work.places] = work.rows
            work = work.take(going)
            optimizer.take(going)
            best, since, window = best[going], since[going], window[going]
    result[work.places] = work.rows
    return Refined(result, taken)


@torch.no_grad()
def better_of(
    bounds: RowBounds, start: Tensor, end: Tensor, x: Tensor, data: Mapping[str, Any], how: Refinement
) -> Tensor:
    """The better parameters of each row, ``[B, P]``, by their bounds at draws with the same noise.

    16 draws tell for rows whose difference is beyond two standard errors; the others are drawn further, up to 64.
    """
    rows, place = start.clone(), torch.arange(len(start), device=start.device)
    total = square = torch.zeros(len(start), device=start.device)
    count, seed = 0, 0
    for more in _DRAWS if not bounds.sites.is_point else (1,):
        for _ in range(more // _AT_ONCE if more > _AT_ONCE else 1):
            drawn, seed = [], seed + 1
            for parameters in (start, end):
                with seeded(seed):
                    weights = bounds.log_weights(parameters, x, data, min(more, _AT_ONCE), how.kl_weight)
                drawn.append(weights.log_weight)
            difference = (drawn[1] - drawn[0]).to(total)
            total, square = total + difference.sum(0), square + difference.square().sum(0)
            count += len(difference)
        mean = total / count
        error = ((square / count - mean.square()).clamp(min=0) / max(1, count - 1)).sqrt()
        # An end that is not finite is no better.
        rows[place] = torch.where((mean > 0).unsqueeze(1), end, start)
        open_ones = (mean.abs() < 2 * error).nonzero()[:, 0]
        if not len(open_ones):
            break
        data = cut(data, open_ones, len(x))
        start, end, x = start[open_ones], end[open_ones], x[open_ones]
        place, total, square = place[open_ones], total[open_ones], square[open_ones]
    return rows


class _Work:
    """The rows that are still at work."""

    def __init__(self, rows: Tensor, x: Tensor, data: dict[str, Any], places: Tensor | None = None) -> None:
        self.rows, self.x, self.data = rows, x, data
        self.places = torch.arange(len(rows), device=rows.device) if places is None else places

    def take(self, going: Tensor) -> _Work:
        return _Work(self.rows[going], self.x[going], cut(self.data, going, len(self.rows)), self.places[going])


class _Adam:
    """Adam on one flat tensor, with a state for each row."""

    def __init__(self, rows: Tensor, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.mean, self.square = torch.zeros_like(rows), torch.zeros_like(rows)
        self.betas, self.eps, self.count = betas, eps, 0

    def step(self, rows: Tensor, gradient: Tensor, lr: float) -> None:
        self.count += 1
        first, second = self.betas
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (self.square / (1 - second**self.count)).sqrt_().add_(self.eps)
        rows.addcdiv_(self.mean, root, value=lr / (1 - first**self.count))

    def take(self, going: Tensor) -> None:
        self.mean, self.square = self.mean[going], self.square[going]


class _SGD:
    """Plain ascent."""

    def __init__(self, rows: Tensor) -> None:
        pass

    def step(self, rows: Tensor, gradient: Tensor, lr: float) -> None:
        rows.add_(gradient, alpha=lr)

    def take(self, going: Tensor) -> None:
        pass


def _decayed(step: int, steps: int, decay: bool) -> float:
    if not decay or steps < 2:
        return 1.0
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / (steps - 1)))
