"""How discrete latents are drawn, exactly or relaxed: modules whose forward turns logits into a distribution.

Model and guide of a pair take the same kind of variable. With exact variables, use an estimator for discrete draws:
VIMCO, NVIL or wake-sleep. With relaxed ones, draws are reparameterised and every ELBO works.

The bound of a relaxed pair is that of the relaxed model. As the temperature falls, the likelihood of that model
approaches the likelihood of the discrete one. The bound stays below the discrete one, because a relaxed draw holds more
than its bit. For figures of the discrete model, give the trained model and guide an exact variable
(`pyrovae.pairs.exact`).
"""

from __future__ import annotations

import torch
from pyro.distributions import Bernoulli, OneHotCategorical, TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions import (
    RelaxedBernoulliLogits,
    RelaxedOneHotLogProbs,
    straight_through_bernoulli,
    straight_through_one_hot,
)

_ONCE = torch.Size()


class Bits(nn.Module):
    """Binary vectors, logits ``[..., D]``. Draws are 0 and 1."""

    def forward(self, logits: Tensor) -> TorchDistribution:
        """Return the distribution of the vector at logits ``[..., D]``."""
        return Bernoulli(logits=logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """Return what the next net sees of a draw: the draw itself, ``[..., D]``."""
        return z


class _OneHotCategorical(OneHotCategorical):
    """torch's distribution, whose draws do without `F.one_hot`: that reads a value, so it could not be compiled."""

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONCE) -> Tensor:
        """A draw, one-hot."""
        index = self._categorical.sample(sample_shape)
        classes = torch.arange(self.event_shape[0], device=index.device)
        return (index.unsqueeze(-1) == classes).to(self.logits.dtype)


class OneHot(nn.Module):
    """Vectors of categorical variables, logits ``[..., D, C]``. Draws are one-hot."""

    def forward(self, logits: Tensor) -> TorchDistribution:
        """Return the distribution of the vector at logits ``[..., D, C]``."""
        return _OneHotCategorical(logits=logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """Return what the next net sees of a draw: the draw, flattened to ``[..., D C]``."""
        return z.flatten(-2)


class RelaxedVariable(nn.Module):
    """Base class of relaxed variables: a temperature that a schedule may move, and optional rounding.

    Parameters
    ----------
    temperature : float, default 2/3
        Temperature of the relaxation, positive.
    straight_through : bool, default False
        Whether nets see rounded draws, with the gradient of the soft ones.

    Raises
    ------
    ValueError
        The temperature is not positive.
    """

    temperature: Tensor

    def __init__(self, temperature: float = 2 / 3, *, straight_through: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.straight_through = straight_through


class RelaxedBits(RelaxedVariable):
    """Concrete (Gumbel-sigmoid) variables in place of `Bits`. A draw is a vector of relaxed logits.

    Parameters
    ----------
    temperature : float, default 2/3
        Temperature of the relaxation, positive. As it falls to 0, draws become bits, and gradients become noisier.
    straight_through : bool, default False
        Whether nets see rounded bits, with the gradient of the soft ones. The gradient is then biased.

    Raises
    ------
    ValueError
        The temperature is not positive.

    References
    ----------
    C. Maddison, A. Mnih and Y. W. Teh (2017), "The concrete distribution". E. Jang, S. Gu and B. Poole (2017),
    "Categorical reparameterization with Gumbel-softmax".

    Examples
    --------
    >>> RelaxedBits()(torch.zeros(2, 5)).event_shape
    torch.Size([5])
    """

    def forward(self, logits: Tensor) -> TorchDistribution:
        """Return the distribution of the vector of relaxed logits, at logits ``[..., D]``."""
        return RelaxedBernoulliLogits(self.temperature, logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """Return what the next net sees of a draw: soft or rounded bits, ``[..., D]``."""
        return straight_through_bernoulli(z) if self.straight_through else z.sigmoid()


class RelaxedOneHot(RelaxedVariable):
    """Concrete (Gumbel-softmax) variables in place of `OneHot`. A draw is a vector of relaxed log-probabilities.

    Parameters
    ----------
    temperature : float, default 2/3
        Temperature of the relaxation, positive. As it falls to 0, draws become one-hot, and gradients become noisier.
    straight_through : bool, default False
        Whether nets see one-hot vectors, with the gradient of the soft ones. The gradient is then biased.

    Raises
    ------
    ValueError
        The temperature is not positive.

    References
    ----------
    C. Maddison, A. Mnih and Y. W. Teh (2017), "The concrete distribution". E. Jang, S. Gu and B. Poole (2017),
    "Categorical reparameterization with Gumbel-softmax".

    Examples
    --------
    >>> RelaxedOneHot()(torch.zeros(2, 3, 5)).event_shape
    torch.Size([3, 5])
    """

    def forward(self, logits: Tensor) -> TorchDistribution:
        """Return the distribution of the vector of relaxed log-probabilities, at logits ``[..., D, C]``."""
        return RelaxedOneHotLogProbs(self.temperature, logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """Return what the next net sees of a draw: soft or one-hot weights, flattened to ``[..., D C]``."""
        return (straight_through_one_hot(z) if self.straight_through else z.exp()).flatten(-2)
