"""Amortised guides over the fractions of a stick."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, LogNormal
from torch import Tensor, nn

from pyrovae.distributions import Beta, Fractions, GammaComposition, Kumaraswamy, LogitNormal
from pyrovae.guides.amortized import Amortized

_FLOOR, _CEILING = 1e-2, 1e3
_MAX_LOGIT, _MIN_SCALE, _MAX_SCALE = 12.0, 1e-3, 10.0


class FractionsHead(nn.Module):
    """A linear layer whose output is a distribution of fractions, `[..., in_features]` -> event `[truncation - 1]`.

    At features of zero it is the prior, or close to it. All its parameters stay in a range where draws, scores and
    divergences hold in float32, by smooth functions, so that no gradient is ever cut off.

    Args:
        in_features: size of the features.
        truncation: number of weights K; there are K - 1 fractions.
        concentration: of the prior Beta(1, `concentration`) to start from.

    Raises:
        ValueError: for fewer than two weights, or a concentration that is not positive.
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
        """The distribution at these features."""
        return self.fractions(*self.linear(features).chunk(2, -1)).to_event(1)

    @abstractmethod
    def initial(self, concentration: float) -> Sequence[float]:
        """Raw outputs of both kinds at which the distribution is Beta(1, `concentration`), or close to it."""

    @abstractmethod
    def fractions(self, first: Tensor, second: Tensor) -> Fractions:
        """The distribution at raw outputs of both kinds, each `[..., truncation - 1]`."""


class _ConcentrationsHead(FractionsHead):
    """A head whose distribution has two concentrations: 1 and that of the prior to begin with."""

    family: type[Fractions]

    def initial(self, concentration: float) -> Sequence[float]:
        """Raw outputs for concentrations of 1 and `concentration`."""
        return [_raw_of(1.0, _FLOOR, _CEILING), _raw_of(concentration, _FLOOR, _CEILING)]

    def fractions(self, first: Tensor, second: Tensor) -> Fractions:
        """The distribution, its concentrations between 0.01 and 1000."""
        return self.family(_between(first, _FLOOR, _CEILING), _between(second, _FLOOR, _CEILING))


class KumaraswamyHead(_ConcentrationsHead):
    """Kumaraswamy fractions; exactly the prior at features of zero.

    >>> KumaraswamyHead(3, 10)(torch.zeros(5, 3)).event_shape
    torch.Size([9])
    """

    family = Kumaraswamy


class BetaHead(_ConcentrationsHead):
    """Beta fractions, drawn with implicit gradients; exactly the prior at features of zero."""

    family = Beta


class GammaHead(_ConcentrationsHead):
    """Fractions of two approximate Gamma draws, see `GammaComposition`."""

    family = GammaComposition


class LogitNormalHead(FractionsHead):
    """Logit-normal fractions, whose logit has mean and variance of the prior's at features of zero."""

    def initial(self, concentration: float) -> Sequence[float]:
        """Raw outputs at which the first two moments of the logit are those of Beta(1, `concentration`)."""
        prior = torch.tensor([1.0, concentration], dtype=torch.float64)
        loc = float(torch.digamma(prior).diff()) * -1
        scale = float(torch.polygamma(1, prior).sum().sqrt())
        inside = min(max(loc / _MAX_LOGIT, -0.9), 0.9)
        return [_MAX_LOGIT * math.atanh(inside), _raw_of(min(scale, 0.9 * _MAX_SCALE), _MIN_SCALE, _MAX_SCALE)]

    def fractions(self, first: Tensor, second: Tensor) -> LogitNormal:
        """The distribution, its location between -12 and 12 and its scale between 0.001 and 10."""
        return LogitNormal(_MAX_LOGIT * torch.tanh(first / _MAX_LOGIT), _between(second, _MIN_SCALE, _MAX_SCALE))


def _between(raw: Tensor, low: float, high: float) -> Tensor:
    """A positive number between `low` and `high`: softplus plus `low` for small ones, flattening off below `high`."""
    grown = F.softplus(raw)
    return low + grown / (1 + grown / (high - low))


