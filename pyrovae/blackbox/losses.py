"""Losses of an inference network and a generative model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork, Tensors, as_data
from pyrovae.blackbox.regularizers import Regularizer
from pyrovae.infer import functional
from pyrovae.infer.log_weights import LogWeights
from pyrovae.infer.nvil import Baseline

BOTH = ("inference_network", "generative_model")


class Loss(ABC):
    r"""A number to call `backward` on: minus a bound in nats, averaged over the batch, plus penalties.

    The bounds are those of `pyrovae.infer.functional`. A concrete loss overrides `bound`.

    Args:
        inference_network: q(z | x).
        generative_model: p(x, z).
        num_samples: samples a datum; None leaves it to the inference network.
        regularizers: penalties, of which those on networks that this loss updates are added to it.

    Attributes:
        name: what the loss is called.
        updates: the networks that its gradient reaches, "inference_network" and "generative_model".
        loss_history_: the value of every call.
        mean_log_p_: mean log p(x, z) of the last call, in nats; NaN before, and where it was not needed.
        mean_log_q_: mean log q(z | x) of the last call, in nats; NaN before.

    Raises:
        TypeError: for networks that are not of the two interfaces.
        ValueError: for a regularizer of some other network.
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
            raise ValueError(f"{self.name} needs at least {self.min_samples} samples a datum, got {count}")
        self.num_samples = num_samples
        self.regularizers = tuple(regularizers)
        for regularizer in self.regularizers:
            if regularizer.network is not inference_network and regularizer.network is not generative_model:
                raise ValueError(f"{regularizer} is on a network that {self.name} knows nothing of")
        self.loss_history_: list[float] = []
        self.mean_log_p_ = self.mean_log_q_ = float("nan")

    @abstractmethod
    def bound(self, data: list[Tensor]) -> Tensor:
        """What is maximised, `[batch]`, its gradient being the estimator's gradient."""

    def networks(self) -> dict[str, nn.Module]:
        """What an optimizer has to step after `backward`, by name."""
        return {name: getattr(self, name) for name in self.updates}

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that the loss updates."""
        for network in self.networks().values():
            yield from network.parameters()

    def __call__(self, data: Tensors) -> Tensor:
        """The loss of data, a list of tensors `[batch, ...]`; a scalar in nats."""
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
        """Draw and score with all gradients, particles first as in `pyrovae.infer`."""
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
    """Minus the evidence lower bound; draws without gradients get their score, weighted by the log weight.

    Reference: Ranganath, Gerrish and Blei (2014), Black Box Variational Inference, equation 2.
    """

    name = "ELBO"

    def bound(self, data: list[Tensor]) -> Tensor:
        """The evidence lower bound, `[batch]`."""
        weights = self._log_weights(data)
        return functional.elbo(weights.log_weight, weights.log_score)


class IWAE(Loss):
    """Minus the importance-weighted bound; draws without gradients get their score, weighted by the bound.

    Reference: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, equation 8.
    """

    name = "IWAE"

    def bound(self, data: list[Tensor]) -> Tensor:
        """The importance-weighted bound, `[batch]`."""
        weights = self._log_weights(data)
        return functional.iwae(weights.log_weight, weights.log_score)


class VIMCO(Loss):
    """Minus the importance-weighted bound, each score weighted by what its draw adds to the bound.

    Args:
        control_variate: "geometric" or "arithmetic" mean of the other weights.
        **options: those of `Loss`; at least two samples.

    Reference: Mnih and Rezende (2016), Variational Inference for Monte Carlo Objectives, equations 9 to 11.
    """

    name = "VIMCO"
    min_samples = 2

    def __init__(
        self,
        inference_network: InferenceNetwork,
        generative_model: GenerativeModel,
        *,
        control_variate: str = "geometric",
        **options: object,
    ) -> None:
        super().__init__(inference_network, generative_model, **options)
        self.control_variate = control_variate

    def bound(self, data: list[Tensor]) -> Tensor:
        """The importance-weighted bound, `[batch]`."""
        weights = self._log_weights(data)
        return functional.vimco(weights.log_weight, weights.log_score, self.control_variate)


class NVIL(Loss):
    """Minus the importance-weighted bound, the scores weighted by the bound less a learned baseline.

    The baseline is a running mean plus, if given, a net of the first data tensor, which `networks` lists among what is
    trained: its least-squares loss adds its gradient and not its value.

    Args:
        baseline: a net from data `[batch, ...]` to `[batch]` or `[batch, 1]`; None for the running mean alone.
        normalize: divide the signal by its running standard deviation where that is above 1.
        decay: weight of the past in the running mean and variance.
        **options: those of `Loss`.

    Reference: Mnih and Gregor (2014), Neural Variational Inference and Learning in Belief Networks, section 2.3.
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
        **options: object,
    ) -> None:
        super().__init__(inference_network, generative_model, **options)
        self.baseline = Baseline(baseline, decay=decay)
        self.normalize = normalize

    def networks(self) -> dict[str, nn.Module]:
        """The two networks and, if it has something to learn, the baseline."""
        learns = any(True for _ in self.baseline.parameters())
        return super().networks() | ({"baseline": self.baseline} if learns else {})

    def bound(self, data: list[Tensor]) -> Tensor:
        """The importance-weighted bound, `[batch]`."""
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

    Reference: Bornschein and Bengio (2015), Reweighted Wake-Sleep, equation 6.
    """

    name = "WakeP"
    updates = ("generative_model",)

    def bound(self, data: list[Tensor]) -> Tensor:
        """The importance-weighted bound, `[batch]`."""
        with torch.no_grad():
            latents = self.inference_network(data).sample(self.num_samples)
            log_q = self._log_q(data, latents).T
        weights = self._recorded(LogWeights(self._log_p(data, latents).T, log_q, log_q))
        return functional.wake_theta(weights.log_p, weights.log_q)


class WakeQ(Loss):
    """The cross-entropy from weighted draws to the inference network, and for it alone.

    Biased for the gradient of KL(p(z|x) || q(z|x)) at finitely many samples; at least two are needed.

    Reference: Bornschein and Bengio (2015), equation 8.
    """

    name = "WakeQ"
    min_samples = 2
    updates = ("inference_network",)

    def bound(self, data: list[Tensor]) -> Tensor:
        """The weighted log q, `[batch]`."""
        self.inference_network(data)
        with torch.no_grad():
            latents = self.inference_network.sample(self.num_samples)
            log_p = self._log_p(data, latents).T
        log_q = self._log_q(data, latents).T
        weights = self._recorded(LogWeights(log_p, log_q, log_q))
        return functional.wake_phi(weights.log_p, weights.log_q)


class SleepQ(Loss):
    """The cross-entropy from the model's dreams to the inference network, and for it alone.

    As many dreams are drawn from the joint as the data have rows. The model's density is never evaluated, so it may be
    a simulator.

    Reference: Hinton, Dayan, Frey and Neal (1995), The Wake-Sleep Algorithm, equation 10.
    """

    name = "SleepQ"
    updates = ("inference_network",)

    def bound(self, data: list[Tensor]) -> Tensor:
        """The log-density of each dream's latents, `[batch]`."""
        with torch.no_grad():
            dreamt, latents = self.generative_model.sample(len(data[0]))
        self.inference_network(dreamt)
        log_q = self._log_q(dreamt, latents).T
        self.mean_log_p_, self.mean_log_q_ = float("nan"), log_q.mean().item()
        return functional.sleep_phi(log_q)
