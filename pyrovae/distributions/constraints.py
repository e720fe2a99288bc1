"""Constraints that torch lacks. All but `UnitLattice` are registered with ``biject_to`` and ``transform_to``."""

from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import SigmoidTransform, StackTransform, Transform

LATTICE_TOLERANCE = 0.01  # in steps: values such as 17 / 255 are not exact in binary


class _OpenUnitInterval(Constraint):
    """Numbers strictly between 0 and 1, where the logarithms of v and of 1 - v are finite.

    Examples
    --------
    >>> import torch
    >>> open_unit_interval.check(torch.tensor([0.0, 0.5, 1.0]))
    tensor([False,  True, False])
    """

    lower_bound = 0.0
    upper_bound = 1.0

    def check(self, value: Tensor) -> Tensor:
        """Return whether each entry is inside the interval, same shape. A NaN is not."""
        return (value > self.lower_bound) & (value < self.upper_bound)


open_unit_interval = _OpenUnitInterval()


@biject_to.register(_OpenUnitInterval)
@transform_to.register(_OpenUnitInterval)
def _real_to_open_unit_interval(constraint: _OpenUnitInterval) -> Transform:
    # torch's sigmoid transform clamps into the open interval.
    return SigmoidTransform()


class NaturalDomain(constraints.stack):
    """The domain of natural parameters: one constraint for each entry of the last dimension.

    Parameters
    ----------
    *parts : Constraint
        The constraints in the order of the natural parameters.

    Examples
    --------
    >>> import torch
    >>> NaturalDomain(constraints.real, constraints.positive).check(torch.tensor([[-1.0, 2.0], [1.0, -2.0]]))
    tensor([[ True,  True],
            [ True, False]])
    """

    def __init__(self, *parts: Constraint) -> None:
        super().__init__(parts, dim=-1)

    def __repr__(self) -> str:
        return f"NaturalDomain({', '.join(map(repr, self.cseq))})"


@biject_to.register(NaturalDomain)
@transform_to.register(NaturalDomain)
def _real_to_natural_domain(constraint: NaturalDomain) -> Transform:
    return StackTransform([biject_to(part) for part in constraint.cseq], dim=constraint.dim)


class LogSimplex(Constraint):
    """Vectors of log-probabilities. Their log-sum-exp is 0 up to rounding.

    Examples
    --------
    >>> import torch
    >>> log_simplex.check(torch.tensor([[0.5, 0.5], [0.5, 0.6]]).log())
    tensor([ True, False])
    """

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Return whether the log-sum-exp of each vector is 0 within 1e-5, shape ``[...]`` for values ``[..., K]``."""
        return value.logsumexp(-1).abs() <= 1e-5


log_simplex = LogSimplex()


class UnitLattice(Constraint):
    """The values 0, 1 / (num_bins - 1), ..., 1, with a tolerance of a hundredth of a step.

    Parameters
    ----------
    num_bins : int
        Number of values, at least 2.

    Examples
    --------
    >>> import torch
    >>> UnitLattice(3).check(torch.tensor([0.0, 0.5, 0.7]))
    tensor([ True,  True, False])
    """

    is_discrete = True
    event_dim = 0

    def __init__(self, num_bins: int) -> None:
        self.num_bins = num_bins
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Return whether each entry is one of the values, same shape."""
        bins = value * (self.num_bins - 1)
        level = bins.round()
        return ((bins - level).abs() <= LATTICE_TOLERANCE) & (level >= 0) & (level < self.num_bins)

    def __repr__(self) -> str:
        return f"UnitLattice(num_bins={self.num_bins})"
