"""What the command line does with runs of tables: the verb `impute`, and samples of a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.cli.writing import TABLES, check_out, has_index, write_frame, write_text
from pyrovae.cli.written_cells import WrittenCells
from pyrovae.data.dataset import TABLE
from pyrovae.data.table_files import read_table
from pyrovae.distributed import in_parts, processes
from pyrovae.plain import plain
from pyrovae.runs import Run, pick_device
from pyrovae.runs.posteriors import FIT_STEPS

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.data.columns import Column
    from pyrovae.data.schema import Schema
    from pyrovae.estimators import VAEImputer

# Estimators import pandas and much of scikit-learn, so they are imported in the functions.

DRAW = "{draw}"
"""What stands for the number of a draw in the name of a file."""


def impute(options: argparse.Namespace) -> None:
    """Complete a table by a run of a table, and write it to a file.

    Raises
    ------
    ValueError
        For a run of other data, a table of other columns, impossible numbers, another ending of the file, and a file
        that is there already.
    """
    _check_numbers(options)
    paths = [options.out]
    if DRAW in options.out.name:
        paths = [_numbered(options.out, number) for number in range(1, options.draws + 1)]
    with processes().together():
        check_out(paths, options.overwrite, TABLES, " for a table")
    run = Run.open(options.run)
    if run.spec.kind != TABLE:
        raise ValueError(f"{options.run} is a run of the pair {run.pair.name}, whose data are no table")
    _spare_training_data(options.out, run)
    if run.pair.name != "auto-decoder":
        if options.seed is not None and options.draws is None:
            raise ValueError("--seed is for --draws; the best table has no draws, so leave it out")
        if options.fit_steps != FIT_STEPS:
            raise ValueError(f"--fit-steps is for runs of the pair auto-decoder, and {options.run} has an encoder")
    frame = _table_of(options.input, run)
    if options.draws is not None and len(paths) == 1:
        _check_new(["draw"], frame)
    if options.intervals is not None:
        _check_new([end for column in _schema_of(run).columns for end in _ends(column)], frame)
    cells = WrittenCells.of(options.input, frame)
    if run.pair.name == "auto-decoder":
        if processes().several:
            raise ValueError("a run of the pair auto-decoder imputes in one process; start it without torchrun")
        _impute_by_rows(options, run, frame, paths, cells)
        return
    imputer = _imputer(run, options.device)
    asked = options.draws is not None or options.intervals is not None
    if asked and not imputer.model_.is_calibrated and processes().first:
        print(f"note: draws and intervals of {options.run} are not calibrated", file=sys.stderr)
    schema = imputer.schema_
    if options.draws is None:
        complete = _whole(in_parts(imputer.transform, frame), frame)
        if options.intervals is not None:
            parts = in_parts(lambda part: imputer.intervals(part, options.intervals), frame)
            low, high = (_whole([part[end] for part in parts], frame) for end in (0, 1))
            complete = _with_intervals(complete, low, high, schema)
        _write(complete, options.out, schema, cells)
    else:
        parts_of_draws = in_parts(lambda part: imputer.impute_draws(part, options.draws, options.seed), frame)
        drawn = [_whole([part[number] for part in parts_of_draws], frame) for number in range(options.draws)]
        tables = drawn if DRAW in options.out.name else [_stacked(drawn)]
        for table, path in zip(tables, paths, strict=True):
            _write(table, path, schema, cells)
    _tell(options, frame, _schema_of(run))


def _spare_training_data(out: Path, run: Run) -> None:
    """Refuse to write over the table that the run was trained on.

    Raises
    ------
    ValueError
        Naming it.
    """
    name = str(run.config["data"].get("name"))
    if out.exists() and Path(name).exists() and out.samefile(name):
        raise ValueError(f"{out} is the table that {run.folder.path} was trained on; give another --out")


def _whole(parts: Sequence[pd.DataFrame], frame: pd.DataFrame) -> pd.DataFrame:
    """Tables of parts of the rows as one."""
    import pandas as pd

    return parts[0] if len(parts) == 1 else pd.concat(parts).set_axis(frame.index)


def _tell(options: argparse.Namespace, frame: pd.DataFrame, schema: Schema) -> None:
    if not processes().first:
        return
    empty = [column.name for column in schema.columns if column.kind == "missing" and frame[column.name].isna().any()]
    for name in empty:
        print(
            f"note: {name!r} had no value in the training, so nothing is known of it; it stays empty", file=sys.stderr
        )
    observed = schema.encode(frame[list(schema.names)], unseen="missing")[1]
    for place, column in enumerate(schema.columns):
        there = frame[column.name].notna().to_numpy()
        values = frame[column.name][there & ~np.asarray(observed)[:, place]]
        if len(values) and column.name not in empty:
            first = plain(values.iloc[0])
            count = f"{len(values)} of {int(there.sum())} entries"
            print(
                f"note: {column.name!r} has {first!r}, which the column cannot have; it stays and counts as "
                f"missing ({count})",
                file=sys.stderr,
            )
    missing = int(frame.drop(columns=empty).isna().to_numpy().sum())
    times = f", {options.draws} times" if options.draws is not None else ""
    print(f"{missing} of {frame.size} entries filled{times}: {options.out}")


def _impute_by_rows(
    options: argparse.Namespace, run: Run, frame: pd.DataFrame, paths: Sequence[Path], cells: WrittenCells | None
) -> None:
    """Complete a table by posteriors that are fitted to its rows."""
    from pyrovae.cli.row_imputing import completed

    if options.intervals is not None:
        raise ValueError("--intervals is for runs of the pair tabular, which are calibrated; --draws shows the spread")
    device = pick_device(options.device)
    tables = completed(run, frame, options.draws, options.seed or 0, device, options.fit_steps)
    if options.draws is not None and len(paths) == 1:
        tables = [_stacked(tables)]
    for table, path in zip(tables, paths, strict=True):
        _write(table, path, _schema_of(run), cells)
    _tell(options, frame, _schema_of(run))


def _check_numbers(options: argparse.Namespace) -> None:
    if options.draws is not None and options.intervals is not None:
        raise ValueError("--draws and --intervals exclude each other: intervals are of the single completed table")
    if options.draws is not None and options.draws < 1:
        raise ValueError(f"--draws must be at least 1, got {options.draws}")
    if options.intervals is not None and not 0 < options.intervals < 1:
        raise ValueError(f"--intervals must be between 0 and 1, got {options.intervals}")
    if options.draws is None and DRAW in options.out.name:
        raise ValueError(f"{DRAW} in --out stands for the numbers of draws, so it needs --draws N")


def sample_table(options: argparse.Namespace) -> None:
    """Draw rows of a table into a file.

    Raises
    ------
    ValueError
        For options that are for other data, an unknown column, a value that a column cannot have, another ending, and a
        file that is there already.
    """
    check_out([options.out], options.overwrite, TABLES, " for a table")
    for option, given in (("--condition", options.condition), ("--like", options.like), ("--data", options.data)):
        if given is not None:
            raise ValueError(f"{option} is not for runs of tables; --given COLUMN=VALUE fixes columns")
    if options.output != "draw":
        raise ValueError(f"--output {options.output} is not for runs of tables, whose samples are draws")

    from pyrovae.estimators.given import check_given

    run = Run.open(options.run)
    schema = _schema_of(run)
    given = dict(_value_of(schema, name, text) for name, text in options.given or ())
    check_given(schema, given)
    frame = _imputer(run, options.device).sample(options.num, given, options.seed)
    for column in schema.columns:
        if column.kind != "missing" and frame[column.name].isna().any():
            raise ValueError(
                f"the samples of the column {column.name!r} hold NaN, so {options.out} is not written; look at the "
                "weights of the run"
            )
    _write(frame, options.out, schema)
    print(f"{options.num} rows in {options.out}")


def _imputer(run: Run, device_name: str) -> VAEImputer:
    """The run as the estimator, for tables whose columns have names."""
    from pyrovae.estimators import VAEImputer

    device = pick_device(device_name)
    processes().on_first(lambda: run.finish(device=device, progress=True))
    imputer = VAEImputer.load(run.folder.path, device)
    imputer.feature_names_in_ = imputer.schema_.feature_names  # also if it was fitted on an array
    return imputer


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(path.name.replace(DRAW, str(number)))


def _schema_of(run: Run) -> Schema:
    from pyrovae.data.schema import Schema

    return Schema.from_dict((run.spec.schema or {})["schema"])


def _table_of(path: Path, run: Run) -> pd.DataFrame:
    """The table of a file, with the words for missing entries that the run was trained with.

    Raises
    ------
    ValueError
        If it has other columns than the run.
    """
    from pyrovae.data.table_frames import without_words

    schema = _schema_of(run)
    frame = without_words(read_table(path), run.config["data"].get("missing_words") or ())
    for name in schema.names:
        if name not in frame:
            raise ValueError(f"{path} lacks the column {name!r} of the run")
    for name in frame:
        if name not in schema.names:
            raise ValueError(f"{path} has the column {name!r}, which the run does not have; leave it out")
    try:
        schema.encode(frame, unseen="missing")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return frame


def _as_text(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The table with whole numbers as such, which pandas reads as 3.0 from a CSV file with missing entries."""
    changed = frame.copy()
    for column in schema.columns:
        for name in (column.name, f"{column.name}_low", f"{column.name}_high"):
            if name not in frame or frame[name].dtype.kind != "f" or frame[name].isna().any():
                continue
            if (column.integer or column.levels is not None) and (frame[name] % 1 == 0).all():
                changed[name] = frame[name].astype("int64")
    return changed


