"""Bernoulli and categorical distributions in natural parameters."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import logits_to_probs

from pyrovae.distributions._validation import NO_SHAPE, enumerated
from pyrovae.distributions.constraints import NaturalDomain
from pyrovae.distributions.exponential_family import (
    NaturalExponentialFamily,
    canonical_logits,
    conjugate_update,
    value_itself,
)
from pyrovae.distributions.natural_simplex import NaturalBeta, NaturalDirichlet

__all__ = ["NaturalBernoulli", "NaturalCategorical"]


class NaturalBernoulli(NaturalExponentialFamily):
    r"""Bernoulli distribution, eta = log-odds, T = x, h = 1, :math:`A(\eta) = \log(1 + e^\eta)`.

    Shapes: `natural` `[..., 1]`, real; scalar events, 0 or 1.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> p = NaturalBernoulli(torch.tensor([[0.0], [-200.0]]))
        >>> p.log_prob(torch.tensor([1.0, 1.0])), p.mean
        (tensor([  -0.6931, -200.0000]), tensor([0.5000, 0.0000]))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": NaturalDomain(constraints.real)}
    support = constraints.boolean
    has_enumerate_support = True
    num_natural = 1
    sufficient_statistics = staticmethod(value_itself)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """Softplus of the log-odds."""
        return -F.logsigmoid(-natural[..., 0])

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """The identity."""
        return raw

    @classmethod
    def from_canonical(
        cls, probs: Tensor | None = None, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> "NaturalBernoulli":
        """From the probability of 1 or its log-odds."""
        logits = canonical_logits("NaturalBernoulli", probs, logits)
        return cls(logits.unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword `logits`."""
        return {"logits": self.natural[..., 0]}

    @classmethod
    def posterior(cls, prior: NaturalBeta, sufficient_statistics: Tensor, count: Tensor | float) -> NaturalBeta:
        """Posterior of the probability of 1 after `count` values whose T(x) sum to `[..., 1]`."""
        ones = sufficient_statistics[..., 0]
        return conjugate_update("NaturalBernoulli", NaturalBeta, prior, [ones, count - ones])

    @property
    def mean(self) -> Tensor:
        """Probability of 1."""
        return self.natural[..., 0].sigmoid()

    @property
    def mode(self) -> Tensor:
        """The likelier value; 0 for equal odds."""
        return (self.natural[..., 0] > 0).to(self.natural.dtype)

    @property
    def variance(self) -> Tensor:
        """Product of both probabilities."""
        return self.natural[..., 0].sigmoid() * (-self.natural[..., 0]).sigmoid()

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws, of the dtype of `natural`."""
        with torch.no_grad():
            return torch.bernoulli(self.mean.expand(self._extended_shape(sample_shape)))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Both values, `[2, *batch_shape]`, or `[2, 1, ...]` without `expand`."""
        values = torch.arange(2, dtype=self.natural.dtype, device=self.natural.device)
        return enumerated(values, self.batch_shape, expand)


class NaturalCategorical(NaturalExponentialFamily):
    r"""Categorical distribution on 0, ..., m, eta = log-odds against the last category, h = 1.

    .. math:: T(x) = (1[x = 0], \dots, 1[x = m - 1]), \qquad A(\eta) = \log\Big(1 + \sum_k e^{\eta_k}\Big)

    One natural parameter fewer than categories, so that every distribution has exactly one `natural`. To use all the
    outputs of a net as logits, call `from_canonical(logits=...)`.

    Shapes: `natural` `[..., m]`, real; scalar integer events.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> p = NaturalCategorical.from_canonical(probs=torch.tensor([0.25, 0.25, 0.5]))
        >>> p.natural, p.log_prob(torch.tensor(2)).exp()
        (tensor([-0.6931, -0.6931]), tensor(0.5000))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": constraints.real_vector}
    has_enumerate_support = True

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Constraint:
        """Integers from 0 to m."""
        return constraints.integer_interval(0, self.natural.shape[-1])

    def sufficient_statistics(self, value: Tensor) -> Tensor:
        """Indicators of all categories but the last."""
        categories = torch.arange(self.natural.shape[-1], device=value.device)
        return (value.unsqueeze(-1) == categories).to(self.natural.dtype)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """Log of one plus the sum of the odds."""
        return _all_logits(natural).logsumexp(-1)

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """The identity."""
        return raw

    @classmethod
    def from_canonical(
        cls, probs: Tensor | None = None, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> "NaturalCategorical":
        """From `[..., m + 1]` probabilities or logits, which need not be normalised."""
        if (probs is None) == (logits is None):
            raise ValueError("NaturalCategorical.from_canonical takes exactly one of probs and logits")
        logits = torch.as_tensor(probs).log() if logits is None else torch.as_tensor(logits)
        return cls(logits[..., :-1] - logits[..., -1:], validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword `logits`, `[..., m + 1]`, the last one 0."""
        return {"logits": _all_logits(self.natural)}

    @classmethod
    def posterior(
        cls, prior: NaturalDirichlet, sufficient_statistics: Tensor, count: Tensor | float
    ) -> NaturalDirichlet:
        """Posterior of the probabilities after `count` values whose T(x) sum to `[..., m]`."""
        last = count - sufficient_statistics.sum(-1)
        return conjugate_update(
            "NaturalCategorical", NaturalDirichlet, prior, [*sufficient_statistics.unbind(-1), last]
        )

    @property
    def probs(self) -> Tensor:
        """Probabilities of all categories, `[..., m + 1]`."""
        return logits_to_probs(_all_logits(self.natural))

    @property
    def mean(self) -> Tensor:
        """NaN, as in torch: categories have no order."""
        return torch.full_like(self.natural[..., 0], torch.nan)

    @property
    def variance(self) -> Tensor:
        """NaN, as in torch."""
        return torch.full_like(self.natural[..., 0], torch.nan)

    @property
    def mode(self) -> Tensor:
        """The likeliest category."""
        return _all_logits(self.natural).argmax(-1)

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws, int64."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            # The largest of logits with Gumbel noise; unlike multinomial it keeps any batch shape and maps under vmap.
            logits = _all_logits(self.natural).expand((*shape, -1))
            noise = -torch.rand(logits.shape, dtype=torch.double, device=logits.device).log()
            return (logits - noise.log()).argmax(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All categories, `[m + 1, *batch_shape]`, or `[m + 1, 1, ...]` without `expand`."""
        values = torch.arange(self.natural.shape[-1] + 1, device=self.natural.device)
        return enumerated(values, self.batch_shape, expand)


def _all_logits(natural: Tensor) -> Tensor:
    return F.pad(natural, (0, 1))
