"""The two interfaces: what infers latents from data, and what generates both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

Tensors = Sequence[Tensor]


def as_data(data: Tensors) -> list[Tensor]:
    """Data as a list, checked.

    Raises:
        TypeError: for anything but a list or tuple of tensors.
        ValueError: for an empty list, or tensors of different numbers of rows.
    """
    if not isinstance(data, list | tuple) or not all(isinstance(part, Tensor) for part in data):
        raise TypeError(f"data are a list of tensors [batch, ...], got {type(data).__name__}; write [x] for one tensor")
    if not data or any(not part.dim() for part in data) or len({len(part) for part in data}) != 1:
        shapes = [tuple(part.shape) for part in data]
        raise ValueError(f"data are at least one tensor, all with the same number of rows; got {shapes}")
    return list(data)


class InferenceNetwork(nn.Module, ABC):
    r"""An approximate posterior q(z | x) that is known by its draws and their log-density alone.

    Data are a list of tensors `[batch, ...]`, latents a list of tensors `[batch, samples, ...]`; what the further
    dimensions mean is the network's own business. Calling the network with data computes the parameters of its
    distribution, stores them in `params_` and returns the network, so that
    `inference_network(data).sample(10)` reads as one expression. `sample` and `log_prob` refer to the last call.

    A concrete network writes three methods, `parameterise`, `sample` and `log_prob`, and sets `reparameterised` to
    True if its draws carry gradients. A network of both kinds of latents leaves it False and overrides `log_score`.
    `mean` is for tools that want the mean of the latents, such as `VAE.reconstruct`; no loss needs it.

    Args:
        num_samples: samples a datum where `sample` is not told.

    Raises:
        ValueError: for fewer than one sample.

    >>> class Coin(InferenceNetwork):
    ...     def __init__(self):
    ...         super().__init__(num_samples=5)
    ...         self.net = nn.Linear(3, 1)
    ...     def parameterise(self, data):
    ...         return {"logits": self.net(data[0])}
    ...     def distribution(self):
    ...         return torch.distributions.Bernoulli(logits=self.params_["logits"].unsqueeze(1))
    ...     def sample(self, num_samples=None):
    ...         logits = self.params_["logits"].unsqueeze(1)
    ...         return [logits.expand(-1, num_samples or self.num_samples, -1).sigmoid().bernoulli()]
    ...     def log_prob(self, latents):
    ...         return self.distribution().log_prob(latents[0]).sum(-1)
    >>> coin = Coin()
    >>> latents = coin([torch.zeros(7, 3)]).sample()
    >>> latents[0].shape, coin.log_prob(latents).shape
    (torch.Size([7, 5, 1]), torch.Size([7, 5]))
    """

    reparameterised: bool = False
    """Whether the draws carry gradients. If not, `log_prob` is the score part of a multi-sample gradient."""

    params_: Mapping[str, Tensor]

    def __init__(self, num_samples: int = 1) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        self.num_samples = num_samples
        self.params_ = {}

    def forward(self, data: Tensors) -> Self:
        """Compute the distribution for data `[batch, ...]`, and return the network."""
        self.params_ = dict(self.parameterise(as_data(data)))
        return self

    @abstractmethod
    def parameterise(self, data: list[Tensor]) -> Mapping[str, Tensor]:
        """The parameters of q(z | x), by name."""

    @abstractmethod
    def sample(self, num_samples: int | None = None) -> list[Tensor]:
        """Draw latents, each `[batch, samples, ...]`."""

    @abstractmethod
    def log_prob(self, latents: Tensors) -> Tensor:
        """The log-density q(z | x) of latents `[batch, samples, ...]`, all together: `[batch, samples]`, in nats."""

    def log_score(self, latents: Tensors, log_q: Tensor) -> Tensor:
        """The part of `log_q` whose draws carry no gradient, `[batch, samples]`: all or nothing by `reparameterised`.

        Raises:
            ValueError: if `reparameterised` is at odds with the draws, which would bias the gradient without a word.
        """
        carried = any(value.requires_grad for value in latents)
        name = type(self).__name__
        if carried and not self.reparameterised:
            raise ValueError(f"draws of {name} carry gradients; set reparameterised = True, or draw without them")
        if self.reparameterised and not carried and log_q.requires_grad:
            raise ValueError(f"{name} says it is reparameterised, and its draws carry no gradient; is it rsample?")
        return torch.zeros_like(log_q) if self.reparameterised else log_q

    def mean(self) -> list[Tensor]:
        """The mean of the latents, each `[batch, ...]`, where a network knows it.

        Raises:
            NotImplementedError: where it does not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mean; override InferenceNetwork.mean to give one")


class GenerativeModel(nn.Module, ABC):
    r"""A joint distribution p(x, z) that is known by its draws and their log-density alone.

    Calling the model with data and latents computes what the density needs, stores it in `params_` and returns the
    model: `generative_model(data, latents).log_prob(data, latents)`. A concrete model writes three methods,
    `parameterise`, `sample` and `log_prob`; losses that never dream (all but `SleepQ`) do not call `sample`, and
    `SleepQ` calls nothing else. `log_prior` and `mean` are for the tools of a `VAE` that take the joint apart, such as
    a KL weight and `VAE.reconstruct`; no loss needs them.

    >>> class Walk(GenerativeModel):
    ...     def parameterise(self, data, latents):
    ...         return {"mean": latents[0]}
    ...     def sample(self, num_samples=1):
    ...         z = torch.randn(num_samples, 1, 1)
    ...         return [z[:, 0] + torch.randn(num_samples, 1)], [z]
    ...     def log_prob(self, data, latents):
    ...         normal = torch.distributions.Normal
    ...         log_likelihood = normal(self.params_["mean"], 1.0).log_prob(data[0].unsqueeze(1))
    ...         return (log_likelihood + normal(0.0, 1.0).log_prob(latents[0])).sum(-1)
    >>> walk = Walk()
    >>> data, latents = walk.sample(6)
    >>> walk(data, latents).log_prob(data, latents).shape
    torch.Size([6, 1])
    """

    params_: Mapping[str, Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.params_ = {}

    def forward(self, data: Tensors, latents: Tensors) -> Self:
        """Compute the distribution of data `[batch, ...]` given latents `[batch, samples, ...]`; return the model."""
        self.params_ = dict(self.parameterise(as_data(data), list(latents)))
        return self

    @abstractmethod
    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> Mapping[str, Tensor]:
        """The parameters of p(x | z), by name."""

    @abstractmethod
    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Draw from the joint: data, each `[num_samples, ...]`, and the latents of each, `[num_samples, 1, ...]`.

        The draws are a batch of their own, so that they can be handed to an inference network as they are.
        """

    @abstractmethod
    def log_prob(self, data: Tensors, latents: Tensors) -> Tensor:
        """The joint log-density p(x, z), `[batch, samples]`, in nats.

        Data are `[batch, ...]`, latents `[batch, samples, ...]`.
        """

    def log_prior(self, latents: Tensors) -> Tensor:
        """The log-density p(z) of latents `[batch, samples, ...]`, `[batch, samples]`, in nats, where a model knows it.

        Raises:
            NotImplementedError: where it does not override this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__} knows its joint density alone; override GenerativeModel.log_prior to give the prior"
        )

    def mean(self, latents: Tensors) -> list[Tensor]:
        """The mean of the data given latents `[batch, samples, ...]`, each `[batch, samples, ...]`, where known.

        Raises:
            NotImplementedError: where it does not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mean; override GenerativeModel.mean to give one")
