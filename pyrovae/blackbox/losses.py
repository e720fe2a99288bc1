"""Losses of an inference network and a generative model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork, Tensors, as_data
from pyrovae.blackbox.regularizers import Regularizer
from pyrovae.infer import functional
from pyrovae.infer.log_weights import LogWeights
from pyrovae.infer.nvil import Baseline

BOTH = ("inference_network", "generative_model")


class Loss(ABC):
    """Base class of the losses: minus a bound in nats, averaged over the batch, plus penalties.

    Call a loss with data to get a scalar with a gradient. A concrete loss overrides `bound`. The bounds are those of
    `pyrovae.infer.functional`.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    num_samples : int, optional
        Samples per datum. None takes the number of the inference network. More samples make the gradient less noisy.
    regularizers : iterable of Regularizer, default ()
        Penalties. The loss adds those on networks that it updates.

    Attributes
    ----------
    name : str
        Name of the loss.
    updates : tuple of str
        Networks that its gradient reaches: "inference_network", "generative_model" or both.
    min_samples : int
        Smallest number of samples per datum that it takes.
    loss_history_ : list of float
        The value of every call.
    mean_log_p_ : float
        Mean log p(x, z) of the last call in nats. NaN before the first call, and for losses that do not need it.
    mean_log_q_ : float
        Mean log q(z | x) of the last call in nats. NaN before the first call.

    Raises
    ------
    TypeError
        A network does not have the interface.
    ValueError
        There are too few samples, or a regularizer is on another network.
    """

    name: ClassVar[str]
    updates: ClassVar[tuple[str, ...]] = BOTH
    min_samples: ClassVar[int] = 1

    def __init__(
        self,
        inference_network: InferenceNetwork,
        generative_model: GenerativeModel,
        *,
        num_samples: int | None = None,
        regularizers: Iterable[Regularizer] = (),
    ) -> None:
        if not isinstance(inference_network, InferenceNetwork):
            raise TypeError(f"inference_network must be an InferenceNetwork, got {type(inference_network).__name__}")
        if not isinstance(generative_model, GenerativeModel):
            raise TypeError(f"generative_model must be a GenerativeModel, got {type(generative_model).__name__}")
        self.inference_network, self.generative_model = inference_network, generative_model
        count = inference_network.num_samples if num_samples is None else num_samples
        if count < self.min_samples:
            raise ValueError(f"{self.name} needs at least {self.min_samples} samples per datum, got {count}")
        self.num_samples = num_samples
        self.regularizers = tuple(regularizers)
        for regularizer in self.regularizers:
            if regularizer.network is not inference_network and regularizer.network is not generative_model:
                raise ValueError(f"{regularizer} is on a network that {self.name} knows nothing of")
        self.loss_history_: list[float] = []
        self.mean_log_p_ = self.mean_log_q_ = float("nan")

    @abstractmethod
    def bound(self, data: list[Tensor]) -> Tensor:
        """Compute what is maximised. Its gradient is the gradient of the estimator.

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.

        Returns
        -------
        Tensor
            The bound in nats, shape ``[batch]``.
        """

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks that an optimizer has to step after `backward`, by name."""
        return {name: getattr(self, name) for name in self.updates}

    def parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters that the loss updates."""
        for network in self.networks().values():
            yield from network.parameters()

    def __call__(self, data: Tensors) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        data : list of Tensor, each ``[batch, ...]``
            The data.

        Returns
        -------
        Tensor
            The loss in nats per datum, a scalar.
        """
        loss = -self.bound(as_data(data)).mean()
        updated = list(self.networks().values())
        for regularizer in self.regularizers:
            if any(regularizer.network is network for network in updated):
                loss = loss + regularizer()
        self.loss_history_.append(loss.item())
        return loss

    def _log_p(self, data: list[Tensor], latents: list[Tensor]) -> Tensor:
        return _checked(self.generative_model(data, latents).log_prob(data, latents), data, latents, "generative_model")

    def _log_q(self, data: list[Tensor], latents: list[Tensor]) -> Tensor:
        return _checked(self.inference_network.log_prob(latents), data, latents, "inference_network")

    def _log_weights(self, data: list[Tensor]) -> LogWeights:
        """Draw and score with all gradients. The particles come first, as in `pyrovae.infer`."""
        latents = self.inference_network(data).sample(self.num_samples)
        log_q = self._log_q(data, latents)
        log_score = self.inference_network.log_score(latents, log_q)
        return self._recorded(LogWeights(self._log_p(data, latents).T, log_q.T, log_score.T))

    def _recorded(self, weights: LogWeights) -> LogWeights:
        self.mean_log_p_, self.mean_log_q_ = weights.log_p.mean().item(), weights.log_q.mean().item()
        return weights


