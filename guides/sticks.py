"""Amortised guides over the fractions of a stick."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, LogNormal
from torch import Tensor, nn

from pyrovae.distributions import Beta, Fractions, GammaComposition, Kumaraswamy, LogitNormal
from pyrovae.guides.amortized import Amortized
from pyrovae.nn.encoders import num_features

_FLOOR, _CEILING = 1e-2, 1e3
_MAX_LOGIT, _MIN_SCALE, _MAX_SCALE = 12.0, 1e-3, 10.0


class FractionsHead(nn.Module):
    """Base class of a linear layer whose output is a distribution of fractions, of event shape ``[truncation - 1]``.

    Use a subclass, such as `KumaraswamyHead`.

    Parameters
    ----------
    in_features : int
        Size of the features.
    truncation : int
        Number of weights K, at least 2. There are K - 1 fractions.
    concentration : float, default 1.0
        Concentration of the prior Beta(1, `concentration`) to start from, positive. The heads with two concentrations
        need a value between 0.01 and 1000.

    Raises
    ------
    ValueError
        There are fewer than two weights, or the concentration is out of range.

    Notes
    -----
    At features of zero the distribution is the prior, or close to it. Smooth functions keep all parameters in a range
    where draws, scores and divergences hold in float32. They never cut a gradient off.
    """

    def __init__(self, in_features: int, truncation: int, concentration: float = 1.0) -> None:
        super().__init__()
        if truncation < 2:
            raise ValueError(f"truncation is the number of weights and must be at least 2, got {truncation}")
        if not 0 < concentration < math.inf:
            raise ValueError(f"concentration must be a positive number, got {concentration}")
        self.linear = nn.Linear(in_features, 2 * (truncation - 1))
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(self.initial(concentration)).repeat_interleave(truncation - 1))

    def forward(self, features: Tensor) -> Independent:
        """Return the distribution at features ``[..., in_features]``."""
        return self.fractions(*self.linear(features).chunk(2, -1)).to_event(1)

    @abstractmethod
    def initial(self, concentration: float) -> Sequence[float]:
        """Return the two raw outputs at which the distribution is Beta(1, `concentration`), or close to it."""

    @abstractmethod
    def fractions(self, first: Tensor, second: Tensor) -> Fractions:
        """Return the distribution at raw outputs of both kinds, each ``[..., truncation - 1]``."""


class _ConcentrationsHead(FractionsHead):
    """A head whose distribution has two concentrations. At first they are 1 and that of the prior."""

    family: Callable[[Tensor, Tensor], Fractions]

    def initial(self, concentration: float) -> Sequence[float]:
        """Return raw outputs for concentrations of 1 and `concentration`."""
        return [_raw_of(1.0, _FLOOR, _CEILING), _raw_of(concentration, _FLOOR, _CEILING)]

    def fractions(self, first: Tensor, second: Tensor) -> Fractions:
        """Return the distribution, with concentrations between 0.01 and 1000."""
        return self.family(_between(first, _FLOOR, _CEILING), _between(second, _FLOOR, _CEILING))


class KumaraswamyHead(_ConcentrationsHead):
    """Kumaraswamy fractions. At features of zero they are exactly the prior.

    Examples
    --------
    >>> KumaraswamyHead(3, 10)(torch.zeros(5, 3)).event_shape
    torch.Size([9])
    """

    family = Kumaraswamy


class BetaHead(_ConcentrationsHead):
    """Beta fractions, with implicit gradients. At features of zero they are exactly the prior."""

    family = Beta


class GammaHead(_ConcentrationsHead):
    """Fractions made of two approximate Gamma draws, see `GammaComposition`."""

    family = GammaComposition


class LogitNormalHead(FractionsHead):
    """Logit-normal fractions. At features of zero their logits have the mean and the variance of those of the prior.

    A mean beyond 10.8 and a standard deviation beyond 9 are out of range, and these limits are taken instead.
    """

    def initial(self, concentration: float) -> Sequence[float]:
        """Return raw outputs at which the first two moments of the logit are those of Beta(1, `concentration`)."""
        prior = torch.tensor([1.0, concentration], dtype=torch.float64)
        loc = float(torch.digamma(prior).diff()) * -1
        scale = float(torch.polygamma(1, prior).sum().sqrt())
        inside = min(max(loc / _MAX_LOGIT, -0.9), 0.9)
        return [_MAX_LOGIT * math.atanh(inside), _raw_of(min(scale, 0.9 * _MAX_SCALE), _MIN_SCALE, _MAX_SCALE)]

    def fractions(self, first: Tensor, second: Tensor) -> LogitNormal:
        """Return the distribution, with a location between -12 and 12 and a scale between 0.001 and 10."""
        return LogitNormal(_MAX_LOGIT * torch.tanh(first / _MAX_LOGIT), _between(second, _MIN_SCALE, _MAX_SCALE))


def _between(raw: Tensor, low: float, high: float) -> Tensor:
    """Map `raw` to a number between `low` and `high`: about softplus plus `low`, flat near `high`."""
    grown = F.softplus(raw)
    return low + grown / (1 + grown / (high - low))


def _raw_of(value: float, low: float, high: float) -> float:
    """The raw number that `_between` maps to `value`.

    >>> round(float(_between(torch.tensor(_raw_of(5.0, 0.01, 1000.0)), 0.01, 1000.0)), 5)
    5.0
    """
    if not low < value < high:
        raise ValueError(f"concentration must be between {low} and {high}, got {value}")
    grown = (value - low) / (1 - (value - low) / (high - low))
    return grown + math.log(-math.expm1(-grown))


class ConcentrationPosterior(nn.Module):
    """A log-normal posterior of the concentration of the prior, the same for all data.

    Use it in a guide of sticks, for a model with a hyperprior.

    Parameters
    ----------
    initial : float, default 1.0
        Median before training, positive.
    spread : float, default 0.1
        Standard deviation of the logarithm before training, positive.

    Raises
    ------
    ValueError
        A number is not positive.

    Examples
    --------
    >>> ConcentrationPosterior(5.0)().mean
    tensor(5.0251, grad_fn=<ExpBackward0>)
    """

    def __init__(self, initial: float = 1.0, spread: float = 0.1) -> None:
        super().__init__()
        if not (initial > 0 and spread > 0):
            raise ValueError(f"initial and spread must be positive, got {initial} and {spread}")
        self.loc = nn.Parameter(torch.tensor(math.log(initial)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(spread)))

    def forward(self) -> LogNormal:
        """Return the distribution, a scalar."""
        return LogNormal(self.loc, self.log_scale.exp())


def _amortized(
    head: type[FractionsHead],
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior,
    num_data: int | None,
) -> Amortized:
    if isinstance(concentration, ConcentrationPosterior):
        initial, shared = concentration.loc.exp().item(), {"concentration": concentration}
    else:
        initial, shared = concentration, None
    return Amortized(encoder, head(num_features(encoder), truncation, initial), shared=shared, num_data=num_data)


def KumaraswamySticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """The guide q(v|x) of independent Kumaraswamy fractions, the first choice for `StickBreakingVAE`.

    Draws are reparameterised and use all of the unit interval, while the authors of the method cut off both ends of the
    noise. The KL to the prior needs no draws.

    Site: `z` (event shape ``[truncation - 1]``) in the plate "data", dimension -1. With a posterior of the
    concentration there is also `concentration`, a scalar outside of the plate.

    Parameters
    ----------
    encoder : Module
        As for `Amortized`, with the attribute `out_features`.
    truncation : int
        Number of weights K of the model, at least 2.
    concentration : float or ConcentrationPosterior, default 1.0
        Concentration of the prior, at which the fractions start, between 0.01 and 1000. For a model with a hyperprior,
        the posterior of the concentration.
    num_data : int, optional
        With a posterior of the concentration, the number of training rows, as in the model.

    Returns
    -------
    Amortized
        The guide.

    Raises
    ------
    ValueError
        There are fewer than two weights, or the concentration is out of range.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", sections 3.1 and 4.2.

    Examples
    --------
    >>> from pyrovae.nn import DenseEncoder
    >>> guide = KumaraswamySticks(DenseEncoder((1, 4, 4), (8,)), 10, 5.0)
    >>> guide(torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 9])
    """
    return _amortized(KumaraswamyHead, encoder, truncation, concentration, num_data)


def LogitNormalSticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """The guide q(v|x) of logit-normal fractions, for comparison with `KumaraswamySticks`.

    Their KL to the prior has no closed form, so every objective samples it.
    Parameters, return value and errors are those of `KumaraswamySticks`, but any positive concentration is accepted.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", section 3.3.
    """
    return _amortized(LogitNormalHead, encoder, truncation, concentration, num_data)


def GammaSticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """The guide q(v|x) of fractions of two approximate Gamma draws, for comparison with `KumaraswamySticks`.

    Draws are scored under the distribution that they have (`GammaComposition`). The KL to the prior is sampled.
    Parameters, return value and errors are those of `KumaraswamySticks`.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", section 3.2.
    """
    return _amortized(GammaHead, encoder, truncation, concentration, num_data)


def BetaSticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """The guide q(v|x) of Beta fractions, with implicit gradients. The prior is of the same family, so the KL is exact.

    It is slower than `KumaraswamySticks`, because a draw takes two Gamma draws.
    Parameters, return value and errors are those of `KumaraswamySticks`.

    References
    ----------
    M. Figurnov, S. Mohamed and A. Mnih (2018), "Implicit reparameterization gradients".
    """
    return _amortized(BetaHead, encoder, truncation, concentration, num_data)
