"""The model of landmarks: a 3-D shape, seen by a camera."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import num_rows, observe
from pyrovae.nn.projections import ShapeProjector


class ProjectedShapes(PyroModule):
    """Structure from motion: p(z), a 3-D shape and a projection of z, and the landmarks that are seen.

    Use it with any guide of one latent, such as `AmortizedGaussian` or `PerDatum`. A landmark that is hidden has no
    effect on the likelihood, and its place follows from the shape.

    Sites: `z` (latent, event shape ``[latent_dim]``), `shape` (deterministic, ``[L, 3]``) and `x` (data, ``[L, 2]``),
    all in the plate "data", dimension -1.

    Parameters
    ----------
    prior : Module
        Its forward returns p(z).
    projector : ShapeProjector
        From z to shape, projection and landmarks.
    likelihood : Likelihood
        The likelihood of landmarks ``[L, 2]``, with one raw parameter an entry, such as `NormalLikelihood`.

    References
    ----------
    A. Zadeh, Y. Lim, P. P. Liang and L.-P. Morency (2019), "Variational auto-decoder", section 4.

    Examples
    --------
    >>> from pyrovae.likelihoods import NormalLikelihood
    >>> from pyrovae.priors import StandardNormal
    >>> projector = ShapeProjector(24, shape_latents=3, camera_latents=5)
    >>> model = ProjectedShapes(StandardNormal(8), projector, NormalLikelihood((24, 2), scale=0.03))
    >>> model(size=3).shape
    torch.Size([3, 24, 2])
    """

    def __init__(self, prior: nn.Module, projector: ShapeProjector, likelihood: Likelihood) -> None:
        super().__init__()
        self.prior = prior
        self.projector = projector
        self.likelihood = likelihood

    def shapes(self, z: Tensor) -> Tensor:
        """The 3-D shapes of latents ``[..., latent_dim]``, ``[..., L, 3]``."""
        return self.projector.shapes(z)

    def projections(self, z: Tensor) -> Tensor:
        """The projections of latents ``[..., latent_dim]``, ``[..., 4, 3]``."""
        return self.projector.projections(z)

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        seen: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `y`, `index` and `seen` are not used."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample("z", self.prior())
            pyro.deterministic("shape", self.projector.shapes(z), event_dim=2)
            return observe(self.likelihood, self.projector(z), x, mask)
