"""The logistic distribution discretised to equally spaced levels, a likelihood for grey values and colours."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import clamp_probs, lazy_property

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, broadcast_floats, enumerated
from pyrovae.distributions.constraints import LATTICE_TOLERANCE, UnitLattice


class DiscretizedLogistic(CheckedDistribution):
    r"""Logistic distribution whose mass is gathered into `num_bins` levels k / (num_bins - 1) of the unit interval.

    With :math:`h = 1 / (2(n-1))`, half the distance of two levels,

    .. math:: P(x) = \sigma\Big(\frac{x + h - \mu}{s}\Big) - \sigma\Big(\frac{x - h - \mu}{s}\Big),

    and the first and last level take the tails below and above. In log space the difference is
    :math:`\log\sigma(a) + \log\sigma(-b) + \log(1 - e^{b-a})`, where nothing cancels; places are counted in bins, with
    the product of `loc` and n - 1 split in two, so that float32 keeps its digits where `scale` is far below a bin.
    Values within a bin count as its level. Values and gradients are finite for scales from 1e-15 to 1e15.

    Shapes: `loc`, `scale` broadcast to `batch_shape` `[...]`; events are scalars. `log_prob` and `entropy` in nats per
    value; divide the sum over a datum by log(2) and the number of values for bits per dimension.
    `mean`, `variance` and `entropy` run over the levels one at a time: without gradients their memory does not grow
    with `num_bins`.

    Reference: Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, Improved variational inference with inverse
    autoregressive flow (2016), appendix; Salimans, Karpathy, Chen and Kingma, PixelCNN++ (2017), equation 2.

    Args:
        loc: location, on the scale of the values; may lie outside the unit interval.
        scale: positive scale of the logistic distribution.
        num_bins: number of levels, at least two; 256 for bytes.
        validate_args: whether parameters and values are checked; None follows torch's global setting.

    Raises:
        ValueError: for fewer than two bins, a scale that is not positive, or values that are not levels.

    Example:
        >>> import torch
        >>> grey = DiscretizedLogistic(torch.tensor([0.0, 0.5]), torch.tensor(0.05))
        >>> grey.log_prob(torch.tensor([0.0, 128 / 255]))
        tensor([-0.6737, -3.9323])
        >>> grey.mode
        tensor([0.0000, 0.5020])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"loc": constraints.real, "scale": constraints.positive}
    has_enumerate_support = True

    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, num_bins: int = 256, *, validate_args: bool | None = None
    ) -> None:
        if num_bins != int(num_bins) or num_bins < 2:
            raise ValueError(f"num_bins must be an integer of at least 2, got {num_bins}")
        self.loc, self.scale = broadcast_floats(loc, scale)
        self.num_bins = int(num_bins)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "DiscretizedLogistic":
        """The same distribution with `batch_shape`."""
        new = self._expand_as(DiscretizedLogistic, batch_shape, _instance)
        new.num_bins = self.num_bins
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Constraint:
        """The levels."""
        return UnitLattice(self.num_bins)

    @lazy_property
    def _width(self) -> Tensor:
        """Scale in bins."""
        return self.scale * (self.num_bins - 1)

    def _standardised(self, place: Tensor | float) -> Tensor:
        """(place - loc) / scale for a `place` counted in bins, its numerator exact to about 1e-9 bins in float32.

        loc * (n - 1) rounds; its leading twelve binary places times n - 1 do not, and the rest is small.
        """
        leading = (self.loc.detach() * 4096).round() / 4096
        offset = (place - leading * (self.num_bins - 1)) - (self.loc - leading) * (self.num_bins - 1)
        return offset / self._width

    def _log_prob_of_level(self, level: Tensor | int) -> Tensor:
        level = torch.as_tensor(level, dtype=self.loc.dtype, device=self.loc.device)
        first, last = level == 0, level == self.num_bins - 1
        below_upper_edge = F.logsigmoid(self._standardised(level + 0.5)).masked_fill(last, 0.0)
        above_lower_edge = F.logsigmoid(-self._standardised(level - 0.5)).masked_fill(first, 0.0)
        log_share = torch.where(first | last, 0.0, one_minus_exp(1 / self._width).log())
        return below_upper_edge + above_lower_edge + log_share

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of levels `[...]`, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob_of_level((value * (self.num_bins - 1)).round().clamp(0, self.num_bins - 1))

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws, shape `sample_shape + batch_shape`."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return self.icdf(clamp_probs(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)))

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of levels up to `value`, which may lie between levels."""
        bins = value * (self.num_bins - 1) + LATTICE_TOLERANCE
        inside = torch.sigmoid(self._standardised(bins.floor() + 0.5))
        above = bins >= self.num_bins - 1
        return torch.where(above, torch.ones_like(inside), inside.masked_fill(bins < 0, 0.0))

    def icdf(self, value: Tensor) -> Tensor:
        """Smallest level whose `cdf` reaches the probability `value`."""
        bins = ((torch.logit(value) - self._standardised(-0.5)) * self._width).ceil() - 1
        return bins.clamp(0, self.num_bins - 1) / (self.num_bins - 1)

    @lazy_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance in bins, from sums of tail probabilities on both sides of the level nearest to `loc`.

        Counting from there instead of from zero, the variance does not cancel when it is small.
        """
        centre = (self.loc.detach() * (self.num_bins - 1)).round().clamp(0, self.num_bins - 1)
        first, second = torch.zeros_like(self.loc), torch.zeros_like(self.loc)
        for level in range(1, self.num_bins):
            sign = torch.where(level > centre, 1.0, -1.0).to(self.loc.dtype)
            tail = torch.sigmoid(-sign * self._standardised(level - 0.5))
            first = first + sign * tail
            second = second + 2 * (level - centre - 0.5).abs() * tail
        return centre + first, second - first.square()

    @property
    def mean(self) -> Tensor:
        """Mean of the levels, which is not `loc` where a tail is cut."""
        return self._moments[0] / (self.num_bins - 1)

    @property
    def variance(self) -> Tensor:
        """Variance of the levels."""
        return self._moments[1] / (self.num_bins - 1) ** 2

    @property
    def mode(self) -> Tensor:
        """The most probable level: the one nearest to `loc`, or an end that has gathered more."""
        last = self.num_bins - 1
        inner = (self.loc.detach() * last).round().clamp(min(1, last - 1), max(last - 1, 0))
        levels = torch.stack([inner, torch.zeros_like(inner), torch.full_like(inner, last)])
        best = self._log_prob_of_level(levels).argmax(0, keepdim=True)
        return levels.gather(0, best).squeeze(0) / last

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over the levels."""
        total = torch.zeros_like(self.loc)
        for level in range(self.num_bins):
            log_prob = self._log_prob_of_level(level)
            total = total - log_prob.exp() * log_prob
        return total

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All levels, `[num_bins, *batch_shape]`, or `[num_bins, 1, ...]` without `expand`."""
        levels = torch.arange(self.num_bins, dtype=self.loc.dtype, device=self.loc.device) / (self.num_bins - 1)
        return enumerated(levels, self.batch_shape, expand)
