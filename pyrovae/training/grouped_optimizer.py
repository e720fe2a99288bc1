"""One optimizer made of several, each for groups of parameters of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer


class GroupedOptimizer(Optimizer):
    """Several optimizers as one, for schedules, checkpoints and whatever else takes a single one.

    Its groups are those of the parts, one after the other, and so is its state: a change of either is seen by both.

    Parameters
    ----------
    parts : sequence of Optimizer
        The optimizers. No parameter belongs to two of them.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a loaded state, and let the parts see it."""
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Let every part do a step.

        Raises
        ------
        ValueError
            For a closure, which each part would run again.
        """
        if closure is not None:
            raise ValueError("an optimizer of several parts takes no closure")
        for part in self.parts:
            part.step()


def stepping(optimizer: Optimizer, group: Mapping[str, Any]) -> Optimizer:
    """The optimizer that steps a group of parameters: the one given, or the part of it whose group that is."""
    if not isinstance(optimizer, GroupedOptimizer):
        return optimizer
    return next(part for part in optimizer.parts if any(own is group for own in part.param_groups))


def kind_of(optimizer: Optimizer) -> str:
    """The name of the kind of an optimizer; those of its parts, by group, for one of several parts."""
    if not isinstance(optimizer, GroupedOptimizer):
        return type(optimizer).__name__
    return ",".join(
        f"{group.get('name', place)}={type(stepping(optimizer, group)).__name__}"
        for place, group in enumerate(optimizer.param_groups)
    )
