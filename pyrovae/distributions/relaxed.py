"""Relaxed Bernoulli and one-hot variables whose draws are logits and log-probabilities, exact at low temperature.

torch's `RelaxedBernoulli` and `RelaxedOneHotCategorical` draw probabilities. At temperature 0.1 and equal odds, one
relaxed Bernoulli draw in six rounds to exactly 1 in float32. The density that torch computes from such a draw is wrong,
infinite or NaN. Here the sample site holds the logit or the log-probabilities. A decoder that needs weights applies
`sigmoid` or `exp`. For hard values with soft gradients, it applies `straight_through_bernoulli` or
`straight_through_one_hot`. Ratios of densities are the same on both scales, and so is every bound.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import standard_exponential
from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape, broadcast_floats
from pyrovae.distributions.constraints import log_simplex

__all__ = [
    "RelaxedBernoulliLogits",
    "RelaxedOneHotLogProbs",
    "straight_through_bernoulli",
    "straight_through_one_hot",
]


class RelaxedBernoulliLogits(CheckedDistribution):
    r"""Logit of a relaxed (binary concrete) Bernoulli variable, which has a logistic distribution.

    Use it as a reparameterised stand-in for a binary latent.

    Parameters
    ----------
    temperature : Tensor or float, shape ``[...]``
        Positive. As it goes to 0, the draws go to plus or minus infinity. A low temperature is closer to a binary
        latent and gives gradients of higher variance.
    logits : Tensor or float, shape ``[...]``
        Log-odds of 1. They broadcast with `temperature` to `batch_shape`.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    With :math:`\alpha` the log-odds and :math:`\tau` the temperature,

    .. math:: \log p(l) = \log\tau + \log\sigma(\alpha - \tau l) + \log\sigma(\tau l - \alpha).

    This is the logistic distribution with location alpha / tau and scale 1 / tau. Events are real scalars. Results are
    in nats.

    References
    ----------
    C. Maddison, A. Mnih and Y. W. Teh (2017), "The concrete distribution", equation 26. E. Jang, S. Gu and B. Poole
    (2017), "Categorical reparameterization with Gumbel-softmax".

    Examples
    --------
    >>> import torch
    >>> p = RelaxedBernoulliLogits(torch.tensor(0.01), torch.tensor(2.0))
    >>> p.log_prob(torch.tensor(500.0))  # sigmoid(500) is 1 in any floating-point type
    tensor(-7.7023)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"temperature": constraints.positive, "logits": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(
        self, temperature: Tensor | float, logits: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        self.temperature, self.logits = broadcast_floats(temperature, logits)
        super().__init__(self.logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "RelaxedBernoulliLogits":
        """The same distribution with `batch_shape`."""
        return self._expand_as(RelaxedBernoulliLogits, batch_shape, _instance)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of logits `value` in nats, shape of `value` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        distance = self.temperature * value - self.logits
        return self.temperature.log() + F.logsigmoid(distance) + F.logsigmoid(-distance)

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised draws, (log-odds plus noise) / temperature, shape ``[*sample_shape, *batch_shape]``."""
        shape = self._extended_shape(sample_shape)
        # The logarithm of a ratio of exponentials is logistic, and exact in both tails.
        first, second = (standard_exponential(shape, self.logits).log() for _ in range(2))
        return (self.logits + first - second) / self.temperature

    @property
    def mean(self) -> Tensor:
        """Mean logit, shape `batch_shape`."""
        return self.logits / self.temperature

    @property
    def mode(self) -> Tensor:
        """Most probable logit, which is the mean, shape `batch_shape`."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """Variance of the logit, shape `batch_shape`."""
        return math.pi**2 / (3 * self.temperature.square())

    def entropy(self) -> Tensor:
        """Entropy of the logit in nats, 2 - log temperature, shape `batch_shape`."""
        return 2 - self.temperature.log()

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of logits up to `value`, broadcast shape."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.sigmoid(self.temperature * value - self.logits)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`, broadcast shape."""
        return (self.logits + torch.logit(value)) / self.temperature


class RelaxedOneHotLogProbs(CheckedDistribution):
    r"""Log-probabilities of a relaxed (concrete, Gumbel-softmax) one-hot variable.

    Use it as a reparameterised stand-in for a categorical latent.

    Parameters
    ----------
    temperature : Tensor or float, shape ``[...]``
        Positive. It may differ along the batch. A low temperature is closer to a one-hot latent and gives gradients of
        higher variance.
    logits : Tensor, shape ``[..., K]``
        Unnormalised log-probabilities of the classes. The leading dimensions broadcast with `temperature` to
        `batch_shape`; `event_shape` is ``[K]``.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    With :math:`\alpha` the logits, :math:`\tau` the temperature and :math:`s = \alpha - \tau y`,

    .. math:: \log p(y) = \log (K-1)! + (K-1)\log\tau + \sum_k s_k - K \log\sum_k e^{s_k}.

    The density is with respect to the log-ratios :math:`y_k - y_K`. In these it is as smooth at the corners of the
    simplex as in its middle. Results are in nats.

    Unlike torch's `ExpRelaxedCategorical`, this class checks that values are log-probabilities. It also takes a float
    as temperature, and temperatures that differ along the batch.

    References
    ----------
    C. Maddison, A. Mnih and Y. W. Teh (2017), "The concrete distribution", equation 23. E. Jang, S. Gu and B. Poole
    (2017), "Categorical reparameterization with Gumbel-softmax".

    Examples
    --------
    >>> import torch
    >>> p = RelaxedOneHotLogProbs(0.1, torch.zeros(3))
    >>> p.log_prob(torch.tensor([0.0, -300.0, -400.0])).isfinite()
    tensor(True)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "temperature": constraints.positive,
        "logits": constraints.real_vector,
    }
    support = log_simplex
    has_rsample = True

    def __init__(self, temperature: Tensor | float, logits: Tensor, *, validate_args: bool | None = None) -> None:
        temperature = torch.as_tensor(temperature, dtype=logits.dtype, device=logits.device)
        batch_shape = torch.broadcast_shapes(temperature.shape, logits.shape[:-1])
        self.temperature = temperature.expand(batch_shape)
        self.logits = logits.expand(batch_shape + logits.shape[-1:])
        super().__init__(batch_shape, logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "RelaxedOneHotLogProbs":
        """The same distribution with `batch_shape`."""
        return self._expand_as(RelaxedOneHotLogProbs, batch_shape, _instance)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of log-probabilities ``[..., K]`` in nats, shape ``[...]`` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        num_classes = self.event_shape[0]
        scores = self.logits - self.temperature.unsqueeze(-1) * value
        constant = math.lgamma(num_classes) + (num_classes - 1) * self.temperature.log()
        return constant + scores.log_softmax(-1).sum(-1)

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised log-probabilities, shape ``[*sample_shape, *batch_shape, K]``.

        They are the log-softmax of (logits plus Gumbel noise) / temperature.
        """
        noise = -standard_exponential(self._extended_shape(sample_shape), self.logits).log()
        return ((self.logits + noise) / self.temperature.unsqueeze(-1)).log_softmax(-1)


def straight_through_bernoulli(value: Tensor) -> Tensor:
    """Round relaxed logits to zeros and ones, with the gradient of their sigmoid.

    Use it where a decoder needs hard values.

    Parameters
    ----------
    value : Tensor
        Draws of `RelaxedBernoulliLogits`, any shape.

    Returns
    -------
    Tensor
        Exactly 0 or 1, same shape.

    Notes
    -----
    The estimator is biased: the forward pass has the hard value and the backward pass has the soft one.

    Examples
    --------
    >>> import torch
    >>> straight_through_bernoulli(torch.tensor([-3.0, 0.5]))
    tensor([0., 1.])
    """
    return _with_gradient_of((value > 0).to(value.dtype), value.sigmoid())


def straight_through_one_hot(value: Tensor) -> Tensor:
    """Round relaxed log-probabilities to one-hot vectors, with the gradient of the probabilities.

    Use it where a decoder needs hard values.

    Parameters
    ----------
    value : Tensor, shape ``[..., K]``
        Draws of `RelaxedOneHotLogProbs`.

    Returns
    -------
    Tensor
        One-hot vectors, same shape.

    Notes
    -----
    The estimator is biased: the forward pass has the hard value and the backward pass has the soft one.

    Examples
    --------
    >>> import torch
    >>> straight_through_one_hot(torch.tensor([0.2, 0.7, 0.1]).log())
    tensor([0., 1., 0.])
    """
    hard = torch.zeros_like(value).scatter(-1, value.argmax(-1, keepdim=True), 1.0)
    return _with_gradient_of(hard, value.exp())


def _with_gradient_of(hard: Tensor, soft: Tensor) -> Tensor:
    # The bracket is exactly 0, so the value stays hard; (hard + soft) - soft would round.
    return hard + (soft - soft.detach())
