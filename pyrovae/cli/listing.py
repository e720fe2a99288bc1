"""The verbs that list what there is: `datasets` and `models`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap

from pyrovae import data
from pyrovae.cli.options import described, flag
from pyrovae.pairs.registry import pairs


def datasets(options: argparse.Namespace) -> None:
    """Print the data sets, and where they are."""
    found = data.available()
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in found]))
        return
    print(f"{'name':17} {'shape':9} {'train/val/test':18} values")
    for info in found:
        shape, sizes = "x".join(map(str, info.shape)), "/".join(map(str, info.sizes))
        print(f"{info.name:17} {shape:9} {sizes:18} {info.kind:6} {info.summary}")
        print(f"{'':17} {info.location}")
    print("\nData of your own: pyrovae train PAIR --data FILE (.npy, .npz, .pt, .csv, or a folder of pictures)")
    print("A table of your own: pyrovae train tabular --data FILE (.csv, .csv.gz, .tsv or .parquet)")


def models(options: argparse.Namespace) -> None:
    """Print the pairs with their options."""
    if options.json:
        listed = [
            {
                "name": pair.name,
                "summary": pair.summary,
                "options": {
                    o.name: {"default": o.default, "help": o.help, "choices": o.choices} for o in pair.all_options
                },
            }
            for pair in pairs()
        ]
        print(json.dumps(listed))
        return
    for pair in pairs():
        print(f"{pair.name}: {pair.summary}\n")
        for option in pair.all_options:
            text = textwrap.wrap(described(option), 72, break_on_hyphens=False)
            print(f"  {flag(option.name):24}", f"\n{'':27}".join(text))
    print("\nA pair of your own: pyrovae train mymodule:make_vae --data FILE_OR_NAME")
