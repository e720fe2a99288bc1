"""Amortised guides over discrete latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.guides.amortized import Amortized
from pyrovae.models.parts import layer_names
from pyrovae.nn import MLP, CategoricalHead, FlatEncoder
from pyrovae.nn.encoders import num_features
from pyrovae.nn.variables import Bits


class BernoulliLayers(PyroModule):
    """Binary layers from the data upwards: q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1}).

    Use it with `SigmoidBeliefNetwork`. Sites: those of the model, in the plate "data", dimension -1. Missing entries of
    the data become `centre`.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    sizes : sequence of int
        Number of variables of each layer, from the data upwards, as in the model.
    hidden : sequence of int, default ()
        Sizes of the hidden layers of each net between two layers. An empty sequence makes the nets linear, as in the
        classical network.
    activation : str or callable, default "tanh"
        Activation of the hidden layers.
    centre : Tensor, shape `data_shape`, optional
        The mean of the data, which is subtracted from them. None subtracts nothing.
    variable : Module, default ``Bits()``
        How layers are drawn: `Bits()` or `RelaxedBits(...)`, as in the model.

    Raises
    ------
    ValueError
        There is no layer, a size is below 1, or `centre` has another shape.

    References
    ----------
    A. Mnih and D. Rezende (2016), "Variational inference for Monte Carlo objectives", section 4 and appendix.

    Examples
    --------
    >>> import torch
    >>> BernoulliLayers((1, 4, 4), (5, 3))(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """

    layer_variable: Any  # a module with `features`

    def __init__(
        self,
        data_shape: Sequence[int],
        sizes: Sequence[int],
        hidden: Sequence[int] = (),
        *,
        activation: str | Callable[[], nn.Module] = "tanh",
        centre: Tensor | None = None,
        variable: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.names = layer_names(sizes)
        self.encoder = FlatEncoder(data_shape, centre)
        self.layer_variable = Bits() if variable is None else variable
        widths = [self.encoder.out_features, *sizes]
        self.upward = nn.ModuleList(
            MLP(below, hidden, above, activation=activation) for below, above in pairwise(widths)
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `y` and `index` are not used."""
        below = self.encoder(x, mask)
        with pyro.plate("data", len(x), dim=-1):
            for name, net in zip(self.names, self.upward, strict=True):
                z = pyro.sample(name, self.layer_variable(net(below)))
                below = self.layer_variable.features(z)
        return z


def AmortizedCategorical(
    encoder: nn.Module, num_variables: int, num_classes: int, *, variable: nn.Module | None = None
) -> Amortized:
    """The guide q(z|x) of independent categorical variables, with logits from an encoder.

    Use it with `CategoricalVAE`.

    Site: `z` (one-hot, event shape ``[num_variables, num_classes]``) in the plate "data", dimension -1.

    Parameters
    ----------
    encoder : Module
        As for `Amortized`, with the attribute `out_features`.
    num_variables : int
        Number of categorical variables, at least 1.
    num_classes : int
        Number of classes of each variable, at least 2.
    variable : Module, default ``OneHot()``
        How latents are drawn: `OneHot()` or `RelaxedOneHot(...)`, as in the model.

    Returns
    -------
    Amortized
        The guide.

    Raises
    ------
    ValueError
        There are fewer than one variable or two classes.

    References
    ----------
    E. Jang, S. Gu and B. Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 4.2.

    Examples
    --------
    >>> import torch
    >>> from pyrovae.nn import DenseEncoder
    >>> AmortizedCategorical(DenseEncoder((1, 4, 4), (8,)), 3, 5)(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3, 5])
    """
    return Amortized(encoder, CategoricalHead(num_features(encoder), num_variables, num_classes, variable=variable))
