"""What a run folder holds of its weights: figures of the training, errors of hidden entries, the inference gap."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyrovae.metrics import InferenceGap
from pyrovae.metrics.missing import MissingError
from pyrovae.runs import evaluations
from pyrovae.storage import load_information, write_atomically
from pyrovae.training.checkpoint import RunFolder

GAP_FILE = "inference-gap.csv"
STALE = "errors of missing entries ({way}) were measured with earlier weights, and are left out"
"""What to say of such errors."""
_PREFIX = "missing-"
_WEIGHTS, _SPLIT = "weights", "split"
"""Columns of these files beside the figures: the digest of the weights that were measured, and the rows."""


class Curves(NamedTuple):
    """Errors of hidden entries, by how they were measured."""

    fresh: dict[str, list[MissingError]]
    """Those of the present weights."""
    stale: list[str]
    """How those of earlier weights were measured."""


class Gap(NamedTuple):
    """The inference gap of some rows."""

    bounds: InferenceGap | None
    """None if there is none of the present weights."""
    split: str
    """The rows."""
    is_stale: bool
    """Whether there is one of earlier weights."""


def keep_errors(folder: RunFolder, way: str, split: str, weights: str, errors: Sequence[MissingError]) -> Path:
    """Write errors of hidden entries into a run folder, in place of earlier ones that were measured the same way.

    `weights` is the digest of what was measured, taken when it was loaded: a training may go on meanwhile.
    """
    path = folder.path / f"{_PREFIX}{way}.csv"
    write_atomically(path, _as_csv(split, weights, MissingError._fields, errors))
    return path


def errors_of(folder: RunFolder) -> Curves:
    """The errors of hidden entries that a run folder holds.

    Raises
    ------
    ValueError
        If a file is damaged.
    """
    curves, present = Curves({}, []), _present(folder)
    for path in sorted(folder.path.glob(f"{_PREFIX}*.csv")):
        way = path.stem.removeprefix(_PREFIX)
        try:
            lines = list(csv.DictReader(path.read_text().splitlines()))
            errors = [MissingError._make(float(line[name]) for name in MissingError._fields) for line in lines]
            fresh = _is_of(present, lines)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is damaged; evaluate --missing writes it again") from None
        if errors and fresh:
            curves.fresh[way] = errors
        elif errors:
            curves.stale.append(way)
    return curves


def keep_gap(folder: RunFolder, split: str, weights: str, gap: InferenceGap) -> Path:
    """Write the bounds of rows into a run folder, a line for each; `weights` as in `keep_errors`."""
    path = folder.path / GAP_FILE
    lines = zip(*(values.double().tolist() for values in gap), strict=True)
    write_atomically(path, _as_csv(split, weights, gap._fields, lines))
    return path


def gap_of(folder: RunFolder) -> Gap:
    """The inference gap that a run folder holds.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = folder.path / GAP_FILE
    try:
        lines = list(csv.DictReader(path.read_text().splitlines()))
        columns = {name: torch.tensor([float(line[name]) for line in lines]) for name in InferenceGap._fields}
        fresh, split = _is_of(_present(folder), lines), lines[0].get(_SPLIT, "") if lines else ""
    except FileNotFoundError:
        return Gap(None, "", is_stale=False)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is damaged; evaluate --inference-gap writes it again") from None
    return Gap(InferenceGap(**columns) if lines and fresh else None, split, is_stale=bool(lines) and not fresh)


def point_figures(folder: RunFolder) -> dict[str, Any]:
    """The figures of a run as a row of a sweep has them: those of its best epoch, and of the test rows where known."""
    rows, best = folder.read_metrics(), int(load_information(folder.state_path)["best_epoch"])
    figures: dict[str, Any] = {"best_epoch": best, "epochs_done": len(rows)}
    figures |= {
        name: value for name, value in rows[best - 1].items() if name == "loss" or name.startswith("validation_")
    }
    figures["seconds"] = sum(row.get("seconds", 0.0) for row in rows)
    kept = evaluations.kept(folder).get("test")
    if kept is not None and kept.weights == evaluations.weights_digest(folder):
        figures |= {f"test_{name}": value for name, value in kept.figures.items() if isinstance(value, int | float)}
    return figures


def _as_csv(split: str, weights: str, names: Iterable[str], lines: Iterable[Iterable[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, _SPLIT, _WEIGHTS])
    writer.writerows([*line, split, weights] for line in lines)
    return text.getvalue()


def _present(folder: RunFolder) -> str | None:
    """The digest of the present weights; None without any."""
    return evaluations.weights_digest(folder) if folder.weights_path.exists() else None


def _is_of(weights: str | None, lines: Sequence[Mapping[str, str]]) -> bool:
    """Whether figures are of these weights."""
    return weights is not None and {line.get(_WEIGHTS) for line in lines} == {weights}
