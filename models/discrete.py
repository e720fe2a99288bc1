"""Models with discrete latents: the sigmoid belief network and the categorical VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import layer_names, num_rows, observe
from pyrovae.nn import MLP, DenseDecoder
from pyrovae.nn.variables import Bits, OneHot
from pyrovae.priors import set_learned_or_fixed


class SigmoidBeliefNetwork(PyroModule):
    """Layers of binary variables, from the top down: p(z_L) p(z_{L-1}|z_L) ... p(x|z_1).

    Use it with `BernoulliLayers` as guide.

    Sites: `z1` (closest to the data) to `zL`, of event shapes ``[sizes[0]]`` to ``[sizes[-1]]``, or `z` where there is
    one layer; and `x`. All are in the plate "data", dimension -1.

    Parameters
    ----------
    sizes : sequence of int
        Number of variables of each layer, from the data upwards.
    likelihood : Likelihood
        The likelihood of a datum.
    hidden : sequence of int, default ()
        Sizes of the hidden layers of each net, between two layers and before the data. An empty sequence makes the nets
        linear, as in the classical network.
    activation : str or callable, default "tanh"
        Activation of the hidden layers.
    variable : Module, default ``Bits()``
        How layers are drawn: `Bits()` or `RelaxedBits(...)`. The guide needs the same kind.

    Raises
    ------
    ValueError
        There is no layer, or a size is below 1.

    References
    ----------
    R. Neal (1992), "Connectionist learning of belief networks". A. Mnih and D. Rezende (2016), "Variational inference
    for Monte Carlo objectives", section 4.

    Examples
    --------
    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> SigmoidBeliefNetwork((5, 3), BernoulliLikelihood((1, 4, 4)))(size=2).shape
    torch.Size([2, 1, 4, 4])
    """

    variable: Any  # a module with `features`

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
        """Run the program. See the contract of pairs. `y` and `index` are not used."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            above = self.variable.features(pyro.sample(self.names[-1], self.variable(self.top_logits)))
            for name, net in zip(self.names[-2::-1], list(self.downward)[::-1], strict=True):
                above = self.variable.features(pyro.sample(name, self.variable(net(above))))
            return observe(self.likelihood, self.decoder(above), x, mask)


class CategoricalVAE(PyroModule):
    """A VAE with a vector of independent categorical latents, p(z) p(x|z).

    Use it with `AmortizedCategorical` as guide.

    Sites: `z` (latent, one-hot, event shape ``[num_variables, num_classes]``) and `x` (data), both in the plate "data",
    dimension -1.

    Parameters
    ----------
    num_variables : int
        Number of categorical variables, at least 1.
    num_classes : int
        Number of classes of each variable, at least 2.
    decoder : Module
        From ``[..., num_variables * num_classes]`` to ``[..., *likelihood.raw_shape]``.
    likelihood : Likelihood
        The likelihood of a datum.
    learn_prior : bool, default False
        Whether the class probabilities of p(z) are learned. Otherwise they are equal.
    variable : Module, default ``OneHot()``
        How the latents are drawn: `OneHot()` or `RelaxedOneHot(...)`. The guide needs the same kind.

    Raises
    ------
    ValueError
        There are fewer than one variable or two classes.

    References
    ----------
    E. Jang, S. Gu and B. Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 4.2.

    Examples
    --------
    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> CategoricalVAE(3, 5, DenseDecoder(15, likelihood.raw_shape), likelihood)(size=2).shape
    torch.Size([2, 1, 4, 4])
    """

    variable: Any  # a module with `features`
    prior_logits: Tensor

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
        set_learned_or_fixed(self, "prior_logits", torch.zeros(num_variables, num_classes), learn=learn_prior)

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `y` and `index` are not used."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample("z", self.variable(self.prior_logits))
            raw = self.decoder(self.variable.features(z))
            return observe(self.likelihood, raw, x, mask)
