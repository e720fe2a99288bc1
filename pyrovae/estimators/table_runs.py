"""Runs of tables: what their training does not see, and what makes of them the same as a fitted `VAEImputer`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.dataset import TABLE, Dataset, DataSpec
from pyrovae.data.row_numbers import hidden_entries
from pyrovae.data.rows import Rows
from pyrovae.data.table_streams import TableStream
from pyrovae.data.tables import TableCodec
from pyrovae.estimators.nets import train_others
from pyrovae.estimators.prediction import Predictor, Sampling
from pyrovae.estimators.table_model import TableModel
from pyrovae.estimators.table_options import as_plain
from pyrovae.estimators.table_training import HELD_OUT, fit_trees, held_out
from pyrovae.pairs import table_defaults as defaults
from pyrovae.pairs.table_defaults import default_nets
from pyrovae.storage import load_tensors
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from pyrovae.runs.run import Run

logger = logging.getLogger(__name__)

_OF_THE_PAIR = {"latent_dim": "n_components"}
_OF_THE_DATA = {"column_kinds": "kinds"}
_FROM_DATA = ("kinds", "likelihoods", "scaling")


def hold_out(dataset: Dataset, seed: int, stored: DataSpec | None = None) -> Dataset:
    """The data without the entries of training rows on which trees and spreads are calibrated.

    Parameters
    ----------
    dataset : Dataset
        The data.
    seed : int
        Seed of these entries.
    stored : DataSpec, optional
        What a training that is resumed began with, which says what it does not see. None chooses.

    Returns
    -------
    Dataset
        The data. Their schema says what they lack.
    """
    if dataset.kind != TABLE or (stored is not None and "held_out" not in (stored.schema or {})):
        return dataset
    note = {"seed": seed, "share": HELD_OUT} if stored is None else dict((stored.schema or {})["held_out"])
    _, mask = _arrays(dataset.train)
    shown = torch.as_tensor(mask & ~_held_out(dataset, mask, note))
    schema = {**(dataset.schema or {}), "held_out": note}
    stream = dataset.stream
    if isinstance(stream, TableStream):  # in which the sampled rows come too
        stream = stream.hiding(float(note["share"]), int(note["seed"]))
    more = {**dataset.train.more, "recorded": torch.as_tensor(mask)}  # for a model of what is missing
    return replace(dataset, train=dataset.train.replace(mask=shown, more=more), stream=stream, schema=schema)


def is_done(run: Run) -> bool:
    """Whether trees, latents and spreads are those of the weights in the folder."""
    return (run.spec.schema or {}).get("finished") == _weights(run)


def finish(run: Run, dataset: Dataset, device: str = "cpu", progress: bool = False) -> dict[str, Any]:
    """Fit trees and the density of the latents, calibrate them, and write them into the folder of a run.

    Nothing is learned from test rows. Trees and spreads are calibrated on the entries of the training rows that the
    training did not see, or, of a training that saw all of them, on the validation rows.

    Parameters
    ----------
    run : Run
        The run, trained.
    dataset : Dataset
        Its data, nothing held out.
    device : str, default "cpu"
        Where to compute.
    progress : bool, default False
        Show progress of the trees.

    Returns
    -------
    dict
        What the schema of the run gains.
    """
    schema = run.spec.schema or {}
    codec, options = TableCodec.from_dict(schema), run.config.get("finishing", {})
    note, seed = schema.get("held_out"), int(run.config["training"].get("seed") or 0)
    scaled, mask = _arrays(dataset.train)
    held = np.zeros_like(mask) if note is None else _held_out(dataset, mask, note)
    done, validation = _weights(run), dataset.validation
    vae = run.load_vae(device).double().eval()
    can_be_weighed = bool(held.any()) or len(validation) > 0
    # Trees take values as missing at random.
    ignorable = getattr(vae.model, "missingness", None) is None
    with_trees = options.get("trees", True) and can_be_weighed and ignorable
    trees = fit_trees(codec, scaled, mask & ~held, seed, verbose=progress) if with_trees else None
    others = _others(run, dataset, vae, progress) if ignorable else ()
    variants = len(defaults.VARIANTS) if others else 1
    model = TableModel(Predictor(codec, vae, trees, others=others, num_variants=variants))
    model.finish(scaled, mask, held, seed, training=run.config["training"])
    if not held.any() and len(validation) and ignorable:
        model.calibrate(validation, seed)
    if not can_be_weighed and ignorable:
        why = "its training saw all entries" if note is None else "its columns have too few entries to hold some out"
        logger.warning("%s is not calibrated: %s, and there are no validation rows", run.folder.path, why)
    model.save_parts(run.folder.path)
    more = {"trees": with_trees, "num_nets": 1 + len(others), "seed": seed}
    return {**model.found(), "settings": _settings(run, more), "finished": done}


def load(folder: Path, device: str = "cpu") -> tuple[TableModel, Sampling]:
    """What completes the rows of a run, and how: as `VAEImputer.load` has it."""
    model, settings = TableModel.load(folder, device)
    usual = Sampling()
    chosen = (settings.get("num_samples", usual.num_samples), settings.get("weights", usual.weights))
    return model, Sampling(*chosen, seed=int(settings.get("seed", 0)))


def _held_out(dataset: Dataset, mask: NDArray[np.bool_], note: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Entries of the rows at hand that the training does not see. Of a stream they are told by the rows' numbers."""
    share, seed = float(note["share"]), int(note["seed"])
    if dataset.stream is None or dataset.train.index is None:
        return held_out(mask, seed)
    return mask & hidden_entries(dataset.train.index.cpu().numpy(), mask.shape[1], share, seed)


