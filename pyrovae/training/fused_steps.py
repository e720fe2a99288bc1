"""Steps of torch's fused Adam without what its optimizer does around them in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.optim.optimizer as _optimizers
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

EVERY = 64
"""Steps from one look for moments that have become too small to the next. It goes by the optimizer's own count."""
SMALLEST_MEAN, SMALLEST_SQUARE, SMALLEST_EPS = 2.0**20, 2.0, 1e-12
"""Means and squares below so many times the smallest normal number become zero, with an `eps` of at least this size."""


class FusedSteps:
    """Runs an optimizer: fused Adam and AdamW by the function that they call themselves, any other one as it is.

    Numbers and state are those of the optimizer, bit for bit, but for moments on the CPU that are too small to move a
    parameter: they become zero. A unit that never fires has gradients of zero, so its moments decay until they are
    subnormal numbers, and a step of Adam on those takes up to fifteen times as long.

    What is left out is a quarter of a millisecond in each step: the search for the optimizer's state and the groups by
    device. An optimizer with hooks is run as it is.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.

    Attributes
    ----------
    can_skip : bool
        Whether steps take a tensor that says on the device whether they are to be left out.
    is_direct : bool
        Whether steps are calls of that function.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer: Any = optimizer
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.can_skip = _can_skip(optimizer)
        self.is_direct = type(optimizer) in (Adam, AdamW) and all(map(_is_plain, optimizer.param_groups))
        self._known: tuple[tuple[bool, ...], list[tuple]] | None = None
        self._calls: list[Moves] = []
        self._collected = self._count = 0

    def step(self, skip: Tensor | None = None) -> None:
        """Move the parameters that have a gradient, unless `skip` is 1, which is for optimizers that `can_skip`."""
        present = tuple(parameter.grad is not None for parameter in self.parameters)
        if (
            not self.is_direct
            or self._has_hooks()
            or ((present, self._settings()) != self._known and not self._collect(present))
        ):
            if skip is not None:
                self.optimizer.found_inf = skip  # as gradient scalers tell fused optimizers
            self.optimizer.step()  # which makes the state that is missing
            return
        with torch.no_grad():
            self._move([[parameter.grad for parameter in call.parameters] for call in self._calls], skip)

    def bound(self, targets: Sequence[Tensor]) -> BoundSteps | None:
        """What moves these parameters by gradients in their order, without autograd; None if `step` has to look first.

        Nothing of the optimizer but the values of its state may change as long as it is in use.
        """
        given = {id(target): number for number, target in enumerate(targets)}
        if self.standing() is None or {id(p) for call in self._calls for p in call.parameters} != given.keys():
            return None
        places = [[given[id(parameter)] for parameter in call.parameters] for call in self._calls]
        return BoundSteps(self, self._calls, places)

    def _move(self, gradients: list[list[Any]], skip: Tensor | None = None) -> None:
        """Move the parameters of all calls."""
        for call, own in zip(self._calls, gradients, strict=True):
            lr, weight_decay, eps, maximize, decoupled, beta1, beta2 = call.settings
            call.counts.add_(1)
            (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
                call.parameters,
                own,
                call.means,
                call.squares,
                [],
                call.steps,
                amsgrad=False,
                lr=lr,
                beta1=beta1,
                beta2=beta2,
                weight_decay=weight_decay,
                eps=eps,
                maximize=maximize,
                grad_scale=None,
                found_inf=skip,
            )
        self.count(1)

    @property
    def until_cleared(self) -> int:
        """Steps until moments that have become too small are set to zero."""
        return EVERY - self._count % EVERY

    def count(self, steps: int) -> None:
        """Count steps that were done, no more than `until_cleared`."""
        self._count += steps
        if not self._count % EVERY:
            self._clear_moments()
        self.optimizer._opt_called = True  # what a schedule looks at

    def standing(self) -> tuple | None:
        """What the next step does with the same gradients as the last one had; None if it would look for it anew."""
        if not self.is_direct or self._has_hooks() or self._known is None or self._known[1] != self._settings():
            return None
        return self._collected, *self._known[0], *self._known[1]

    def tensors(self) -> list[Tensor]:
        """What the optimizer keeps of the parameters that the last step moved."""
        return [value for call in self._calls for value in (call.counts, *call.means, *call.squares)]

    def forget_gradients(self) -> None:
        """Leave the parameters without gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def forget(self) -> None:
        """Look for the state of the optimizer anew, because it was replaced."""
        self._known = None

    def _clear_moments(self) -> None:
        """Set moments on the CPU to zero that are subnormal numbers, or will soon be."""
        for call in self._calls:
            first, eps = call.parameters[0], call.settings[2]
            if first.device.type == "cpu" and first.dtype in (torch.float32, torch.float64) and eps >= SMALLEST_EPS:
                lowest = torch.finfo(first.dtype).tiny
                for moments, smallest in ((call.means, SMALLEST_MEAN), (call.squares, SMALLEST_SQUARE)):
                    for values in moments:
                        torch.hardshrink(values, smallest * lowest, out=values)

    def _has_hooks(self) -> bool:
        """Whether something is to be called with the steps, such as Pyro's clipping of gradients."""
        own = self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks
        return any((*own, _optimizers._global_optimizer_pre_hooks, _optimizers._global_optimizer_post_hooks))

    def _settings(self) -> list[tuple]:
        """What the groups are stepped with, which a schedule may change."""
        return [(*(group[name] for name in _SETTINGS), *group["betas"]) for group in self.optimizer.param_groups]

    def _collect(self, present: tuple[bool, ...]) -> bool:
        """Find the state of the parameters that have gradients; False if some of it is missing.

        Groups with the same settings become one call.
        """
        moved = {id(p) for p, own in zip(self.parameters, present, strict=True) if own}
        if not all(self.optimizer.state.get(p) for p in self.parameters if id(p) in moved):
            return False
        together: dict[tuple, list[Any]] = {}
        settings = self._settings()
        for own, group in zip(settings, self.optimizer.param_groups, strict=True):
            for parameter in group["params"]:
                if id(parameter) in moved:
                    together.setdefault((own, parameter.dtype, parameter.device), []).append(parameter)
        self._calls, self._known, self._collected = [], (present, settings), self._collected + 1
        for (own, *_), parameters in together.items():
            states = [self.optimizer.state[p] for p in parameters]
            counts = torch.stack([state["step"] for state in states])
            for state, count in zip(states, counts.unbind(), strict=True):
                state["step"] = count  # so that one operation counts the steps of all
            means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            self._calls.append(Moves(own, parameters, means, squares, steps, counts))
        on_cpu = (call.steps[0] for call in self._calls if call.steps[0].device.type == "cpu")
        self._count = max(map(int, on_cpu), default=0)
        return True


