"""The sigmoid belief network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.discrete import Bits
from pyrovae.likelihoods import Likelihood
from pyrovae.models.gaussian import num_rows, observe
from pyrovae.nn import MLP, DenseDecoder


class SigmoidBeliefNetwork(PyroModule):
    """Layers of binary variables from the top down: p(z_L) p(z_{L-1}|z_L) ... p(x|z_1).

    Sites: `z1` (closest to the data) to `zL` (event shapes `[sizes[0]]` to `[sizes[-1]]`), or `z` where there is one
    layer, and `x`, all in the plate "data", dimension -1.

    Args:
        sizes: numbers of variables, from the data upwards.
        likelihood: the likelihood of a datum.
        hidden: hidden layers of the net between two layers; none is the classical linear net.
        activation: of those hidden layers.
        variable: how layers are drawn, `Bits()` or `RelaxedBits(...)`; the guide's must be of the same kind.

    References: Neal (1992), Connectionist Learning of Belief Networks; Mnih and Rezende (2016), section 4.

    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> SigmoidBeliefNetwork((5, 3), BernoulliLikelihood((1, 4, 4)))(size=2).shape
    torch.Size([2, 1, 4, 4])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        likelihood: Likelihood,
        hidden: Sequence[int] = (),
        *,
        activation: str | Callable[[], nn.Module] = "tanh",
        variable: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.names = layer_names(sizes)
        self.variable = Bits() if variable is None else variable
        self.likelihood = likelihood
        self.top_logits = nn.Parameter(torch.zeros(sizes[-1]))
        self.downward = nn.ModuleList(
            MLP(above, hidden, below, activation=activation) for below, above in pairwise(sizes)
        )
        self.decoder = DenseDecoder(sizes[0], likelihood.raw_shape, hidden, activation=activation)

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            above = self.variable.features(pyro.sample(self.names[-1], self.variable(self.top_logits)))
            for name, net in zip(self.names[-2::-1], list(self.downward)[::-1], strict=True):
                above = self.variable.features(pyro.sample(name, self.variable(net(above))))
            return observe("x", self.likelihood(self.decoder(above)), x, mask, self.likelihood.fill_value)


def layer_names(sizes: Sequence[int]) -> tuple[str, ...]:
    """The names of the sites of a stack of layers, from the data upwards: `z`, or `z1`, `z2` and so on.

    Raises:
        ValueError: without layers, or for sizes below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must hold at least one positive number, got {tuple(sizes)}")
    return ("z",) if len(sizes) == 1 else tuple(f"z{layer}" for layer in range(1, len(sizes) + 1))
