"""An inference network and a generative model as a Pyro pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.distributions import constraints

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.programs import evaluating


def as_pair(
    inference_network: InferenceNetwork, generative_model: GenerativeModel
) -> tuple[NetworkModel, NetworkGuide]:
    r"""The two networks as a model and a guide for `VAE`, the Trainer, the objectives of `pyrovae.infer` and stock SVI.

    The programs take the data tensors as arguments, one of them in a VAE. Every latent tensor is a site, "z" or "z1",
    "z2" and so on in the order of the list, the first data tensor is the site "x". Networks know nothing but joint
    densities, so the last latent site of the guide carries all of log q(z | x), the data site of the model all of
    log p(x, z), and the other sites have log-probability zero.

    The log weights, and so every bound, the held-out likelihood and `VAE.sample`, are exact. What needs more than the
    joint raises a `ValueError` or `NotImplementedError`: means and modes (`reconstruct`, `forward`), drawing data for
    given latents (`impute`), drawing some of the latents given others, and a KL weight.

    >>> class Guide(InferenceNetwork):
    ...     def parameterise(self, data):
    ...         return {"probs": data[0].sigmoid().unsqueeze(1)}
    ...     def sample(self, num_samples=None):
    ...         return [self.params_["probs"].expand(-1, num_samples or self.num_samples).bernoulli()]
    ...     def log_prob(self, latents):
    ...         return torch.distributions.Bernoulli(self.params_["probs"]).log_prob(latents[0])
    >>> class Model(GenerativeModel):
    ...     def parameterise(self, data, latents):
    ...         return {}
    ...     def sample(self, num_samples=1):
    ...         z = torch.full((num_samples, 1), 0.5).bernoulli()
    ...         return [z[:, 0] + torch.randn(num_samples)], [z]
    ...     def log_prob(self, data, latents):
    ...         return torch.distributions.Normal(latents[0], 1.0).log_prob(data[0].unsqueeze(1)) - 0.6931
    >>> from pyrovae import VAE
    >>> vae = VAE(*as_pair(Guide(), Model()), example=torch.zeros(3))
    >>> vae.log_likelihood(torch.zeros(3), num_samples=10).shape, vae.sample(4).shape
    (torch.Size([3]), torch.Size([4]))
    """
    latents = _LatentShapes(inference_network)
    return NetworkModel(generative_model, latents), NetworkGuide(inference_network, latents)


class NetworkGuide(PyroModule):
    """An inference network as a guide; made by `as_pair`."""

    def __init__(self, inference_network: InferenceNetwork, latents: _LatentShapes) -> None:
        super().__init__()
        self.inference_network = inference_network
        self.latents = latents

    def forward(self, x: Tensor, *more: Tensor) -> None:
        """Draw the latents of data `[batch, ...]`."""
        data = [x, *more]
        names, shapes = self.latents(data)
        network = self.inference_network(data)
        with pyro.plate("data", len(x)):
            source = _Posterior(network)
            values: list[Tensor] = []
            for position, (name, shape) in enumerate(zip(names, shapes, strict=True)):
                total = source.log_prob if position == len(names) - 1 else None
                site = _Part(source, position, (len(x),), shape, values, total, network.reparameterised)
                values = [*values, pyro.sample(name, site)]


class NetworkModel(PyroModule):
    """A generative model as a model; made by `as_pair`."""

    def __init__(self, generative_model: GenerativeModel, latents: _LatentShapes) -> None:
        super().__init__()
        self.generative_model = generative_model
        self.latents = latents

    def forward(self, x: Tensor, *more: Tensor) -> None:
        """Draw the latents and observe data `[batch, ...]`.

        Raises:
            ValueError: under a KL weight, which would need the prior apart from the joint.
        """
        if any(isinstance(handler, KLWeightMessenger) for handler in _PYRO_STACK):
            raise ValueError(
                "a KL weight scales the prior of the latents, and a GenerativeModel knows the joint density alone; "
                "use kl_weight=1"
            )
        data = [x, *more]
        names, shapes = self.latents(data)
        model = self.generative_model
        with pyro.plate("data", len(x)):
            source = _Joint(model, data)
            values: list[Tensor] = []
            for position, (name, shape) in enumerate(zip(names, shapes, strict=True)):
                values = [*values, pyro.sample(name, _Part(source, position, (len(x),), shape, values, None, False))]
            site = _Part(source, len(names), (len(x),), x.shape[1:], values, source.log_prob, False)
            pyro.sample("x", site, obs=x)


class _LatentShapes:
    """Names and shapes of the latents of a datum, found by drawing once for data of a new shape."""

    def __init__(self, inference_network: InferenceNetwork) -> None:
        self.network = inference_network
        self.known: dict[tuple[torch.Size, ...], list[torch.Size]] = {}

    def __call__(self, data: Sequence[Tensor]) -> tuple[list[str], list[torch.Size]]:
        key = tuple(part.shape[1:] for part in data)
        if key not in self.known:
            with torch.no_grad(), torch.random.fork_rng(), evaluating(self.network):
                draws = self.network([part[:1] for part in data]).sample(1)
            self.known[key] = [draw.shape[2:] for draw in draws]
        shapes = self.known[key]
        width = len(str(len(shapes)))  # z01 to z12: sites are sorted by name elsewhere
        names = [f"z{i:0{width}d}" for i in range(1, len(shapes) + 1)] if len(shapes) > 1 else ["z"]
        return names, shapes


class _Source:
    """One joint draw, of which the sites of a program take their parts in turn."""

    def __init__(self) -> None:
        self.drawn: list[Tensor] | None = None

    def part(self, position: int, shape: torch.Size, before: Sequence[Tensor]) -> Tensor:
        """The part of the site at a position, `[*shape, ...]`, where the sites before have taken theirs."""
        if position == 0:
            self.drawn = self.draw(shape)
        if self.drawn is None or any(mine is not theirs for mine, theirs in zip(self.drawn, before, strict=False)):
            raise ValueError(
                "networks draw all latents and data jointly, and cannot draw some of them given the values of others"
            )
        return self.drawn[position]

    def draw(self, shape: torch.Size) -> list[Tensor]:
        raise NotImplementedError


class _Posterior(_Source):
    def __init__(self, network: InferenceNetwork) -> None:
        super().__init__()
        self.network = network
        self.params = network.params_

    def draw(self, shape: torch.Size) -> list[Tensor]:
        self.network.params_ = self.params
        return [_samples_first(value, shape) for value in self.network.sample(shape[:-1].numel())]

    def log_prob(self, shape: torch.Size, values: Sequence[Tensor]) -> Tensor:
        self.network.params_ = self.params  # the network speaks of its last call, and there may have been another
        return _samples_first(self.network.log_prob([_batch_first(value, shape) for value in values]), shape)


class _Joint(_Source):
    def __init__(self, model: GenerativeModel, data: list[Tensor]) -> None:
        super().__init__()
        self.model, self.data = model, data

    def draw(self, shape: torch.Size) -> list[Tensor]:
        if len(self.data) > 1:
            raise ValueError("drawing from the model gives all data tensors anew, and a program has one data site")
        data, latents = self.model.sample(shape.numel())
        return [value.reshape(shape + value.shape[2:]) for value in latents] + [
            value.reshape(shape + value.shape[1:]) for value in data
        ]

    def log_prob(self, shape: torch.Size, values: Sequence[Tensor]) -> Tensor:
        *latents, x = values
        lead = x.dim() - self.data[0].dim() + 1
        if lead > 1:  # data drawn for every particle: each row and particle is a datum of its own
            rows = x.shape[:lead]
            flat = [value.reshape(rows.numel(), 1, *value.shape[lead:]) for value in latents]
            data = [x.flatten(0, lead - 1)]
            return self.model(data, flat).log_prob(data, flat).reshape(rows)
        data = [x, *self.data[1:]]
        batched = [_batch_first(value, shape) for value in latents]
        return _samples_first(self.model(data, batched).log_prob(data, batched), shape)


def _samples_first(value: Tensor, shape: torch.Size) -> Tensor:
    """`[batch, samples, ...]` as `[*shape, ...]` with the batch last in `shape`."""
    return value.transpose(0, 1).reshape(shape + value.shape[2:])


def _batch_first(value: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_samples_first`."""
    event = value.shape[len(shape) :]
    return value.reshape(-1, shape[-1], *event).transpose(0, 1)


