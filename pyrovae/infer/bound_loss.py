"""The compiled loss of batches of one kind, without its looks at what may have changed since the last call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.distributions.labels import label_range
from pyrovae.infer.entries import Entry, entry_of

if TYPE_CHECKING:
    from pyrovae.infer.compile import CompiledLoss
    from pyrovae.infer.compiled_code import CompiledStep


class BoundLoss:
    """The compiled loss of batches of one kind, whose gradients are handed out. `CompiledLoss.bound` makes it.

    Parameters
    ----------
    loss : CompiledLoss
        Where it comes from.
    step : CompiledStep
        The code.

    Attributes
    ----------
    targets : list of Tensor
        The tensors that have a gradient, in the order in which a call gives these.
    """

    def __init__(self, loss: CompiledLoss, step: CompiledStep) -> None:
        trained = loss._slots.trained()
        self.targets = [trained[place] for place, _ in step.places]
        self._code, self._copied = step.code, [number for number, (_, copied) in enumerate(step.places) if copied]
        self._fixed, self._weight_of = loss.tensors(), loss._weight_of

    def before(self, x: Tensor, beta: float) -> list[Tensor]:
        """The arguments of the code before those of a batch."""
        return [*self._fixed, self._weight_of(beta, x)]

    def before_all(self, x: Tensor, betas: list[float]) -> list[Tensor]:
        """The same of many batches, whose KL weights are then one tensor."""
        *fixed, weight = self.before(x, betas[0])
        return [*fixed, weight.new_tensor(betas)]

    def entry(self, x: Tensor, beta: float, data: Mapping[str, Tensor]) -> Entry | None:
        """The function behind the code, where it gives all gradients as they are needed; the batch is for a trial."""
        return None if self._copied else entry_of(self._code, [*self.before(x, beta), x, *data.values()])

    def __call__(self, x: Tensor, beta: float, data: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch, and the gradients of `targets`. Call it without autograd."""
        loss, *gradients = self._code(*self.before(x, beta), x, *data.values())
        for number in self._copied:
            gradients[number] = like(self.targets[number], gradients[number])
        return loss, gradients


def like(target: Tensor, gradient: Tensor) -> Tensor:
    """A gradient in memory of its own, in the order of its target."""
    return torch.empty_like(target).copy_(gradient)


def known_labels(y: Any) -> tuple[bool, ...]:
    """Whether all labels of a batch are known, and whether any is, because programs do another thing then.

    Empty where there are no rows, or no labels that are whole numbers.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or not y.numel():
        return ()
    lowest, highest = label_range(y)
    return lowest >= 0, highest >= 0
