"""The contract of likelihoods: modules whose forward turns raw decoder outputs into p(x|z)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor, nn

from pyrovae.masks import fill_missing

POINTS = ("mean", "median", "mode")


class Likelihood(nn.Module):
    """What decoder, model and evaluation need to know of a likelihood.

    A concrete likelihood gives `elementwise`. One whose entries are of several kinds overrides `point` and `error` too.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.

    Attributes
    ----------
    num_parameters : int
        Raw parameters per entry.
    fill_value : float
        A value of the support. It stands in for missing entries before they are scored; their scores are masked.
    error_unit : str
        What `error` measures, for tables and figures.

    Raises
    ------
    ValueError
        For a shape without entries.
    """

    num_parameters = 1
    fill_value = 0.0
    error_unit = "squared error"

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()
        if not data_shape or min(data_shape) < 1:
            raise ValueError(f"data_shape must hold positive sizes, got {tuple(data_shape)}")
        self.data_shape = tuple(data_shape)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of a datum's raw parameters: `num_parameters` times as many channels (first dimension)."""
        return (self.num_parameters * self.data_shape[0], *self.data_shape[1:])

    def forward(self, raw: Tensor, mask: Tensor | None = None) -> Independent:
        """The distribution of the data, in which missing entries count nothing.

        Parameters
        ----------
        raw : Tensor, shape ``[..., *raw_shape]``
            Raw parameters, from a decoder.
        mask : Tensor of bool, shape ``[..., *data_shape]``, optional
            True where an entry is observed.

        Returns
        -------
        Independent
            Of batch shape ``[...]`` and event shape `data_shape`. Score `fill(x, mask)` by it.
        """
        fn = self.elementwise(*raw.chunk(self.num_parameters, -len(self.data_shape)))
        return (fn if mask is None else fn.mask(mask)).to_event(len(self.data_shape))

    def elementwise(self, *parameters: Any, **named: Any) -> TorchDistribution:
        """The distribution of the entries of a datum, independent of each other given the latents.

        A subclass names its own parameters, each a tensor ``[..., *data_shape]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must say how its entries are distributed")

    def fill(self, x: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Data with a value of the support where entries are missing; None stays None."""
        return x if x is None else fill_missing(x, mask, self.fill_value)

    def point(self, fn: TorchDistribution, kind: str = "mean") -> Tensor:
        """The point estimate of every entry, ``[..., *data_shape]``.

        Parameters
        ----------
        fn : TorchDistribution
            What `forward` returned.
        kind : {"mean", "median", "mode"}, default "mean"
            The mean has the least squared error, the median the least absolute one, the mode is a possible value.

        Raises
        ------
        ValueError
            For another kind.
        NotImplementedError
            If the distribution does not have it.
        """
        return point_estimate(fn, kind)

    def error(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The error of every entry of a point estimate, ``[..., *data_shape]``, in `error_unit`."""
        return squared_error(x_hat, x)

    def complete(self, x: Tensor, mask: Tensor | None, values: Tensor) -> Tensor:
        """Data with `values` where entries are missing."""
        return fill_missing(x, mask, values)


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """The squared error of every entry, of the shape of both."""
    return (x_hat - x).square()


def point_estimate(fn: TorchDistribution, kind: str = "mean") -> Tensor:
    """The mean, median or mode of a distribution; a mask of entries does not matter.

    Raises
    ------
    ValueError
        For another kind.
    NotImplementedError
        If the distribution does not have it.
    """
    if kind not in POINTS:
        raise ValueError(f"a point estimate is one of {', '.join(POINTS)}, got {kind!r}")
    if kind == "mean":
        return fn.mean
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):  # masks and events; not transformed distributions
        fn = fn.base_dist
    return fn.mode if kind == "mode" else fn.icdf(torch.tensor(0.5, device="cpu"))


def likelihood_of(module: nn.Module) -> Likelihood | None:
    """The likelihood that a VAE, or any other module, is made with; None where there is none, or more than one."""
    found = {id(part): part for part in module.modules() if isinstance(part, Likelihood)}
    return next(iter(found.values())) if len(found) == 1 else None
