"""The guide without an encoder and almost without parameters: gradient steps of the model itself, from the origin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta, Normal, TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.guides.row_sites import DATA_PLATE, RowSites, named_site
from pyrovae.infer.refining import RowBounds
from pyrovae.layout import look_at


class GradientGuide(PyroModule):
    """The guide q(z|x) around what a few gradient steps on log p(x, z) from z = 0 find, by the model itself.

    Use it with any decoder model of one real latent `z`. It answers for every row, so there is nothing to fit for rows
    that were not trained on. Training differentiates through the steps, so that the model learns to be inverted by
    them.

    Site: `z` in the plate "data", dimension -1.

    Parameters
    ----------
    model : Module
        The model of the pair. The guide uses it and does not own it.
    latent_dim : int or sequence of int
        Size of the latent.
    steps : int, default 1
        Gradient steps.
    lr : float, default 1.0
        Their size, in units of the latent per nat and unit.
    scale : {"learned", "none"}, default "learned"
        A standard deviation for each dimension, the same for all data, or none: then the posterior is a point.
    log_var : float, default -3.0
        Initial logarithm of the variance.

    Raises
    ------
    ValueError
        For a number out of range, or an unknown scale.

    Notes
    -----
    ::

        z_0 = 0,   z_{t+1} = z_t + lr * d/dz log p(x, z_t)

    With one step and `lr` 1, this is the gradient origin network. A KL weight does not act on these steps.

    References
    ----------
    S. Bond-Taylor and C. G. Willcocks (2021), "Gradient origin networks", equation 4.

    Examples
    --------
    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.models import GaussianVAE
    >>> from pyrovae.nn import DenseDecoder
    >>> from pyrovae.priors import StandardNormal
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> model = GaussianVAE(StandardNormal(2), DenseDecoder(2, likelihood.raw_shape, (8,)), likelihood)
    >>> GradientGuide(model, 2)(torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        latent_dim: int | Sequence[int],
        *,
        steps: int = 1,
        lr: float = 1.0,
        scale: str = "learned",
        log_var: float = -3.0,
    ) -> None:
        super().__init__()
        shape = (latent_dim,) if isinstance(latent_dim, int) else tuple(latent_dim)
        if steps < 1 or not 0 < lr < math.inf or not shape or min(shape) < 1:
            raise ValueError(f"steps, lr and latent_dim must be positive, got {steps}, {lr} and {latent_dim}")
        if scale not in ("learned", "none"):
            raise ValueError(f"scale must be learned or none, got {scale!r}")
        # Plain attributes: the model is a module of the pair already, and would be renamed as a part of this one.
        object.__setattr__(self, "inner", model)
        object.__setattr__(self, "bounds", None)
        self.shape, self.steps, self.lr = shape, steps, lr
        self.log_scale = nn.Parameter(torch.full(shape, log_var / 2)) if scale == "learned" else None
        self.origin = RowSites([named_site("z", shape, "normal", "none", 0.0, (DATA_PLATE,))])

    inner: Any
    bounds: Any

    def posterior(self, x: Tensor, mask: Tensor | None = None, **data: Any) -> TorchDistribution:
        """The distribution q(z|x) of data ``[B, ...]``."""
        given = {name: value for name, value in {"mask": mask, **data}.items() if value is not None}
        given = {name: value for name, value in given.items() if programs.accepts(self.inner, name)}
        z = self._climb(x, given).reshape(len(x), *self.shape)
        fn = Delta(z) if self.log_scale is None else Normal(z, self.log_scale.exp())
        return fn.to_event(len(self.shape))

    def _climb(self, x: Tensor, given: dict[str, Any]) -> Tensor:
        differentiates = torch.is_grad_enabled()
        like = next(iter(self.inner.parameters()), torch.empty(0, device=x.device))
        # The sites of the model are none of this guide's, and handlers around it are for its own.
        with torch.enable_grad(), poutine.block():
            z = like.new_zeros(len(x), self.origin.size).requires_grad_()
            if self.bounds is None:
                layout = look_at(self.inner, self.origin.program(z.detach()), (x,), given)
                object.__setattr__(self, "bounds", RowBounds(self.inner, self.origin, layout))
            for _ in range(self.steps):
                bound = self.bounds.log_weights(z, x, given).log_weight.sum()
                (gradient,) = torch.autograd.grad(bound, [z], create_graph=differentiates)
                z = z + self.lr * gradient
                if not differentiates:
                    z = z.detach().requires_grad_()
        return z if differentiates else z.detach()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `index` is not used."""
        fn = self.posterior(x, mask, y=y)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", fn)
