"""Natural exponential families: the base class that derives everything from the log normaliser."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from pyrovae.distributions._validation import CheckedDistribution

_FLOOR = 1e-6
Family = TypeVar("Family", bound="NaturalExponentialFamily")


def smooth_positive(raw: Tensor) -> Tensor:
    """Softplus of any shape plus 1e-6: smooth, with values from which no normaliser overflows for |raw| up to 1e4."""
    # -logsigmoid(-x) is softplus without the linear branch that torch's softplus takes above 20.
    return _FLOOR - F.logsigmoid(-raw)


def log_softplus(raw: Tensor) -> Tensor:
    """Logarithm of softplus, any shape, where softplus itself underflows: it tends to `raw` on the left."""
    right = (-F.logsigmoid(-raw.clamp(min=-15.0))).log()
    left = raw.clamp(max=-15.0)
    return torch.where(raw < -15.0, left - left.exp() / 2, right)


def value_itself(value: Tensor) -> Tensor:
    """T(x) = x, `[...]` to `[..., 1]`: the sufficient statistic of most families of one parameter."""
    return value.unsqueeze(-1)


class NaturalExponentialFamily(CheckedDistribution):
    r"""Base of distributions given by their natural parameters :math:`\eta`.

    .. math:: \log p(x) = \log h(x) + \eta^\top T(x) - A(\eta)

    `log_prob` works on the natural parameters; they are never turned into canonical ones on the way. Mean parameters,
    the covariance of T, entropy and the KL to a member of the same family (a Bregman divergence of A, see `kl.py`)
    come from derivatives of A by `torch.func.grad`, which nests under `vmap`, `make_fx` and `torch.compile`.

    The terms of the formula are much larger than their sum where a distribution is narrow: a Gamma with concentration
    1e5 adds numbers of size 1e6. Everything is therefore evaluated in float64 and rounded once to the dtype of
    `natural`.

    A subclass gives `arg_constraints`, `support`, the static methods `sufficient_statistics`, `log_normalizer` and
    `constrain`, the pair `from_canonical` and `to_canonical`, `mean`, `variance`, `mode`, and `sample` or `rsample`;
    where h is not 1 also `log_base_measure` and its expectation, for the entropy. A likelihood with a conjugate prior
    among the families gives `posterior(prior, sufficient_statistics, count)`.

    Shapes: `natural` `[..., m]`; `batch_shape` is `[...]`; nats throughout.

    Reference: Wainwright and Jordan, Graphical models, exponential families, and variational inference (2008),
    section 3; equations 3.5 (log normaliser), 3.41 (its derivatives) and 5.6 (KL as a Bregman divergence).

    Args:
        natural: natural parameters `[..., m]`, floating point.
        validate_args: whether parameters and values are checked; None follows torch's global setting.

    Raises:
        ValueError: for a wrong last dimension or parameters outside the natural domain.
    """

    num_natural: ClassVar[int | None] = None  # None where the last dimension is free

    def __init__(self, natural: Tensor, *, validate_args: bool | None = None) -> None:
        name = type(self).__name__
        if not isinstance(natural, Tensor) or not natural.is_floating_point() or natural.dim() == 0:
            seen = f"{natural.dtype} of shape {tuple(natural.shape)}" if isinstance(natural, Tensor) else repr(natural)
            raise ValueError(f"{name}: natural must be a floating-point tensor [..., m], got {seen}")
        if self.num_natural is not None and natural.shape[-1] != self.num_natural:
            raise ValueError(f"{name}: natural must be [..., {self.num_natural}], got shape {tuple(natural.shape)}")
        self.natural = natural
        super().__init__(natural.shape[:-1], self._natural_event_shape(natural), validate_args=validate_args)

    @staticmethod
    def _natural_event_shape(natural: Tensor) -> torch.Size:
        return torch.Size()

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "NaturalExponentialFamily":
        """The same distribution with `batch_shape`; a subclass with its own constructor overrides this."""
        return self._expand_as(NaturalExponentialFamily, batch_shape, _instance)

    @staticmethod
    @abstractmethod
    def sufficient_statistics(value: Tensor) -> Tensor:
        """T(x) `[..., m]` of values `[..., *event_shape]`."""

    def log_base_measure(self, value: Tensor) -> Tensor:
        """Logarithm of h(x) `[...]`; 0 unless the family says otherwise."""
        return torch.zeros_like(value)

    @abstractmethod
    def log_normalizer(self, natural: Tensor) -> Tensor:
        """A(eta) `[...]` of natural parameters `[..., m]`."""

    @staticmethod
    @abstractmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map any real `[..., m]`, such as the output of a net, smoothly into the natural domain.

        Values and gradients, also of `log_prob` after it, are finite for |raw| up to 1e4.
        """

    @classmethod
    @abstractmethod
    def from_canonical(cls, *, validate_args: bool | None = None, **parameters: Any) -> "NaturalExponentialFamily":
        """The family's member with the parameters of torch's class of the same name."""

    @abstractmethod
    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword arguments for torch's class of the same name, and for `from_canonical`."""

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of values up to `value`, `[...]`, for families whose distribution function torch can compute."""
        if self._validate_args:
            self._validate_sample(value)
        return self._cdf(self.natural.double(), value.double()).to(self.natural.dtype)

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        raise NotImplementedError(f"torch has no function for the cdf of {type(self).__name__}")

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        """Expectation of log h(x), for the entropy; 0 where h is 1."""
        return torch.zeros_like(natural[..., 0])

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        """The three terms; a family whose terms cancel even in float64 groups them anew."""
        inner = (natural * self.sufficient_statistics(value)).sum(-1)
        return self.log_base_measure(value) + inner - self.log_normalizer(natural)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, log h(x) + eta.T(x) - A(eta), `[...]`, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_density(self.natural.double(), value.double()).to(self.natural.dtype)

    def _gradient(self, natural: Tensor) -> Tensor:
        # Rows of a batch do not mix, so the gradient of the sum holds every row's gradient.
        return grad(lambda eta: self.log_normalizer(eta).sum())(natural)

    @property
    def mean_parameters(self) -> Tensor:
        """Expectation of T(x), the gradient of A, `[..., m]`."""
        return self._gradient(self.natural.double()).to(self.natural.dtype)

    @property
    def statistics_covariance(self) -> Tensor:
        """Covariance of T(x), the Hessian of A and the Fisher information of `natural`, `[..., m, m]`."""
        rows = [
            grad(lambda eta, i=i: self._gradient(eta)[..., i].sum())(self.natural.double())
            for i in range(self.natural.shape[-1])
        ]
        return torch.stack(rows, -2).to(self.natural.dtype)

    @property
    def statistics_variance(self) -> Tensor:
        """Variance of each entry of T(x), `[..., m]`."""
        return self.statistics_covariance.diagonal(dim1=-2, dim2=-1)

    def entropy(self) -> Tensor:
        """A(eta) - eta.E[T] - E[log h], `[...]`, in nats."""
        natural = self.natural.double()
        mean = self._gradient(natural)
        expected = self._expected_log_base_measure(natural, mean)
        return (self.log_normalizer(natural) - (natural * mean).sum(-1) - expected).to(self.natural.dtype)

    def same_family(self, other: "NaturalExponentialFamily") -> bool:
        """Whether `other` has the same T and h, so that it differs in `natural` only."""
        return type(self) is type(other) and self.natural.shape[-1] == other.natural.shape[-1]

    def bregman_divergence(self, natural: Tensor) -> Tensor:
        r"""Divergence of A from this member to the one with parameters `natural`: the KL in nats, `[...]`.

        .. math:: A(\eta_q) - A(\eta_p) - (\eta_q - \eta_p)^\top \nabla A(\eta_p)
        """
        own, other = self.natural.double(), natural.double()
        inner = ((other - own) * self._gradient(own)).sum(-1)
        return (self.log_normalizer(other) - self.log_normalizer(own) - inner).to(self.natural.dtype)


def canonical_logits(name: str, probs: Tensor | None, logits: Tensor | None) -> Tensor:
    """Log-odds from exactly one of `probs` and `logits`, as torch's discrete classes take them."""
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}.from_canonical takes exactly one of probs and logits")
    return torch.logit(torch.as_tensor(probs)) if logits is None else torch.as_tensor(logits)


def conjugate_update(
    likelihood: str, family: type[Family], prior: Family, increment: Sequence[Tensor | float]
) -> Family:
    """The member of the prior's family with `increment` added to its natural parameters.

    Args:
        likelihood: name of the likelihood, for the error.
        family: its conjugate family.
        prior: a member, which also says whether the posterior checks its arguments.
        increment: what the data add to each natural parameter, `[...]` or a number.

    Raises:
        TypeError: the prior is of another family.
    """
    if not isinstance(prior, family):
        raise TypeError(f"{likelihood}.posterior needs a {family.__name__} prior, got {type(prior).__name__}")
    like = {"dtype": prior.natural.dtype, "device": prior.natural.device}
    parts = torch.broadcast_tensors(*(torch.as_tensor(part, **like) for part in increment))
    return family(prior.natural + torch.stack(parts, -1), validate_args=prior._validate_args)
