"""How discrete latents are drawn, exactly or relaxed: modules whose forward turns logits into a distribution.

Model and guide of a pair take the same kind of variable. Under an exact one, estimators for discrete draws apply
(VIMCO, NVIL, wake-sleep); under a relaxed one, draws are reparameterised and every ELBO does. The bound of a relaxed
pair is that of the relaxed model. As the temperature falls, that model's likelihood approaches the discrete one's,
while the bound stays below the discrete one, because a relaxed draw holds more than its bit; give the trained model and
guide an exact variable for figures of the discrete model.
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
    """Binary vectors, logits `[..., D]`; draws are 0 and 1."""

    def forward(self, logits: Tensor) -> TorchDistribution:
        """The distribution of the vector."""
        return Bernoulli(logits=logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """What the next net sees of a draw: the draw."""
        return z


class _OneHotCategorical(OneHotCategorical):
    """torch's distribution, whose draws do without `F.one_hot`: that reads a value, so it could not be compiled."""

    def sample(self, sample_shape: torch.Size = _ONCE) -> Tensor:
        """A draw, one-hot."""
        index = self._categorical.sample(sample_shape)
        classes = torch.arange(self.event_shape[0], device=index.device)
        return (index.unsqueeze(-1) == classes).to(self.logits.dtype)


class OneHot(nn.Module):
    """Vectors of categorical variables, logits `[..., D, C]`; draws are one-hot."""

    def forward(self, logits: Tensor) -> TorchDistribution:
        """The distribution of the vector."""
        return _OneHotCategorical(logits=logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """What the next net sees of a draw: the draw, flattened to `[..., D C]`."""
        return z.flatten(-2)


class RelaxedVariable(nn.Module):
    """What relaxed variables share: a temperature that a schedule may move, and hard values with soft gradients."""

    def __init__(self, temperature: float = 2 / 3, *, straight_through: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.straight_through = straight_through


class RelaxedBits(RelaxedVariable):
    """Concrete (Gumbel-sigmoid) variables in place of `Bits`, carried as logits.

    Args:
        temperature: of the relaxation; draws become bits as it falls to 0, and gradients noisier.
        straight_through: let nets see rounded bits with the gradient of the soft ones (biased).

    References: Maddison, Mnih and Teh (2017); Jang, Gu and Poole (2017).
    """

    def forward(self, logits: Tensor) -> TorchDistribution:
        """The distribution of the vector of relaxed logits."""
        return RelaxedBernoulliLogits(self.temperature, logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """What the next net sees of a draw: soft or rounded bits."""
        return straight_through_bernoulli(z) if self.straight_through else z.sigmoid()


class RelaxedOneHot(RelaxedVariable):
    """Concrete (Gumbel-softmax) variables in place of `OneHot`, carried as log-probabilities.

    Args:
        temperature: of the relaxation; draws become one-hot as it falls to 0, and gradients noisier.
        straight_through: let nets see one-hot vectors with the gradient of the soft ones (biased).

    References: Maddison, Mnih and Teh (2017); Jang, Gu and Poole (2017).
    """

    def forward(self, logits: Tensor) -> TorchDistribution:
        """The distribution of the vector of relaxed log-probabilities."""
        return RelaxedOneHotLogProbs(self.temperature, logits).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """What the next net sees of a draw: soft or one-hot weights, flattened to `[..., D C]`."""
        return (straight_through_one_hot(z) if self.straight_through else z.exp()).flatten(-2)
