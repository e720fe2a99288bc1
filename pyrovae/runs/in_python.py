"""What `Trainer.fit(..., run=folder)` writes into the folder, so that the command line opens it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pyrovae._version import __version__
from pyrovae.data import DataError
from pyrovae.data.arrays import kind_of
from pyrovae.data.dataset import Dataset, DataSpec, Rows
from pyrovae.data.fingerprints import fingerprints
from pyrovae.plain import plain
from pyrovae.runs.configuration import WriteConfiguration, versions
from pyrovae.training.callbacks import Callback
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.options import TrainingOptions
from pyrovae.training.schedules import Constant, Cyclic, Decay, WarmUp
from pyrovae.vae import VAE

IN_PYTHON = "in_python"
"""Key of the options of a training in its configuration that only Python can give again."""
_NOT_STORED = ("progress", "callbacks", "num_particles")


def configuration_writer(
    folder: RunFolder, vae: VAE, data: Any, train: Any, options: TrainingOptions, *, resume: bool
) -> list[Callback]:
    """What writes the configuration of a training into its folder, once it has begun; nothing if that is cared for.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    vae : VAE
        The pair.
    data : object
        The data as they were given.
    train : Rows, Stream or RowStream
        The training rows.
    options : TrainingOptions
        Options of the training.
    resume : bool
        Whether it goes on with an earlier one.

    Returns
    -------
    list of Callback
        One, or none: a run of the command line writes its own, and of a stream in Python nobody knows the rows.
    """
    if is_by_command(options):
        return []
    if resume and folder.config_path.exists():
        stored = folder.read_config()
        length = {"epochs": options.epochs, "patience": options.patience}
        training = {**dict(stored.get("training") or {}), **{k: v for k, v in length.items() if v is not None}}
        return [WriteConfiguration(folder, {**stored, "training": training})]
    spec = _spec(vae, data, train)
    if spec is None:
        return []
    name, pair_options = ("", {}) if vae.made_by is None else (vae.made_by.pair, dict(vae.made_by.options))
    training, in_python = _training(options)
    if not _is_plain(pair_options):
        pair_options, in_python = {k: v for k, v in pair_options.items() if _is_plain(v)}, [*in_python, "pair_options"]
    config = {
        "pyrovae_version": __version__,
        "versions": versions(),
        "pair": name,
        "pair_options": plain(pair_options),
        "data": dict(data.options) if isinstance(data, Dataset) else {},
        "training": training,
        "spec": spec.to_dict(),
        "fingerprints": fingerprints(data) if isinstance(data, Dataset) else {},
        **({IN_PYTHON: in_python} if in_python else {}),
    }
    return [WriteConfiguration(folder, config)]


def is_by_command(options: TrainingOptions) -> bool:
    """Whether a training is that of a `Run`, which writes its own configuration."""
    return any(isinstance(callback, WriteConfiguration) for callback in options.callbacks)


def _spec(vae: VAE, data: Any, train: Any) -> DataSpec | None:
    """For what rows a pair was made; else what its training rows are. None for a stream."""
    if vae.made_by is not None:
        return vae.made_by.spec
    if isinstance(data, Dataset):
        return data.spec
    if not isinstance(train, Rows):
        return None
    try:
        kind = kind_of(train)[0]
    except DataError:  # nothing is observed
        kind = "real"
    known = int(train.labelled.sum())
    classes = int(train.y.max()) + 1 if train.y is not None and known and not train.y.is_floating_point() else None
    return DataSpec("data", tuple(train.x.shape[1:]), kind, len(train), known, classes)


def _training(options: TrainingOptions) -> tuple[dict[str, Any], list[str]]:
    """The options that differ from the defaults, ready for JSON, and the names of those that cannot be."""
    found, rest = dict[str, Any](), []
    if options.num_particles is not None:
        found["num_particles"] = options.num_particles
    for option in dataclasses.fields(TrainingOptions):
        if option.name in _NOT_STORED:
            continue
        value = getattr(options, option.name)
        if option.name == "kl_weight":
            value = _text_of(value)
        if option.default is not dataclasses.MISSING and value == option.default:
            continue
        if option.default is dataclasses.MISSING and not value:
            continue
        if _is_plain(value):
            found[option.name] = dict(value) if isinstance(value, Mapping) else value
        else:
            rest.append(option.name)
    return found, rest


def _text_of(schedule: Any) -> Any:
    """A schedule as `parse_schedule` reads it; itself where no text says it."""
    if isinstance(schedule, Constant):
        return schedule.value
    kind = {WarmUp: "warm-up", Decay: "decay", Cyclic: "cyclic"}.get(type(schedule))
    return schedule if kind is None else ":".join([kind, *(f"{part:g}" for part in dataclasses.astuple(schedule))])


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(plain(value))
    except (TypeError, ValueError):
        return False
    return True
