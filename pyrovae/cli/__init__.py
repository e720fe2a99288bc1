"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, see `pyrovae.cli.command.main`. Its modules are imported here, where Ctrl-C is one line."""
    try:
        from pyrovae.cli.command import main as run
    except KeyboardInterrupt:
        print("pyrovae: interrupted", file=sys.stderr)
        return 130
    return run(arguments)
