"""What stands in the `config.json` of a run folder: reading it, finding its pair again, comparing data with it."""

from __future__ import annotations

import inspect
import json
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pyrovae import programs
from pyrovae._version import __version__
from pyrovae.batches import arguments
from pyrovae.data.dataset import Dataset, DataSpec, Rows
from pyrovae.distributed import processes
from pyrovae.pairs.registry import Pair, find_pair, pairs
from pyrovae.plain import plain
from pyrovae.storage import CheckpointError
from pyrovae.training.callbacks import Callback, Progress
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.setup import check_arguments
from pyrovae.vae import VAE

OwnPair = str | Callable[..., VAE] | VAE
"""A pair as it is given again: its name, a function that returns a VAE, or a VAE."""
_FIELDS = {"pair": str, "pair_options": dict, "data": dict, "training": dict, "spec": dict}
_AGAIN = "restore it or train again"
LENGTH = ("epochs", "patience")
"""Options of a training that a resumed one may have anew."""


def suited_training(pair: Pair, training: Mapping[str, Any]) -> dict[str, Any]:
    """What a pair suggests for the `Trainer`, unless `training` says otherwise."""
    suited = dict(pair.training)
    if training.get("objective", suited.get("objective")) != suited.get("objective"):
        suited.pop("num_particles", None)  # which is for the objective that the pair suggests
    return {**suited, **training}


def new_configuration(
    pair: Pair,
    pair_options: Mapping[str, Any],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    finishing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration of a new run.

    Parameters
    ----------
    pair : Pair
        The pair. What it suggests for the `Trainer` holds unless `training` says otherwise.
    pair_options, data, training : mapping
        Options of the pair, of `pyrovae.data.load`, and of the `Trainer`.
    finishing : mapping, optional
        Options of what follows the training.

    Returns
    -------
    dict
        The configuration, without what the data are.

    Raises
    ------
    ValueError
        If nothing follows the training that has such an option, or an option of the pair would have no effect.
    """
    pair.check_options(pair_options)
    known = [] if pair.finishing is None else [option.name for option in pair.finishing.options]
    for name, value in (finishing or {}).items():
        if name not in known:
            raise ValueError(f"what follows a training of {pair.name} has no option {name!r}; it has {known or 'none'}")
        if value is not None and not isinstance(value, bool) and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return {
        "pyrovae_version": __version__,
        "versions": versions(),
        "pair": pair.name,
        "pair_options": plain(dict(pair_options)),
        "data": plain(dict(data)),
        "training": plain(suited_training(pair, training)),
        **({"finishing": dict(finishing)} if finishing else {}),
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries whose numbers a training and its figures depend on, by name."""
    libraries = ("torch", "pyro-ppl", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in libraries}}


def read_configuration(folder: RunFolder) -> dict[str, Any]:
    """Read and check the configuration of a run.

    Parameters
    ----------
    folder : RunFolder
        The folder.

    Returns
    -------
    dict
        Pair, options of the pair, data options, options of the Trainer, and what the data are. A pair that has no name
        is "".

    Raises
    ------
    CheckpointError
        If the folder is no run, or its configuration is damaged or of a newer version.
    """
    config = folder.read_config()
    for key, kind in _FIELDS.items():
        if not isinstance(config.get(key), kind):
            raise CheckpointError(f"{folder.config_path} is damaged: it lacks a {kind.__name__} {key!r}; {_AGAIN}")
    folder.check_files(config)
    return config


def check_free(folder: RunFolder) -> None:
    """Refuse a folder for a new run that holds a run, or something else.

    Raises
    ------
    CheckpointError
        Saying what it holds, and what to do.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise CheckpointError(f"{folder.path} is a file; choose another folder for the run (--out)")
    if processes().first:
        folder.check_not_written()
    if folder.config_path.exists():
        raise CheckpointError(
            f"{folder.path} already holds a run; go on with it (pyrovae resume {folder.path}) or choose another folder "
            "(--out), or replace it (--overwrite, in Python overwrite=True)"
        )
    if folder.holds_training():
        raise CheckpointError(
            f"{folder.path} already holds a training, of no run of the command line; choose another folder (--out), or "
            "replace it (--overwrite, in Python overwrite=True)"
        )
    if (name := folder.foreign()) is not None:
        raise CheckpointError(
            f"{folder.path} holds files of no run, such as {name}; choose another folder (--out), or write beside them "
            "(--overwrite, in Python overwrite=True)"
        )


def free_folder(path: Path) -> Path:
    """The first of a folder and those with 2, 3, ... behind its name that is not there, or is empty."""
    candidate, number = path, 2
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def is_same_run(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two configurations are of one run, which may have got more epochs or what follows the training."""

    def told(config: Mapping[str, Any]) -> dict[str, Any]:
        training = {k: v for k, v in dict(config.get("training") or {}).items() if k not in LENGTH}
        return {"training": training, **{name: config.get(name) for name in ("pair", "pair_options", "data")}}

    return bool(json.loads(json.dumps(told(first))) == json.loads(json.dumps(told(second))))