def _checked(value: Tensor, data: list[Tensor], latents: list[Tensor], label: str) -> Tensor:
    expected = (len(data[0]), latents[0].shape[1])
    if value.shape != expected:
        raise ValueError(f"log_prob of the {label} must be [batch, samples] = {expected}, got {tuple(value.shape)}")
    return value


class ELBO(Loss):
    """Minus the evidence lower bound.

    Use it for reparameterised latents. Draws that are not reparameterised also get a gradient, with a high variance:
    each score is weighted by its log weight.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    num_samples : int, optional
        Samples per datum. None takes the number of the inference network. More samples make the gradient less noisy.
    regularizers : iterable of Regularizer, default ()
        Penalties. The loss adds those on networks that it updates.

    References
    ----------
    R. Ranganath, S. Gerrish and D. Blei (2014), "Black box variational inference", equation 2.
    """

    name = "ELBO"

    def bound(self, data: list[Tensor]) -> Tensor:
        """Evidence lower bound in nats, shape ``[batch]``."""
        weights = self._log_weights(data)
        return functional.elbo(weights.log_weight, weights.log_score)


class IWAE(Loss):
    """Minus the importance-weighted bound.

    Use it for reparameterised latents where the ELBO is too loose. Draws that are not reparameterised also get a
    gradient, with a high variance: each score is weighted by the bound. For such latents, use `VIMCO`.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    num_samples : int, optional
        Samples per datum. None takes the number of the inference network. More samples tighten the bound.
    regularizers : iterable of Regularizer, default ()
        Penalties. The loss adds those on networks that it updates.

    References
    ----------
    Y. Burda, R. Grosse and R. Salakhutdinov (2016), "Importance weighted autoencoders", equation 8.
    """

    name = "IWAE"

    def bound(self, data: list[Tensor]) -> Tensor:
        """Importance-weighted bound in nats, shape ``[batch]``."""
        weights = self._log_weights(data)
        return functional.iwae(weights.log_weight, weights.log_score)


class VIMCO(Loss):
    """Minus the importance-weighted bound, with a gradient of low variance for discrete latents.

    Use it for latents that are not reparameterised. Each score is weighted by what its draw adds to the bound.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    control_variate : {"geometric", "arithmetic"}, default "geometric"
        Mean of the other weights that replaces the weight of a draw, to see what the draw adds.
    **options
        `num_samples` and `regularizers`, as for `Loss`. There must be at least two samples.

    References
    ----------
    A. Mnih and D. Rezende (2016), "Variational inference for Monte Carlo objectives", equations 9 to 11.
    """

    name = "VIMCO"
    min_samples = 2

    def __init__(
        self,
        inference_network: InferenceNetwork,
        generative_model: GenerativeModel,
        *,
        control_variate: str = "geometric",
        **options: Any,
    ) -> None:
        super().__init__(inference_network, generative_model, **options)
        self.control_variate = control_variate

    def bound(self, data: list[Tensor]) -> Tensor:
        """Importance-weighted bound in nats, shape ``[batch]``."""
        weights = self._log_weights(data)
        return functional.vimco(weights.log_weight, weights.log_score, self.control_variate)


