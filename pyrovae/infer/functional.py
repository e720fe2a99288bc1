"""Bounds and diagnostics as pure functions of log weights `[K, B]`: particles times batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def log_mean_exp(log_weight: Tensor) -> Tensor:
    r"""The logarithm of the mean weight, `log 1/K sum_k exp(log_weight_k)`, `[K, B]` -> `[B]`, in nats.

    With `log_weight = log p(x, z_k) - log q(z_k | x)` this is the importance-weighted bound on `log p(x)`.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, equation 8.

    Examples
    --------
    >>> log_mean_exp(torch.tensor([[0.0], [0.0]]))
    tensor([0.])
    """
    return log_weight.logsumexp(0) - math.log(log_weight.shape[0])


def effective_sample_size(log_weight: Tensor) -> Tensor:
    """Kish's effective number of particles, `(sum w)^2 / sum w^2`, `[K, B]` -> `[B]`, between 1 and K.

    Examples
    --------
    >>> effective_sample_size(torch.zeros(5, 2))
    tensor([5., 5.])
    """
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()


def score_term(signal: Tensor, log_score: Tensor) -> Tensor:
    """A term of value zero whose gradient is `sum_k signal_k grad log_score_k`: `[K, B]` or `[B]` -> `[B]`."""
    if not log_score.requires_grad:
        return torch.zeros_like(log_score[0])  # whatever the signal is, infinite too
    total = (signal.detach() * log_score).sum(0)
    return total - total.detach()


def elbo(log_weight: Tensor, log_score: Tensor | None = None) -> Tensor:
    """The evidence lower bound, the mean log weight, `[K, B]` -> `[B]`, in nats.

    With `log_score` its gradient is right for draws that are not reparameterised too: each one's score is weighted by
    its own log weight.

    Examples
    --------
    >>> elbo(torch.tensor([[1.0], [3.0]]))
    tensor([2.])
    """
    value = log_weight.mean(0)
    if log_score is None:
        return value
    return value + score_term(log_weight / len(log_weight), log_score)


def renyi(log_weight: Tensor, alpha: float, log_score: Tensor | None = None) -> Tensor:
    r"""The variational Renyi bound, `1 / (1 - alpha) log 1/K sum_k w_k^(1 - alpha)`, `[K, B]` -> `[B]`, in nats.

    alpha = 1 is the ELBO, alpha = 0 the importance-weighted bound, alpha -> -inf the largest weight. A lower bound of
    log p(x) for alpha >= 0.

    References
    ----------
    Li and Turner (2016), Renyi Divergence Variational Inference, equations 4 and 12.

    Examples
    --------
    >>> renyi(torch.tensor([[1.0], [3.0]]), 1.0)
    tensor([2.])
    """
    if alpha == 1:
        return elbo(log_weight, log_score)
    value = log_mean_exp((1 - alpha) * log_weight) / (1 - alpha)
    return value if log_score is None else value + score_term(value, log_score)


def iwae(log_weight: Tensor, log_score: Tensor | None = None) -> Tensor:
    """The importance-weighted bound `log_mean_exp(log_weight)`, `[K, B]` -> `[B]`, in nats.

    With `log_score`, every non-reparameterised draw's score is weighted by the bound itself: unbiased, and of a
    variance that `vimco` brings down.

    Examples
    --------
    >>> iwae(torch.zeros(5, 1))
    tensor([0.])
    """
    value = log_mean_exp(log_weight)
    return value if log_score is None else value + score_term(value, log_score)


def log_sum_of_others(log_weight: Tensor) -> Tensor:
    """`log sum_{j != k} exp(log_weight_j)` for every k, `[K, B]` -> `[K, B]`, with O(K) memory.

    Sums from both ends, so nothing is subtracted and weights that differ by any factor do no harm.

    Examples
    --------
    >>> log_sum_of_others(torch.tensor([[0.0], [1e4], [0.0]])).squeeze(1)
    tensor([1.0000e+04, 6.9315e-01, 1.0000e+04])
    """
    nothing = torch.full_like(log_weight[:1], -math.inf)
    before = torch.cat([nothing, log_weight[:-1].logcumsumexp(0)])
    after = torch.cat([log_weight[1:].flip(0).logcumsumexp(0).flip(0), nothing])
    return torch.logaddexp(before, after)


def _sum_of_others(value: Tensor) -> Tensor:
    """`sum_{j != k} value_j` for every k, from both ends: nothing is subtracted, so infinite values do no harm."""
    zero = torch.zeros_like(value[:1])
    before = torch.cat([zero, value[:-1].cumsum(0)])
    after = torch.cat([value[1:].flip(0).cumsum(0).flip(0), zero])
    return before + after


def vimco_signal(log_weight: Tensor, control_variate: str = "geometric") -> Tensor:
    r"""What each particle adds to the importance-weighted bound, the learning signal of VIMCO, `[K, B]` -> `[K, B]`.

    The bound minus the bound in which particle k's weight is replaced by the geometric or the arithmetic mean of the
    others'.

    References
    ----------
    Mnih and Rezende (2016), Variational Inference for Monte Carlo Objectives, equations 9 and 10.

    Raises
    ------
    ValueError
        For fewer than two particles, or another control variate.
    """
    count = len(log_weight)
    if count < 2:
        raise ValueError("VIMCO compares each particle with the others, so it needs num_particles of at least 2")
    others = log_sum_of_others(log_weight)
    if control_variate == "arithmetic":
        baseline = others - math.log(count - 1)
    elif control_variate == "geometric":
        mean_of_others = _sum_of_others(log_weight) / (count - 1)
        baseline = torch.logaddexp(others, mean_of_others) - math.log(count)
    else:
        raise ValueError(f"control_variate must be geometric or arithmetic, got {control_variate!r}")
    return log_mean_exp(log_weight) - baseline


def vimco(log_weight: Tensor, log_score: Tensor, control_variate: str = "geometric") -> Tensor:
    """The importance-weighted bound with VIMCO's gradient for non-reparameterised draws, `[K, B]` -> `[B]`, in nats.

    References
    ----------
    Mnih and Rezende (2016), equation 11.

    Examples
    --------
    >>> vimco(torch.zeros(3, 2), torch.zeros(3, 2))
    tensor([0., 0.])
    """
    with torch.no_grad():
        signal = vimco_signal(log_weight, control_variate)
    return log_mean_exp(log_weight) + score_term(signal, log_score)


def nvil(
    log_weight: Tensor,
    log_score: Tensor,
    baseline: Tensor,
    scale: Tensor | float = 1.0,
    latent_weight: Tensor | float = 1.0,
) -> Tensor:
    """The importance-weighted bound with the score of every draw weighted by `(bound - baseline) / scale`.

    `[K, B]` -> `[B]`, in nats. One particle gives NVIL's ELBO. The gradient is unbiased for scale 1 and a `baseline`
    `[B]` that does not depend on the draws; the scale divides the gradient by `log_score` and leaves the rest alone.
    `latent_weight` is what `log_score` is multiplied by within `log_weight`, a KL weight.

    References
    ----------
    Mnih and Gregor (2014), Neural Variational Inference and Learning, equations 7 to 9; for several
    particles Mnih and Rezende (2016), section 2.4.
    """
    value = log_mean_exp(log_weight)
    # The value itself depends on log q, by minus the normalised weights; that part is made shorter too.
    direct = (1 - 1 / scale) * latent_weight * normalized(log_weight)
    return value + score_term((value - baseline) / scale + direct, log_score)


def wake_theta(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The importance-weighted bound whose gradient reaches the model alone, `[K, B]` -> `[B]`, in nats.

    References
    ----------
    Bornschein and Bengio (2015), Reweighted Wake-Sleep, equation 6.
    """
    return log_mean_exp(log_p - log_q.detach())