def _others(run: Run, dataset: Dataset, first: VAE, progress: bool) -> tuple[VAE, ...]:
    """The nets beside that of the run, each trained as it was, in a folder of its own."""
    training = {name: value for name, value in run.config["training"].items() if name != "seed"}
    number = run.config.get("finishing", {}).get("num_nets", defaults.NUM_NETS)
    if not training.keys() >= {"epochs", "batch_size"}:  # the training was none of a run, and how it went is not known
        return ()
    if number is None:
        number = default_nets(len(dataset.train), training["batch_size"], training["epochs"])
    if number > 1 and dataset.stream is not None:
        logger.info("%s has one net, since its rows are read in chunks", run.folder.path)
        return ()
    if number > 1:
        logger.info("%s: %d nets more, beside the one that is trained", run.folder.path, number - 1)
    shown = hold_out(dataset, 0, run.spec)
    pair = {name: tuple(v) if isinstance(v, list) else v for name, v in run.config["pair_options"].items()}
    return train_others(
        replace(shown, schema=dataset.schema),
        pair,
        {**training, "progress": progress},
        first,
        num_nets=number,
        variants=defaults.VARIANTS,
        seed=int(run.config["training"].get("seed") or 0),
        folder=run.folder.path,
    )


def _settings(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `VAEImputer` that is the same as the run, as far as it has them."""
    from pyrovae.estimators.imputer import VAEImputer  # which stands on models that stand on runs

    data = {_OF_THE_DATA.get(name, name): value for name, value in run.config["data"].items() if value is not None}
    pair = {option.name: option.default for option in run.pair.options} | run.config["pair_options"]
    named = {_OF_THE_PAIR.get(name, name): value for name, value in pair.items()}
    named |= {**run.config["training"], **{name: data[name] for name in _FROM_DATA if name in data}, **found}
    if named["missingness"] != "ignorable" and str(named.get("kl_weight")) in ("1", "1.0"):
        # Training hid entries, which the guide cannot tell from missing ones. Weights put that right.
        named |= {"weights": "importance", "num_samples": 1000}
    known = {*VAEImputer._get_param_names(), "seed"} - {"random_state", "verbose", "device"}
    return {**as_plain({name: value for name, value in named.items() if name in known}), "has_names": True}


def _weights(run: Run) -> dict[str, Any]:
    """Which weights the folder has."""
    _, information = load_tensors(run.folder.weights_path)
    return {name: information.get(name) for name in ("epoch", "value")}


def _arrays(rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scaled values in float64, and their mask."""
    x = rows.x.cpu().double().numpy()
    mask = np.ones(x.shape, dtype=bool) if rows.mask is None else rows.mask.cpu().numpy()
    return x, mask
