"""Amortised guides over discrete latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.guides.amortized import Amortized
from pyrovae.models.parts import layer_names
from pyrovae.nn import MLP, CategoricalHead, FlatEncoder
from pyrovae.nn.variables import Bits


class BernoulliLayers(PyroModule):
    """q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1}), binary layers from the data upwards.

    Sites: those of `SigmoidBeliefNetwork`, in the plate "data", dimension -1. Missing entries enter as `centre`.

    Args:
        data_shape: shape of one datum.
        sizes: numbers of variables, from the data upwards.
        hidden: hidden layers of the net between two layers; none is the classical linear net.
        activation: of those hidden layers.
        centre: the mean of the data, of shape `data_shape`, which is subtracted from them; 0 by default.
        variable: how layers are drawn, `Bits()` or `RelaxedBits(...)`.

    Raises:
        ValueError: without layers, for sizes below 1, or a `centre` of another shape.

    Reference: Mnih and Rezende (2016), section 4 and appendix.

    >>> BernoulliLayers((1, 4, 4), (5, 3))(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """

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
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        below = self.encoder(x, mask)
        with pyro.plate("data", len(x), dim=-1):
            for name, net in zip(self.names, self.upward, strict=True):
                z = pyro.sample(name, self.layer_variable(net(below)))
                below = self.layer_variable.features(z)
        return z


def AmortizedCategorical(
    encoder: nn.Module, num_variables: int, num_classes: int, *, variable: nn.Module | None = None
) -> Amortized:
    """q(z|x), independent categorical variables whose logits an encoder gives.

    Site: `z` (one-hot, event shape ``[num_variables, num_classes]``) in the plate "data", dimension -1.

    Parameters
    ----------
    encoder : Module
        As for `Amortized`, with the attribute `out_features`.
    num_variables : int
        Number of categorical variables, at least 1.
    num_classes : int
        Classes of each, at least 2.
    variable : Module, default ``OneHot()``
        How latents are drawn: `OneHot()` or `RelaxedOneHot(...)`, as in the model.

    Returns
    -------
    Amortized
        The guide.

    Raises
    ------
    ValueError
        For fewer than one variable or two classes.

    References
    ----------
    Jang, Gu and Poole (2017), Categorical Reparameterization with Gumbel-Softmax, section 4.2.

    Examples
    --------
    >>> from pyrovae.nn import DenseEncoder
    >>> AmortizedCategorical(DenseEncoder((1, 4, 4), (8,)), 3, 5)(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3, 5])
    """
    return Amortized(encoder, CategoricalHead(encoder.out_features, num_variables, num_classes, variable=variable))