def _stacked(drawn: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    for number, part in enumerate(drawn, 1):
        part.insert(0, "draw", number)
    return pd.concat(drawn, ignore_index=isinstance(drawn[0].index, pd.RangeIndex))


def _with_intervals(complete: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The completed table with the ends of intervals beside each column that has an order."""
    import pandas as pd

    ends: dict[str, Any] = {}
    for column in schema.columns:
        ends[column.name] = complete[column.name]
        ends |= {name: end[column.name] for name, end in zip(_ends(column), (low, high), strict=False)}
    return pd.DataFrame(ends)


def _ends(column: Column) -> tuple[str, ...]:
    """The names of the ends of the intervals of a column; none if it has no order."""
    has_order = column.kind in ("real", "positive", "count", "ordinal")
    return (f"{column.name}_low", f"{column.name}_high") if has_order else ()


def _check_new(names: Sequence[str], frame: pd.DataFrame) -> None:
    for name in names:
        if name in frame:
            raise ValueError(f"the table has a column {name!r} already, and the result needs one; rename it")


def _value_of(schema: Schema, name: str, text: str) -> tuple[str, Any]:
    """The value of a column from what was typed.

    Raises
    ------
    ValueError
        For an unknown column, and for a value that the column cannot have.
    """
    columns: Mapping[str, Column] = {column.name: column for column in schema.columns}
    if name not in columns:
        raise ValueError(f"--given names {name!r}, which is no column; columns are {', '.join(columns)}")
    column = columns[name]
    if column.levels is not None:
        by_text = {_shown(level): level for level in column.levels}
        if all(isinstance(level, bool) for level in column.levels):
            text = text.title() if text.title() in by_text else text  # files write true, TRUE and True
        if text not in by_text and not _is_number_of(text, column.levels):
            known = ", ".join(list(by_text)[:20]) + (", ..." if len(by_text) > 20 else "")
            raise ValueError(f"--given {name}={text}: the levels of {name} are {known}")
        return name, by_text[text] if text in by_text else float(text)
    if column.origin is not None:
        import pandas as pd

        try:
            return name, pd.Timestamp(text)
        except ValueError:
            raise ValueError(f"--given {name}={text}: {name} holds dates, such as 2024-01-31") from None
    try:
        return name, float(text)
    except ValueError:
        raise ValueError(f"--given {name}={text}: {name} holds numbers") from None


def _shown(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def _is_number_of(text: str, levels: Sequence[Any]) -> bool:
    """Whether a text is another way to write one of some levels that are numbers, such as 1.0 for 1."""
    try:
        return any(not isinstance(level, bool | str) and float(text) == level for level in levels)
    except ValueError:
        return False


def _write(frame: pd.DataFrame, path: Path, schema: Schema, cells: WrittenCells | None = None) -> None:
    if not processes().first:
        return
    if path.name.lower().endswith(".parquet"):
        write_frame(frame, path)
        return
    index = has_index(frame)
    text = _as_text(frame, schema).to_csv(index=index)
    write_text(text if cells is None else cells.put_into(text, schema, index=index), path)