class NVIL(Loss):
    """Minus the importance-weighted bound, with scores weighted by the bound less a learned baseline.

    Use it for latents that are not reparameterised, also with one sample per datum, where the bound is the ELBO.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    baseline : torch.nn.Module, optional
        Net from the first data tensor ``[batch, ...]`` to ``[batch]`` or ``[batch, 1]``. None uses the running mean
        alone.
    normalize : bool, default True
        Whether to divide the signal by its running standard deviation where that is above 1.
    decay : float, default 0.9
        Weight of the past in the running mean and variance.
    **options
        `num_samples` and `regularizers`, as for `Loss`.

    Notes
    -----
    The baseline is a running mean plus, if given, the net. `networks` lists a net among what is trained. The loss has
    the gradient of the least-squares fit of the net, but not its value.

    References
    ----------
    A. Mnih and K. Gregor (2014), "Neural variational inference and learning in belief networks", section 2.3.
    """

    name = "NVIL"

    def __init__(
        self,
        inference_network: InferenceNetwork,
        generative_model: GenerativeModel,
        *,
        baseline: nn.Module | None = None,
        normalize: bool = True,
        decay: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(inference_network, generative_model, **options)
        self.baseline = Baseline(baseline, decay=decay)
        self.normalize = normalize

    def networks(self) -> dict[str, nn.Module]:
        """Return the two networks and, if it has something to learn, the baseline, by name."""
        learns = any(True for _ in self.baseline.parameters())
        return super().networks() | ({"baseline": self.baseline} if learns else {})

    def bound(self, data: list[Tensor]) -> Tensor:
        """Importance-weighted bound in nats, shape ``[batch]``."""
        weights = self._log_weights(data)
        signal = functional.iwae(weights.log_weight).detach()
        self.baseline.to(device=signal.device, dtype=signal.dtype)
        baseline = self.baseline(data[0])
        scale = self.baseline.scale if self.normalize else 1.0
        bound = functional.nvil(weights.log_weight, weights.log_score, baseline.detach(), scale)
        if torch.is_grad_enabled():
            self.baseline.update((signal - baseline).detach())
        fit = (signal - baseline).square()
        return bound - fit + fit.detach()


class WakeP(Loss):
    """Minus the importance-weighted bound, for the generative model alone.

    Use it in a sequence such as `wake_wake`, which trains the inference network by another loss.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    num_samples : int, optional
        Samples per datum. None takes the number of the inference network. More samples tighten the bound.
    regularizers : iterable of Regularizer, default ()
        Penalties. The loss adds those on networks that it updates.

    References
    ----------
    J. Bornschein and Y. Bengio (2015), "Reweighted wake-sleep", equation 6.
    """

    name = "WakeP"
    updates = ("generative_model",)

    def bound(self, data: list[Tensor]) -> Tensor:
        """Importance-weighted bound in nats, shape ``[batch]``."""
        with torch.no_grad():
            latents = self.inference_network(data).sample(self.num_samples)
            log_q = self._log_q(data, latents).T
        weights = self._recorded(LogWeights(self._log_p(data, latents).T, log_q, log_q))
        return functional.wake_theta(weights.log_p, weights.log_q)


class WakeQ(Loss):
    """Cross-entropy from weighted draws to the inference network, for that network alone.

    Use it in a sequence such as `wake_wake`, with latents of any kind.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    num_samples : int, optional
        Samples per datum, at least two. None takes the number of the inference network. More samples reduce the bias.
    regularizers : iterable of Regularizer, default ()
        Penalties. The loss adds those on the inference network.

    Notes
    -----
    For a finite number of samples, the gradient is biased for that of KL(p(z|x) || q(z|x)).

    References
    ----------
    J. Bornschein and Y. Bengio (2015), "Reweighted wake-sleep", equation 8.
    """

    name = "WakeQ"
    min_samples = 2
    updates = ("inference_network",)

    def bound(self, data: list[Tensor]) -> Tensor:
        """Weighted log q(z | x) of the draws in nats, shape ``[batch]``."""
        self.inference_network(data)
        with torch.no_grad():
            latents = self.inference_network.sample(self.num_samples)
            log_p = self._log_p(data, latents).T
        log_q = self._log_q(data, latents).T
        weights = self._recorded(LogWeights(log_p, log_q, log_q))
        return functional.wake_phi(weights.log_p, weights.log_q)


class SleepQ(Loss):
    """Cross-entropy from the model's dreams to the inference network, for that network alone.

    Use it where the generative model is a simulator: its density is never evaluated.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    num_samples : int, optional
        Not used. A call draws one dream for each row of the data.
    regularizers : iterable of Regularizer, default ()
        Penalties. The loss adds those on the inference network.

    References
    ----------
    G. Hinton, P. Dayan, B. Frey and R. Neal (1995), "The wake-sleep algorithm for unsupervised neural networks",
    equation 10.
    """

    name = "SleepQ"
    updates = ("inference_network",)

    def bound(self, data: list[Tensor]) -> Tensor:
        """Log-density of the latents of each dream in nats, shape ``[batch]``."""
        with torch.no_grad():
            dreamt, latents = self.generative_model.sample(len(data[0]))
        self.inference_network(dreamt)
        log_q = self._log_q(dreamt, latents).T
        self.mean_log_p_, self.mean_log_q_ = float("nan"), log_q.mean().item()
        return functional.sleep_phi(log_q)
