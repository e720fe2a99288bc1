"""The held-out figures that a run folder keeps, by split: `metrics.json`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from pyrovae._version import __version__
from pyrovae.storage import AGAIN, CheckpointError, digest_of, write_atomically
from pyrovae.training.checkpoint import METRICS_JSON, RunFolder

logger = logging.getLogger(__name__)


class Kept(NamedTuple):
    """Figures of one split that a run folder keeps."""

    figures: dict[str, Any]
    """What `Run.evaluate` returned."""
    seed: int
    """The seed of the draws."""
    weights: str
    """The digest (SHA-256) of the weights that were evaluated."""
    pyrovae_version: str
    """The version of the library that evaluated them."""


def keep(folder: RunFolder, figures: Mapping[str, Any], seed: int, weights: str) -> None:
    """Write figures of a split into a run folder, in place of earlier ones of this split.

    A folder that cannot be written to is one line of the log, so that the figures themselves are not lost.

    Parameters
    ----------
    folder : RunFolder
        The folder.
    figures : mapping
        What `Run.evaluate` found, ready for JSON.
    seed : int
        The seed of the draws.
    weights : str
        The digest of the weights that were evaluated.
    """
    try:
        held = kept(folder)
    except CheckpointError:  # a damaged file is replaced
        held = {}
    held[figures["split"]] = Kept(dict(figures), seed, weights, __version__)
    content = {split: part._asdict() for split, part in held.items()}
    path = folder.path / METRICS_JSON
    try:
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        logger.warning("the figures are not kept: %s cannot be written: %s", path, error.strerror)


def kept(folder: RunFolder) -> dict[str, Kept]:
    """The figures that a run folder keeps, by split; none before the first evaluation.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    path = folder.path / METRICS_JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(split): _checked(str(split), part) for split, part in dict(found).items()}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {AGAIN}, or evaluate again") from None


def weights_digest(folder: RunFolder) -> str:
    """The digest of the best weights of a run."""
    return digest_of(folder.weights_path.read_bytes())


def _checked(split: str, part: Mapping[str, Any]) -> Kept:
    found = Kept(dict(part["figures"]), part["seed"], str(part["weights"]), str(part["pyrovae_version"]))
    if found.figures.get("split") != split:
        raise ValueError(f"the figures of {split!r} are not of this split")
    return found
