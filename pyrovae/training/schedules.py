"""Weights and temperatures as pure functions of the training time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """A value as a function of the training time in epochs, fractions included (0 at the first step)."""

    def __call__(self, epoch: float) -> float:
        """The value at this time."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value throughout.

    >>> Constant(0.5)(10.0)
    0.5
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        """Check the value."""
        if not self.value >= 0:
            raise ValueError(f"a weight or temperature must not be negative, got {self.value}")

    def __call__(self, epoch: float) -> float:
        """The value at this time."""
        return self.value


@dataclass(frozen=True)
class WarmUp:
    """Linear from `start` to `end` over the first `epochs`, then `end`.

    Reference: Sønderby et al. (2016), Ladder Variational Autoencoders, section 2.3.

    >>> WarmUp(epochs=10)(2.5)
    0.25
    """

    epochs: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Check the length."""
        if not self.epochs > 0:
            raise ValueError(f"a warm-up takes a positive number of epochs, got {self.epochs}")

    def __call__(self, epoch: float) -> float:
        """The value at this time."""
        return self.start + (self.end - self.start) * min(1.0, epoch / self.epochs)


@dataclass(frozen=True)
class Decay:
    """`start / epoch` with epochs counted from 1, but at least `floor`.

    >>> Decay()(3.7)
    0.25
    """

    start: float = 1.0
    floor: float = 0.0

    def __call__(self, epoch: float) -> float:
        """The value at this time."""
        return max(self.floor, self.start / (int(epoch) + 1))


@dataclass(frozen=True)
class Cyclic:
    """Cycles of `epochs`, each linear from `start` to `end` over its first part `rise`, then `end`.

    Reference: Fu et al. (2019), Cyclical Annealing Schedule, equations 6 and 7.

    >>> Cyclic(epochs=10)(12.5), Cyclic(epochs=10)(17.0)
    (0.5, 1.0)
    """

    epochs: float
    rise: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Check the cycle."""
        if not (self.epochs > 0 and 0 < self.rise <= 1):
            raise ValueError(f"a cycle needs epochs > 0 and 0 < rise <= 1, got {self.epochs} and {self.rise}")

    def __call__(self, epoch: float) -> float:
        """The value at this time."""
        position = (epoch % self.epochs) / self.epochs
        return self.start + (self.end - self.start) * min(1.0, position / self.rise)


_KINDS: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "warm-up": WarmUp,
    "decay": Decay,
    "cyclic": Cyclic,
}


def parse_schedule(text: str | float | Schedule) -> Schedule:
    """A schedule from a number, from text such as "0.5", "warm-up:100", "decay" or "cyclic:20", or a schedule as it is.

    Numbers after colons are the arguments in their order.

    Raises:
        ValueError: listing the known schedules.

    >>> parse_schedule("warm-up:100")
    WarmUp(epochs=100.0, start=0.0, end=1.0)
    """
    if callable(text):
        return text
    try:
        number = float(text)
    except ValueError:
        kind, *numbers = str(text).split(":")
    else:
        return Constant(number)
    try:
        return _KINDS[kind.replace("_", "-")](*map(float, numbers))
    except (KeyError, TypeError, ValueError) as error:
        detail = f" ({error})" if isinstance(error, ValueError) else ""
        raise ValueError(
            f"unknown schedule {text!r}{detail}; give a number, warm-up:EPOCHS, decay or cyclic:EPOCHS"
        ) from None
