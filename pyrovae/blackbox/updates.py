"""Update sequences: wake-sleep and its kin, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrovae.blackbox.losses import Loss, SleepQ, WakeP, WakeQ
from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork, Tensors, as_data


def wake_sleep(inference_network: InferenceNetwork, generative_model: GenerativeModel, **options: object) -> list[Loss]:
    """The wake-sleep sequence: the model learns from inferred latents, the inference network from dreams.

    Args:
        inference_network: q(z | x).
        generative_model: p(x, z).
        **options: those of `Loss`.

    Reference: Hinton, Dayan, Frey and Neal (1995), The Wake-Sleep Algorithm for Unsupervised Neural Networks.
    """
    return [loss(inference_network, generative_model, **options) for loss in (WakeP, SleepQ)]


def wake_wake(inference_network: InferenceNetwork, generative_model: GenerativeModel, **options: object) -> list[Loss]:
    """The wake-wake sequence: both learn from weighted draws of the inference network; arguments as `wake_sleep`.

    Reference: Le et al. (2020), Revisiting Reweighted Wake-Sleep, section 3.
    """
    return [loss(inference_network, generative_model, **options) for loss in (WakeP, WakeQ)]


def reweighted_wake_sleep(
    inference_network: InferenceNetwork, generative_model: GenerativeModel, **options: object
) -> list[Loss]:
    """The reweighted wake-sleep sequence, with both updates of the inference network; arguments as `wake_sleep`.

    Reference: Bornschein and Bengio (2015), Reweighted Wake-Sleep, section 2.3.
    """
    return [loss(inference_network, generative_model, **options) for loss in (WakeP, WakeQ, SleepQ)]


def make_optimizers(
    losses: Sequence[Loss], make: Callable[[list[nn.Parameter]], Optimizer]
) -> dict[nn.Module, Optimizer]:
    """An optimizer for every network that one of the losses updates and that has something to train."""
    networks = {network: None for loss in losses for network in loss.networks().values()}
    optimizers = {}
    for network in networks:
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if parameters:
            optimizers[network] = make(parameters)
    if not optimizers:
        raise ValueError(f"{', '.join(loss.name for loss in losses)}: the networks have no parameters to train")
    return optimizers


def update(losses: Sequence[Loss], data: Tensors, optimizers: Mapping[nn.Module, Optimizer]) -> dict[str, float]:
    """One pass of a sequence over a batch: each loss in turn, and after each a step of the networks it updates.

    Args:
        losses: the sequence.
        data: a list of tensors `[batch, ...]`.
        optimizers: by network, as `make_optimizers` returns them.

    Returns:
        The losses by name, in nats per datum; the last value of a name that comes twice.

    Raises:
        RuntimeError: for a loss that is not finite; the networks are left as they were before it.
    """
    values = {}
    for loss in losses:
        used = [optimizers[network] for network in loss.networks().values() if network in optimizers]
        for optimizer in used:
            optimizer.zero_grad()
        value = loss(data)
        values[loss.name] = value.item()
        if not value.isfinite():
            raise RuntimeError(
                f"{loss.name} is {value.item()} (mean log_p {loss.mean_log_p_:.4g}, mean log_q {loss.mean_log_q_:.4g})"
            )
        value.backward()
        for optimizer in used:
            optimizer.step()
    return values


def minibatches(data: list[Tensor], batch_size: int) -> Iterator[list[Tensor]]:
    """Endless minibatches, in a new order every epoch; the last one of an epoch takes what is left."""
    while True:
        for index in torch.randperm(len(data[0])).split(batch_size):
            yield [part[index.to(part.device)] for part in data]


def fit(
    losses: Loss | Sequence[Loss],
    data: Tensors,
    *,
    num_steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    optimizer: Callable[[list[nn.Parameter]], Optimizer] | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, list[float]]:
    """Train by a loss or a sequence of them.

    Args:
        losses: one loss, or a sequence as from `wake_sleep`, `wake_wake` and `reweighted_wake_sleep`.
        data: a list of tensors `[N, ...]`.
        num_steps: minibatches; every one goes through the whole sequence.
        batch_size: rows of a minibatch.
        lr: learning rate of Adam.
        optimizer: from the parameters of one network to a torch optimizer, instead of Adam with `lr`.
        on_step: called after every step with its number, from 1, and the losses by name; for progress and logging.

    Returns:
        The losses of every step by name, in nats per datum.

    Raises:
        ValueError: for impossible numbers, or networks without parameters.
        RuntimeError: for a loss that is not finite.
    """
    data = as_data(data)
    for name, value in (("num_steps", num_steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    losses = [losses] if isinstance(losses, Loss) else list(losses)
    optimizers = make_optimizers(losses, optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=lr)))
    history: dict[str, list[float]] = {loss.name: [] for loss in losses}
    for step, batch in zip(range(1, num_steps + 1), minibatches(data, batch_size), strict=False):
        values = update(losses, batch, optimizers)
        for name, value in values.items():
            history[name].append(value)
        if on_step is not None:
            on_step(step, values)
    return history
