"""The skeleton of this library's objectives."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrovae.infer import shared
from pyrovae.infer.density_checks import check_densities
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.particles import can_vectorize, over_particles
from pyrovae.infer.scoring import LogWeights, Run, Score, Scorer
from pyrovae.layout import Layout, look_at
from pyrovae.programs import Program, owned_modules, trace, trace_pair
from pyrovae.sites import nodes_of, sample_sites


class Pair:
    """A pair at work on one batch: its programs, their arguments, and how its particles are run.

    Parameters
    ----------
    model, guide : callable
        The two programs.
    args, kwargs : tuple and dict
        Arguments of both, the data first.
    num_particles : int
        Their number K.
    max_plate_nesting : int or None
        Depth of the plates for one vectorised call over the particles; None loops over them.
    scorer : Scorer
        Reads traces of them.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        args: tuple,
        kwargs: dict[str, Any],
        num_particles: int,
        max_plate_nesting: int | None,
        scorer: Scorer,
    ) -> None:
        self.model, self.guide = model, guide
        self.args, self.kwargs = args, kwargs
        self.num_particles, self.max_plate_nesting = num_particles, max_plate_nesting
        self.scorer = scorer

    def trace(self, program: Program) -> Trace:
        """Trace a program with the arguments of the pair."""
        return trace(program, self.args, self.kwargs)

    @property
    def data(self) -> Tensor:
        """The data, which are the first argument.

        Raises
        ------
        ValueError
            If they are no tensor.
        """
        if not self.args or not isinstance(self.args[0], Tensor):
            raise ValueError("this objective looks at the data, so give them as the first argument, as a tensor")
        return self.args[0]

    def over_particles(self, run: Run) -> LogWeights:
        """Call `run(model, guide, score)` for all particles at once or for each of them; log weights `[K, B]`."""
        return over_particles(run, self.model, self.guide, self.num_particles, self.max_plate_nesting, self.scorer)

    def log_weights(self) -> LogWeights:
        """Draw from the guide and score under both programs."""

        def run(model: Program, guide: Program, score: Score) -> LogWeights:
            return score(*trace_pair(model, guide, self.args, self.kwargs))

        return self.over_particles(run)

    @property
    def scale(self) -> Tensor | float:
        """The scale of a subsampling data plate, or the weights of the rows, known once log weights were formed."""
        return self.scorer.scale

    def total(self, bound: Tensor) -> Tensor:
        """The bound of all rows out of that of each, `[B]`: scaled, and with the terms of latents of all data."""
        total = (self.scale * bound).sum()
        return total if self.scorer.shared is None else self.scorer.shared.added_to(total)


class _Found(NamedTuple):
    """What an objective found out about a pair with its first batch."""

    model: Program
    guide: Program
    layout: Layout
    vectorize: bool | None


