"""The amortised guide over several layers of Gaussian latents."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
from pyro.distributions import Independent, Normal, TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.distributions import DependentNormal
from pyrovae.models.parts import layer_names
from pyrovae.nn import encoded


class HierarchicalGaussian(PyroModule):
    """The guide of layers of Gaussian latents, from the data upwards: q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1}).

    Use it with `HierarchicalVAE`. Sites: those of the model, in the plate "data", dimension -1.

    Parameters
    ----------
    encoder : Module
        From data ``[B, ...]`` to features, which the first of `layers` takes.
    layers : sequence of Module
        The modules of q(z_1|x), q(z_2|z_1) and so on, from the data upwards. Each returns a diagonal Gaussian. Use
        `GaussianHead` or `GaussianLayer` for the first, which takes the features, and `GaussianLayer` for the others.

    Raises
    ------
    ValueError
        There is no layer.
    TypeError
        When run: a layer below the top returns another distribution than a diagonal Gaussian.

    Notes
    -----
    The model draws the upper layer first, so the KL between two layers has no closed form. Below the top the sites are
    therefore `DependentNormal`, whose KL is sampled. The KL of the top layer is in closed form if the prior allows it.
    With this the mean-field objective is right. Pyro still warns that the sites come in another order.

    References
    ----------
    Y. Burda, R. Grosse and R. Salakhutdinov (2016), "Importance weighted autoencoders", equation 2.

    Examples
    --------
    >>> import torch
    >>> from pyrovae.nn import DenseEncoder, GaussianHead, GaussianLayer
    >>> encoder = DenseEncoder((1, 4, 4), (8,))
    >>> guide = HierarchicalGaussian(encoder, [GaussianHead(8, 3), GaussianLayer(3, (8,), 2)])
    >>> guide(torch.zeros(5, 1, 4, 4)).shape
    torch.Size([5, 2])
    """

    def __init__(self, encoder: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not layers:
            raise ValueError("HierarchicalGaussian needs at least one layer")
        self.names = layer_names((1,) * len(layers))
        self.encoder = encoder
        self.upward = nn.ModuleList(layers)

    def top(self, below: Tensor) -> TorchDistribution:
        """Return the distribution of the top layer given the layer below it. `VampPrior` takes this method."""
        return self.upward[-1](below)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `y` and `index` are not used."""
        value = encoded(self.encoder, x, mask)
        with pyro.plate("data", len(x), dim=-1):
            for name, layer in zip(self.names[:-1], self.upward, strict=False):
                value = pyro.sample(name, _dependent(layer(value)))
            return pyro.sample(self.names[-1], self.top(value))


def _dependent(q: TorchDistribution) -> Independent:
    base = q.base_dist if isinstance(q, Independent) else None
    if not isinstance(base, Normal) or len(q.event_shape) != 1:
        raise TypeError(
            f"a layer of HierarchicalGaussian must return a diagonal Gaussian Normal(...).to_event(1), got {q}"
        )
    return DependentNormal(base.loc, base.scale).to_event(1)
