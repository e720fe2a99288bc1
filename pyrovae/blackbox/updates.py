"""Update sequences such as wake-sleep, and the loop that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrovae.blackbox.losses import Loss, SleepQ, WakeP, WakeQ
from pyrovae.blackbox.networks import GenerativeModel, InferenceNetwork, Tensors, as_data


def wake_sleep(inference_network: InferenceNetwork, generative_model: GenerativeModel, **options: Any) -> list[Loss]:
    """Make the wake-sleep sequence: the model learns from inferred latents, the inference network from dreams.

    Use it with `fit`, where the model can be sampled quickly.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    **options
        `num_samples` and `regularizers`, as for `Loss`.

    Returns
    -------
    list of Loss
        `WakeP` and `SleepQ`.

    References
    ----------
    G. Hinton, P. Dayan, B. Frey and R. Neal (1995), "The wake-sleep algorithm for unsupervised neural networks".
    """
    return [loss(inference_network, generative_model, **options) for loss in (WakeP, SleepQ)]


def wake_wake(inference_network: InferenceNetwork, generative_model: GenerativeModel, **options: Any) -> list[Loss]:
    """Make the wake-wake sequence: both networks learn from weighted draws of the inference network.

    Use it with `fit`, for latents that are not reparameterised.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    **options
        `num_samples` and `regularizers`, as for `Loss`. There must be at least two samples.

    Returns
    -------
    list of Loss
        `WakeP` and `WakeQ`.

    References
    ----------
    T. A. Le, A. Kosiorek, N. Siddharth, Y. W. Teh and F. Wood (2020), "Revisiting reweighted wake-sleep", section 3.
    """
    return [loss(inference_network, generative_model, **options) for loss in (WakeP, WakeQ)]


def reweighted_wake_sleep(
    inference_network: InferenceNetwork, generative_model: GenerativeModel, **options: Any
) -> list[Loss]:
    """Make the reweighted wake-sleep sequence, with both updates of the inference network.

    Use it with `fit`. The dreams help the inference network while its own draws have poor weights.

    Parameters
    ----------
    inference_network : InferenceNetwork
        q(z | x).
    generative_model : GenerativeModel
        p(x, z).
    **options
        `num_samples` and `regularizers`, as for `Loss`. There must be at least two samples.

    Returns
    -------
    list of Loss
        `WakeP`, `WakeQ` and `SleepQ`.

    References
    ----------
    J. Bornschein and Y. Bengio (2015), "Reweighted wake-sleep", section 2.3.
    """
    return [loss(inference_network, generative_model, **options) for loss in (WakeP, WakeQ, SleepQ)]


def make_optimizers(
    losses: Sequence[Loss], make: Callable[[list[nn.Parameter]], Optimizer]
) -> dict[nn.Module, Optimizer]:
    """Make an optimizer for every network that one of the losses updates and that has something to train.

    Parameters
    ----------
    losses : sequence of Loss
        The losses.
    make : callable
        From a list of parameters to a torch optimizer.

    Returns
    -------
    dict of torch.nn.Module to Optimizer
        The optimizers by network.

    Raises
    ------
    ValueError
        No network has parameters to train.
    """
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
    """Run each loss of a sequence once on a batch. After each loss, step the networks that it updates.

    Use it in a training loop of your own; `fit` is the ready one.

    Parameters
    ----------
    losses : sequence of Loss
        The losses, in the order in which they run.
    data : list of Tensor, each ``[batch, ...]``
        The data.
    optimizers : mapping of torch.nn.Module to Optimizer
        The optimizers by network, as `make_optimizers` returns them.

    Returns
    -------
    dict of str to float
        The losses by name, in nats per datum. If a name comes twice, the last value.

    Raises
    ------
    RuntimeError
        A loss is not finite. No optimizer has stepped for it; earlier losses of the sequence have done their steps.
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
    """Iterate without end over minibatches, in a new order every epoch.

    Parameters
    ----------
    data : list of Tensor, each ``[N, ...]``
        The data.
    batch_size : int
        Rows per minibatch.

    Yields
    ------
    list of Tensor, each ``[batch, ...]``
        A minibatch. The last one of an epoch has the rows that are left.
    """
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
    """Train by one loss or a sequence of losses.

    Parameters
    ----------
    losses : Loss or sequence of Loss
        One loss, or a sequence as from `wake_sleep`, `wake_wake` and `reweighted_wake_sleep`.
    data : list of Tensor, each ``[N, ...]``
        The data.
    num_steps : int
        Number of minibatches. Each one goes through the whole sequence.
    batch_size : int, default 32
        Rows per minibatch.
    lr : float, default 1e-3
        Learning rate of Adam.
    optimizer : callable, optional
        From the parameters of one network to a torch optimizer, to replace Adam with `lr`.
    on_step : callable, optional
        Called after every step with its number, from 1, and the losses by name. Use it for progress and logging.

    Returns
    -------
    dict of str to list of float
        The losses of every step by name, in nats per datum.

    Raises
    ------
    ValueError
        `num_steps` or `batch_size` is below 1, the data do not fit together, or no network has parameters to train.
    RuntimeError
        A loss is not finite.
    """
    data = as_data(data)
    for name, number in (("num_steps", num_steps), ("batch_size", batch_size)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
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
