"""What follows the training of a run, where its pair has something to add."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from pyrovae.data import DataError, Dataset
from pyrovae.runs import same_data
from pyrovae.storage import CheckpointError
from pyrovae.training import TrainingInterrupted

if TYPE_CHECKING:
    from pyrovae.pairs.finishing import Finishing
    from pyrovae.runs.run import Run

logger = logging.getLogger(__name__)


def finished(run: Run, dataset: Dataset | None = None, *, device: str = "cpu", progress: bool = False) -> Run:
    """Do what follows the training of a run, unless it is done, and write it into the folder.

    Parameters
    ----------
    run : Run
        A run that has weights.
    dataset : Dataset, optional
        Its data. None loads them again; where they are not to be had, a line of the log says so, and nothing is done.
    device : str, default "cpu"
        Where to compute.
    progress : bool, default False
        Show progress bars.

    Returns
    -------
    Run
        The run, with what was found.

    Raises
    ------
    TrainingInterrupted
        On Ctrl-C. The next call begins anew.
    """
    finishing = run.pair.finishing
    if finishing is None or finishing.is_done(run):
        return run
    if dataset is None:
        try:
            dataset = same_data.load_again(run.folder, run.config)
        except (DataError, CheckpointError, ValueError) as error:
            logger.warning("%s goes without %s: %s", run.folder.path, finishing.summary, error)
            return run
        logger.info("%s still lacks %s; finishing it", run.folder.path, finishing.summary)
    with run.folder.writing():
        return _finish(run, finishing, dataset, device, progress)


def _finish(run: Run, finishing: Finishing, dataset: Dataset, device: str, progress: bool) -> Run:
    # Digests of earlier files go first, so that a kill in between leaves a run that can be finished again.
    run.folder.write_config({name: value for name, value in run.folder.read_config().items() if name != "files"})
    try:
        found = finishing.finish(run, dataset, device, progress)
    except KeyboardInterrupt:
        path = run.folder.path
        raise TrainingInterrupted(
            f"interrupted; the training is done and saved, {finishing.summary} are not: pyrovae resume {path}"
        ) from None
    config = run.folder.read_config()
    spec = config["spec"]
    config["spec"] = {**spec, "schema": {**(spec["schema"] or {}), **found}}
    run.folder.write_config(config, [path.name for path in run.folder.path.glob("*.npz")])
    return replace(run, config=config)
