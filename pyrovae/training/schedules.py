"""Weights and temperatures as pure functions of the training time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """A value as a function of the training time. Any such function serves as a schedule."""

    def __call__(self, epoch: float) -> float:
        """Return the value at a time.

        Parameters
        ----------
        epoch : float
            Time in epochs, fractions included. It is 0 at the first step.

        Returns
        -------
        float
            The value.
        """
        ...


@dataclass(frozen=True)
class Constant:
    """The same value throughout.

    Parameters
    ----------
    value : float, default 1.0
        The value, not negative.

    Raises
    ------
    ValueError
        The value is negative or not finite.

    Examples
    --------
    >>> Constant(0.5)(10.0)
    0.5
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        """Check the value."""
        _check(self.value)

    def __call__(self, epoch: float) -> float:
        """Return the value at this time."""
        return self.value


@dataclass(frozen=True)
class WarmUp:
    """Linear from `start` to `end` over the first epochs, then constant.

    Use it for the KL weight, so that the latents are not switched off early in the training.

    Parameters
    ----------
    epochs : float
        Length of the warm-up, positive.
    start : float, default 0.0
        Value at the first step.
    end : float, default 1.0
        Value from `epochs` on.

    Raises
    ------
    ValueError
        `epochs` is not positive, or a value is negative or not finite.

    References
    ----------
    C. K. Sønderby, T. Raiko, L. Maaløe, S. K. Sønderby and O. Winther (2016), "Ladder variational autoencoders", on
    warm-up.

    Examples
    --------
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
        _check(self.start, self.end)

    def __call__(self, epoch: float) -> float:
        """Return the value at this time."""
        return self.start + (self.end - self.start) * min(1.0, epoch / self.epochs)


@dataclass(frozen=True)
class Decay:
    """``start / epoch`` with epochs counted from 1, but at least `floor`.

    Use it for a temperature or a weight that shrinks from epoch to epoch. The value is constant within an epoch.

    Parameters
    ----------
    start : float, default 1.0
        Value in the first epoch.
    floor : float, default 0.0
        Smallest value.

    Raises
    ------
    ValueError
        A value is negative or not finite.

    Examples
    --------
    >>> Decay()(3.7)
    0.25
    """

    start: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        _check(self.start, self.floor)

    def __call__(self, epoch: float) -> float:
        """Return the value at this time."""
        return max(self.floor, self.start / (int(epoch) + 1))


@dataclass(frozen=True)
class Cyclic:
    """Cycles that rise linearly from `start` to `end` and then stay there.

    Use it for the KL weight where latents are still unused after one warm-up.

    Parameters
    ----------
    epochs : float
        Length of a cycle, positive.
    rise : float, default 0.5
        Share of a cycle that rises, above 0 and at most 1.
    start : float, default 0.0
        Value at the beginning of a cycle.
    end : float, default 1.0
        Value after the rise.

    Raises
    ------
    ValueError
        `epochs` or `rise` is out of range, or a value is negative or not finite.

    References
    ----------
    H. Fu, C. Li, X. Liu, J. Gao, A. Celikyilmaz and L. Carin (2019), "Cyclical annealing schedule: a simple approach to
    mitigating KL vanishing", equations 6 and 7.

    Examples
    --------
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
        _check(self.start, self.end)

    def __call__(self, epoch: float) -> float:
        """Return the value at this time."""
        position = (epoch % self.epochs) / self.epochs
        return self.start + (self.end - self.start) * min(1.0, position / self.rise)


def _check(*values: float) -> None:
    for value in values:
        if not 0 <= value < math.inf:
            raise ValueError(f"a weight or temperature must be finite and not negative, got {value}")


def value_at(schedule: Schedule, epoch: float) -> float:
    """The value of a schedule that may be a function of the user.

    Raises
    ------
    ValueError
        If it is no weight.
    """
    value = schedule(epoch)
    try:
        is_weight = 0 <= value < math.inf
    except TypeError:
        is_weight = False
    if not is_weight:
        raise ValueError(f"kl_weight gives {value} after {epoch:g} epochs; a weight must be finite and not negative")
    return value


_KINDS: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "warm-up": WarmUp,
    "decay": Decay,
    "cyclic": Cyclic,
}


def parse_schedule(text: str | float | Schedule) -> Schedule:
    """Make a schedule from a number or from text.

    Use it for options of a command line.

    Parameters
    ----------
    text : str, float or Schedule
        A number such as 0.5 or "0.5", or "constant", "warm-up", "decay" or "cyclic". Numbers after colons are the
        arguments in their order, as in "warm-up:100". A schedule is returned unchanged.

    Returns
    -------
    Schedule
        The schedule.

    Raises
    ------
    ValueError
        The text is not a schedule, or an argument is out of range. The message lists the forms.

    Examples
    --------
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
