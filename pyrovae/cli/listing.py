"""The verbs that list what there is: `datasets` and `models`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Sequence

from pyrovae import data
from pyrovae.cli.options import described, flag
from pyrovae.pairs.registry import find_pair, pairs

_KINDS = {
    "binary": "0 or 1",
    "unit": "from 0 to 1; with --binarize dynamic 0 or 1, which have a likelihood",
    "symmetric": "from -1 to 1",
    "8-bit": "bytes, from 0 to 255",
    "real": "any number",
    "table": "columns of kinds of their own, see pyrovae train tabular",
}


def datasets(options: argparse.Namespace) -> None:
    """Print the data sets, and where they are, or all that is known of one.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    found = data.available()
    if options.name is not None:
        _show(options.name, found, options.json)
        return
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in found]))
        return
    print(f"{'name':17} {'shape':9} {'train/val/test':18} values")
    for info in found:
        shape, sizes = "x".join(map(str, info.shape)), "/".join(map(str, info.sizes))
        print(f"{info.name:17} {shape:9} {sizes:18} {info.kind:6} {info.summary}")
        print(f"{'':17} {info.location}")
    print("\nAll of one: pyrovae datasets NAME")
    print("Data of your own: pyrovae train PAIR --data FILE (.npy, .npz, .pt, .csv, or a folder of pictures)")
    print("A table of your own: pyrovae train tabular --data FILE (.csv, .csv.gz, .tsv or .parquet)")


def _show(name: str, found: Sequence[data.DatasetInfo], as_json: bool) -> None:
    info = next((info for info in found if info.name == name.replace("_", "-").lower()), None)
    if info is None:
        known = ", ".join(info.name for info in found)
        raise ValueError(f"there is no data set {name!r}; known are {known}")
    if as_json:
        print(json.dumps(dataclasses.asdict(info)))
        return
    table = info.kind == "table"
    shape = f"{info.shape[0]} columns" if table else " x ".join(map(str, info.shape))
    train, validation, test = info.sizes
    rows = f"{train} for training, {validation} for validation, {test} for tests"
    lines = {"what": info.summary, "shape": shape, "values": f"{info.kind}: {_KINDS[info.kind]}", "rows": rows}
    lines |= {"where from": info.source, "here": _place(info)}
    pair = "tabular" if table else "gaussian"
    grey = " --binarize dynamic" if info.kind == "unit" else ""
    lines["to begin"] = f"pyrovae train {pair} --data {info.name}{grey} --evaluate"
    print(info.name)
    for label, text in lines.items():
        print(f"  {label:11} {text}")


def _place(info: data.DatasetInfo) -> str:
    """Where a data set is, or how to get it."""
    if info.location == "embedded":
        return "built in: it needs no file and no network"
    if info.location == "to be downloaded":
        return "not yet: the first use downloads it into the cache folder, and compares its checksum"
    return info.location


def models(options: argparse.Namespace) -> None:
    """Print the pairs with their options, or one of them.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    found = pairs() if options.name is None else [find_pair(options.name)]
    if options.json:
        listed = [
            {
                "name": pair.name,
                "summary": pair.summary,
                "options": {
                    o.name: {"default": o.default, "help": o.help, "choices": o.choices} for o in pair.all_options
                },
            }
            for pair in found
        ]
        print(json.dumps(listed))
        return
    for pair in found:
        print(f"{pair.name}: {pair.summary}\n")
        for option in pair.all_options:
            text = textwrap.wrap(described(option), 72, break_on_hyphens=False)
            print(f"  {flag(option.name):24}", f"\n{'':27}".join(text))
    print("\nA pair of your own: pyrovae train mymodule:make_vae --data FILE_OR_NAME")
