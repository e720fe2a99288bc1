"""Optimizers over named groups of parameters, and schedules of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import nn
from torch.optim import Optimizer

from pyrovae.training.lr_schedules import LRScheduler, one_line
from pyrovae.training.pyro_optimizers import from_pyro
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
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

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
        value = math.nan if isinstance(rate, bool) else float(rate)
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


def check_optimizer(optimizer: Any, rates: Rates, options: Mapping[str, Any]) -> None:
    """Refuse an optimizer that the Trainer cannot run, and arguments that it would not honour.

    Raises
    ------
    TypeError
        If it is no optimizer.
    ValueError
        For an unknown name, LBFGS, and arguments that belong elsewhere.
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {optimizer!r}; known are {', '.join(OPTIMIZERS)}")
        return
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        _check_steps(optimizer)
        return
    of_pyro = isinstance(optimizer, PyroOptim)
    if isinstance(optimizer, type) or not callable(optimizer):
        hint = f"; give the class, torch.optim.{type(optimizer).__name__}" if isinstance(optimizer, Optimizer) else ""
        raise TypeError(
            "optimizer must be a name, a torch optimizer class, an optimizer of pyro.optim, or a function from groups "
            f"of parameters to a torch optimizer, got {type(optimizer).__name__}{hint}"
        )
    if of_pyro:
        _check_steps(optimizer.pt_optim_constructor)
    where = "the arguments of pyro.optim" if of_pyro else "the function that makes the optimizer"
    if options:
        raise ValueError(f"optimizer_options are for an optimizer given by name or class; put them into {where}")
    if rates != DEFAULT_LR and (of_pyro or not isinstance(rates, Mapping)):
        raise ValueError(f"lr is for an optimizer given by name or class; put it into {where}")


def _check_steps(kind: Any) -> None:
    if isinstance(kind, type) and issubclass(kind, torch.optim.LBFGS):
        raise ValueError("LBFGS runs the loss several times in a step, which the Trainer does not; take another one")


def make_optimizer(
    optimizer: str | type[Optimizer] | PyroOptim | Callable[[Sequence[Any]], Optimizer],
    groups: Mapping[str, list[nn.Parameter]],
    rates: Rates,
    options: Mapping[str, Any],
    names: Mapping[int, str] | None = None,
) -> tuple[Optimizer, Callable[[Optimizer], LRScheduler] | None]:
    """An optimizer whose parameter groups have the names of the groups, and its schedule if it comes with one.

    Parameters
    ----------
    optimizer : str, class, PyroOptim or callable
        A name of `OPTIMIZERS`, fused where torch has it; a torch class; an optimizer of `pyro.optim`, with or without a
        schedule; or a function from torch's parameter groups to an optimizer. The function gets the rates of groups
        that `rates` names, and sets the others itself.
    groups : mapping of str to list of Parameter
        The parameters, by group.
    rates : float or mapping of str to float
        Learning rates. Groups that a mapping leaves out learn with 0.001.
    options : mapping
        Further arguments of an optimizer given by name or class.
    names : mapping of int to str, optional
        Names of the parameters in Pyro's store, by identity, for `pyro.optim`.

    Returns
    -------
    Optimizer
        The optimizer.
    callable or None
        From the optimizer to its schedule, of a `PyroLRScheduler`.

    Raises
    ------
    TypeError
        If a function gives something else.
    ValueError
        If the optimizer does not take its arguments.
    """
    named: list[dict[str, Any]] = [{"params": parameters, "name": name} for name, parameters in groups.items()]
    if isinstance(rates, Mapping):
        named = [{**group, "lr": rates.get(group["name"], DEFAULT_LR)} for group in named]
    if isinstance(optimizer, PyroOptim):
        with one_line("the optimizer of pyro.optim"):
            return from_pyro(optimizer, groups, names or {})
    if not isinstance(optimizer, str | type):
        with one_line("the function that makes the optimizer"):
            made = optimizer(named)
        if not isinstance(made, Optimizer):
            hint = "; call it, pyro.optim.Adam({'lr': 0.001})" if isinstance(made, PyroOptim) else ""
            raise TypeError(f"the optimizer function must give a torch optimizer, got {type(made).__name__}{hint}")
        _check_steps(type(made))
        return made, None
    kind, settings = OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer, dict(options)
    on_known = all(p.device.type in ("cpu", "cuda") for group in groups.values() for p in group)
    if isinstance(optimizer, str) and kind in _FUSED and on_known:
        settings.setdefault("fused", True)
    with one_line(f"optimizer {kind.__name__}"):
        return kind(named, lr=DEFAULT_LR if isinstance(rates, Mapping) else rates, **settings), None


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The rates of an optimizer as columns of metrics: `lr`, or one for each group where they differ."""
    rates = {
        str(group.get("name", place)): float(group["lr"])
        for place, group in enumerate(optimizer.param_groups)
        if "lr" in group
    }
    if len(set(rates.values())) == 1:
        return {"lr": next(iter(rates.values()))}
    return {f"lr_{name}": rate for name, rate in rates.items()}
