"""The command line."""

from pyrovae.cli.main import main

__all__ = ["main"]
