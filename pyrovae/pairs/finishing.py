"""What a pair adds to its runs besides the training: what the training does not see, and what follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.data.dataset import Dataset, DataSpec
    from pyrovae.pairs.registry import Option
    from pyrovae.runs.run import Run


@dataclass(frozen=True)
class Finishing:
    """What follows the training of a run, and needs its data.

    A run whose training is over but not its finishing is finished by the next that opens it, see `Run.finish`.

    Parameters
    ----------
    summary : str
        What it does, in a few words for the log.
    hold_out : callable from (Dataset, int, DataSpec or None) to Dataset
        The data without what the training is not to see, by a seed. A training that is resumed also gives what it began
        with, so that the same is held out again.
    is_done : callable from Run to bool
        Whether it was done for the weights that the folder has.
    finish : callable from (Run, Dataset, str, bool) to mapping of str to Any
        Do it, for the data of the run, on a device, perhaps with progress, and write files into the folder. What it
        returns is ready for JSON; it is put into the schema of the run, last of all.
    load : callable from (Path, str) to Any
        What evaluation and figures get of a run, on a device.
    options : tuple of Option, default ()
        Its options, for the command line.
    """

    summary: str
    hold_out: Callable[[Dataset, int, DataSpec | None], Dataset]
    is_done: Callable[[Run], bool]
    finish: Callable[[Run, Dataset, str, bool], Mapping[str, Any]]
    load: Callable[[Path, str], Any]
    options: tuple[Option, ...] = ()
