"""Ordinal values: cumulative logits, scored in log space.

For counts with too many zeros, use Pyro's ``pyro.distributions.ZeroInflatedDistribution(base, gate_logits=...)``. It
mixes in log space with any distribution of counts, `NaturalPoisson` and `NaturalNegativeBinomial` included.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pyro.distributions import constraints as pyro_constraints
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import log1mexp, standard_exponential
from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape, enumerated

__all__ = ["OrderedLogits"]


class OrderedLogits(CheckedDistribution):
    r"""Distribution on the levels 0, ..., K - 1 with cumulative log-odds at K - 1 ordered cutpoints.

    Use it as the likelihood of ordered categories, such as ratings. Unlike Pyro's `OrderedLogistic`, it keeps its
    gradient where the predictor is far off.

    Parameters
    ----------
    predictor : Tensor, shape ``[...]``
        Location f, on the scale of the cutpoints.
    cutpoints : Tensor, shape ``[..., K - 1]``
        Strictly increasing along the last dimension. The leading dimensions broadcast with `predictor` to
        `batch_shape`.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        The cutpoints have no last dimension or do not increase, or values are not levels.

    Notes
    -----
    .. math:: P(y \le k) = \sigma(c_k - f), \qquad
              \log P(y = k) = \log\sigma(c_k - f) + \log\sigma(f - c_{k-1}) + \log(1 - e^{c_{k-1} - c_k})

    The first and the last level lack the terms of the cutpoint that they do not have. Pyro's `OrderedLogistic`
    subtracts the two probabilities instead. In float32 that difference rounds to 0 where the predictor is far from a
    pair of cutpoints (17 units) or where two cutpoints are close. The score is then minus infinity or clamped, and the
    gradient that would pull the predictor back is lost. Here the score stays exact and its gradient finite.

    Events are integers. The moments are those of the number of the level. Results are in nats.

    References
    ----------
    P. McCullagh (1980), "Regression models for ordinal data", section 2.

    Examples
    --------
    >>> import torch
    >>> p = OrderedLogits(torch.tensor([0.0, 50.0]), torch.tensor([-1.0, 1.0]))
    >>> p.log_prob(torch.tensor([1, 0])), p.mode
    (tensor([ -0.7719, -51.0000]), tensor([1, 2]))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "predictor": constraints.real,
        "cutpoints": pyro_constraints.ordered_vector,
    }
    has_enumerate_support = True

    def __init__(self, predictor: Tensor, cutpoints: Tensor, *, validate_args: bool | None = None) -> None:
        if cutpoints.dim() == 0 or cutpoints.shape[-1] == 0:
            raise ValueError(f"OrderedLogits: cutpoints must be [..., K - 1], got shape {tuple(cutpoints.shape)}")
        batch_shape = torch.broadcast_shapes(predictor.shape, cutpoints.shape[:-1])
        self.predictor = predictor.expand(batch_shape)
        self.cutpoints = cutpoints.expand(batch_shape + cutpoints.shape[-1:])
        super().__init__(batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "OrderedLogits":
        """The same distribution with `batch_shape`."""
        return self._expand_as(OrderedLogits, batch_shape, _instance)

    @property
    def num_levels(self) -> int:
        """Number of levels K."""
        return self.cutpoints.shape[-1] + 1

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Constraint:
        """Integers from 0 to K - 1."""
        return constraints.integer_interval(0, self.num_levels - 1)

    @property
    def _distance(self) -> Tensor:
        return self.cutpoints - self.predictor.unsqueeze(-1)

    @property
    def log_probs(self) -> Tensor:
        """Log probabilities of all levels in nats, shape ``[..., K]``."""
        distance = self._distance
        below_upper = F.pad(F.logsigmoid(distance), (0, 1))
        above_lower = F.pad(F.logsigmoid(-distance), (1, 0))
        inner = F.pad(log1mexp(-self.cutpoints.diff(dim=-1)), (1, 1))
        # With two levels there is no inner one and nothing between the two zeros of the padding.
        return below_upper + above_lower + inner

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of levels `value` in nats, shape of `value` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        log_probs = self.log_probs.expand((*shape, -1))
        return log_probs.gather(-1, value.long().expand(shape).unsqueeze(-1)).squeeze(-1)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, int64, shape ``[*sample_shape, *batch_shape]``.

        Each one is the number of cutpoints that the predictor exceeds after adding logistic noise.
        """
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            upper, lower = (standard_exponential(shape, self.predictor).log() for _ in range(2))
            return ((upper - lower).unsqueeze(-1) > self._distance).sum(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of levels up to `value`, shape of `value` broadcast with `batch_shape`."""
        indicator = torch.arange(self.num_levels, device=value.device) <= value.unsqueeze(-1)
        return torch.where(indicator, self.log_probs, -torch.inf).logsumexp(-1).exp()

    @property
    def mean(self) -> Tensor:
        """Expected level, shape `batch_shape`: the sum of the probabilities of exceeding each cutpoint."""
        return torch.sigmoid(-self._distance).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of the level, shape `batch_shape`. It is taken about the mean, so that nothing cancels."""
        levels = torch.arange(self.num_levels, dtype=self.predictor.dtype, device=self.predictor.device)
        return (self.log_probs.exp() * (levels - self.mean.unsqueeze(-1)).square()).sum(-1)

    @property
    def mode(self) -> Tensor:
        """Most probable level, int64, shape `batch_shape`."""
        return self.log_probs.argmax(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats, shape `batch_shape`."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All levels, shape ``[K, *batch_shape]``, or ``[K, 1, ...]`` without `expand`."""
        levels = torch.arange(self.num_levels, device=self.predictor.device)
        return enumerated(levels, self.batch_shape, expand)
