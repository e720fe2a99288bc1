"""What is found out before a training begins: its objective, its columns of metrics, its monitor."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from pyro.infer import ELBO
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrovae import programs
from pyrovae.families import families_of
from pyrovae.infer.objective import Objective
from pyrovae.infer.objectives import make_objective
from pyrovae.layout import OutsidePlateError
from pyrovae.metrics.classification import infers_label
from pyrovae.training.batching import VALIDATION_ROWS, Batches, HeldBatches, streamed
from pyrovae.training.data import Stream, TrainingData
from pyrovae.training.lr_schedules import LRScheduler, make_lr_scheduler
from pyrovae.training.optimizers import make_optimizer
from pyrovae.training.options import BATCH_SIZE, TrainingOptions
from pyrovae.training.parallel import Parallel
from pyrovae.vae import VAE

_TRAINED: WeakKeyDictionary[ELBO, tuple[weakref.ref[VAE], nn.Module | None]] = WeakKeyDictionary()


@contextmanager
def nothing_left_behind(objective: str | ELBO, vae: VAE) -> Iterator[None]:
    """A context in which an objective is as it was given, whatever pairs it has served.

    Pyro's objectives keep the depth of plates of their first pair, and compiled ones its programs; ours keep what they
    learn, such as a baseline. What an objective learns goes on with the same pair, and starts anew with another one.
    """
    if isinstance(objective, str):
        yield
        return
    if isinstance(objective, Objective):
        before, fresh = _TRAINED.get(objective, (None, copy.deepcopy(objective.module)))
        if before is not None and before() is not vae:
            objective.module = copy.deepcopy(fresh)
        _TRAINED[objective] = weakref.ref(vae), fresh
        yield
        return
    given = dict(vars(objective))
    try:
        yield
    finally:
        for name in [name for name in vars(objective) if name not in given]:
            if name.startswith("_"):
                delattr(objective, name)
        if "max_plate_nesting" in given:
            objective.max_plate_nesting = given["max_plate_nesting"]


def objective_for(vae: VAE, options: TrainingOptions, x: Tensor, **data: Any) -> Any:
    """The objective for a pair; one given by name is new, and loops over particles that do not vectorise.

    It is an `ELBO`, a class that does not declare the `loss` and `loss_and_grads` that all of its subclasses have.
    """
    name, num_particles = options.objective, options.num_particles
    if not isinstance(name, str):
        return name
    # The depth of plates is known, and a program without plates has its rows in dimension -1 all the same.
    settings: dict[str, Any] = {"max_plate_nesting": max(1, vae.sites.max_plate_nesting)}
    objective = make_objective(name, num_particles=num_particles, **settings)
    if objective.num_particles > 1 and not _vectorizes(vae, x, data):
        settings["vectorize_particles"] = False
        objective = make_objective(name, num_particles=num_particles, **settings)
    return objective


def make_steps(
    options: TrainingOptions, groups: Mapping[str, list[nn.Parameter]], names: Mapping[int, str]
) -> tuple[Optimizer, LRScheduler | None]:
    """The optimizer of a training and its schedule, see `make_optimizer` and `make_lr_scheduler`."""
    schedule: Any = options.lr_schedule
    of_pyro = isinstance(schedule, PyroLRScheduler)
    chosen = schedule if of_pyro else options.optimizer
    optimizer, make = make_optimizer(chosen, groups, options.lr, options.optimizer_options, names)
    schedule = schedule if make is None else make
    return optimizer, make_lr_scheduler(schedule, optimizer, options.epochs, options.lr_schedule_options)


def _vectorizes(vae: VAE, x: Tensor, data: Mapping[str, Any]) -> bool:
    try:
        return vae.vectorizes(x, **data)
    except OutsidePlateError:  # which an ELBO of Pyro allows, and ours refuses by itself
        return False


def check_arguments(vae: VAE, given: Mapping[str, Any]) -> None:
    """Refuse data that lack an argument which a program cannot do without.

    Raises
    ------
    ValueError
        Naming the argument.
    """
    for program in (vae.model, vae.guide):
        missing = [name for name in programs.required_arguments(program)[1:] if name not in given]
        if missing:
            raise ValueError(
                f"{programs.describe(program)} needs the argument {missing[0]!r}, which the data do not have; give a "
                f'dict by argument name, {{"x": x, {missing[0]!r}: ...}}'
            )


def validation_batches(
    vae: VAE, data: TrainingData, parallel: Parallel | None = None
) -> tuple[dict[str, Callable[[], float]], Batches | None]:
    """Columns that the families of a pair add to the metrics, and the batches for the validation loss.

    The columns are computed on validation rows with their labels; of a stream there are none. The loss does not see
    labels that the pair infers, since a bound with labels leaves q(y|x) out.
    """
    rows = data.validation
    if rows is None:
        return {}, None
    found: dict[str, Callable[[], float]] = {}
    if isinstance(rows, Stream):
        given = partial(streamed, rows, parallel, name="validation")
        first = given().first()
        return found, given(hide_labels=first.y is not None and infers_label(vae, first))
    rows = rows.to(vae.device)
    if data.collate is None:
        for family in families_of(vae):
            if family.validation_figures is not None:
                found |= family.validation_figures(vae, rows)
        if rows.y is not None and infers_label(vae, rows):
            rows = rows.without_labels()
    return found, HeldBatches(vae, rows, data._replace(transform=None), VALIDATION_ROWS, parallel=parallel)


def find_monitor(name: str, columns: Sequence[str]) -> str:
    """The column of the metrics that tells the best epoch: the one asked for, or "loss" without validation rows.

    Raises
    ------
    ValueError
        If the metrics of this training have no such column.
    """
    if name == "validation_loss" and name not in columns:
        return "loss"
    known = ["loss", *columns, "kl_weight", "seconds"]
    if name not in known:
        raise ValueError(
            f"monitor must be a column of the metrics, which are {', '.join(known)} for this pair and these data, "
            f"got {name!r}"
        )
    return name


def check_idle(options: TrainingOptions, data: TrainingData) -> None:
    """Refuse options of a training that have no effect for its data.

    Raises
    ------
    ValueError
        Naming the option, and what to do.
    """
    if isinstance(data.train, Stream) and options.batch_size != BATCH_SIZE:
        raise ValueError(
            f"batch_size is for rows that the Trainer cuts into batches, got {options.batch_size}; a stream has "
            "batches of its own, so leave it out"
        )


def check_groups_learn(options: TrainingOptions, groups: Sequence[str]) -> None:
    """Refuse a learning rate or an optimizer of a group that has nothing to learn.

    Raises
    ------
    ValueError
        Naming the group, and those that learn.
    """
    for what, named in (("lr", options.lr), ("optimizer", options.optimizer)):
        for name in named if isinstance(named, Mapping) else ():
            if name not in groups:
                raise ValueError(
                    f"{what} names the group {name!r}, which has no parameters to learn here; leave it out (groups "
                    f"that learn: {', '.join(groups)})"
                )
