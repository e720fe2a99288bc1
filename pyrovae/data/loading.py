"""Loading data by name or from files of one's own, and preparing them: binary values, scale, components, labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import torch

from pyrovae.data import own
from pyrovae.data.dataset import TABLE, Dataset
from pyrovae.data.patterns import hide_from_encoder, hide_in_training
from pyrovae.data.preprocessing import binarize as binarized
from pyrovae.data.preprocessing import dequantize as dequantized
from pyrovae.data.preprocessing import hide_labels, principal_components, rescale_symmetric
from pyrovae.data.registry import available, find_entry, load_named
from pyrovae.data.streamed_loading import is_streamed
from pyrovae.data.table_loading import idle_likelihoods, load_own_table, load_whole_table

_P = ParamSpec("_P")


def _on_cpu(loads: Callable[_P, Dataset]) -> Callable[_P, Dataset]:
    """Load with the CPU as torch's default device, whatever it is otherwise."""

    @wraps(loads)
    def wrapped(*args: _P.args, **options: _P.kwargs) -> Dataset:
        with torch.device("cpu"):
            return loads(*args, **options)

    return wrapped


@_on_cpu
def load(
    name: str | Path,
    *,
    binarize: str | None = None,
    scale: str = "unit",
    dequantize: bool = False,
    pca: int | None = None,
    validation: float | str | Path | None = None,
    test: float | str | Path | None = None,
    labels: float | None = None,
    missing: float | None = None,
    missing_pattern: str | None = None,
    hide: Sequence[float] | None = None,
    kind: str | None = None,
    label_column: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    column_kinds: Mapping[str, str] | None = None,
    likelihoods: Mapping[str, str] | None = None,
    scaling: str | None = None,
    missing_words: Sequence[str] | None = None,
    stream: bool | None = None,
    seed: int = 0,
    root: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """Load data by name, or from a file or folder of your own, on the CPU. The same arguments give the same tensors.

    Files of a named set are looked for below `root`, `$PYROVAE_DATA` and the cache folder (`$PYROVAE_CACHE`, else
    `$XDG_CACHE_HOME/pyrovae`, else `~/.cache/pyrovae`), in this order, and are otherwise downloaded into the cache.

    Files of your own are read as `pyrovae.data.own` says: `.npy`, `.npz`, `.pt`, `.csv`, or a folder of pictures. Code
    in them is never run. With the kind "table", columns of any type are read from a CSV or Parquet file, and
    `pyrovae.data.Schema` and `TableCodec` say how they become numbers.

    Parameters
    ----------
    name : str or Path
        A name, see `available` (``-`` and ``_`` are the same), or a path. Write ``./digits`` for a folder that has the
        name of a data set.
    binarize : {"static", "dynamic"}, optional
        "static" draws every pixel once from a Bernoulli distribution, "dynamic" draws training minibatches anew each
        time. None leaves grey values grey.
    scale : {"unit", "symmetric"}, default "unit"
        The range of pixels: [0, 1] or [-1, 1].
    dequantize : bool, default False
        Whether to spread the 256 values of bytes over [0, 1] with uniform noise.
    pca : int, optional
        Replace every row by so many principal components, see `principal_components`. None leaves it as it is.
    validation : float or path, optional
        The validation rows. Below 1 this is a share of the rows, from 1 on a number of them. Rows of your own are drawn
        at random by the seed (default 0.1; 0 for none), or read from another file or folder of the same form. Of a
        named set they are a part of the training rows (default: see `available`).
    test : float or path, optional
        The test rows of your own data, chosen as `validation` is (default 0.1). A named set has its own, unless it is a
        table. Of a table there are no validation rows by default.
    labels : float, optional
        Keep the labels of a share (up to 1) or a number of training rows, of every class as many, see `hide_labels`.
        None keeps them all.
    missing : float, optional
        Hide this share of the training and validation rows once and for all, to train on incomplete data. Test rows
        stay complete.
    missing_pattern : {"entries", "points", "block"}, optional
        What `missing` hides as one, see `pyrovae.data.patterns.random_mask` (default "entries").
    hide : pair of float, optional
        Hide entries of each training minibatch from the encoder, and score them all the same. The share is drawn for
        each row from this range, see `HideAtRandom`.
    kind : {"binary", "unit", "symmetric", "8-bit", "real", "table"}, optional
        What the values of your own data are, before `binarize`, `scale` and so on; see `Dataset`. None finds it from
        the values and tells it in the log. A table is never found, and has to be asked for.
    label_column : str, optional
        The column of a CSV file that holds the labels. None takes all columns as data.
    columns : sequence of str, optional
        The columns of a CSV file to take as data, in this order. None takes all but that of the labels.
    classes : sequence of str, optional
        Names of the classes of your own data in the order of their numbers, where sub-folders or texts are the labels.
        None takes those of the training rows, sorted.
    image_size : int, optional
        Height and width to which pictures of your own are cropped and scaled. None takes them as they are.
    column_kinds : mapping of str to str, optional
        Kinds of columns of a table by name, where `Schema.infer` finds other ones.
    likelihoods : mapping of str to str, optional
        Likelihoods by the name or the kind of columns of a table, see `TableCodec.fit`.
    scaling : {"standardize", "normalize", "none"}, optional
        How numbers of a table are scaled (default "standardize").
    missing_words : sequence of str, optional
        Further words that stand for a missing entry of a table (default: none; for bank-full, "unknown").
    stream : bool, optional
        Whether the table of a Parquet file is read in chunks, and trained on without being held in memory, see
        `pyrovae.data.streamed_loading`. None does so with more than 10 million entries, and tells it in the log.
    seed : int, default 0
        Fixes random splits, the rows that keep their labels, draws of validation and test rows, and synthetic data.
    root : str or Path, optional
        Folder laid out like the cache, to look in first for a named set.
    download : bool, default True
        Whether to fetch a named set that is not on this machine.

    Returns
    -------
    Dataset
        The data. Its `options` make it again.

    Raises
    ------
    ValueError
        For an unknown name, and for options that contradict each other or the data.
    DataError
        If the files are not to be had, are damaged, or do not hold what they should.
    TypeError
        If the name is neither a text nor a path.

    Examples
    --------
    >>> dataset = load("digits", binarize="dynamic")
    >>> dataset.shape, dataset.kind, len(dataset.train)
    (torch.Size([1, 8, 8]), 'binary', 1200)
    """
    if not isinstance(name, str | Path):
        raise TypeError(
            f"load takes a name or a path, got {type(name).__name__}; Trainer.fit takes tensors, arrays and frames as "
            "they are, and data.Dataset makes splits of them"
        )
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1, not {seed!r}")
    preparation: dict[str, Any] = {
        "binarize": binarize,
        "scale": scale,
        "dequantize": dequantize,
        "pca": pca,
        "labels": labels,
    }
    hiding: dict[str, Any] = {"missing": missing, "missing_pattern": missing_pattern, "hide": hide}
    preparation |= {option: _listed(value) for option, value in hiding.items() if value is not None}
    _check_preparation(preparation)
    of_ones_own: dict[str, Any] = {
        "test": test,
        "kind": kind,
        "label_column": label_column,
        "columns": columns,
        "classes": classes,
        "image_size": image_size,
    }
    named = _is_named(name)
    of_tables = {
        "column_kinds": column_kinds,
        "likelihoods": likelihoods,
        "scaling": scaling,
        "missing_words": missing_words,
        "stream": stream,
    }
    if _is_table(name, None if named else kind):
        return _load_table(
            name,
            named,
            preparation | of_ones_own | of_tables | {"validation": validation},
            seed=seed,
            root=root,
            download=download,
        )
    for option, value in of_tables.items():
        if value is not None:
            raise ValueError(f"{option} is for tables; ask for one with the kind 'table', or leave it out")
    if named:
        for option, value in of_ones_own.items():
            if value is not None:
                raise ValueError(f"{option} is for data of your own; leave it out with the data set {name}")
        if isinstance(validation, str | Path):
            raise ValueError(f"validation of {name} must be a share or a number of its training rows, not a file")
        dataset = load_named(str(name), validation=validation, seed=seed, root=root, download=download)
        options = {"name": dataset.name, "validation": validation}
    else:
        dataset = own.load_own(name, validation=validation, seed=seed, **of_ones_own)
        options = dict(dataset.options)
    return replace(_prepared(dataset, seed, **preparation), options={**options, **preparation, "seed": seed})


@_on_cpu
def load_to_evaluate(
    name: str | Path, trained_on: Mapping[str, Any], kind: str, schema: Mapping[str, Any] | None = None
) -> Dataset:
    """Load data to evaluate a pair on that was trained on others, prepared as those were.

    Parameters
    ----------
    name : str or Path
        A name or a path, as for `load`. A file or folder without splits of its own is test rows as a whole.
    trained_on : mapping
        `Dataset.options` of the data that the pair was trained on; empty where they are not known.
    kind : str
        The kind of the data that the pair was trained on. It is what `name` must hold where `trained_on` is empty.
    schema : mapping, optional
        What the columns of the table are that the pair was trained on.

    Returns
    -------
    Dataset
        The data, with all their labels.

    Raises
    ------
    ValueError
        If the pair was trained on principal components, because those of other rows are others; and as `load` does.
    DataError
        As `load` does.
    """
    if trained_on.get("pca") is not None:
        raise ValueError(
            "the run was trained on principal components of its training rows, and those of other rows are others; "
            "leave out --data"
        )
    preparation = {key: trained_on[key] for key in ("binarize", "scale", "dequantize") if key in trained_on}
    seed = trained_on.get("seed", 0)
    if kind == TABLE and schema is not None:
        return _table_to_evaluate(name, trained_on, schema, seed)
    if _is_named(name):
        return load(name, **preparation, seed=seed)
    before = trained_on.get("kind") or kind
    entry = find_entry(str(trained_on.get("name", "")))
    if entry is not None and trained_on.get("kind") is None:
        before = entry.kind  # a named set does not store it
    reading = {key: trained_on.get(key) for key in ("label_column", "columns", "classes", "image_size")}
    dataset = own.load_whole(name, kind=before, **own.options_for(name, reading))
    options = {"name": str(name), **preparation, "seed": seed}
    return replace(_prepared(dataset, seed, **preparation), options=options)


def _is_table(name: str | Path, kind: str | None) -> bool:
    entry = find_entry(str(name))
    return kind == TABLE or (entry is not None and entry.kind == TABLE)


def _load_table(
    name: str | Path, named: bool, given: dict[str, Any], *, seed: int, root: str | Path | None, download: bool
) -> Dataset:
    """A table by name or from a file. `given` are options of `load`, those included that no table has."""
    stream = given.pop("stream")
    reading = {key: given.pop(key) for key in ("test", "column_kinds", "likelihoods", "scaling", "missing_words")}
    validation, columns, kind = given.pop("validation"), given.pop("columns"), given.pop("kind")
    for option, value in given.items():
        if value not in (None, False) and (option, value) != ("scale", "unit"):
            raise ValueError(f"{option} is not for tables; leave it out")
    options: dict[str, Any] = {"validation": _plain(validation), **reading, "test": _plain(reading["test"])}
    if reading["missing_words"] is not None:
        options["missing_words"] = list(reading["missing_words"])
    if named:
        if kind not in (None, TABLE):
            raise ValueError(f"kind is for data of your own; {name} is a table")
        if columns is not None:
            raise ValueError(f"columns is for data of your own; leave it out with the data set {name}")
        if stream:
            raise ValueError(f"stream is for .parquet files, and {name} is none")
        dataset = load_named(str(name), validation=validation, seed=seed, root=root, download=download, **reading)
        options = {"name": dataset.name, **options}
    else:
        streamed = is_streamed(name, columns, stream)
        if streamed or stream is not None:  # so that a resumed run reads it as before
            options["stream"] = streamed
        dataset = load_own_table(name, validation=validation, seed=seed, columns=columns, stream=streamed, **reading)
        columns = None if columns is None else list(columns)
        options = {"name": os.fspath(name), "kind": TABLE, "columns": columns, **options}
    if idle := idle_likelihoods(reading["likelihoods"], dataset.schema):
        raise ValueError(f"likelihoods names the kind {idle[0]!r}, and no column is of that kind; leave it out")
    return replace(dataset, options={**options, "seed": seed})


def _table_to_evaluate(
    name: str | Path, trained_on: Mapping[str, Any], schema: Mapping[str, Any], seed: int
) -> Dataset:
    from pyrovae.data.tables import TableCodec  # which imports pandas

    codec, words = TableCodec.from_dict(schema), trained_on.get("missing_words")
    if not _is_named(name):
        dataset = load_whole_table(name, codec, missing_words=words)
    elif _is_table(name, None):
        test = trained_on.get("test")
        test = None if isinstance(test, str) else test
        dataset = load_named(str(name), seed=seed, test=test, missing_words=words, codec=codec)
    else:
        raise ValueError(f"{name} is no table, and the run was trained on one")
    return replace(dataset, options={"name": str(name), "kind": TABLE, "seed": seed})


def _listed(value: Any) -> Any:
    """A tuple as a list, as it is read again from a configuration."""
    return list(value) if isinstance(value, tuple) else value


def _plain(wanted: float | str | Path | None) -> float | str | None:
    return os.fspath(wanted) if isinstance(wanted, Path) else wanted


def check_known(name: str | Path) -> None:
    """Check that there are data of this name, without reading them.

    Raises
    ------
    ValueError
        If it is neither the name of a data set nor a file or folder.
    """
    if not _is_named(name) and not Path(name).exists():
        raise ValueError(f"there is no file or folder {name}")


def _is_named(name: str | Path) -> bool:
    """Whether this is the name of a data set, and not a path.

    Raises
    ------
    ValueError
        If it is neither, listing the names.
    """
    if isinstance(name, str) and find_entry(name) is not None:
        return True
    if not own.is_path(name):
        known = ", ".join(info.name for info in available())
        raise ValueError(f"no data set, file or folder {str(name)!r}; known are {known}")
    return False


def _check_preparation(options: Mapping[str, Any]) -> None:
    if options["scale"] not in ("unit", "symmetric"):
        raise ValueError(f"scale must be 'unit' or 'symmetric', not {options['scale']!r}")
    if options.get("missing_pattern") is not None and options.get("missing") is None:
        raise ValueError("missing_pattern says what missing hides; give missing too, or leave it out")
    if "hide" in options and len(options["hide"]) != 2:
        raise ValueError(f"hide must be the lowest and the highest share to hide, got {options['hide']!r}")
    if options["binarize"] is not None and options["dequantize"]:
        raise ValueError("binarize and dequantize exclude each other: binary values have no intervals to fill")
    if options["binarize"] is not None and options["scale"] == "symmetric":
        raise ValueError("binarize and scale='symmetric' exclude each other: binary values are 0 and 1")


def _prepared(
    dataset: Dataset,
    seed: int,
    *,
    binarize: str | None = None,
    scale: str = "unit",
    dequantize: bool = False,
    pca: int | None = None,
    labels: float | None = None,
    missing: float | None = None,
    missing_pattern: str | None = None,
    hide: Sequence[float] | None = None,
) -> Dataset:
    if binarize is not None:
        dataset = binarized(dataset, binarize, seed)
    if dequantize:
        dataset = dequantized(dataset, seed)
    if scale == "symmetric":
        dataset = rescale_symmetric(dataset)
    if pca is not None:
        dataset = principal_components(dataset, pca)
    if labels is not None:
        dataset = hide_labels(dataset, labels, seed)
    if missing is not None:
        dataset = hide_in_training(dataset, missing, missing_pattern or "entries", seed)
    if hide is not None:
        dataset = hide_from_encoder(dataset, (hide[0], hide[1]))
    return dataset
