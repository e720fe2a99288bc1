"""Constraints that torch lacks, each registered with ``biject_to`` and ``transform_to``."""

from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import SigmoidTransform, Transform


class _OpenUnitInterval(Constraint):
    """Numbers strictly between 0 and 1, where logarithms of v and of 1 - v are finite.

    Example:
        >>> import torch
        >>> open_unit_interval.check(torch.tensor([0.0, 0.5, 1.0]))
        tensor([False,  True, False])
    """

    lower_bound = 0.0
    upper_bound = 1.0

    def check(self, value: Tensor) -> Tensor:
        """Whether each entry is inside the interval; False for NaN."""
        return (value > self.lower_bound) & (value < self.upper_bound)


open_unit_interval = _OpenUnitInterval()


@biject_to.register(_OpenUnitInterval)
@transform_to.register(_OpenUnitInterval)
def _real_to_open_unit_interval(constraint: _OpenUnitInterval) -> Transform:
    # torch's sigmoid transform clamps into the open interval.
    return SigmoidTransform()
