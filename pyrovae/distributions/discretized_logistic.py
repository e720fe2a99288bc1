"""The logistic distribution on equally spaced levels, a likelihood for grey values and colours."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import clamp_probs, lazy_property

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape, broadcast_floats, enumerated
from pyrovae.distributions.constraints import LATTICE_TOLERANCE, UnitLattice


class DiscretizedLogistic(CheckedDistribution):
    r"""Logistic distribution discretised to the `num_bins` levels k / (num_bins - 1) of the unit interval.

    Use it as the likelihood of pictures that are stored as bytes. Scale them to multiples of 1 / 255 in [0, 1].

    Parameters
    ----------
    loc : Tensor or float, shape ``[...]``
        Location, on the scale of the values. It may lie outside the unit interval.
    scale : Tensor or float, shape ``[...]``
        Scale of the logistic distribution, positive. It broadcasts with `loc` to `batch_shape`.
    num_bins : int, default 256
        Number of levels, at least 2. Use 256 for bytes.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        There are fewer than two bins, a scale is not positive, or values are not levels.

    Notes
    -----
    With :math:`h = 1 / (2(n-1))`, half the distance between two levels,

    .. math:: P(x) = \sigma\Big(\frac{x + h - \mu}{s}\Big) - \sigma\Big(\frac{x - h - \mu}{s}\Big).

    The first and the last level also take the tail below and above. In log space the difference is
    :math:`\log\sigma(a) + \log\sigma(-b) + \log(1 - e^{b-a})`, where nothing cancels. Places are counted in bins, and
    the product of `loc` and n - 1 is split in two. So float32 keeps its digits where `scale` is far below a bin. Values
    and gradients are finite for scales from 1e-15 to 1e15.

    Events are scalars. `log_prob` and `entropy` are in nats per value. For bits per dimension, divide the sum over the
    values of one datum by log(2) and by their number.

    `mean`, `variance` and `entropy` go through the levels one at a time. Without gradients, their memory does not grow
    with `num_bins`.

    References
    ----------
    D. Kingma, T. Salimans, R. Jozefowicz, X. Chen, I. Sutskever and M. Welling (2016), "Improved variational inference
    with inverse autoregressive flow", appendix. T. Salimans, A. Karpathy, X. Chen and D. Kingma (2017), "PixelCNN++",
    equation 2.

    Examples
    --------
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

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "DiscretizedLogistic":
        """The same distribution with `batch_shape`."""
        new = self._expand_as(DiscretizedLogistic, batch_shape, _instance)
        new.num_bins = self.num_bins
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Constraint:
        """The levels, as a `UnitLattice`."""
        return UnitLattice(self.num_bins)

    @lazy_property
    def _width(self) -> Tensor:
        """Scale in bins."""
        return self.scale * (self.num_bins - 1)

    def _standardised(self, place: Tensor | float) -> Tensor:
        """(place - loc) / scale for a `place` counted in bins, with a numerator exact to about 1e-9 bins in float32.

        loc * (n - 1) rounds. The product of its twelve leading binary places with n - 1 does not, and the rest is
        small.
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
        """Compute the log mass of levels in nats.

        Parameters
        ----------
        value : Tensor, shape ``[...]``
            Levels. Without validation, a value between two levels counts as the nearer one.

        Returns
        -------
        Tensor
            Log mass in nats, shape of `value` broadcast with `batch_shape`.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob_of_level((value * (self.num_bins - 1)).round().clamp(0, self.num_bins - 1))

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws without gradients, shape ``[*sample_shape, *batch_shape]``."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            return self.icdf(clamp_probs(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)))

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of levels up to `value`, which may lie between levels; broadcast shape."""
        bins = value * (self.num_bins - 1) + LATTICE_TOLERANCE
        inside = torch.sigmoid(self._standardised(bins.floor() + 0.5))
        above = bins >= self.num_bins - 1
        return torch.where(above, torch.ones_like(inside), inside.masked_fill(bins < 0, 0.0))

    def icdf(self, value: Tensor) -> Tensor:
        """Smallest level whose `cdf` reaches the probability `value`, broadcast shape."""
        bins = ((torch.logit(value) - self._standardised(-0.5)) * self._width).ceil() - 1
        return bins.clamp(0, self.num_bins - 1) / (self.num_bins - 1)

    @lazy_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance in bins, from sums of tail probabilities on both sides of the level nearest to `loc`.

        The sums count from there and not from zero, so the variance does not cancel when it is small.
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
        """Mean of the levels, shape `batch_shape`. It differs from `loc` where a tail is cut."""
        return self._moments[0] / (self.num_bins - 1)

    @property
    def variance(self) -> Tensor:
        """Variance of the levels, shape `batch_shape`."""
        return self._moments[1] / (self.num_bins - 1) ** 2

    @property
    def mode(self) -> Tensor:
        """Most probable level, shape `batch_shape`: the one nearest to `loc`, or an end with more mass."""
        last = self.num_bins - 1
        inner = (self.loc.detach() * last).round().clamp(min(1, last - 1), max(last - 1, 0))
        levels = torch.stack([inner, torch.zeros_like(inner), torch.full_like(inner, last)])
        best = self._log_prob_of_level(levels).argmax(0, keepdim=True)
        return levels.gather(0, best).squeeze(0) / last

    def entropy(self) -> Tensor:
        """Entropy in nats, summed over the levels, shape `batch_shape`."""
        total = torch.zeros_like(self.loc)
        for level in range(self.num_bins):
            log_prob = self._log_prob_of_level(level)
            total = total - log_prob.exp() * log_prob
        return total

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All levels, shape ``[num_bins, *batch_shape]``, or ``[num_bins, 1, ...]`` without `expand`."""
        levels = torch.arange(self.num_bins, dtype=self.loc.dtype, device=self.loc.device) / (self.num_bins - 1)
        return enumerated(levels, self.batch_shape, expand)