class Objective(ELBO):
    """A bound that is a sum over the data of a function of the log weights `[K, B]` of each datum.

    A concrete objective overrides `bound`. Masks are inside the log weights, and so is a KL weight
    (`KLWeightMessenger`) or any other scale of some of the sites; what is common to all, such as the scale of a
    subsampling plate, multiplies the result. For `pyro.infer.SVI` and the Trainer alike.

    The first batch of a pair is checked as stock SVI does, and shows which plate is over the data. Observed sites and
    factors of a guide enter as in `Trace_ELBO`.

    Parameters
    ----------
    num_particles : int, default 1
        Draws of the latents per datum, K.
    vectorize_particles : bool, optional
        Run all particles in one call, or loop over them; None tries it with the first batch of a pair.
    max_plate_nesting : int, optional
        Depth of the pair's plates; None finds it with the first batch.

    Attributes
    ----------
    module : nn.Module or None
        What the objective itself learns, such as a baseline.
    """

    module: nn.Module | None = None

    @property
    def takes_shared(self) -> bool:
        """Whether pairs with latents outside the plate over the data can be trained; these are drawn once a step."""
        return True

    def __init__(
        self,
        num_particles: int = 1,
        *,
        vectorize_particles: bool | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles)
        self.vectorize_particles = vectorize_particles
        self.max_plate_nesting = math.inf if max_plate_nesting is None else max_plate_nesting
        self._found: _Found | None = None

    @abstractmethod
    def bound(self, pair: Pair) -> Tensor:
        """What is maximised, `[B]` in nats, its gradient being the estimator's gradient."""

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the data and scaled, in nats; differentiable with the estimator's gradient."""
        pair = self._pair(model, guide, args, kwargs)
        return -pair.total(self.bound(pair))

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, summed over the data and scaled, in nats."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def training_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The differentiable loss of a training step, whose gradients teach the objective's own `module` too."""
        return self.differentiable_loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss, with its gradients added to the parameters of the pair and of `module`."""
        return self.tensor_and_grads(model, guide, *args, **kwargs).item()

    def tensor_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The same with a loss that stays on its device, for steps that do not wait for it."""
        loss = self.training_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.detach()

    def _pair(self, model: Program, guide: Program, args: tuple, kwargs: dict[str, Any]) -> Pair:
        found = self._found
        if found is None or found.model != model or found.guide != guide:
            layout = look_at(model, guide, args, kwargs)
            check_densities(model, guide, layout, args, kwargs, points_allowed=True)
            if layout.shared and self.takes_shared and self.num_particles > 1:
                shared.check_order(guide, layout, args, kwargs)
            found = self._found = _Found(model, guide, layout, None)
        layout, drawn_once = found.layout, dict[str, Any]()
        apart = self.takes_shared and bool(layout.shared)
        if apart and self.num_particles > 1:
            model, guide, drawn_once = shared.drawn_once(model, guide, trace(guide, args, kwargs), layout.shared)
        nesting = None
        if self.num_particles > 1:
            nesting = layout.max_plate_nesting if self.max_plate_nesting == math.inf else self.max_plate_nesting
            vectorize = found.vectorize if self.vectorize_particles is None else self.vectorize_particles
            if vectorize is None:
                scorer = Scorer(layout, apart=apart, drawn_once=drawn_once)
                programs = enumerated(model, layout, nesting), guide
                vectorize = can_vectorize(*programs, scorer, args, kwargs, max_plate_nesting=nesting)
                self._found = found._replace(vectorize=vectorize)
            nesting = nesting if vectorize else None
        if layout.enumerated:
            model = enumerated(model, layout, nesting)
        several = self.num_particles > 1
        scorer = Scorer(layout, weighted=True, several=several, apart=apart, drawn_once=drawn_once)
        return Pair(model, guide, args, kwargs, self.num_particles, nesting, scorer)

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
        """Pyro's own hook, which this library's objectives do without."""
        return trace_pair(model, guide, args, kwargs)


def with_values(trace: Trace, change: Callable[[str, dict[str, Any]], Tensor]) -> Trace:
    """A copy of a trace in which the drawn values of latent sites are changed, to replay programs against."""
    new = trace.copy()
    for name, site in sample_sites(trace).items():
        if not site["is_observed"]:
            message: Any = {**site, "value": change(name, site)}
            new.nodes[name] = message
    return new


@contextmanager
def frozen(program: Program, traced: Trace) -> Iterator[None]:
    """A context in which the parameters of a traced program are constants to what is computed.

    They are those of its param sites and those of its modules, which in a plain `nn.Module` have no sites.
    """
    parameters = [site["value"].unconstrained() for site in nodes_of(traced).values() if site["type"] == "param"]
    for module in owned_modules(program).values():
        parameters.extend(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with warnings.catch_warnings():
            # `pyro.module` mentions every parameter of a training module that takes no gradient.
            warnings.filterwarnings("ignore", message=".*was not registered in the param store")
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
