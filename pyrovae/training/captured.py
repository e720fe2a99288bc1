"""Whole steps as one captured graph: what a GPU does in a step is recorded once, and repeated by one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.rows import holds_rows
from pyrovae.infer.compile import CompiledLoss
from pyrovae.infer.compile_errors import reason_of
from pyrovae.infer.recording import is_same
from pyrovae.training.fused_steps import FusedSteps
from pyrovae.training.graphs import GRAPHS, Graph
from pyrovae.training.losses import Losses

logger = logging.getLogger(__name__)
WORTH = 100
"""Replays that a graph must have had before another one is captured in its place, since a capture takes as long."""
_NOT = "the steps are not captured as one graph: %s"


def captured_steps(
    compiled: CompiledLoss, steps: FusedSteps, losses: Losses, clip: Callable[[], None], *, weighted: bool
) -> CapturedSteps | None:
    """What captures the compiled steps of a training, see `CapturedSteps`; None where that is not done."""
    make = GRAPHS.get(losses.skip.device.type)
    if make is None:
        return None
    if losses.at_once == 1 or not steps.is_direct:
        logger.info(_NOT, "that takes one process, Adam or AdamW, and no parameters for each row")
        return None
    return CapturedSteps(compiled, steps, losses, clip, make, weighted=weighted)


class CapturedSteps:
    """Steps of full batches: loss, gradients, clipping and optimizer, captured as one graph and replayed.

    A graph is used only if a trial gives the same numbers as the step itself, bit for bit: two steps of each from the
    same state, with a batch in two orders, and with two KL weights where the weight varies. They must agree in losses,
    parameters, what the optimizer keeps, and where the random numbers stand. The trial leaves all of that as it was. If
    it fails, one line of the log says why, and the training goes on without a graph.

    A graph reads batch and KL weight from memory of its own, which is filled before a replay. Whatever else changes, a
    learning rate or where a parameter lies, leads to another capture with another trial.

    Parameters
    ----------
    compiled : CompiledLoss
        Loss and gradients; the gradients are those of the mean over the rows.
    steps : FusedSteps
        The optimizer.
    losses : Losses
        Where losses wait.
    clip : callable
        What is done to the gradients before the step of the optimizer.
    make_graph : callable
        From a device to a `Graph`.
    weighted : bool
        Whether the KL weight varies, or is not 1.

    Attributes
    ----------
    chosen : bool or None
        Whether steps are captured; None as long as there was no trial.
    """

    def __init__(
        self,
        compiled: CompiledLoss,
        steps: FusedSteps,
        losses: Losses,
        clip: Callable[[], None],
        make_graph: Callable[[torch.device], Graph],
        *,
        weighted: bool,
    ) -> None:
        self.compiled, self.steps, self.losses, self.clip = compiled, steps, losses, clip
        self.chosen: bool | None = None
        self._make, self._weighted = make_graph, weighted
        self._held: _Held | None = None
        self._graph: Graph | None = None
        self._captured: tuple | None = None  # what stood when the graph was captured
        self._seen: tuple | None = None  # and after the last step without one
        self._loss = torch.empty(0)
        self._replays = WORTH

    def __call__(self, x: Tensor, beta: float, data: Mapping[str, Tensor]) -> Tensor | None:
        """Do the step of a batch and return its loss; None, and nothing is done, once there was a reason not to."""
        if self.chosen is False:
            return None
        with self.compiled.knowing(data.get("y")):
            return self._done({"x": x, **data}, beta)

    def _done(self, inputs: Mapping[str, Tensor], beta: float) -> Tensor | None:
        if self._held is None or not self._held.fits(inputs):
            self._held = _Held(inputs, weighted=self._weighted)
            if not self._held.fits(inputs):
                return self._give_up("a batch has something else than tensors in one piece")
        held = self._held
        held.fill(inputs, beta)
        stands = self._what_stands(held)
        if self._graph is None or stands != self._captured:
            self._graph = None
            if stands is None or stands != self._seen:  # the optimizer has yet to make or find its state
                loss = self._step(held)
                self._seen = self._what_stands(held)
                return loss
            if self._replays < WORTH:
                return self._give_up(f"what they do changed after {self._replays} of them")
            why = self._capture(held, inputs, beta)
            if why or self._graph is None:
                return self._give_up(why)
            if self.chosen is None:
                logger.info("the steps are captured as one graph; a trial of it gave the same numbers")
            self.chosen, self._captured, self._replays = True, stands, 0
        return self._replayed(self._graph)

    @property
    def is_ready(self) -> bool:
        """Whether there is a graph."""
        return self._graph is not None

    def again(self, x: Tensor, beta: float, data: Mapping[str, Tensor]) -> Tensor:
        """The step of a batch like the last one, if nothing but the values of tensors has changed since."""
        assert self._held is not None
        assert self._graph is not None
        self._held.fill({"x": x, **data}, beta)
        return self._replayed(self._graph)

    def _replayed(self, graph: Graph) -> Tensor:
        graph.replay()
        self._replays += 1
        return self._loss.clone()

    def _give_up(self, why: str) -> Tensor | None:
        logger.info(_NOT, why)
        self.chosen, self._graph, self._held, self._loss = False, None, None, torch.empty(0)
        return None

    def _what_stands(self, held: _Held) -> tuple | None:
        """All that a graph takes in beside values of tensors; None if the optimizer is not ready."""
        steps, (x, data) = self.steps.standing(), held.batch()
        return None if steps is None else (steps, self.compiled.standing(x, held.weight, **data))

    def _step(self, held: _Held) -> Tensor:
        """The step itself."""
        x, data = held.batch()
        loss = self.compiled(x, held.weight, **data)
        self.losses.mark(loss)
        self.clip()
        self.steps.step(self.losses.skip)
        self.steps.forget_gradients()
        return loss

    def _capture(self, held: _Held, inputs: Mapping[str, Tensor], beta: float) -> str:
        """Capture the step and try the graph; why it cannot be used, if so. Changes nothing else."""
        named = {
            "parameters": self.compiled.tensors(),
            "moments": self.steps.tensors(),
            "losses that are not finite": [self.losses.skip],
        }
        tensors = [value for values in named.values() for value in values]
        rows = len(inputs["x"])
        turned = {name: value.flip(0) if holds_rows(value, rows) else value for name, value in inputs.items()}

        def two(run: Callable[[], Tensor]) -> dict[str, list[Tensor]]:
            found: dict[str, list[Tensor]] = {"losses": []}
            for batch, weight in ((inputs, beta), (turned, beta + 0.5)):
                held.fill(batch, weight)
                found["losses"].append(run().clone())
            found |= {name: [value.clone() for value in values] for name, values in named.items()}
            return found | {"random numbers": graph.draws()}

        def replayed() -> Tensor:
            graph.replay()
            return self._loss

        try:
            graph = self._make(inputs["x"].device)
            before, draws = [value.clone() for value in tensors], graph.draws()
        except Exception as error:  # whatever a device trips over
            return reason_of(error)
        try:
            with graph.aside():
                expected = two(partial(self._step, held))
            _restore(tensors, before)
            graph.set_draws(draws)
            self._loss = graph.record(partial(self._step, held))
            found = two(replayed)
        except Exception as error:
            logger.debug("where the capture failed:", exc_info=True)
            return reason_of(error)
        finally:
            self.steps.forget_gradients()
            _restore(tensors, before)
            graph.set_draws(draws)
            held.fill(inputs, beta)
        for name, values in expected.items():
            if not all(map(is_same, values, found[name])):
                return f"in a trial it gave other {name}"
        self._graph = graph
        return ""


class _Held:
    """Memory of its own for a batch and a KL weight."""

    def __init__(self, inputs: Mapping[str, Tensor], *, weighted: bool) -> None:
        self.inputs = {name: torch.empty_like(v) for name, v in inputs.items() if isinstance(v, Tensor)}
        x = inputs["x"]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        self.weight: float | Tensor = torch.ones((), dtype=dtype, device=x.device) if weighted else 1.0
        self._filled = 1.0

    def fits(self, inputs: Mapping[str, Tensor]) -> bool:
        """Whether another batch is of the same kind."""
        return list(map(_kind, inputs.items())) == list(map(_kind, self.inputs.items()))

    def fill(self, inputs: Mapping[str, Tensor], beta: float) -> None:
        """Put a batch and a weight here."""
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        if isinstance(self.weight, Tensor) and beta != self._filled:
            self.weight.fill_(beta)
            self._filled = beta

    def batch(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The batch as the programs get it."""
        data = dict(self.inputs)
        return data.pop("x"), data


def _kind(item: tuple[str, Any]) -> tuple:
    name, value = item
    if not isinstance(value, Tensor):
        return name, type(value)
    return name, value.shape, value.stride(), value.dtype, value.device


@torch.no_grad()
def _restore(tensors: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    for value, old in zip(tensors, before, strict=True):
        value.copy_(old)