_SETTINGS = ("lr", "weight_decay", "eps", "maximize", "decoupled_weight_decay")


class Moves(NamedTuple):
    """Parameters that one call moves, and what the optimizer keeps of them."""

    settings: tuple
    """Learning rate, weight decay, eps, whether to maximise, whether decay is decoupled, and both betas."""
    parameters: list[Any]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]
    counts: Tensor
    """The memory of `steps`."""


class BoundSteps:
    """What moves parameters by gradients in a known order. `FusedSteps.bound` makes it.

    Parameters
    ----------
    steps : FusedSteps
        Where it comes from.
    calls : sequence of Moves
        What is moved.
    places : sequence of sequence of int
        For each call the places of the gradients of its parameters.
    """

    def __init__(self, steps: FusedSteps, calls: Sequence[Moves], places: Sequence[Sequence[int]]) -> None:
        self.steps, self.calls, self.places = steps, calls, places

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """Move the parameters."""
        self.steps._move([[gradients[place] for place in own] for own in self.places])


def _can_skip(optimizer: Optimizer) -> bool:
    return type(optimizer) in (Adam, AdamW, SGD) and all(group.get("fused") for group in optimizer.param_groups)


def _is_plain(group: dict[str, Any]) -> bool:
    """Whether a group is of the kind that one call moves."""
    kinds = {(parameter.dtype, parameter.device) for parameter in group["params"]}
    odd = group.get("amsgrad") or group.get("capturable") or group.get("differentiable")
    return bool(group.get("fused")) and not odd and not isinstance(group["lr"], Tensor) and len(kinds) == 1
