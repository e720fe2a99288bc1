"""Bounds and diagnostics as pure functions of log weights `[K, B]`: particles times batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def log_mean_exp(log_weight: Tensor) -> Tensor:
    r"""The logarithm of the mean weight, `log 1/K sum_k exp(log_weight_k)`, `[K, B]` -> `[B]`, in nats.

    With `log_weight = log p(x, z_k) - log q(z_k | x)` this is the importance-weighted bound on `log p(x)`.

    Reference: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, equation 8.

    >>> log_mean_exp(torch.tensor([[0.0], [0.0]]))
    tensor([0.])
    """
    return log_weight.logsumexp(0) - math.log(log_weight.shape[0])


def effective_sample_size(log_weight: Tensor) -> Tensor:
    """Kish's effective number of particles, `(sum w)^2 / sum w^2`, `[K, B]` -> `[B]`, between 1 and K.

    >>> effective_sample_size(torch.zeros(5, 2))
    tensor([5., 5.])
    """
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()


class LogLikelihood(NamedTuple):
    """An importance-sampled log-likelihood, each field `[B]`."""

    value: Tensor
    """Estimate of log p(x) in nats; its expectation is a lower bound that rises to log p(x) with the samples."""
    standard_error: Tensor
    """Standard error of `value` by the delta method, in nats; unreliable where few samples carry the weight."""
    effective_sample_size: Tensor
    """Kish's effective number of samples, between 1 and the number drawn."""


class LogWeightSum:
    """Running sums over chunks of log weights, enough for the log-likelihood and its error in `[B]` memory.

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
        error = (1 / size - 1 / self.count).clamp(min=0).sqrt()
        return LogLikelihood(self._first - math.log(self.count), error, size)
