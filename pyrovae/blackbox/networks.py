"""The two interfaces: a network that infers latents from data, and a model that generates both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

Tensors = Sequence[Tensor]


def as_data(data: Tensors) -> list[Tensor]:
    """Check data and return them as a list.

    Parameters
    ----------
    data : list or tuple of Tensor, each ``[batch, ...]``
        The data.

    Returns
    -------
    list of Tensor
        The same tensors.

    Raises
    ------
    TypeError
        `data` is not a list or tuple of tensors.
    ValueError
        There is no tensor, or the numbers of rows differ.
    """
    if not isinstance(data, list | tuple) or not all(isinstance(part, Tensor) for part in data):
        raise TypeError(f"data are a list of tensors [batch, ...], got {type(data).__name__}; write [x] for one tensor")
    if not data or any(not part.dim() for part in data) or len({len(part) for part in data}) != 1:
        shapes = [tuple(part.shape) for part in data]
        raise ValueError(f"data are at least one tensor, all with the same number of rows; got {shapes}")
    return list(data)


class InferenceNetwork(nn.Module, ABC):
    """Base class of an approximate posterior q(z | x) that gives only draws and their log-density.

    Subclass it for an inference network of your own. Write the three methods `parameterise`, `sample` and `log_prob`.

    Parameters
    ----------
    num_samples : int, default 1
        Samples per datum where `sample` is not told how many. Losses that compare samples need at least 2.

    Attributes
    ----------
    reparameterised : bool
        Whether the draws carry gradients. Set it to True in a network with reparameterised draws. If it is False,
        `log_prob` is the score part of a multi-sample gradient.
    params_ : mapping of str to Tensor
        The parameters of the distribution in the last call.

    Raises
    ------
    ValueError
        `num_samples` is below one.

    Notes
    -----
    Data are a list of tensors ``[batch, ...]``. Latents are a list of tensors ``[batch, samples, ...]``. The network
    decides what the further dimensions mean.

    A call with data computes the parameters of the distribution, stores them in `params_` and returns the network. So
    ``inference_network(data).sample(10)`` is one expression. `sample` and `log_prob` refer to the last call.

    A network with both kinds of latents leaves `reparameterised` False and overrides `log_score`. `mean` is for tools
    that need the mean of the latents, such as `VAE.reconstruct`; no loss needs it.

    Examples
    --------
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
    params_: Mapping[str, Tensor]

    def __init__(self, num_samples: int = 1) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        self.num_samples = num_samples
        self.params_ = {}

    def forward(self, data: Tensors) -> Self:
        """Compute the distribution for data, store its parameters in `params_` and return the network.

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.

        Returns
        -------
        InferenceNetwork
            The network itself.
        """
        self.params_ = dict(self.parameterise(as_data(data)))
        return self

    @abstractmethod
    def parameterise(self, data: list[Tensor]) -> Mapping[str, Tensor]:
        """Compute the parameters of q(z | x).

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.

        Returns
        -------
        mapping of str to Tensor
            The parameters by name, which become `params_`.
        """

    @abstractmethod
    def sample(self, num_samples: int | None = None) -> list[Tensor]:
        """Draw latents for the data of the last call.

        Parameters
        ----------
        num_samples : int, optional
            Samples per datum. None takes the network's own number.

        Returns
        -------
        list of Tensor, each ``[batch, samples, ...]``
            The latents.
        """

    @abstractmethod
    def log_prob(self, latents: Tensors) -> Tensor:
        """Compute log q(z | x) for the data of the last call.

        Parameters
        ----------
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.

        Returns
        -------
        Tensor
            Log-density of all latents together in nats, shape ``[batch, samples]``.
        """

    def log_score(self, latents: Tensors, log_q: Tensor) -> Tensor:
        """Return the part of `log_q` whose draws carry no gradient.

        Override it in a network with both kinds of latents.

        Parameters
        ----------
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents as they were drawn.
        log_q : Tensor, shape ``[batch, samples]``
            Their log-density in nats.

        Returns
        -------
        Tensor
            In nats, shape ``[batch, samples]``: zero if `reparameterised`, else `log_q`.

        Raises
        ------
        ValueError
            `reparameterised` does not fit the draws. The gradient would be biased.
        """
        carried = any(value.requires_grad for value in latents)
        name = type(self).__name__
        if carried and not self.reparameterised:
            raise ValueError(f"draws of {name} carry gradients; set reparameterised = True, or draw without them")
        if self.reparameterised and not carried and log_q.requires_grad:
            raise ValueError(f"{name} says it is reparameterised, and its draws carry no gradient; is it rsample?")
        return torch.zeros_like(log_q) if self.reparameterised else log_q

    def mean(self) -> list[Tensor]:
        """Return the mean of the latents for the data of the last call, if the network knows it.

        Returns
        -------
        list of Tensor, each ``[batch, ...]``
            The means.

        Raises
        ------
        NotImplementedError
            The network does not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mean; override InferenceNetwork.mean to give one")


class GenerativeModel(nn.Module, ABC):
    """Base class of a joint distribution p(x, z) that gives only draws and their log-density.

    Subclass it for a generative model of your own. Write the three methods `parameterise`, `sample` and `log_prob`.

    Attributes
    ----------
    params_ : mapping of str to Tensor
        What `parameterise` returned in the last call.

    Notes
    -----
    A call with data and latents computes what the density needs, stores it in `params_` and returns the model. So you
    write ``generative_model(data, latents).log_prob(data, latents)``.

    All losses but `SleepQ` do not call `sample`, and `SleepQ` calls nothing else. `log_prior` and `mean` are for tools
    of a `VAE` that split the joint distribution, such as a KL weight and `VAE.reconstruct`. No loss needs them.

    Examples
    --------
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
        """Compute the distribution of data given latents, store what it needs in `params_` and return the model.

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.

        Returns
        -------
        GenerativeModel
            The model itself.
        """
        self.params_ = dict(self.parameterise(as_data(data), list(latents)))
        return self

    @abstractmethod
    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> Mapping[str, Tensor]:
        """Compute the parameters of p(x | z).

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.

        Returns
        -------
        mapping of str to Tensor
            The parameters by name, which become `params_`.
        """

    @abstractmethod
    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Draw from the joint distribution.

        Parameters
        ----------
        num_samples : int, default 1
            Number of rows to draw.

        Returns
        -------
        data : list of Tensor, each ``[num_samples, ...]``
            The data.
        latents : list of Tensor, each ``[num_samples, 1, ...]``
            The latents of each row. The draws are a batch, so an inference network takes them as they are.
        """

    @abstractmethod
    def log_prob(self, data: Tensors, latents: Tensors) -> Tensor:
        """Compute the joint log p(x, z).

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.

        Returns
        -------
        Tensor
            Joint log-density in nats, shape ``[batch, samples]``.
        """

    def log_prior(self, latents: Tensors) -> Tensor:
        """Compute log p(z), if the model knows it.

        Parameters
        ----------
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.

        Returns
        -------
        Tensor
            Log-density of the latents in nats, shape ``[batch, samples]``.

        Raises
        ------
        NotImplementedError
            The model does not override this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__} knows its joint density alone; override GenerativeModel.log_prior to give the prior"
        )

    def mean(self, latents: Tensors) -> list[Tensor]:
        """Compute the mean of the data given latents, if the model knows it.

        Parameters
        ----------
        latents : list of Tensor, each ``[batch, samples, ...]``
            The latents.

        Returns
        -------
        list of Tensor, each ``[batch, samples, ...]``
            The means.

        Raises
        ------
        NotImplementedError
            The model does not override this method.
        """
        raise NotImplementedError(f"{type(self).__name__} has no mean; override GenerativeModel.mean to give one")