def _raw_of(value: float, low: float, high: float) -> float:
    """The raw number that `_between` takes to `value`.

    >>> round(float(_between(torch.tensor(_raw_of(5.0, 0.01, 1000.0)), 0.01, 1000.0)), 5)
    5.0
    """
    if not low < value < high:
        raise ValueError(f"concentration must be between {low} and {high}, got {value}")
    grown = (value - low) / (1 - (value - low) / (high - low))
    return grown + math.log(-math.expm1(-grown))


class ConcentrationPosterior(nn.Module):
    """The log-normal posterior of the concentration of the prior, the same for all data.

    Args:
        initial: its median to begin with.
        spread: standard deviation of its logarithm to begin with.

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
        """The distribution."""
        return LogNormal(self.loc, self.log_scale.exp())


def _amortized(
    head: type[FractionsHead],
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior,
    num_data: int | None,
) -> Amortized:
    inferred = isinstance(concentration, ConcentrationPosterior)
    initial = concentration.loc.exp().item() if inferred else concentration
    shared = {"concentration": concentration} if inferred else None
    return Amortized(encoder, head(encoder.out_features, truncation, initial), shared=shared, num_data=num_data)


def KumaraswamySticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """q(v|x), independent Kumaraswamy fractions: explicit draws, and a KL to the prior that is exact.

    Site: `z` (event shape ``[truncation - 1]``) in the plate "data", dimension -1. With a posterior of the
    concentration there is also `concentration`, a scalar outside of the plate. Draws use all of the unit interval; the
    authors of the method cut off both ends of the noise.

    Parameters
    ----------
    encoder : Module
        As for `Amortized`, with the attribute `out_features`.
    truncation : int
        Number of weights K of the model, at least 2.
    concentration : float or ConcentrationPosterior, default 1.0
        That of the prior, at which the fractions start; for a model with a hyperprior its posterior.
    num_data : int, optional
        With a posterior of the concentration, the number of training rows, as in the model.

    Returns
    -------
    Amortized
        The guide.

    Raises
    ------
    ValueError
        For fewer than two weights, or a concentration that is not positive.

    References
    ----------
    Nalisnick and Smyth (2017), Stick-Breaking Variational Autoencoders, sections 3.1 and 4.2.

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
    """q(v|x), logit-normal fractions. Their KL to the prior has no closed form, so every objective samples it.

    Parameters
    ----------
    encoder, truncation, concentration, num_data
        As for `KumaraswamySticks`.

    Returns
    -------
    Amortized
        The guide.

    References
    ----------
    Nalisnick and Smyth (2017), section 3.3.
    """
    return _amortized(LogitNormalHead, encoder, truncation, concentration, num_data)


def GammaSticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """q(v|x), fractions of two approximate Gamma draws, scored as the distribution that they have (`GammaComposition`).

    The KL to the prior is sampled.

    Parameters
    ----------
    encoder, truncation, concentration, num_data
        As for `KumaraswamySticks`.

    Returns
    -------
    Amortized
        The guide.

    References
    ----------
    Nalisnick and Smyth (2017), section 3.2.
    """
    return _amortized(GammaHead, encoder, truncation, concentration, num_data)


def BetaSticks(
    encoder: nn.Module,
    truncation: int,
    concentration: float | ConcentrationPosterior = 1.0,
    *,
    num_data: int | None = None,
) -> Amortized:
    """q(v|x), Beta fractions with implicit gradients and an exact KL to the prior, of whose family they are.

    It is slower than `KumaraswamySticks`, because of the Gamma draws.

    Parameters
    ----------
    encoder, truncation, concentration, num_data
        As for `KumaraswamySticks`.

    Returns
    -------
    Amortized
        The guide.

    References
    ----------
    Figurnov, Mohamed and Mnih (2018), Implicit Reparameterization Gradients.
    """
    return _amortized(BetaHead, encoder, truncation, concentration, num_data)
