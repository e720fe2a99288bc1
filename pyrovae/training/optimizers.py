"""Optimizers over named groups of parameters, and schedules of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pyrovae.vae import VAE

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
GROUPS = ("model", "guide", "objective")
"""Names of the groups of parameters; the last one is what the objective itself learns."""
DEFAULT_LR = 1e-3
LR_SCHEDULES = ("constant", "cosine", "plateau", "step")
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

LRScheduler = torch.optim.lr_scheduler.LRScheduler
Rates = float | Mapping[str, float]


def parse_rates(rates: str | Rates) -> float | dict[str, float]:
    """A learning rate for all parameters, or one for each group that is named.

    Parameters
    ----------
    rates : float, mapping of str to float, or str
        A rate; rates by group; or the text of either, ``"0.001"`` or ``"model=0.001,guide=0.0003"``.

    Returns
    -------
    float or dict of str to float
        The rates.

    Raises
    ------
    ValueError
        For a rate that is not positive, or an unknown group.

    Examples
    --------
    >>> parse_rates("3e-4"), parse_rates("model=1e-3,guide=3e-4")
    (0.0003, {'model': 0.001, 'guide': 0.0003})
    """
    named: dict[str, Any]
    if isinstance(rates, Mapping):
        named = dict(rates)
    elif isinstance(rates, str) and "=" in rates:
        named = dict(part.partition("=")[::2] for part in rates.split(","))
    else:
        return _positive(rates)
    unknown = sorted(set(named) - set(GROUPS))
    if unknown:
        raise ValueError(f"lr names the group {unknown[0]!r}; the groups are {', '.join(GROUPS)}")
    return {name: _positive(value) for name, value in named.items()}


def _positive(rate: Any) -> float:
    try:
        value = float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not value > 0 or math.isinf(value):
        raise ValueError(
            f"lr must be positive, a number or GROUP=RATE for the groups {', '.join(GROUPS)}, got {rate!r}"
        )
    return value


def parameter_groups(vae: VAE, learned: nn.Module | None = None) -> dict[str, list[nn.Parameter]]:
    """The parameters to train, by group; those with ``requires_grad=False`` are left out, and so stay as they are.

    Raises
    ------
    ValueError
        If the pair has none.
    """
    groups = {
        name: [parameter for parameter in parameters if parameter.requires_grad]
        for name, parameters in vae.parameter_groups().items()
    }
    if not any(groups.values()):
        raise ValueError("the pair has no parameters to train")
    groups["objective"] = [] if learned is None else [p for p in learned.parameters() if p.requires_grad]
    return {name: parameters for name, parameters in groups.items() if parameters}


def make_optimizer(
    optimizer: str | Callable[[Sequence[Any]], Optimizer],
    groups: Mapping[str, list[nn.Parameter]],
    rates: Rates,
    options: Mapping[str, Any],
) -> Optimizer:
    """An optimizer whose parameter groups have the names of the groups.

    Parameters
    ----------
    optimizer : str or callable
        A name of `OPTIMIZERS`, fused where torch has it; or a function from torch's parameter groups to an optimizer.
        It gets the rates of groups that `rates` names, and sets the others itself.
    groups : mapping of str to list of Parameter
        The parameters, by group.
    rates : float or mapping of str to float
        Learning rates. Groups that a mapping leaves out learn with 0.001.
    options : mapping
        Further arguments of an optimizer given by name.

    Returns
    -------
    Optimizer
        The optimizer.
    """
    named: list[dict[str, Any]] = [{"params": parameters, "name": name} for name, parameters in groups.items()]
    if isinstance(rates, Mapping):
        named = [{**group, "lr": rates.get(group["name"], DEFAULT_LR)} for group in named]
    if not isinstance(optimizer, str):
        return optimizer(named)
    kind, settings = OPTIMIZERS[optimizer], dict(options)
    if kind in _FUSED and all(p.device.type in ("cpu", "cuda") for group in groups.values() for p in group):
        settings.setdefault("fused", True)
    return kind(named, lr=DEFAULT_LR if isinstance(rates, Mapping) else rates, **settings)


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The rates of an optimizer as columns of metrics: `lr`, or one for each group where they differ."""
    rates = {group.get("name", str(place)): group["lr"] for place, group in enumerate(optimizer.param_groups)}
    if len(set(rates.values())) == 1:
        return {"lr": next(iter(rates.values()))}
    return {f"lr_{name}": rate for name, rate in rates.items()}


def make_lr_scheduler(name: str, optimizer: Optimizer, epochs: int) -> LRScheduler | None:
    """A schedule of the learning rates by name, to be stepped once per epoch; None for a constant one."""
    schedulers = torch.optim.lr_scheduler
    if name == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, epochs)
    if name == "step":
        return schedulers.StepLR(optimizer, max(1, math.ceil(epochs / 3)))
    if name == "plateau":
        return schedulers.ReduceLROnPlateau(optimizer, factor=1 / 3, patience=10)
    return None
