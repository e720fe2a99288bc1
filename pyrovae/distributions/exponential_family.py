"""Natural exponential families: the base class that derives everything from the log normaliser."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from pyrovae.distributions._validation import CheckedDistribution, Shape

_FLOOR = 1e-6
Family = TypeVar("Family", bound="NaturalExponentialFamily")


def smooth_positive(raw: Tensor) -> Tensor:
    """Map real numbers smoothly to positive ones: softplus plus 1e-6.

    Use it on the outputs of a net. No normaliser of the families overflows at the result for ``|raw|`` up to 1e4.

    Parameters
    ----------
    raw : Tensor
        Real numbers, any shape.

    Returns
    -------
    Tensor
        Positive numbers, same shape.
    """
    # -logsigmoid(-x) is softplus without the linear branch that torch's softplus takes above 20.
    return _FLOOR - F.logsigmoid(-raw)


def log_softplus(raw: Tensor) -> Tensor:
    """Compute the logarithm of softplus, also where softplus itself underflows.

    Parameters
    ----------
    raw : Tensor
        Real numbers, any shape.

    Returns
    -------
    Tensor
        Same shape. The result tends to `raw` for large negative `raw`.
    """
    right = (-F.logsigmoid(-raw.clamp(min=-15.0))).log()
    left = raw.clamp(max=-15.0)
    return torch.where(raw < -15.0, left - left.exp() / 2, right)


def value_itself(value: Tensor) -> Tensor:
    """The sufficient statistic T(x) = x of most families with one parameter.

    Parameters
    ----------
    value : Tensor, shape ``[...]``
        The values x.

    Returns
    -------
    Tensor
        T(x), shape ``[..., 1]``.
    """
    return value.unsqueeze(-1)


class NaturalExponentialFamily(CheckedDistribution):
    r"""Base class of distributions that are given by their natural parameters :math:`\eta`.

    Use it for conjugate models and for divergences in natural parameters, or subclass it for a family of your own.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., m]``
        Natural parameters. `batch_shape` is ``[...]``.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        The last dimension has the wrong size, or parameters are outside the natural domain.

    Notes
    -----
    .. math:: \log p(x) = \log h(x) + \eta^\top T(x) - A(\eta)

    `log_prob` works on the natural parameters. It does not convert them to canonical ones. Derivatives of A by
    `torch.func.grad` give the mean parameters, the covariance of T, the entropy, and the KL to a member of the same
    family, which is a Bregman divergence of A. They work under `vmap`, `make_fx` and `torch.compile`.

    The terms of the formula are much larger than their sum where a distribution is narrow. A Gamma with concentration
    1e5 adds numbers of size 1e6. So these quantities and `log_prob` are evaluated in float64 and rounded once to the
    dtype of `natural`. All results are in nats.

    A subclass gives `arg_constraints`, `support`, the methods `sufficient_statistics`, `log_normalizer` and
    `constrain`, the pair `from_canonical` and `to_canonical`, the properties `mean`, `variance` and `mode`, and
    `sample` or `rsample`. Where h is not 1, it also gives `log_base_measure` and its expectation for the entropy. A
    likelihood whose conjugate prior is one of the families gives ``posterior(prior, sufficient_statistics, count)``.

    References
    ----------
    M. Wainwright and M. Jordan (2008), "Graphical models, exponential families, and variational inference", section 3
    and equations 3.5 (density), 3.41 (derivatives of the log normaliser) and 5.6 (KL as a Bregman divergence).

    Examples
    --------
    >>> from pyrovae.distributions import NaturalPoisson
    >>> p = NaturalPoisson(torch.tensor([[0.0], [2.0]]))
    >>> p.batch_shape, p.mean, p.statistics_variance.squeeze(-1)
    (torch.Size([2]), tensor([1.0000, 7.3891]), tensor([1.0000, 7.3891]))
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

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "NaturalExponentialFamily":
        """The same distribution with `batch_shape`. A subclass with its own constructor overrides this."""
        return self._expand_as(NaturalExponentialFamily, batch_shape, _instance)

    @abstractmethod
    def sufficient_statistics(self, value: Tensor) -> Tensor:
        """Compute the sufficient statistics T(x).

        Parameters
        ----------
        value : Tensor, shape ``[..., *event_shape]``
            The values x.

        Returns
        -------
        Tensor
            T(x), shape ``[..., m]``.
        """

    def log_base_measure(self, value: Tensor) -> Tensor:
        """Compute the logarithm of h(x), which is 0 unless the family says otherwise.

        Parameters
        ----------
        value : Tensor, shape ``[..., *event_shape]``
            The values x.

        Returns
        -------
        Tensor
            log h(x), shape ``[...]``.
        """
        return torch.zeros_like(value)

    @abstractmethod
    def log_normalizer(self, natural: Tensor) -> Tensor:
        """Compute the log normaliser A(eta).

        Parameters
        ----------
        natural : Tensor, shape ``[..., m]``
            Natural parameters.

        Returns
        -------
        Tensor
            A(eta), shape ``[...]``, in the dtype of `natural`.
        """

    @staticmethod
    @abstractmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map any real numbers smoothly into the natural domain. Use it on the outputs of a net.

        Parameters
        ----------
        raw : Tensor, shape ``[..., m]``
            Real numbers.

        Returns
        -------
        Tensor
            Natural parameters, shape ``[..., m]``.

        Notes
        -----
        Values and gradients are finite for ``|raw|`` up to 1e4, also those of `log_prob` after it.
        """

    @classmethod
    @abstractmethod
    def from_canonical(cls, *args: Any, **parameters: Any) -> "NaturalExponentialFamily":
        """Make the family's member with the parameters of torch's class of the same name.

        Parameters
        ----------
        *args, **parameters : Tensor or float
            Parameters as torch's class takes them, and `validate_args`.

        Returns
        -------
        NaturalExponentialFamily
            The same distribution in natural parameters.
        """

    @abstractmethod
    def to_canonical(self) -> dict[str, Tensor]:
        """Return the keyword arguments for torch's class of the same name, which `from_canonical` takes too.

        Returns
        -------
        dict of str to Tensor
            The canonical parameters, each of shape ``[...]`` with its own event dimensions.
        """

    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of values up to `value`.

        Parameters
        ----------
        value : Tensor, shape ``[...]``
            Values in the support.

        Returns
        -------
        Tensor
            Probability, shape of `value` broadcast with `batch_shape`.

        Raises
        ------
        NotImplementedError
            torch has no function for the cdf of this family.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self._cdf(self.natural.double(), value.double()).to(self.natural.dtype)

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        raise NotImplementedError(f"torch has no function for the cdf of {type(self).__name__}")

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        """Expectation of log h(x), for the entropy; 0 where h is 1."""
        return torch.zeros_like(natural[..., 0])

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        """The sum of the three terms. A family overrides this if its terms cancel even in float64."""
        inner = (natural * self.sufficient_statistics(value)).sum(-1)
        return self.log_base_measure(value) + inner - self.log_normalizer(natural)

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density log h(x) + eta.T(x) - A(eta).

        Parameters
        ----------
        value : Tensor, shape ``[..., *event_shape]``
            Values in the support.

        Returns
        -------
        Tensor
            Log density in nats, shape of the batch of `value` broadcast with `batch_shape`.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self._log_density(self.natural.double(), value.double()).to(self.natural.dtype)

    def _gradient(self, natural: Tensor) -> Tensor:
        # Rows of a batch do not mix, so the gradient of the sum holds every row's gradient.
        return grad(lambda eta: self.log_normalizer(eta).sum())(natural)

    @property
    def mean_parameters(self) -> Tensor:
        """Expectation of T(x), the gradient of A, shape ``[..., m]``."""
        return self._gradient(self.natural.double()).to(self.natural.dtype)

    @property
    def statistics_covariance(self) -> Tensor:
        """Covariance of T(x), shape ``[..., m, m]``: the Hessian of A, and the Fisher information of `natural`."""
        rows = [
            grad(lambda eta, i=i: self._gradient(eta)[..., i].sum())(self.natural.double())
            for i in range(self.natural.shape[-1])
        ]
        return torch.stack(rows, -2).to(self.natural.dtype)

    @property
    def statistics_variance(self) -> Tensor:
        """Variance of each entry of T(x), shape ``[..., m]``."""
        return self.statistics_covariance.diagonal(dim1=-2, dim2=-1)

    def entropy(self) -> Tensor:
        """Entropy A(eta) - eta.E[T] - E[log h] in nats, shape `batch_shape`."""
        natural = self.natural.double()
        mean = self._gradient(natural)
        expected = self._expected_log_base_measure(natural, mean)
        return (self.log_normalizer(natural) - (natural * mean).sum(-1) - expected).to(self.natural.dtype)

    def same_family(self, other: "NaturalExponentialFamily") -> bool:
        """Return whether `other` has the same T and h, so that it differs in `natural` only."""
        return type(self) is type(other) and self.natural.shape[-1] == other.natural.shape[-1]

    def bregman_divergence(self, natural: Tensor) -> Tensor:
        r"""Compute the KL from this member to another member of the family.

        Parameters
        ----------
        natural : Tensor, shape ``[..., m]``
            Natural parameters of the other member.

        Returns
        -------
        Tensor
            KL(this || other) in nats, broadcast batch shape.

        Notes
        -----
        With :math:`\eta_p` for this member and :math:`\eta_q` for the other,

        .. math:: A(\eta_q) - A(\eta_p) - (\eta_q - \eta_p)^\top \nabla A(\eta_p).
        """
        own, other = self.natural.double(), natural.double()
        inner = ((other - own) * self._gradient(own)).sum(-1)
        return (self.log_normalizer(other) - self.log_normalizer(own) - inner).to(self.natural.dtype)


def canonical_logits(name: str, probs: Tensor | None, logits: Tensor | None) -> Tensor:
    """Return log-odds from exactly one of `probs` and `logits`, as torch's discrete classes take them.

    Parameters
    ----------
    name : str
        Name of the class, for the error.
    probs : Tensor or None, shape ``[...]``
        Probabilities.
    logits : Tensor or None, shape ``[...]``
        Log-odds.

    Returns
    -------
    Tensor
        Log-odds, shape ``[...]``.

    Raises
    ------
    ValueError
        Both are given, or none.
    """
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}.from_canonical takes exactly one of probs and logits")
    return torch.logit(torch.as_tensor(probs)) if logits is None else torch.as_tensor(logits)


def conjugate_update(
    likelihood: str, family: type[Family], prior: Family, increment: Sequence[Tensor | float]
) -> Family:
    """Add the increments of the data to the natural parameters of a conjugate prior.

    Parameters
    ----------
    likelihood : str
        Name of the likelihood, for the error.
    family : type
        Its conjugate family.
    prior : NaturalExponentialFamily
        A member of `family`. The posterior checks its arguments if the prior does.
    increment : sequence of Tensor or float, each of shape ``[...]``
        What the data add to each natural parameter.

    Returns
    -------
    NaturalExponentialFamily
        The posterior, a member of `family`.

    Raises
    ------
    TypeError
        The prior is of another family.
    """
    if not isinstance(prior, family):
        raise TypeError(f"{likelihood}.posterior needs a {family.__name__} prior, got {type(prior).__name__}")
    dtype, device = prior.natural.dtype, prior.natural.device
    parts = torch.broadcast_tensors(*(torch.as_tensor(part, dtype=dtype, device=device) for part in increment))
    return family(prior.natural + torch.stack(parts, -1), validate_args=prior._validate_args)
