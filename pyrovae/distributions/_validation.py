"""Errors that name the parameter, the constraint and the worst entry."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import broadcast_all

Shape = torch.Size | list[int] | tuple[int, ...]  # what torch's distributions take as a shape
NO_SHAPE = torch.Size()


class CheckedDistribution(TorchDistribution):
    """Base class of the library's distributions, with error messages that say which entry is wrong.

    Use it to write a distribution of your own. A subclass sets its parameters as attributes *before* it calls
    ``super().__init__``. Its `log_prob` begins with ``if self._validate_args: self._validate_sample(value)``.

    Parameters
    ----------
    batch_shape : torch.Size, default empty
        Shape of the parameters without the event dimensions.
    event_shape : torch.Size, default empty
        Shape of a single draw.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        A parameter is outside its constraint.

    Notes
    -----
    The checks are torch's own. Only when one of them fails is the message written anew, with the parameter, the
    constraint and the worst entry. With ``validate_args=False`` nothing is checked.

    Examples
    --------
    >>> from pyrovae.distributions import Kumaraswamy
    >>> Kumaraswamy(torch.tensor([1.0, -2.0]), 1.0)
    Traceback (most recent call last):
        ...
    ValueError: Kumaraswamy: parameter `concentration1` of shape (2,) must satisfy GreaterThan(lower_bound=0.0), \
but 1 of 2 entries does not; the worst is -2 at index (1,).
    """

    def __init__(
        self,
        batch_shape: torch.Size = NO_SHAPE,
        event_shape: torch.Size = NO_SHAPE,
        validate_args: bool | None = None,
    ) -> None:
        try:
            super().__init__(batch_shape, event_shape, validate_args=validate_args)
        except ValueError as error:
            for name, constraint in self.arg_constraints.items():
                if not constraints.is_dependent(constraint):
                    raise_if_violated(type(self).__name__, f"parameter `{name}`", constraint, getattr(self, name))
            raise error

    def _expand_as(
        self, cls: type["CheckedDistribution"], batch_shape: Shape, instance: "CheckedDistribution | None"
    ) -> Any:
        """The body of `expand`: a copy of class `cls` with every parameter expanded in front of its event dimensions.

        `cls` is the class whose `expand` calls. torch refuses a subclass that has a constructor but no `expand` of its
        own. The caller sets attributes that are not parameters.
        """
        new = self._get_checked_instance(cls, instance)
        batch_shape = torch.Size(batch_shape)
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            setattr(new, name, value.expand(batch_shape + value.shape[value.dim() - constraint.event_dim :]))
        super(CheckedDistribution, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _validate_sample(self, value: Tensor) -> None:
        try:
            super()._validate_sample(value)
        except ValueError as error:
            if isinstance(value, Tensor) and self.support is not None:
                raise_if_violated(type(self).__name__, "value", self.support, value)
            raise error


def broadcast_floats(*values: Tensor | float) -> tuple[Tensor, ...]:
    """Broadcast numbers and tensors to one shape, as torch's ``broadcast_all`` does.

    Parameters
    ----------
    *values : Tensor or float
        Tensors of whole numbers are converted to the default dtype.

    Returns
    -------
    tuple of Tensor
        One tensor for each value, all of the broadcast shape.
    """
    default = torch.get_default_dtype()
    floats = [v.to(default) if isinstance(v, Tensor) and not v.is_floating_point() else v for v in values]
    first = next((v for v in floats if isinstance(v, Tensor)), None)
    if first is not None:  # a number is made on the device, which need not be waited for then
        floats = [v if isinstance(v, Tensor) else first.new_full((), v) for v in floats]
    return tuple(broadcast_all(*floats))


def enumerated(values: Tensor, batch_shape: torch.Size, expand: bool) -> Tensor:
    """Give values the shape in which `enumerate_support` returns them.

    Parameters
    ----------
    values : Tensor, shape ``[n]``
        All values of the support.
    batch_shape : torch.Size
        Batch shape of the distribution.
    expand : bool
        Whether to expand the values over the batch.

    Returns
    -------
    Tensor
        Shape ``[n, *batch_shape]``, or ``[n, 1, ...]`` without `expand`.
    """
    values = values.reshape(-1, *[1] * len(batch_shape))
    return values.expand(-1, *batch_shape) if expand else values


def raise_if_violated(owner: str, what: str, constraint: Constraint, value: Tensor) -> None:
    """Raise an error about the worst entry of a tensor, or return if no entry violates the constraint.

    Parameters
    ----------
    owner : str
        Name of the class or function that the message begins with.
    what : str
        What the tensor is, for example "value".
    constraint : Constraint
        The constraint to check. A constraint on whole events is reported without ranking: the first bad event is shown.
    value : Tensor
        The tensor to check. Nothing is raised if its shape does not fit the constraint; torch's own message says so.

    Raises
    ------
    ValueError
        An entry violates the constraint.
    """
    if isinstance(constraint, constraints.independent):  # elementwise after all: point at the entry
        constraint = constraint.base_constraint
    try:
        invalid = ~constraint.check(value)
    except (RuntimeError, IndexError):  # wrong shape: torch's own message says so
        return
    if not bool(invalid.any()):
        return
    index = _worst_index(invalid, constraint, value)
    entry = value.detach()[index]
    shown = f"{entry.item():.9g}" if entry.dim() == 0 else _describe_event(entry)
    count, total = int(invalid.sum()), invalid.numel()
    verb = "does" if count == 1 else "do"
    noun = "entry" if total == 1 else "entries"
    place = f" at index {index}" if index else ""
    raise ValueError(
        f"{owner}: {what} of shape {tuple(value.shape)} must satisfy {constraint!r}, "
        f"but {count} of {total} {noun} {verb} not; the worst is {shown}{place}."
    ) from None


def _worst_index(invalid: Tensor, constraint: Constraint, value: Tensor) -> tuple[int, ...]:
    """Index of the entry that is furthest outside the constraint. A NaN is worse than any number."""
    if invalid.shape == value.shape:
        value = value.detach().double()
        lower, upper = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
        if lower is None and upper is None:
            excess = value.abs()
        else:
            below = torch.zeros_like(value) if lower is None else lower - value
            above = torch.zeros_like(value) if upper is None else value - upper
            excess = torch.maximum(below, above)
        excess = torch.where(value.isnan(), torch.inf, excess)
    else:  # constraints on whole events, such as the simplex, are not ranked: the first is shown
        excess = torch.zeros_like(invalid, dtype=torch.float64)
    excess = torch.where(invalid, excess.to(torch.float64), -torch.inf)
    return tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))


def _describe_event(entry: Tensor) -> str:
    """Describe one event in a few characters: its entries if there are few, else its shape, range and sum."""
    if entry.numel() <= 8:
        return str(entry.tolist())
    low, high, total = float(entry.min()), float(entry.max()), float(entry.sum())
    return f"an event of shape {tuple(entry.shape)} (min {low:.6g}, max {high:.6g}, sum {total:.9g})"
