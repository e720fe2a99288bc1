"""The arguments of the verbs that list and look: `schema`, `datasets` and `models`."""

from __future__ import annotations

from pyrovae.cli.parsing import Parser
from pyrovae.cli.values import path


def schema(verb: Parser) -> None:
    """Add the arguments of `schema`."""
    verb.add_argument(
        "file",
        type=path,
        metavar="FILE",
        help="a .csv, .csv.gz, .tsv or .parquet file; or a table of `pyrovae datasets`",
    )
    text = "what stands between the cells of a CSV file, or `tab` (default: found in the file)"
    verb.add_argument("--separator", metavar="SIGN", help=text)
    verb.add_argument("--json", action="store_true", help="print one JSON object")


def datasets(verb: Parser) -> None:
    """Add the arguments of `datasets`."""
    verb.add_argument("name", nargs="?", metavar="NAME", help="show all that is known of this one")
    verb.add_argument("--json", action="store_true", help="print one JSON list, or object with NAME")


def models(verb: Parser) -> None:
    """Add the arguments of `models`."""
    verb.add_argument("name", nargs="?", metavar="NAME", help="show the options of this one")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
