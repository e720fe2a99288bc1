"""Optimizers over named groups of parameters, and schedules of their learning rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import nn
from torch.optim import Optimizer

from pyrovae.options import Rates, check_groups
from pyrovae.training.grouped_optimizer import GroupedOptimizer
from pyrovae.training.lr_schedules import LRScheduler, one_line
from pyrovae.training.pyro_optimizers import from_pyro
from pyrovae.vae import VAE

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
DEFAULT_LR = 1e-3
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

Kind = str | type[Optimizer] | PyroOptim | Callable[[Sequence[Any]], Optimizer]


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
    if isinstance(optimizer, Mapping):
        _check_by_group(optimizer, rates, options)
        return
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


def _check_by_group(optimizer: Mapping[str, Any], rates: Rates, options: Mapping[str, Any]) -> None:
    check_groups("optimizer_options", options)
    if not all(isinstance(part, Mapping) for part in options.values()):
        raise ValueError("optimizer_options go by group where the optimizer does, {'guide': {'momentum': 0.9}}")
    for group, kind in optimizer.items():
        if not isinstance(kind, str | type):
            raise TypeError(f"the optimizer of the group {group!r} must be a name or a torch optimizer class")
        check_optimizer(kind, rates, options.get(group, {}))


def _check_steps(kind: Any) -> None:
    if isinstance(kind, type) and issubclass(kind, torch.optim.LBFGS):
        raise ValueError("LBFGS runs the loss several times in a step, which the Trainer does not; take another one")


def make_optimizer(
    optimizer: Kind | Mapping[str, str | type[Optimizer]],
    groups: Mapping[str, list[nn.Parameter]],
    rates: Rates,
    options: Mapping[str, Any],
    names: Mapping[int, str] | None = None,
) -> tuple[Optimizer, Callable[[Optimizer], LRScheduler] | None]:
    """An optimizer whose parameter groups have the names of the groups, and its schedule if it comes with one.

    Parameters
    ----------
    optimizer : str, class, PyroOptim, callable or mapping
        A name of `OPTIMIZERS`, fused where torch has it; a torch class; an optimizer of `pyro.optim`, with or without a
        schedule; or a function from torch's parameter groups to an optimizer. The function gets the rates of groups
        that `rates` names, and sets the others itself. A mapping has a name or a class for each group; groups that it
        leaves out get Adam.
    groups : mapping of str to list of Parameter
        The parameters, by group.
    rates : float or mapping of str to float
        Learning rates. Groups that a mapping leaves out learn with 0.001.
    options : mapping
        Further arguments of an optimizer given by name or class; by group where the optimizer is a mapping.
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
    if isinstance(optimizer, Mapping):
        parts = []
        for name, parameters in groups.items():
            own = optimizer.get(name, "adam")
            parts.append(make_optimizer(own, {name: parameters}, rates, options.get(name, {}))[0])
        return GroupedOptimizer(parts), None
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
