"""The command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, see `pyrovae.cli.command.main`. Its modules are imported here, where Ctrl-C is one line."""
    if "RANK" in os.environ:  # else torch writes thirty lines where the first process has ended, before ours
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # which torch reads when it is imported
    try:
        from pyrovae.cli.command import main as run
    except KeyboardInterrupt:
        print("pyrovae: interrupted", file=sys.stderr)
        return 130
    return run(arguments)
