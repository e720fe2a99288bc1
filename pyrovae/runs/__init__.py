"""Runs: train a pair into a folder, open such a folder again, and add sticks to a finished run."""

from pyrovae.runs.growing import add_sticks, fit_growing, needs_sticks
from pyrovae.runs.run import Run, pick_device

__all__ = ["Run", "add_sticks", "fit_growing", "needs_sticks", "pick_device"]
