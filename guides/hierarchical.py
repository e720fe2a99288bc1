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
    """q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1}), diagonal Gaussians from the data upwards.

    Sites: those of `HierarchicalVAE`, in the plate "data", dimension -1. Below the top they are `DependentNormal`: the
    model draws the layer above first, so that no divergence between two layers is in closed form. That of the top
    layer is, and the mean-field objective is right; Pyro still remarks that the sites come in another order.

    Args:
        encoder: a module from data `[B, ...]` to features, what the first of `layers` takes.
        layers: the modules of q(z_1|x), on the features, q(z_2|z_1) and so on, from the data upwards, each of which
            returns a diagonal Gaussian, such as `GaussianLayer` (`GaussianHead` for the first).

    Raises:
        ValueError: without layers.
        TypeError: when run, for a layer that returns another distribution.

    Reference: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, equation 2.

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
        """The distribution of the top layer given the one below it, `[..., size]`: what a `VampPrior` is made of."""
        return self.upward[-1](below)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
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
