"""Steps of torch's fused Adam without what its optimizer does around them in Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


class FusedSteps:
    """Runs an optimizer: fused Adam and AdamW by the function that they call themselves, any other one as it is.

    Numbers and state are those of the optimizer, bit for bit. What is left out is a quarter of a millisecond in each
    step: the search for its state, the groups by device, and hooks, of which there are none.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer.

    Attributes
    ----------
    can_skip : bool
        Whether steps take a tensor that says on the device whether they are to be left out.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer: Any = optimizer
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.can_skip = _can_skip(optimizer)
        self._direct = type(optimizer) in (Adam, AdamW) and all(map(_is_plain, optimizer.param_groups))
        self._known: tuple[bool, ...] | None = None
        self._groups: list[tuple[dict[str, Any], list[Any], list[list[Tensor]]]] = []

    def step(self, skip: Tensor | None = None) -> None:
        """Move the parameters that have a gradient, unless `skip` is 1, which is for optimizers that `can_skip`."""
        present = tuple(parameter.grad is not None for parameter in self.parameters)
        if present != self._known and not self._collect(present):
            if skip is not None:
                self.optimizer.found_inf = skip  # as gradient scalers tell fused optimizers
            self.optimizer.step()  # which makes the state that is missing
            return
        with torch.no_grad():
            for group, parameters, (means, squares, steps) in self._groups:
                torch._foreach_add_(steps, 1)
                move = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
                move(
                    parameters,
                    [parameter.grad for parameter in parameters],
                    means,
                    squares,
                    [],
                    steps,
                    amsgrad=False,
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=group["maximize"],
                    grad_scale=None,
                    found_inf=skip,
                )
        self.optimizer._opt_called = True  # what a schedule looks at

    def forget_gradients(self) -> None:
        """Leave the parameters without gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def forget(self) -> None:
        """Look for the state of the optimizer anew, because it was replaced."""
        self._known = None

    def _collect(self, present: tuple[bool, ...]) -> bool:
        """Find the state of the parameters that have gradients; False if some of it is missing."""
        moved = {id(p) for p, own in zip(self.parameters, present, strict=True) if own}
        if not self._direct or not all(self.optimizer.state.get(p) for p in self.parameters if id(p) in moved):
            return False
        self._groups, self._known = [], present
        for group in self.optimizer.param_groups:
            parameters: list[Any] = [p for p in group["params"] if id(p) in moved]
            if parameters:
                states = [self.optimizer.state[p] for p in parameters]
                kept = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")]
                self._groups.append((group, parameters, kept))
        return True


def _can_skip(optimizer: Optimizer) -> bool:
    return type(optimizer) in (Adam, AdamW, SGD) and all(group.get("fused") for group in optimizer.param_groups)


def _is_plain(group: dict[str, Any]) -> bool:
    """Whether a group is of the kind that one call moves."""
    kinds = {(parameter.dtype, parameter.device) for parameter in group["params"]}
    odd = group.get("amsgrad") or group.get("capturable") or group.get("differentiable")
    return bool(group.get("fused")) and not odd and not isinstance(group["lr"], Tensor) and len(kinds) == 1
