"""The data of a run again: loading them, and refusing data that a pair was not built for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from pyrovae.data import DataError, load
from pyrovae.data.dataset import Dataset, DataSpec
from pyrovae.data.fingerprints import changed_splits
from pyrovae.data.own import is_path
from pyrovae.data.table_loading import idle_likelihoods
from pyrovae.runs.configuration import spec_of
from pyrovae.runs.own_data import FUNCTION
from pyrovae.storage import CheckpointError
from pyrovae.training.checkpoint import RunFolder


def _options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the data, without likelihoods of kinds that no column has, which earlier versions made nothing of."""
    options = dict(config["data"])
    if likelihoods := options.get("likelihoods"):
        idle = idle_likelihoods(likelihoods, (config.get("spec") or {}).get("schema"))
        options["likelihoods"] = {name: value for name, value in likelihoods.items() if name not in idle}
    return options


def load_again(folder: RunFolder, config: Mapping[str, Any], *, allow_changed: bool = False) -> Dataset:
    """The data that a run was trained on, by their options.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    config : mapping
        Its configuration.
    allow_changed : bool, default False
        Whether they may be others of the same shape and kind.

    Returns
    -------
    Dataset
        The data.

    Raises
    ------
    CheckpointError
        If the configuration does not say what to load.
    DataError
        If the data are not to be had.
    ValueError
        If a file holds data of another shape or kind than it did, or others of the same kind.
    """
    if FUNCTION in config["data"]:
        raise CheckpointError(
            f"{folder.path} was trained on data of a function of your own; give it again, --data "
            f"{config['data'][FUNCTION]}"
        )
    if "name" not in config["data"]:
        raise CheckpointError(
            f"{folder.path} does not say what data to load, as they were given in Python; give them again, by "
            "--data FILE_OR_NAME to evaluate and plot, or by Run.open(folder, data=dataset)"
        )
    try:
        found = load(**_options_of(config))
    except DataError as error:
        if not is_path(config["data"]["name"]) or "spec" not in config:
            raise
        raise DataError(f"{error} ({folder.path} was trained on it; the path is as it was given)") from None
    if "spec" in config:
        check_alike(found, spec_of(folder, config))
    if not allow_changed:
        check_unchanged(folder, config, found)
    return found


def check_unchanged(folder: RunFolder, config: Mapping[str, Any], data: Dataset) -> None:
    """Refuse data whose fingerprint is another one than that of the data that a run was trained on.

    Raises
    ------
    ValueError
        Naming the splits that changed.
    """
    known = config.get("fingerprints")
    changed = changed_splits(data, known) if isinstance(known, Mapping) else []
    if changed:
        splits = " and ".join([", ".join(changed[:-1]), changed[-1]] if len(changed) > 1 else changed)
        name = config["data"].get("name", data.name)
        raise ValueError(
            f"the {splits} rows of {name} are not those that {folder.path} was trained on (their fingerprint differs): "
            "the data changed since; restore them, or go on with these on purpose (--allow-changed-data)"
        )


def check_alike(data: Dataset, trained: DataSpec) -> None:
    """Refuse data of another kind than those that a pair was built for.

    Parameters
    ----------
    data : Dataset
        The data.
    trained : DataSpec
        What the pair was built for.

    Raises
    ------
    ValueError
        If they have another shape, other values, more classes, or are a table of other columns.
    """
    spec = data.spec
    if spec.schema is not None and trained.schema is not None:
        _check_columns(spec.name, spec.schema, trained.schema)
    for field in ("shape", "kind", "num_classes"):
        new, old = getattr(spec, field), getattr(trained, field)
        if new != old and not (field == "num_classes" and (new is None or old is None)):
            raise ValueError(f"{spec.name} has {field} {new}, and the run was trained on data with {field} {old}")
    for name, rows in data.splits().items():
        if trained.num_classes is not None and rows.y is not None and len(rows):
            largest = int(rows.y.max())
            if largest >= trained.num_classes:
                raise ValueError(
                    f"{spec.name} has the label {largest} in its {name} rows, and the run was trained on data with "
                    f"labels from 0 to {trained.num_classes - 1}"
                )


def check_resumable(folder: RunFolder, data: Dataset, trained: DataSpec) -> None:
    """Refuse to go on with what is no training, or with more or fewer rows than it began with.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    data : Dataset
        The data.
    trained : DataSpec
        What the data were.

    Raises
    ------
    CheckpointError
        If the folder holds a VAE and no state of a training, or the number of training rows is another.
    """
    if folder.weights_path.exists() and not folder.state_path.exists():
        raise CheckpointError(f"{folder.path} holds no training to go on with: {folder.state_path} does not exist")
    if data.num_rows != trained.num_rows:
        raise CheckpointError(
            f"{data.name} has {data.num_rows} training rows, and the training of {folder.path} began with "
            f"{trained.num_rows}"
        )


def _check_columns(name: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Refuse a table whose columns are others, or are made numbers of in another way.

    Raises
    ------
    ValueError
        Naming the first column that differs.
    """
    columns, before = ([*part.get("schema", {}).get("columns", ())] for part in (new, old))
    for column, known in zip_longest(columns, before):
        if column is None or known is None or column["name"] != known["name"]:
            found, wanted = (repr(part["name"]) if part else "none" for part in (column, known))
            raise ValueError(f"{name} has the column {found} where the run was trained on {wanted}")
        for field in ("kind", "levels", "origin"):
            if column.get(field) != known.get(field):
                was, now = known.get(field), column.get(field)
                raise ValueError(f"{name}: {field} of the column {known['name']!r} is {now}, and the run has {was}")
    if any(new.get(part) != old.get(part) for part in ("columns", "scaler", "features")):
        raise ValueError(f"the training rows of {name} hold other values than those that the run was trained on")