def spec_of(folder: RunFolder, config: Mapping[str, Any]) -> DataSpec:
    """What the data of a run are.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    config : mapping
        Its configuration; read from the folder if this one does not say it yet.

    Returns
    -------
    DataSpec
        What the pair was built for.

    Raises
    ------
    CheckpointError
        If the configuration does not say it.
    """
    try:
        return DataSpec.from_dict((config if "spec" in config else folder.read_config())["spec"])
    except ValueError as error:
        raise CheckpointError(f"{folder.config_path} is damaged: 'spec': {error}; {_AGAIN}") from None


def pair_of(folder: RunFolder, name: str, given: OwnPair | None) -> Pair:
    """The pair of a run, by its name, or given again where it is a user's own.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    name : str
        The name in its configuration.
    given : str, callable or VAE, optional
        A name is compared with the stored one. A function is called with the stored options. A VAE is taken as it is.
        None is enough for a registered pair.

    Returns
    -------
    Pair
        The pair.

    Raises
    ------
    CheckpointError
        If the pair has to be given again, or is another one.
    """
    own = ":" in name or not name
    if given is None:
        if not own:
            return _registered(folder, name)
        again = f"open it with --pair {name or 'module:function'}"
        raise CheckpointError(f"{folder.path} is a run of a pair of your own; {again}")
    if isinstance(given, str):
        found = find_pair(given)
        if not name or given == name:
            return found
        if not own and found.own and inspect.unwrap(found.builder) is inspect.unwrap(_registered(folder, name).builder):
            return find_pair(name)  # which the module has registered
        raise CheckpointError(f"{folder.path} is a run of the pair {name}, not {given}")
    if not own:
        raise CheckpointError(f"{folder.path} is a run of the pair {name}, which is found by its name; leave out pair")
    if isinstance(given, VAE):
        return Pair(name, "", lambda **options: given, own=True)
    if not callable(given):
        raise TypeError(f"pair must be 'module:function', a function that returns a VAE, or a VAE, got {given!r}")
    return Pair(name, "", given, own=True)


def _registered(folder: RunFolder, name: str) -> Pair:
    """The registered pair of a run.

    Raises
    ------
    CheckpointError
        If there is none, because the module that registers it is not imported.
    """
    if all(pair.name != name for pair in pairs()):
        raise CheckpointError(
            f"{folder.path} is a run of the pair {name}, which is not registered; import the module that registers it, "
            "or open it with --pair module:function"
        )
    return find_pair(name)


def build(pair: Pair, data: Dataset | DataSpec, config: Mapping[str, Any], *, stored: bool = True) -> VAE:
    """The VAE of a run, with new weights.

    Parameters
    ----------
    pair : Pair
        The pair.
    data : Dataset or DataSpec
        What it is for.
    config : mapping
        The configuration, with the options of the pair.
    stored : bool, default True
        Whether it was read from a run that is there. Of such a run, options without effect are left out.

    Returns
    -------
    VAE
        The VAE.
    """
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in config["pair_options"].items()}
    if stored:
        options = pair.without_idle(options, data.spec if isinstance(data, Dataset) else data)
    return pair.build(data, **options)


def prepare(vae: VAE, spec: DataSpec, rows: Rows | None = None) -> None:
    """Let a VAE find its sites and parameters, on two blank rows if there are no others.

    Parameters
    ----------
    vae : VAE
        The VAE.
    spec : DataSpec
        What the rows look like.
    rows : Rows, optional
        A few rows, for programs that need more of them than blank data.
    """
    if rows is not None and (rows.more or rows.whole):
        x, given = arguments(vae, rows)
        vae.prepare(x, **given)
        return
    floats = (value.dtype for value in vae.parameters() if value.is_floating_point())
    blank = Rows(
        torch.zeros(2, *spec.shape, dtype=next(floats, None)),
        y=None if spec.num_classes is None else torch.zeros(2, dtype=torch.long),
        index=torch.zeros(2, dtype=torch.long),
    )
    x, given = arguments(vae, blank)
    needed = {name for program in (vae.model, vae.guide) for name in programs.required_arguments(program)[1:]}
    if needed <= given.keys():
        vae.prepare(x, **given)
    elif rows is not None:
        check_arguments(vae, given)
    # Else the parameters of modules are all that can be known; blank covariates may be none at all.


class WriteConfiguration(Callback):
    """Write the configuration once the training has begun, its checks passed and its first state was saved.

    So whatever has a configuration can be resumed, and a training that cannot begin leaves no run behind.

    Parameters
    ----------
    folder : RunFolder
        Where to.
    config : mapping
        What to write.
    """

    everywhere = False

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        self.folder, self.config, self.written = folder, config, False

    def on_save(self, progress: Progress) -> None:
        """Write it with the first state of a new training."""
        if not progress.resumed and not self.written:
            self.folder.write_config(self.config)
            self.written = True

    def on_start(self, progress: Progress) -> None:
        """Write, of a resumed training, its length if that is another one."""
        if not progress.resumed:
            return
        if not self.folder.config_path.exists():
            self.folder.write_config(self.config)
            return
        stored = self.folder.read_config()
        if stored.get("training") != json.loads(json.dumps(self.config["training"])):
            self.folder.write_config({**stored, "training": self.config["training"]})
