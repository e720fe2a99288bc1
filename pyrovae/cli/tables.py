"""The verb that looks at a table: `schema`."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path

from pyrovae.data.dataset import TABLE
from pyrovae.data.loading import load
from pyrovae.data.parquet_files import ParquetTable
from pyrovae.data.registry import find_entry
from pyrovae.data.schema import Schema
from pyrovae.data.streamed_loading import is_streamed, summarized
from pyrovae.data.table_files import read_table

_WIDEST = 30


def schema(options: argparse.Namespace) -> None:
    """Print what the columns of a file, or of a table by name, hold, and why."""
    separator = {"tab": "\t", "\\t": "\t"}.get(options.separator, options.separator)
    try:
        entry = None if Path(options.file).exists() else find_entry(str(options.file))
        if entry is not None and (entry.kind != TABLE or separator is not None):
            fault = "no table" if entry.kind != TABLE else "read without --separator"
            raise ValueError(f"{entry.name} is a data set by name, and {fault}; see pyrovae datasets {entry.name}")
        if entry is not None:
            found = Schema.from_dict((load(entry.name).schema or {})["schema"])
        elif separator is None and is_streamed(options.file, None, None):
            found = summarized(ParquetTable(options.file))
        else:
            found = Schema.infer(read_table(options.file, separator))
    except TypeError as error:
        raise ValueError(f"{options.file}: {error}") from None
    if options.json:
        print(json.dumps(found.to_dict()))
        return
    report = found.report()
    width = min(_WIDEST, max(map(len, ["column", *report["column"]])))
    print(f"{'column':{width}} {'kind':11} {'missing':>7}  values")
    for column, kind, values, missing, why in report.drop(columns="dtype").itertuples(index=False):
        print(f"{column:{width}} {kind:11} {missing:7.1%}  {textwrap.shorten(values, 70) or '-'}")
        print(f"{'':{width}} {'':11} {'':7}  {why}")
