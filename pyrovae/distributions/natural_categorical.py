"""Bernoulli and categorical distributions in natural parameters."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import logits_to_probs

from pyrovae.distributions._validation import NO_SHAPE, Shape, enumerated
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
    r"""Bernoulli distribution in its natural parameter, the log-odds of 1.

    Use it as `Bernoulli` where you need conjugate updates or divergences in natural parameters.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 1]``
        Log-odds of 1, any real number.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = x, h(x) = 1 and

    .. math:: A(\eta) = \log(1 + e^\eta).

    Events are the numbers 0 and 1.

    Examples
    --------
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
        """A(eta), the softplus of the log-odds, ``[..., 1]`` to ``[...]``."""
        return -F.logsigmoid(-natural[..., 0])

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Return `raw` unchanged, because all real log-odds are valid."""
        return raw

    @classmethod
    def from_canonical(
        cls, probs: Tensor | None = None, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> "NaturalBernoulli":
        """Make the distribution from the probability of 1 or from its log-odds.

        Parameters
        ----------
        probs : Tensor, shape ``[...]``, optional
            Probability of 1.
        logits : Tensor, shape ``[...]``, optional
            Log-odds of 1.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalBernoulli
            The distribution with `batch_shape` ``[...]``.

        Raises
        ------
        ValueError
            Both are given, or none.
        """
        logits = canonical_logits("NaturalBernoulli", probs, logits)
        return cls(logits.unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `logits`, shape ``[...]``."""
        return {"logits": self.natural[..., 0]}

    @classmethod
    def posterior(cls, prior: NaturalBeta, sufficient_statistics: Tensor, count: Tensor | float) -> NaturalBeta:
        """Compute the posterior of the probability of 1.

        Parameters
        ----------
        prior : NaturalBeta
            Prior of the probability of 1.
        sufficient_statistics : Tensor, shape ``[..., 1]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.

        Returns
        -------
        NaturalBeta
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.
        """
        ones = sufficient_statistics[..., 0]
        return conjugate_update("NaturalBernoulli", NaturalBeta, prior, [ones, count - ones])

    @property
    def mean(self) -> Tensor:
        """Probability of 1, shape `batch_shape`."""
        return self.natural[..., 0].sigmoid()

    @property
    def mode(self) -> Tensor:
        """More probable value, shape `batch_shape`; 0 where both are equally probable."""
        return (self.natural[..., 0] > 0).to(self.natural.dtype)

    @property
    def variance(self) -> Tensor:
        """Product of both probabilities, shape `batch_shape`."""
        return self.natural[..., 0].sigmoid() * (-self.natural[..., 0]).sigmoid()

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws in the dtype of `natural`, without gradients, shape ``[*sample_shape, *batch_shape]``."""
        with torch.no_grad():
            return torch.bernoulli(self.mean.expand(self._extended_shape(sample_shape)))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Both values, shape ``[2, *batch_shape]``, or ``[2, 1, ...]`` without `expand`."""
        values = torch.arange(2, dtype=self.natural.dtype, device=self.natural.device)
        return enumerated(values, self.batch_shape, expand)


class NaturalCategorical(NaturalExponentialFamily):
    r"""Categorical distribution on 0, ..., m in its natural parameters, the log-odds against the last category.

    Use it as `Categorical` where you need conjugate updates or divergences in natural parameters. To use all the
    outputs of a net as logits, call ``from_canonical(logits=...)``.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., m]``
        Log-odds of the categories 0 to m - 1 against category m, any real numbers.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    With h(x) = 1,

    .. math:: T(x) = (1[x = 0], \dots, 1[x = m - 1]), \qquad A(\eta) = \log\Big(1 + \sum_k e^{\eta_k}\Big)

    There is one natural parameter fewer than categories. So every distribution has exactly one `natural`. Events are
    integers.

    Examples
    --------
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
        """T(x), the indicators of all categories but the last, ``[...]`` to ``[..., m]``."""
        categories = torch.arange(self.natural.shape[-1], device=value.device)
        return (value.unsqueeze(-1) == categories).to(self.natural.dtype)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """A(eta), the logarithm of one plus the sum of the odds, ``[..., m]`` to ``[...]``."""
        return _all_logits(natural).logsumexp(-1)

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Return `raw` unchanged, because all real log-odds are valid."""
        return raw

    @classmethod
    def from_canonical(
        cls, probs: Tensor | None = None, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> "NaturalCategorical":
        """Make the distribution from probabilities or logits of all categories.

        Parameters
        ----------
        probs : Tensor, shape ``[..., m + 1]``, optional
            Probabilities, which need not be normalised.
        logits : Tensor, shape ``[..., m + 1]``, optional
            Log-probabilities, which need not be normalised.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalCategorical
            The distribution with `batch_shape` ``[...]``.

        Raises
        ------
        ValueError
            Both are given, or none.
        """
        if (probs is None) == (logits is None):
            raise ValueError("NaturalCategorical.from_canonical takes exactly one of probs and logits")
        logits = torch.as_tensor(probs).log() if logits is None else torch.as_tensor(logits)
        return cls(logits[..., :-1] - logits[..., -1:], validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `logits`, shape ``[..., m + 1]``. The last logit is 0."""
        return {"logits": _all_logits(self.natural)}

    @classmethod
    def posterior(
        cls, prior: NaturalDirichlet, sufficient_statistics: Tensor, count: Tensor | float
    ) -> NaturalDirichlet:
        """Compute the posterior of the probabilities of the categories.

        Parameters
        ----------
        prior : NaturalDirichlet
            Prior of the probabilities of the m + 1 categories.
        sufficient_statistics : Tensor, shape ``[..., m]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.

        Returns
        -------
        NaturalDirichlet
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.
        """
        last = count - sufficient_statistics.sum(-1)
        return conjugate_update(
            "NaturalCategorical", NaturalDirichlet, prior, [*sufficient_statistics.unbind(-1), last]
        )

    @property
    def probs(self) -> Tensor:
        """Probabilities of all categories, shape ``[..., m + 1]``."""
        return logits_to_probs(_all_logits(self.natural))

    @property
    def mean(self) -> Tensor:
        """NaN as in torch, because categories have no order; shape `batch_shape`."""
        return torch.full_like(self.natural[..., 0], torch.nan)

    @property
    def variance(self) -> Tensor:
        """NaN as in torch, shape `batch_shape`."""
        return torch.full_like(self.natural[..., 0], torch.nan)

    @property
    def mode(self) -> Tensor:
        """Most probable category, int64, shape `batch_shape`."""
        return _all_logits(self.natural).argmax(-1)

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, int64, shape ``[*sample_shape, *batch_shape]``."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            # The largest of logits with Gumbel noise; unlike multinomial it keeps any batch shape and maps under vmap.
            logits = _all_logits(self.natural).expand((*shape, -1))
            noise = -torch.rand(logits.shape, dtype=torch.double, device=logits.device).log()
            return (logits - noise.log()).argmax(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All categories, shape ``[m + 1, *batch_shape]``, or ``[m + 1, 1, ...]`` without `expand`."""
        values = torch.arange(self.natural.shape[-1] + 1, device=self.natural.device)
        return enumerated(values, self.batch_shape, expand)


def _all_logits(natural: Tensor) -> Tensor:
    return F.pad(natural, (0, 1))
