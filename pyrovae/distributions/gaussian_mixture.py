"""A mixture of diagonal Gaussians whose density is computed with two matrix products."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape


class DiagonalGaussianMixture(CheckedDistribution):
    r"""Mixture of K diagonal Gaussians on vectors of size D.

    Use it as a flexible prior. `MixturePrior` and `VampPrior` return it.

    Parameters
    ----------
    logits : Tensor, shape ``[K]``
        Unnormalised log weights.
    loc : Tensor, shape ``[K, D]``
        Means.
    scale : Tensor, shape ``[K, D]``
        Standard deviations, positive.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        The shapes do not fit, a scale is not positive, or values are not real.

    Notes
    -----
    .. math:: \log p(z) = \log \sum_k \pi_k \prod_d N(z_d; \mathrm{loc}_{kd}, \mathrm{scale}_{kd})

    The squared distances are expanded into two matrix products. So K = 500 components cost little more than one layer
    of a net. `MixtureSameFamily` forms all ``[..., K, D]`` differences instead. The price is cancellation in float32:
    about 1e-6 times the largest squared standardised distance to the common centre of the components.

    Draws have no path gradient (``has_rsample`` is False).

    Examples
    --------
    >>> p = DiagonalGaussianMixture(torch.zeros(2), torch.zeros(2, 3), torch.ones(2, 3))
    >>> p.expand([4]).log_prob(torch.zeros(3)).shape
    torch.Size([4])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        if loc.dim() != 2 or scale.shape != loc.shape or logits.shape != loc.shape[:1]:
            raise ValueError(
                "expected logits [K], loc [K, D] and scale [K, D], got "
                f"{tuple(logits.shape)}, {tuple(loc.shape)} and {tuple(scale.shape)}"
            )
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(torch.Size(), loc.shape[1:], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> DiagonalGaussianMixture:
        """The same mixture with `batch_shape`. Its parameters are not copied."""
        new = self._get_checked_instance(DiagonalGaussianMixture, _instance)
        new.logits, new.loc, new.scale = self.logits, self.loc, self.scale
        super(DiagonalGaussianMixture, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws without gradients, shape ``[*sample_shape, *batch_shape, D]``."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            # By inversion: torch.multinomial reads a value back from the device, which a trace cannot, and so does
            # square-bracket indexing with a single number.
            steps = self.logits.double().softmax(-1).cumsum(-1)[:-1]
            place = torch.rand(shape, dtype=steps.dtype, device=steps.device)
            component = (place.unsqueeze(-1) > steps).sum(-1).flatten()
            loc, scale = (
                part.index_select(0, component).reshape(shape + self.event_shape) for part in (self.loc, self.scale)
            )
            return loc + scale * torch.randn(loc.shape, dtype=loc.dtype, device=loc.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of values ``[..., D]`` in nats, shape ``[...]`` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        centre = self.loc.mean(0)
        z, loc, precision = value - centre, self.loc - centre, self.scale**-2
        constant = (loc.square() * precision).sum(-1) + 2 * self.scale.log().sum(-1)
        constant = constant + loc.shape[-1] * math.log(2 * math.pi)
        distance = z.square() @ precision.T - 2 * z @ (loc * precision).T + constant
        result = (self.logits.log_softmax(-1) - distance / 2).logsumexp(-1)
        return result.expand(torch.broadcast_shapes(result.shape, self.batch_shape))

    @property
    def mean(self) -> Tensor:
        """Mean, shape ``[*batch_shape, D]``."""
        return (self.logits.softmax(-1) @ self.loc).expand(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, shape ``[*batch_shape, D]``."""
        weights = self.logits.softmax(-1)
        # About the mean, so that nothing cancels where the components lie far from 0.
        between = (self.loc - weights @ self.loc).square()
        return (weights @ (self.scale.square() + between)).expand(self.batch_shape + self.event_shape)
