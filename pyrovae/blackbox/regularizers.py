"""Penalties on parameters of networks: prior knowledge of what a parameter should be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Beta, Normal

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork

Link = Callable[[Tensor], Tensor]


def identity(value: Tensor) -> Tensor:
    """The value itself, the link of a parameter that needs none."""
    return value


class Regularizer(ABC):
    r"""Minus a log-density of a parameter of a network, `-weight * sum log f(link(parameter))`, in nats.

    The density is that of the linked value and not of the raw one (no Jacobian): a pull towards `mean`, not a change
    of variables. A regularizer handed to a loss is added to its mean over the batch, so that `weight=1` counts as
    much as one datum.

    Args:
        network: the inference network or the generative model.
        parameter: the name of a trainable parameter as in `named_parameters`, or else of an entry `[batch, ...]` of
            `params_` in the last call, which is averaged over the batch.
        mean: mean of the density.
        std: its standard deviation.
        weight: what the penalty is multiplied with.
        link: from the raw parameter to the value that has the density.

    Raises:
        ValueError: for a standard deviation or weight out of range; when called, for an unknown parameter.
    """

    def __init__(
        self,
        network: InferenceNetwork | GenerativeModel,
        parameter: str,
        mean: float,
        std: float,
        weight: float = 1.0,
        link: Link = identity,
    ) -> None:
        if not std > 0 or not weight >= 0:
            raise ValueError(f"std must be positive and weight not negative, got {std} and {weight}")
        self.network, self.parameter, self.link = network, parameter, link
        self.mean, self.std, self.weight = mean, std, weight

    @abstractmethod
    def log_density(self, value: Tensor) -> Tensor:
        """The log-density of every entry of a linked value."""

    def value(self) -> Tensor:
        """The linked parameter as it is now."""
        return self.link(self._raw()[0])

    def __call__(self) -> Tensor:
        """The penalty, a scalar."""
        raw, rows = self._raw()
        return -self.weight * self.log_density(self.link(raw)).sum() / rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.network).__name__}, {self.parameter!r})"

    def _raw(self) -> tuple[Tensor, int]:
        """The raw parameter, and over how many rows to average."""
        parameters = dict(self.network.named_parameters())
        if self.parameter in parameters:
            return parameters[self.parameter], 1
        if self.parameter in self.network.params_:
            value = self.network.params_[self.parameter]
            return value, len(value) if value.dim() else 1
        raise ValueError(
            f"{type(self.network).__name__} has no parameter {self.parameter!r}; it has {sorted(parameters)}, and "
            f"params_ has {sorted(self.network.params_)}"
        )


class NormalRegularizer(Regularizer):
    """A normal density on a parameter."""

    def log_density(self, value: Tensor) -> Tensor:
        """The log-density of every entry."""
        return Normal(self.mean, self.std).log_prob(value)


class BetaRegularizer(Regularizer):
    """A beta density, given by mean and standard deviation, on a parameter that a link takes to (0, 1).

    Values are kept off 0 and 1 by the resolution of their type, since a density with a concentration below 1 is
    infinite there.

    Args:
        mean: in (0, 1).
        std: below `sqrt(mean (1 - mean))`, the largest that a beta distribution of this mean has.
        link: by default the sigmoid.
    """

    def __init__(
        self,
        network: InferenceNetwork | GenerativeModel,
        parameter: str,
        mean: float,
        std: float,
        weight: float = 1.0,
        link: Link = torch.sigmoid,
    ) -> None:
        super().__init__(network, parameter, mean, std, weight, link)
        if not 0 < mean < 1 or not std**2 < mean * (1 - mean):
            raise ValueError(
                f"a beta distribution has a mean in (0, 1) and a std below sqrt(mean * (1 - mean)), got mean {mean} "
                f"and std {std}"
            )
        total = mean * (1 - mean) / std**2 - 1
        self.concentration1, self.concentration0 = mean * total, (1 - mean) * total

    def log_density(self, value: Tensor) -> Tensor:
        """The log-density of every entry."""
        lowest, highest = value.detach().min().item(), value.detach().max().item()
        if lowest < 0 or highest > 1:
            raise ValueError(f"{self!r}: the linked value must lie in (0, 1), got [{lowest:.3g}, {highest:.3g}]")
        tiny = torch.finfo(value.dtype).eps
        return Beta(self.concentration1, self.concentration0).log_prob(value.clamp(tiny, 1 - tiny))
