"""The contract of likelihoods: modules whose forward turns raw decoder outputs into p(x|z)."""

from __future__ import annotations

from collections.abc import Sequence

from pyro.distributions import Independent, TorchDistribution
from torch import Tensor, nn


class Likelihood(nn.Module):
    """What decoder and model need to know of a likelihood.

    Args:
        data_shape: shape of one datum.

    Attributes:
        raw_shape: shape of the raw parameters of one datum: the data's with `num_parameters` times as many channels
            (first dimension).
        fill_value: a value of the support, put where entries are missing.
    """

    num_parameters = 1
    fill_value = 0.0

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()
        if not data_shape or min(data_shape) < 1:
            raise ValueError(f"data_shape must hold positive sizes, got {tuple(data_shape)}")
        self.data_shape = tuple(data_shape)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of a datum's raw parameters."""
        return (self.num_parameters * self.data_shape[0], *self.data_shape[1:])

    def forward(self, raw: Tensor) -> Independent:
        """The distribution of the data at raw parameters `[..., *raw_shape]`, event shape `data_shape`."""
        parameters = raw.chunk(self.num_parameters, -len(self.data_shape))
        return self.elementwise(*parameters).to_event(len(self.data_shape))

    def elementwise(self, *parameters: Tensor) -> TorchDistribution:
        """The distribution of the entries of a datum, independent of each other given the latents."""
        raise NotImplementedError(f"{type(self).__name__} must say how its entries are distributed")
