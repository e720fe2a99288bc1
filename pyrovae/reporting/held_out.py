"""Tables of held-out figures: of the splits of a run, or of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrovae.metrics import known_figures
from pyrovae.reporting.page import Cell, Row, Table
from pyrovae.reporting.words import in_full, lines_of, with_error

_ERRORS = ("standard_error", "standard_errors", "sampling_error")
_OF_THE_EVALUATION = ("run", "data", "split")
_LONG = 12  # lines of one figure, which are then shown on a click


def tables_of(columns: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Tables of figures, with a column for each evaluation.

    Parameters
    ----------
    columns : mapping of str to mapping
        Figures as `Run.evaluate` returns them, by the heading of the column.

    Returns
    -------
    list of Table
        Figures of one number in the first table; those of several in one each. A figure that an evaluation does not
        have is "-".
    """
    known = known_figures()
    names = [name for name in known if any(name in part for part in columns.values())]
    names += [n for n in dict.fromkeys(n for part in columns.values() for n in part) if n not in known]
    single: list[Row] = []
    nested: list[Table] = []
    for name in names:
        if name in (*_ERRORS, *_OF_THE_EVALUATION):
            continue
        values = {heading: part.get(name) for heading, part in columns.items()}
        unit, meaning = (known[name].unit, known[name].meaning.replace("`", "")) if name in known else ("", "")
        title = f"{name.replace('_', ' ')}{f', {unit}' if unit else ''}"
        if any(isinstance(value, Mapping | list | tuple) for value in values.values()):
            nested.append(_nested(name, title, values))
            continue
        cells = [
            Cell("-") if name not in part else Cell(with_error(part[name], _error(part, name)), in_full(part[name]))
            for part in columns.values()
        ]
        single.append(Row(title, cells, meaning, name))
    first = Table(("", *columns), single, "Values with their standard errors over the rows, where these are known")
    return [first, *nested]


def _error(figures: Mapping[str, Any], name: str) -> float | None:
    """The standard error of a figure, if it is known."""
    if name in ("log_likelihood", "cross_entropy"):
        return figures.get("standard_error")
    likelihood, error = figures.get("log_likelihood"), figures.get("standard_error")
    if name in ("nll_per_entry", "nll_per_entry_raw") and likelihood and error is not None:
        # The likelihood by the number of entries, which is fixed, and in raw units shifted by a constant.
        return abs(float(error * figures["nll_per_entry"] / likelihood))
    return (figures.get("standard_errors") or {}).get(name)


def _nested(name: str, title: str, values: Mapping[str, Any]) -> Table:
    """A figure of several numbers, a line for each."""
    lines = {heading: dict(lines_of(name, value)) for heading, value in values.items()}
    paths = list(dict.fromkeys(path for found in lines.values() for path in found if len(path) > 1))
    two_names = all(len(path) == 3 for path in paths) and len(values) == 1
    if two_names:
        (found,) = lines.values()
        across = list(dict.fromkeys(path[2] for path in paths))
        rows = [
            Row(
                line,
                [_cell(found, (name, line, column)) for column in across],
                key=f"{name}.{line}",
            )
            for line in dict.fromkeys(path[1] for path in paths)
        ]
        return Table(("", *across), rows, title, folded=len(rows) > _LONG)
    rows = [
        Row(" · ".join(path[1:]), [_cell(found, path) for found in lines.values()], key=".".join(path))
        for path in paths
    ]
    return Table(("", *values), rows, title, folded=len(rows) > _LONG)


def _cell(found: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Cell:
    return Cell(with_error(found[path], None), in_full(found[path])) if path in found else Cell("-")
