"""Torch optimizers and schedules made of `pyro.optim`, with arguments by the name of a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from pyro.params import module_from_param_with_module_name, user_param_name
from pyro.params.param_store import normalize_param_name
from torch import nn
from torch.optim import Optimizer

from pyrovae.training.lr_schedules import LRScheduler
from pyrovae.vae import VAE


def parameter_names(vae: VAE, learned: nn.Module | None = None) -> dict[int, str]:
    """The names of parameters in Pyro's store, by their identity; those that never get there have their module's.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    learned : Module, optional
        What the objective itself learns.
    """
    in_store = vae.store_names()
    names = {id(p): in_store.get(path, path.removeprefix("owners.")) for path, p in vae.named_parameters()}
    learns = () if learned is None else learned.named_parameters()
    return names | {id(parameter): f"objective.{path}" for path, parameter in learns}


def from_pyro(
    optimizer: PyroOptim, groups: Mapping[str, list[nn.Parameter]], names: Mapping[int, str]
) -> tuple[Optimizer, Callable[[Optimizer], LRScheduler] | None]:
    """One torch optimizer for all parameters, and what makes its schedule where there is one.

    Pyro has an optimizer for each parameter. Parameters of the same arguments share a group here, which gives the same
    steps. Gradients are clipped by parameter, as Pyro does.

    Parameters
    ----------
    optimizer : PyroOptim
        What `pyro.optim` made.
    groups : mapping of str to list of Parameter
        The parameters, by group.
    names : mapping of int to str
        Their names in Pyro's store, by identity.

    Raises
    ------
    ValueError
        If its arguments do not fit the optimizer, or it holds a state that was loaded.
    """
    if optimizer._state_waiting_to_be_consumed:
        raise ValueError(
            "the pyro.optim optimizer holds a state that was loaded into it, which the Trainer does not use; resume a "
            "run folder instead, or give a new optimizer"
        )
    found: list[tuple[str, dict[str, Any], list[nn.Parameter]]] = []
    for group, parameters in groups.items():
        for parameter in parameters:
            arguments = _arguments(optimizer, names[id(parameter)])
            for name, known, members in found:
                if name == group and known == arguments:
                    members.append(parameter)
                    break
            else:
                found.append((group, arguments, [parameter]))
    made: Optimizer | None = None
    numbers = dict.fromkeys(groups, 0)
    for group, arguments, members in found:
        several = sum(name == group for name, *_ in found) > 1
        numbers[group] += 1
        label = f"{group}_{numbers[group]}" if several else group
        constructor: Any = optimizer.pt_optim_constructor
        part = constructor([{"params": members, "name": label}], **arguments)
        if made is None:
            made = part
        else:
            made.add_param_group(part.param_groups[0])
            made.state.update(part.state)  # of those that make it at once
    if made is None:
        raise ValueError("there are no parameters to train")
    _clip_as_pyro(optimizer, made, names)
    if not isinstance(optimizer, PyroLRScheduler):
        return made, None
    return made, lambda built: optimizer.pt_scheduler_constructor(built, **optimizer.kwargs)


def _arguments(optimizer: PyroOptim, name: str) -> dict[str, Any]:
    """The arguments for a parameter; a function of them gets its name as Pyro gives it."""
    given = optimizer.pt_optim_args
    if not callable(given):
        return dict(given)
    if len(inspect.signature(given).parameters) == 1:
        arguments = given(normalize_param_name(name))
    else:
        arguments = given(module_from_param_with_module_name(name), user_param_name(name))
    if not isinstance(arguments, Mapping):
        raise ValueError(f"the function of pyro.optim must give a dict for parameter {name!r}, got {arguments!r}")
    return dict(arguments)


def _clip_as_pyro(optimizer: PyroOptim, made: Optimizer, names: Mapping[int, str]) -> None:
    """Clip the gradient of each parameter before each step, if the optimizer has `clip_args`."""
    given = optimizer.pt_clip_args
    if not given:
        return

    def arguments(name: str) -> dict[str, Any]:
        return given(module_from_param_with_module_name(name), user_param_name(name)) if callable(given) else given

    clips = [(p, arguments(names[id(p)])) for group in made.param_groups for p in group["params"]]

    def clip(*_: Any) -> None:
        for parameter, how in clips:
            if how and parameter.grad is not None:
                PyroOptim._clip_grad(parameter, **how)

    made.register_step_pre_hook(clip)