def normalized(log_weight: Tensor) -> Tensor:
    """Self-normalised importance weights as constants, `[K, B]` -> `[K, B]`, summing to 1 over the particles."""
    return log_weight.detach().softmax(0)


def wake_phi(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Minus the cross-entropy from the weighted particles to the guide, `sum_k w_k log q_k`, `[K, B]` -> `[B]`.

    The normalised weights are constants, the particles must be too. Biased for the gradient of -KL(p(z|x) || q) at
    finite K, consistent as K grows.

    References
    ----------
    Bornschein and Bengio (2015), equation 8.
    """
    return (normalized(log_p - log_q) * log_q).sum(0)


def sleep_phi(log_q: Tensor) -> Tensor:
    """The mean log-probability of latents dreamt by the model under the guide, `[K, B]` -> `[B]`.

    References
    ----------
    Hinton, Dayan, Frey and Neal (1995), The Wake-Sleep Algorithm, equation 10.
    """
    return log_q.mean(0)


class LogLikelihood(NamedTuple):
    """An importance-sampled log-likelihood, each field `[B]`."""

    value: Tensor
    """Estimate of log p(x) in nats; its expectation is a lower bound that rises to log p(x) with the samples."""
    standard_error: Tensor
    """Standard error of `value` by the delta method, in nats; unreliable where few samples carry the weight. NaN of one
    sample."""
    effective_sample_size: Tensor
    """Kish's effective number of samples, between 1 and the number drawn."""


class LogWeightSum:
    """Running sums over chunks of log weights, enough for the log-likelihood and its error in `[B]` memory.

    Examples
    --------
    >>> total = LogWeightSum()
    >>> total.add(torch.zeros(3, 2)); total.add(torch.zeros(4, 2))
    >>> total.count, total.result().value.round(decimals=6).tolist()
    (7, [0.0, 0.0])
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def add(self, log_weight: Tensor) -> None:
        """Take in log weights `[k, B]`; float64 sums keep the exact count from drowning in rounding."""
        log_weight = log_weight.double()
        first, second = log_weight.logsumexp(0), (2 * log_weight).logsumexp(0)
        self._first = first if self._first is None else torch.logaddexp(self._first, first)
        self._second = second if self._second is None else torch.logaddexp(self._second, second)
        self.count += log_weight.shape[0]

    def result(self) -> LogLikelihood:
        """The estimate from everything added so far."""
        if self._first is None or self._second is None:
            raise ValueError("no log weights were added")
        size = (2 * self._first - self._second).exp()
        error = (1 / size - 1 / self.count).clamp(min=0).sqrt() if self.count > 1 else torch.full_like(size, math.nan)
        return LogLikelihood(self._first - math.log(self.count), error, size)
