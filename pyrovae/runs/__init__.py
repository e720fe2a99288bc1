"""Runs: train a pair into a folder, open such a folder again, save and load a VAE, add sticks to a finished run."""

from pyrovae.runs.adding import with_more_sticks
from pyrovae.runs.devices import pick_device
from pyrovae.runs.growing import add_sticks, fit_growing, needs_sticks
from pyrovae.runs.run import Run
from pyrovae.runs.saving import load, save

__all__ = ["Run", "add_sticks", "fit_growing", "load", "needs_sticks", "pick_device", "save", "with_more_sticks"]
