"""Models with discrete latents: the sigmoid belief network and the categorical VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import layer_names, num_rows, observe
from pyrovae.nn import MLP, DenseDecoder
from pyrovae.nn.variables import Bits, OneHot


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
            return observe(self.likelihood, self.decoder(above), x, mask)


class CategoricalVAE(PyroModule):
    """p(z) p(x|z) with `num_variables` independent categorical variables of `num_classes` each.

    Sites: `z` (latent, one-hot, event shape `[num_variables, num_classes]`) and `x` (data), both in the plate "data",
    dimension -1.

    Args:
        num_variables: number of categorical variables.
        num_classes: classes of each.
        decoder: a module from `[..., num_variables * num_classes]` to `[..., *likelihood.raw_shape]`.
        likelihood: the likelihood of a datum.
        learn_prior: learn the class probabilities instead of equal ones.
        variable: how latents are drawn, `OneHot()` or `RelaxedOneHot(...)`; the guide's must be of the same kind.

    Reference: Jang, Gu and Poole (2017), Categorical Reparameterization with Gumbel-Softmax, section 4.2.

    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> CategoricalVAE(3, 5, DenseDecoder(15, likelihood.raw_shape), likelihood)(size=2).shape
    torch.Size([2, 1, 4, 4])
    """

    def __init__(
        self,
        num_variables: int,
        num_classes: int,
        decoder: nn.Module,
        likelihood: Likelihood,
        *,
        learn_prior: bool = False,
        variable: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if num_variables < 1 or num_classes < 2:
            raise ValueError(f"need at least 1 variable of 2 classes, got {num_variables} of {num_classes}")
        self.variable = OneHot() if variable is None else variable
        self.decoder = decoder
        self.likelihood = likelihood
        logits = torch.zeros(num_variables, num_classes)
        if learn_prior:
            self.prior_logits = nn.Parameter(logits)
        else:
            self.register_buffer("prior_logits", logits, persistent=False)

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
            z = pyro.sample("z", self.variable(self.prior_logits))
            raw = self.decoder(self.variable.features(z))
            return observe(self.likelihood, raw, x, mask)
