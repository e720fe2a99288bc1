"""Penalties on parameters of networks. They say what you know about a parameter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Beta, Normal

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork

Link = Callable[[Tensor], Tensor]


def identity(value: Tensor) -> Tensor:
    """Return the value itself. It is the link of a parameter that needs none.

    Parameters
    ----------
    value : Tensor
        Any shape.

    Returns
    -------
    Tensor
        The same tensor.
    """
    return value


class Regularizer(ABC):
    """Base class of the penalties: minus the log-density of a parameter of a network, in nats.

    Hand it to a loss, which adds it where it updates the network. A concrete regularizer overrides `log_density`.

    Parameters
    ----------
    network : InferenceNetwork or GenerativeModel
        The network that has the parameter.
    parameter : str
        Name of a trainable parameter as in `named_parameters`, or of an entry ``[batch, ...]`` of `params_` in the last
        call. The penalty of such an entry is averaged over the batch.
    mean : float
        Mean of the density.
    std : float
        Standard deviation of the density, positive. A smaller one pulls harder.
    weight : float, default 1.0
        Factor on the penalty, not negative. Use 1/N for a prior that counts once for N rows of data.
    link : callable, optional
        From the raw parameter to the value that has the density.

    Raises
    ------
    ValueError
        The standard deviation or the weight is out of range. When it is called: the parameter is unknown.

    Notes
    -----
    The penalty is ``-weight * sum log f(link(parameter))``. The density f is that of the linked value and not of the
    raw one: there is no Jacobian. So the penalty is a pull towards `mean` and not a change of variables.

    A loss is a mean over the batch, in nats per datum. The penalty is added to that mean and is not divided by the
    number of rows.
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
        """Compute the log-density of every entry of a linked value.

        Parameters
        ----------
        value : Tensor
            The linked value, any shape.

        Returns
        -------
        Tensor
            Log-density in nats, same shape.
        """

    def value(self) -> Tensor:
        """Return the linked parameter with its present value."""
        return self.link(self._raw()[0])

    def __call__(self) -> Tensor:
        """Compute the penalty.

        Returns
        -------
        Tensor
            The penalty in nats, a scalar.

        Raises
        ------
        ValueError
            The network has no such parameter.
        """
        raw, rows = self._raw()
        return -self.weight * self.log_density(self.link(raw)).sum() / rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.network).__name__}, {self.parameter!r})"

    def _raw(self) -> tuple[Tensor, int]:
        """The raw parameter, and the number of rows to average over."""
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
    """Penalty from a normal density on a parameter.

    Use it for a parameter that may have any real value.

    Parameters
    ----------
    network : InferenceNetwork or GenerativeModel
        The network that has the parameter.
    parameter : str
        Name of a trainable parameter, or of an entry of `params_`, as for `Regularizer`.
    mean : float
        Mean of the density.
    std : float
        Standard deviation of the density, positive.
    weight : float, default 1.0
        Factor on the penalty, not negative.
    link : callable, optional
        From the raw parameter to the value that has the density. By default the identity.
    """

    def log_density(self, value: Tensor) -> Tensor:
        """Log-density of every entry in nats, same shape."""
        return Normal(self.mean, self.std).log_prob(value)


class BetaRegularizer(Regularizer):
    """Penalty from a beta density, given by mean and standard deviation, on a parameter in (0, 1).

    Use it for a probability, such as a firing rate per bin. The link maps the raw parameter to (0, 1).

    Parameters
    ----------
    network : InferenceNetwork or GenerativeModel
        The network that has the parameter.
    parameter : str
        Name of a trainable parameter, or of an entry of `params_`, as for `Regularizer`.
    mean : float
        Mean of the density, in (0, 1).
    std : float
        Standard deviation of the density. It must be below ``sqrt(mean (1 - mean))``, the largest that a beta
        distribution of this mean has.
    weight : float, default 1.0
        Factor on the penalty, not negative.
    link : callable, optional
        From the raw parameter to a value in (0, 1). By default the sigmoid.

    Raises
    ------
    ValueError
        The mean, the standard deviation or the weight is out of range. When it is called: a linked value is outside [0,
        1], or the parameter is unknown.

    Notes
    -----
    Values are kept away from 0 and 1 by the resolution of their type. A density with a concentration below 1 is
    infinite there.
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
        """Log-density of every entry in nats, same shape.

        Raises
        ------
        ValueError
            A linked value is outside [0, 1].
        """
        lowest, highest = value.detach().min().item(), value.detach().max().item()
        if lowest < 0 or highest > 1:
            raise ValueError(f"{self!r}: the linked value must lie in (0, 1), got [{lowest:.3g}, {highest:.3g}]")
        tiny = torch.finfo(value.dtype).eps
        return Beta(self.concentration1, self.concentration0).log_prob(value.clamp(tiny, 1 - tiny))
