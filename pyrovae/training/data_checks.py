"""All rows of a training, looked at once before its first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data.checking import check_dataset, check_given, check_labels
from pyrovae.data.dataset import Dataset, Rows
from pyrovae.rng import forked
from pyrovae.support import SupportCheck
from pyrovae.training.batching import Batches, HeldBatches
from pyrovae.training.checks import trying
from pyrovae.training.data import TrainingData
from pyrovae.training.state import TrainingState
from pyrovae.vae import VAE


def check_rows_given(data: Any, parts: TrainingData, vae: VAE) -> None:
    """Refuse data that contradict what is said of them: their kind, their masks, their labels.

    Parameters
    ----------
    data : object
        The data as they were given.
    parts : TrainingData
        What was made of them.
    vae : VAE
        The pair.

    Raises
    ------
    ValueError
        Naming the split, the row, what was seen and what is expected.
    """
    if isinstance(data, Dataset):
        check_dataset(data)
    classes = None if vae.made_by is None else vae.made_by.spec.num_classes
    for name, rows in (("train", parts.train), ("validation", parts.validation)):
        if isinstance(rows, Rows):
            if not isinstance(data, Dataset):
                check_given(rows, name)
            if classes is not None:
                check_labels(rows, name, classes)


def check_support(check: SupportCheck, vae: VAE, batches: Batches, name: str, *, progress: bool) -> None:
    """Refuse rows that the pair cannot have observed; all of them are looked at, a batch at a time.

    The batches of a stream are looked at as they come, in the first epoch.

    Parameters
    ----------
    check : SupportCheck
        The check, made for the pair.
    vae : VAE
        The pair.
    batches : Batches
        The rows.
    name : str
        The split, for the message.
    progress : bool
        Whether to show a bar where it takes over two seconds.

    Raises
    ------
    ValueError
        Naming the row, the entry, the value and what is expected.
    """
    if not isinstance(batches, HeldBatches):
        return
    whole = torch.arange(batches.total)
    options = {"desc": f"checking {name} rows", "delay": 2, "leave": False, "disable": not progress}
    with forked(), tqdm(total=batches.total, unit="row", **options) as bar:
        for start in range(0, batches.num_batches * batches.batch_size, batches.batch_size):
            index = whole[start : start + batches.batch_size]
            _check_part(check, vae, batches.some(index), name, start)
            bar.update(len(index))


def check_stream(check: SupportCheck, vae: VAE, rows: Rows, state: TrainingState, start: int = 0) -> None:
    """Refuse rows of a batch of a stream that the pair cannot have observed. Their places in it begin at `start`."""
    x, given = arguments(vae, rows)
    with forked():
        check.check(x, given, lambda row: f"row {start + row} of batch {state.batch + 1} of the stream")


def _check_part(check: SupportCheck, vae: VAE, rows: Rows, name: str, start: int) -> None:
    x, given = arguments(vae, rows)
    where = f"{name} rows {start} to {start + len(x) - 1}"
    with trying(where, x, given):
        check.check(x, given, lambda row: f"{name} row {start + row}")
        bad = _covariate(rows)
        if bad is not None and not _survives(vae, x, given):
            named, place, value = bad
            entry = f", entry {place[1:] if len(place) > 2 else place[1]}" if len(place) > 1 else ""
            raise ValueError(
                f"{named} of {name} row {start + place[0]}{entry} is {value:g}, and the pair makes no finite number of "
                "it; leave the row out, or give a finite value"
            )


def _covariate(rows: Rows) -> tuple[str, tuple[int, ...], float] | None:
    """The first entry of a further argument that is not finite."""
    for name, value in rows.more.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            wrong = ~value.isfinite()
            if bool(wrong.any()):
                place = tuple(wrong.nonzero()[0].tolist())
                return name, place, value[place].item()
    return None


@torch.no_grad()
def _survives(vae: VAE, x: Tensor, given: dict[str, Any]) -> bool:
    """Whether the bound of all rows is finite, so that the programs know what to do with such entries."""
    try:
        with programs.evaluating(vae), vae.scope():
            _, nll, kl = vae.bound_terms(x, **given)
    except ValueError:  # a distribution refused its arguments
        return False
    return bool((nll + kl).isfinite().all())