class _Part(TorchDistribution):
    """The share of one site in a joint density: all of it or nothing."""

    arg_constraints = {}  # noqa: RUF012 - the form that torch.distributions wants

    def __init__(
        self,
        source: _Source,
        position: int,
        batch_shape: Sequence[int],
        event_shape: torch.Size,
        before: list[Tensor],
        total: Any,
        has_rsample: bool,
        validate_args: bool | None = None,
    ) -> None:
        self.source, self.position, self.before, self.total = source, position, before, total
        self.has_rsample = has_rsample
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Any value: the networks know what they draw."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """The same part of more draws."""
        return _Part(
            self.source,
            self.position,
            batch_shape,
            self.event_shape,
            self.before,
            self.total,
            self.has_rsample,
            validate_args=False,
        )

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The part of a joint draw that is this site's."""
        return self.source.part(self.position, torch.Size(sample_shape) + self.batch_shape, self.before)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The part of a joint draw that is this site's, without gradients."""
        if self.position:  # a detached copy would no longer be the joint draw that the next site asks for
            return self.rsample(sample_shape)
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The joint log-density if it is this site's to carry, and zero otherwise."""
        shape = self.batch_shape
        lead = value.shape[: value.dim() - len(self.event_shape)]
        if len(lead) > len(shape):
            shape = lead
        if self.total is None:
            return torch.zeros(shape, dtype=torch.get_default_dtype(), device=value.device)
        return self.total(shape, [*self.before, value])

    @property
    def mean(self) -> Tensor:
        """Not known to networks."""
        raise NotImplementedError("the networks of the black-box interface have draws and densities, and no mean")

    mode = mean
    variance = mean
