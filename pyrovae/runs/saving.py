"""A VAE in a folder: `VAE.save` and `VAE.load`. The folder is one that the command line reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyrovae._version import __version__
from pyrovae.data.dataset import Dataset, DataSpec
from pyrovae.data.fingerprints import fingerprints
from pyrovae.runs.configuration import OwnPair, prepare, versions
from pyrovae.runs.run import Run
from pyrovae.runs.same_data import check_alike
from pyrovae.storage import CheckpointError, save_weights
from pyrovae.training.checkpoint import RunFolder
from pyrovae.vae import VAE

UNTRAINED = {"epoch": None, "value": None}
"""What the weights of a folder without a training say of their epoch."""


def save(
    vae: VAE,
    folder: str | Path,
    data: Dataset | DataSpec | None = None,
    *,
    overwrite: bool = False,
    beside: Callable[[Path], None] | None = None,
) -> None:
    """Write a VAE to a folder, as a run without a training: `config.json` and `model.safetensors`.

    Parameters
    ----------
    vae : VAE
        The VAE.
    folder : str or Path
        Where to.
    data : Dataset or DataSpec, optional
        What it was trained on. With a `Dataset` that `pyrovae.data.load` made, `pyrovae evaluate` and `pyrovae plot`
        find the data again; without, they ask for `--data`. A pair that was not built by its name needs this, because
        nothing else says for what rows it was made.
    overwrite : bool, default False
        Whether to replace a run that the folder already holds, its training state and metrics included.
    beside : callable from Path to None, optional
        Writes further files into the folder, before the configuration.

    Raises
    ------
    CheckpointError
        If the folder already holds a run.
    ValueError
        If it is not known for what rows the VAE was made, `data` are of another kind than those, or an option of the
        pair cannot be written as JSON.
    """
    target = RunFolder(folder)
    held = [path for path in (target.config_path, target.weights_path, target.state_path) if path.exists()]
    if held and not overwrite:
        raise CheckpointError(f"{target.path} already holds a run; choose another folder, or give overwrite=True")
    config = _configuration(vae, data)
    prepare(vae, DataSpec.from_dict(config["spec"]))
    with target.writing():
        _write(vae, target, config, beside)


def _write(vae: VAE, target: RunFolder, config: dict[str, Any], beside: Callable[[Path], None] | None) -> None:
    target.forget_training()
    before = {path.name for path in target.path.glob("*.npz")}
    save_weights(vae, target.weights_path, **UNTRAINED)
    if beside is not None:
        beside(target.path)
    target.write_config(config, {path.name for path in target.path.glob("*.npz")} - before)


def load(folder: str | Path, pair: OwnPair | None = None, device: str = "cpu") -> VAE:
    """Read a VAE from a folder: one that `save` wrote, or a run, with its best weights.

    Parameters
    ----------
    folder : str or Path
        The folder.
    pair : str, callable or VAE, optional
        A pair of your own again: "module:function", a function that returns a VAE, or a VAE, which then gets the
        weights. None is enough for a registered pair. pyrovae never imports code named in a file.
    device : str, default "cpu"
        Where the VAE is to be.

    Returns
    -------
    VAE
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If the folder holds no run, the pair is missing or another one, or the weights cannot be used.
    """
    return Run.open(folder, pair).load_vae(device)


def _configuration(vae: VAE, data: Dataset | DataSpec | None) -> dict[str, Any]:
    made_by = vae.made_by
    if made_by is not None:
        if isinstance(data, Dataset):
            check_alike(data, made_by.spec)
        name, options, spec = made_by
    elif data is None:
        raise ValueError(
            "this VAE was not built by the name of a pair, so nothing says for what rows it was made; give them: "
            "vae.save(folder, data=dataset)"
        )
    else:
        name, options, spec = "", {}, data if isinstance(data, DataSpec) else data.spec
    for option, value in options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ValueError(f"the option {option!r} of the pair cannot be written as JSON: {value!r}") from None
    return {
        "pyrovae_version": __version__,
        "versions": versions(),
        "pair": name,
        "pair_options": dict(options),
        "data": dict(data.options) if isinstance(data, Dataset) else {},
        "training": {},
        "spec": spec.to_dict(),
        "fingerprints": fingerprints(data) if isinstance(data, Dataset) else {},
    }
