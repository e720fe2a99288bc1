"""Joint draws and joint densities of networks, given out site by site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork


class Source(ABC):
    """A joint distribution in one run of a program. Its sites share its draws and its density.

    Parameters
    ----------
    shapes : list of torch.Size
        Event shape of each site, in order.
    """

    def __init__(self, shapes: list[torch.Size]) -> None:
        self.shapes = shapes
        self.drawn: list[Tensor] | None = None
        self.taken: list[Tensor] = []  # what the sites so far came to have

    def sample(self, name: str, rows: int, obs: Tensor | None = None, *, has_rsample: bool = False) -> None:
        """Run the next site of the program.

        Parameters
        ----------
        name : str
            Name of the site.
        rows : int
            Number of rows of the batch.
        obs : Tensor, optional
            Observed value of the site.
        has_rsample : bool, default False
            Whether the draws of the site carry gradients.
        """
        part = _Part(self, len(self.taken), (rows,), has_rsample)
        self.taken.append(pyro.sample(name, part, obs=obs))

    def part(self, position: int, shape: torch.Size) -> Tensor:
        """Return the part of a joint draw that belongs to one site. The first site starts a new draw.

        Parameters
        ----------
        position : int
            Position of the site, from 0.
        shape : torch.Size
            Shape of the draws, samples and batch.

        Returns
        -------
        Tensor
            The draws, shape ``[*shape, ...]``.

        Raises
        ------
        ValueError
            An earlier site has another value than the one drawn for it.
        """
        if position == 0:
            self.drawn = self.draw(shape)
        if self.drawn is None or not self._was_drawn(position):
            raise ValueError(
                "networks draw all latents and data jointly, and cannot draw some of them given the values of others"
            )
        return self.drawn[position]

    def _was_drawn(self, count: int) -> bool:
        """Return whether the first sites have the values drawn for them.

        It compares memory, because handlers may wrap a value.
        """
        if self.drawn is None:
            return False
        pairs = zip(self.drawn, self.taken[:count], strict=False)
        return all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in pairs)

    def values(self, position: int, shape: torch.Size, value: Tensor) -> list[Tensor]:
        """Return the values of the sites up to a position, each ``[batch, samples, ...]``."""
        values = [*self.taken[:position], value]
        return [_batch_first(v, shape, event) for v, event in zip(values, self.shapes, strict=False)]

    @abstractmethod
    def draw(self, shape: torch.Size) -> list[Tensor]:
        """Make a joint draw, ``[*shape, ...]`` for each site."""

    @abstractmethod
    def log_prob(self, position: int, shape: torch.Size, value: Tensor) -> Tensor | None:
        """Return the share of one site in the joint log-density in nats, shape `shape`. None stands for zero."""

    @abstractmethod
    def mean(self, position: int) -> Tensor:
        """Return the mean of one site, given the values of the sites before it where it depends on them."""


class Posterior(Source):
    """The posterior q(z | x) of an inference network.

    Parameters
    ----------
    network : InferenceNetwork
        The network.
    data : list of Tensor, each ``[batch, ...]``
        The data of this run.
    shapes : list of torch.Size
        Event shape of each latent site, in order.
    """

    def __init__(self, network: InferenceNetwork, data: list[Tensor], shapes: list[torch.Size]) -> None:
        super().__init__(shapes)
        self.network, self.data = network, data
        self.params = network(data).params_

    def called(self) -> InferenceNetwork:
        """Return the network. If another call came between, call it again with the data of this run."""
        if self.network.params_ is not self.params:
            self.params = self.network(self.data).params_
        return self.network

    def draw(self, shape: torch.Size) -> list[Tensor]:
        """Draw from the inference network."""
        return [_samples_first(value, shape) for value in self.called().sample(shape[:-1].numel())]

    def log_prob(self, position: int, shape: torch.Size, value: Tensor) -> Tensor | None:
        """The last latent has the whole density."""
        if position < len(self.shapes) - 1:
            return None
        return _samples_first(self.called().log_prob(self.values(position, shape, value)), shape)

    def mean(self, position: int) -> Tensor:
        """The mean of one latent."""
        return self.called().mean()[position]


class Joint(Source):
    """The joint distribution p(x, z) of a generative model: the latents first, then the data.

    Parameters
    ----------
    model : GenerativeModel
        The model.
    shapes : list of torch.Size
        Event shape of each latent site in order, then that of the data.
    """

    def __init__(self, model: GenerativeModel, shapes: list[torch.Size]) -> None:
        super().__init__(shapes)
        self.model = model
        self.has_prior = type(model).log_prior is not GenerativeModel.log_prior

    def draw(self, shape: torch.Size) -> list[Tensor]:
        """Draw latents and data from the generative model."""
        data, latents = self.model.sample(shape.numel())
        if len(data) > 1:
            raise ValueError(f"the data site of a pair is one tensor, and the generative model draws {len(data)}")
        return [value.reshape(shape + value.shape[2:]) for value in latents] + [
            data[0].reshape(shape + self.shapes[-1])
        ]

    def log_prob(self, position: int, shape: torch.Size, value: Tensor) -> Tensor | None:
        """The last latent has the prior where the model knows it, and the data have the rest."""
        if position == len(self.shapes) - 1:
            return self._log_data(shape, value)
        if position == len(self.shapes) - 2 and self.has_prior:
            return _samples_first(self.model.log_prior(self.values(position, shape, value)), shape)
        return None

    def _log_data(self, shape: torch.Size, x: Tensor) -> Tensor:
        """The joint log-density, less that of the latents where the model knows it."""
        *latents, rows = self.values(len(self.shapes) - 1, shape, x)
        if x.dim() == len(self.shapes[-1]) + 1:  # one datum for all its samples
            rows = x
        else:  # data drawn with every sample are rows of their own
            latents = [value.flatten(0, 1).unsqueeze(1) for value in latents]
            rows = rows.flatten(0, 1)
        log_p = self.model([rows], latents).log_prob([rows], latents)
        if self.has_prior:
            log_p = log_p - self.model.log_prior(latents)
        return _samples_first(log_p.reshape(shape[-1], -1), shape)

    def mean(self, position: int) -> Tensor:
        """The mean of the data given the latents."""
        if position < len(self.shapes) - 1:
            raise NotImplementedError("a GenerativeModel has no mean of the latents")
        shape = self.taken[0].shape[: self.taken[0].dim() - len(self.shapes[0])]
        latents = [_batch_first(v, shape, event) for v, event in zip(self.taken, self.shapes[:-1], strict=False)]
        return _samples_first(self.model.mean(latents)[0], shape)


def _samples_first(value: Tensor, shape: torch.Size) -> Tensor:
    """``[batch, samples, ...]`` as ``[*shape, ...]``, with the batch last in `shape`."""
    return value.transpose(0, 1).reshape(shape + value.shape[2:])


def _batch_first(value: Tensor, shape: torch.Size, event: torch.Size) -> Tensor:
    """The inverse of `_samples_first`, for values that broadcast to ``[*shape, *event]``."""
    return value.expand(shape + event).reshape(-1, shape[-1], *event).transpose(0, 1)


class _Part(TorchDistribution):
    """The share of one site in a joint distribution."""

    arg_constraints = {}  # noqa: RUF012 - the form that torch.distributions wants

    def __init__(self, source: Source, position: int, batch_shape: Sequence[int], has_rsample: bool) -> None:
        self.source, self.position, self.has_rsample = source, position, has_rsample
        super().__init__(torch.Size(batch_shape), source.shapes[position], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Any value, because the networks decide what they draw."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _Part:
        """The same part for more draws."""
        return _Part(self.source, self.position, batch_shape, self.has_rsample)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The part of a joint draw that belongs to this site."""
        return self.source.part(self.position, torch.Size(sample_shape) + self.batch_shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The part of a joint draw that belongs to this site, without gradients."""
        with torch.no_grad():  # the first site draws for all, so that none of them has gradients
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The share of this site in the joint log-density in nats, shape ``[*batch_shape]``."""
        shape = torch.broadcast_shapes(self.batch_shape, value.shape[: value.dim() - len(self.event_shape)])
        result = self.source.log_prob(self.position, shape, value)
        return value.new_zeros(shape, dtype=torch.get_default_dtype()) if result is None else result

    @property
    def mean(self) -> Tensor:
        """The mean, where the network knows it."""
        return self.source.mean(self.position)
