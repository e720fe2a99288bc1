"""A normal seen only where a second normal, correlated with it, is large enough."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import broadcast_all

from pyrovae.distributions._validation import NO_SHAPE, Shape

__all__ = ["SelectedNormal"]

_FARTHEST = -35.0
"""A smaller argument of the normal distribution function counts as this one: in float64 its value is 1e-268."""


class SelectedNormal(TorchDistribution):
    r"""A normal under selection: extended skew-normal, the law of a number given that it passed a probit test.

    Use it for a number that is known to be missing, where the probability of missing is a probit of the number.

    Parameters
    ----------
    loc, scale : Tensor
        Mean and standard deviation of the normal before selection.
    slope, intercept : Tensor
        A draw x passes with probability ``Phi(intercept + slope * (x - loc) / scale)``. Slope 0 is the normal itself.
    validate_args : bool, optional
        Whether parameters are checked. None follows torch's global setting.

    Notes
    -----
    With :math:`\delta = a / \sqrt{1 + a^2}`, :math:`t = c / \sqrt{1 + a^2}` for slope a and intercept c,

    .. math:: p(x) = \mathrm{N}(x; \mu, \sigma)\,\Phi(c + a\,(x - \mu) / \sigma) / \Phi(t), \qquad
              \mathrm{E}\,x = \mu + \sigma \delta \lambda(t), \qquad \lambda(t) = \phi(t) / \Phi(t).

    A draw is :math:`\mu + \sigma(\delta w + \sqrt{1 - \delta^2}\,\xi)` with a normal :math:`\xi` and a normal w that is
    larger than -t. Draws have no gradients.

    References
    ----------
    B. Arnold and R. Beaver (2000), "Hidden truncation models", Sankhya A 62. A. Azzalini and A. Capitanio (2014), "The
    skew-normal and related families", section 2.2.

    Examples
    --------
    >>> fn = SelectedNormal(torch.tensor(0.0), torch.tensor(1.0), torch.tensor([0.0, 1e4]), torch.tensor(0.0))
    >>> fn.mean  # the normal, and its upper half
    tensor([0.0000, 0.7979])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "slope": constraints.real,
        "intercept": constraints.real,
    }
    support = constraints.real

    def __init__(
        self, loc: Tensor, scale: Tensor, slope: Tensor, intercept: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.slope, self.intercept = broadcast_all(loc, scale, slope, intercept)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> SelectedNormal:
        """The same distribution with `batch_shape`."""
        new = self._get_checked_instance(SelectedNormal, _instance)
        shape = torch.Size(batch_shape)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(shape))
        super(SelectedNormal, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _root(self) -> Tensor:
        return torch.hypot(self.slope, torch.ones_like(self.slope))

    @property
    def _reach(self) -> Tensor:
        """The t of the notes."""
        return self.intercept / self._root

    @property
    def log_selected(self) -> Tensor:
        """The log-probability that a draw of the normal passes, in nats."""
        return torch.special.log_ndtr(self._reach)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        distance = (value - self.loc) / self.scale
        normal = -0.5 * distance.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        return normal + torch.special.log_ndtr(self.intercept + self.slope * distance) - self.log_selected

    @property
    def _mills(self) -> Tensor:
        reach = self._reach
        return (-0.5 * reach.square() - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(reach)).exp()

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc + self.scale * self.slope / self._root * self._mills

    @property
    def variance(self) -> Tensor:
        """The variance."""
        mills, delta = self._mills, self.slope / self._root
        return self.scale.square() * (1 - delta.square() * mills * (mills + self._reach))

    @torch.no_grad()
    def draws(self, first: Tensor, second: Tensor) -> Tensor:
        """Draws from two independent uniform numbers, which are broadcast with the batch shape.

        Probabilities of passing below 1e-268 are taken for this one.
        """
        passing = torch.special.log_ndtr(self._reach.double().clamp(min=_FARTHEST)).exp()
        hidden = -torch.special.ndtri((1 - first.double()) * passing)
        delta = (self.slope / self._root).double()
        noise = delta * hidden + (1 / self._root.double()) * torch.special.ndtri(second.double())
        return (self.loc + self.scale * noise).to(self.loc.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, ``[*sample_shape, *batch_shape]``."""
        shape = torch.Size(sample_shape) + self.batch_shape
        smallest = torch.finfo(torch.double).tiny
        first, second = torch.rand(2, *shape, dtype=torch.double, device=self.loc.device).clamp(min=smallest)
        return self.draws(first, second)
