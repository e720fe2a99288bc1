"""Distributions of stick fractions other than the Kumaraswamy: Beta, logit-normal, Gamma composition."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

from pyrovae.distributions._numerics import log_beta_function, rsample_log_gamma, standard_exponential
from pyrovae.distributions._validation import NO_SHAPE, Shape, broadcast_floats
from pyrovae.distributions.fractions import Fractions

_STEP, _LOG_STEP = 0.5, 0.25  # between nodes of the quadratures of moments


class Beta(Fractions):
    """Beta distribution that is drawn as a ratio of Gamma draws in log space.

    Use it for the fractions of a stick, in the prior and in the guide.

    Parameters
    ----------
    concentration1 : Tensor or float, shape ``[...]``
        Exponent of v, plus one; positive.
    concentration0 : Tensor or float, shape ``[...]``
        Exponent of 1 - v, plus one; positive. It broadcasts with `concentration1` to `batch_shape`.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        A concentration is not positive, or a value is outside (0, 1).

    Notes
    -----
    torch's own draws round to 0 or 1 for small concentrations and fail under ``torch.func.grad``. Here
    ``log v - log(1 - v)`` is the difference of two log Gamma draws with implicit gradients. Events are scalars.

    References
    ----------
    M. Figurnov, S. Mohamed and A. Mnih (2018), "Implicit reparameterization gradients", arXiv:1805.08498.

    Examples
    --------
    >>> prior = Beta(1.0, torch.tensor([1.0, 5.0]))
    >>> prior.log_prob(torch.tensor(0.5))
    tensor([-0.0000, -1.1632])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.concentration1, self.concentration0 = broadcast_floats(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "Beta":
        """The same distribution with `batch_shape`."""
        return self._expand_as(Beta, batch_shape, _instance)

    def rsample_log(self, sample_shape: Shape = NO_SHAPE) -> tuple[Tensor, Tensor]:
        """``log v`` and ``log(1 - v)`` of the same reparameterised draws, each ``[*sample_shape, *batch_shape]``."""
        shape = self._extended_shape(sample_shape)
        return _logs_of_logit(
            rsample_log_gamma(self.concentration1.expand(shape)) - rsample_log_gamma(self.concentration0.expand(shape))
        )

    def log_prob_from_logs(self, log_v: Tensor, log_1mv: Tensor) -> Tensor:
        """Log density of v (not of its logarithm) in nats from ``log v`` and ``log(1 - v)``, broadcast shape."""
        a, b = self.concentration1, self.concentration0
        return (a - 1) * log_v + (b - 1) * log_1mv - log_beta_function(a, b)

    @property
    def mean(self) -> Tensor:
        """Mean, shape `batch_shape`."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        """Variance, shape `batch_shape`."""
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.square() * (total + 1))

    @property
    def expected_log(self) -> Tensor:
        """``E[log v]``, shape `batch_shape`."""
        return torch.digamma(self.concentration1) - torch.digamma(self.concentration1 + self.concentration0)

    @property
    def expected_log1m(self) -> Tensor:
        """``E[log(1 - v)]``, shape `batch_shape`."""
        return torch.digamma(self.concentration0) - torch.digamma(self.concentration1 + self.concentration0)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, shape `batch_shape`.

        It is evaluated in float64, because its large terms cancel.
        """
        a, b = self.concentration1.double(), self.concentration0.double()
        return torch.distributions.Beta(a, b, validate_args=False).entropy().to(self.concentration1.dtype)


class LogitNormal(Fractions):
    """Distribution on (0, 1) of ``sigmoid(x)`` with x Normal(`loc`, `scale`).

    Use it for the fractions of a stick in a guide. It differs from torch's `LogisticNormal`, which is a distribution on
    the simplex. Its draws keep both logarithms.

    Parameters
    ----------
    loc : Tensor or float, shape ``[...]``
        Mean of the logit.
    scale : Tensor or float, shape ``[...]``
        Standard deviation of the logit, positive. It broadcasts with `loc` to `batch_shape`.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        A scale is not positive, or a value is outside (0, 1).

    References
    ----------
    J. Aitchison and S. M. Shen (1980), "Logistic-normal distributions: some properties and uses".

    Examples
    --------
    >>> LogitNormal(0.0, torch.tensor([1.0, 2.0])).log_prob(torch.tensor(0.5))
    tensor([ 0.4674, -0.2258])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_floats(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "LogitNormal":
        """The same distribution with `batch_shape`."""
        return self._expand_as(LogitNormal, batch_shape, _instance)

    def rsample_log(self, sample_shape: Shape = NO_SHAPE) -> tuple[Tensor, Tensor]:
        """``log v`` and ``log(1 - v)`` of the same reparameterised draws, each ``[*sample_shape, *batch_shape]``."""
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return _logs_of_logit(self.loc + self.scale * noise)

    def log_prob_from_logs(self, log_v: Tensor, log_1mv: Tensor) -> Tensor:
        """Log density of v (not of its logarithm) in nats from ``log v`` and ``log(1 - v)``, broadcast shape."""
        standardised = (log_v - log_1mv - self.loc) / self.scale
        normal = -0.5 * standardised.square() - torch.log(self.scale) - 0.5 * math.log(2 * math.pi)
        return normal - log_v - log_1mv

    def cdf(self, value: Tensor) -> Tensor:
        """``P(V <= value)``, broadcast shape."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.special.ndtr((torch.logit(value) - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at probability `value`, broadcast shape."""
        return torch.sigmoid(self.loc + self.scale * torch.special.ndtri(value))

    @property
    def mean(self) -> Tensor:
        """Mean by quadrature, to 1e-12 in float64, shape `batch_shape`."""
        below = self._moment(1)
        return torch.where(self.loc > 0, 1 - below, below).to(self.loc.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance by quadrature, to 1e-12 in float64, shape `batch_shape`."""
        return self._moment(2, self._moment(1)).to(self.loc.dtype)

    def _moment(self, order: int, centre: Tensor | float = 0.0) -> Tensor:
        """``E[(v - centre) ** order]`` for order 1 or 2, of v or of 1 - v, whichever is smaller, in float64.

        The trapezoidal rule is accurate to rounding for smooth integrands. For a narrow normal, the integrand is the
        sigmoid. The sigmoid is also the distribution function of a logistic variable. So for a wide normal, the
        integrand is a tail probability of the normal, averaged under the largest of `order` logistic variables.
        """
        loc, scale = -self.loc.double().abs().unsqueeze(-1), self.scale.double().unsqueeze(-1)
        nodes = _STEP * torch.arange(-17, 18, dtype=loc.dtype, device=loc.device)
        centre = torch.as_tensor(centre, device=nodes.device).unsqueeze(-1)
        mass = _STEP * torch.exp(-0.5 * nodes.square()) / math.sqrt(2 * math.pi)
        narrow = ((torch.sigmoid(loc + scale.clamp(max=1) * nodes) - centre) ** order) @ mass
        nodes = _STEP * torch.arange(-70, 71, dtype=loc.dtype, device=loc.device)
        mass = _STEP * order * torch.sigmoid(nodes) ** order * torch.sigmoid(-nodes)
        wide = torch.special.ndtr((loc - nodes) / scale.clamp(min=1)) @ mass
        return torch.where(self.scale < 1, narrow, wide - (order - 1) * centre.squeeze(-1).square())


class GammaComposition(Fractions):
    r"""Fractions ``x / (x + y)`` with x and y from an approximate inverse of the Gamma distribution function.

    Use it to reproduce work with the Gamma composition. `Beta` has exact Gamma draws.

    Parameters
    ----------
    concentration1 : Tensor or float, shape ``[...]``
        Concentration `a` of x, positive.
    concentration0 : Tensor or float, shape ``[...]``
        Concentration `b` of y, positive. It broadcasts with `concentration1` to `batch_shape`.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        A concentration is not positive, or a value is outside (0, 1).

    Notes
    -----
    Near zero, the distribution function of Gamma(c, 1) is :math:`u \approx x^c / (c \Gamma(c))`. So

    .. math::
        x = (u\, c\, \Gamma(c))^{1/c}

    is an explicit, reparameterised draw. It is good for concentrations well below 1 and poor above. It is at most
    :math:`\Gamma(c + 1)^{1/c}`, so the right tail is missing. With exact Gamma draws, v would be Beta(`concentration1`,
    `concentration0`).

    `log_prob` is the density of these draws and not that of the Beta. So an ELBO that uses it is a bound. The logit of
    v is an asymmetric Laplace variable,

    .. math::
        \frac{\log\Gamma(a + 1)}{a} - \frac{\log\Gamma(b + 1)}{b} - \frac{E_1}{a} + \frac{E_0}{b},

    with `E_1` and `E_0` standard exponential.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", arXiv:1605.06197. D. A. Knowles (2015),
    arXiv:1509.01631, for the approximation.

    Examples
    --------
    >>> GammaComposition(1.0, torch.tensor([1.0, 0.5])).log_prob(torch.tensor(0.5))
    tensor([0.6931, 0.0461])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.concentration1, self.concentration0 = broadcast_floats(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "GammaComposition":
        """The same distribution with `batch_shape`."""
        return self._expand_as(GammaComposition, batch_shape, _instance)

    def rsample_log(self, sample_shape: Shape = NO_SHAPE) -> tuple[Tensor, Tensor]:
        """``log v`` and ``log(1 - v)`` of the same reparameterised draws, each ``[*sample_shape, *batch_shape]``."""
        shape = self._extended_shape(sample_shape)
        noise1 = standard_exponential(shape, self.concentration1)
        noise0 = standard_exponential(shape, self.concentration0)
        return _logs_of_logit(self._centre() - noise1 / self.concentration1 + noise0 / self.concentration0)

    def _centre(self) -> Tensor:
        """The logit of v at which the density of the logit is largest."""
        a, b = self.concentration1, self.concentration0
        return torch.lgamma(a + 1) / a - torch.lgamma(b + 1) / b

    def log_prob_from_logs(self, log_v: Tensor, log_1mv: Tensor) -> Tensor:
        """Log density of v (not of its logarithm) in nats from ``log v`` and ``log(1 - v)``, broadcast shape."""
        a, b = self.concentration1, self.concentration0
        distance = log_v - log_1mv - self._centre()
        laplace = torch.log(a) + torch.log(b) - torch.log(a + b) + a * distance.clamp(max=0) - b * distance.clamp(min=0)
        return laplace - log_v - log_1mv

    def cdf(self, value: Tensor) -> Tensor:
        """``P(V <= value)``, broadcast shape."""
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        distance = torch.logit(value) - self._centre()
        below = torch.exp(a * distance.clamp(max=0)) * b / (a + b)
        return torch.where(distance < 0, below, 1 - torch.exp(-b * distance.clamp(min=0)) * a / (a + b))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at probability `value`, broadcast shape."""
        a, b = self.concentration1, self.concentration0
        split = b / (a + b)
        below = torch.log(torch.minimum(value, split) / split) / a
        above = -torch.log(torch.minimum(1 - value, 1 - split) / (1 - split)) / b
        return torch.sigmoid(self._centre() + below + above)

    @property
    def mean(self) -> Tensor:
        """Mean by quadrature, to 1e-9 in float64, shape `batch_shape`."""
        return self._moment(1).to(self.concentration1.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance by quadrature, to 1e-9 in float64, shape `batch_shape`."""
        return self._moment(2, self._moment(1)).to(self.concentration1.dtype)

    def _moment(self, order: int, centre: Tensor | float = 0.0) -> Tensor:
        """``E[(v - centre) ** order]`` in float64.

        The logit has an exponential tail on both sides of its peak. The trapezoidal rule is in the logarithm of the
        exponential variable, where the integrand is smooth for all concentrations.
        """
        a, b, peak = (
            value.double().unsqueeze(-1) for value in (self.concentration1, self.concentration0, self._centre())
        )
        nodes = torch.arange(-30, 4, _LOG_STEP, dtype=peak.dtype, device=peak.device)
        centre = torch.as_tensor(centre, device=nodes.device).unsqueeze(-1)
        distance = nodes.exp()
        below = b / (a + b) * (torch.sigmoid(peak - distance / a) - centre) ** order
        above = a / (a + b) * (torch.sigmoid(peak + distance / b) - centre) ** order
        return (below + above) @ (_LOG_STEP * torch.exp(nodes - distance))


def _logs_of_logit(logit: Tensor) -> tuple[Tensor, Tensor]:
    return logsigmoid(logit), logsigmoid(-logit)
