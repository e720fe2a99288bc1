"""Runs as a report finds them: what a folder holds, and in words what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pyrovae import plotting
from pyrovae.data import DataError, Dataset
from pyrovae.data.fingerprints import changed_splits
from pyrovae.metrics.evaluation import Progress
from pyrovae.metrics.missing import MissingError
from pyrovae.runs import Run, evaluations, measured, posteriors
from pyrovae.runs.evaluations import Kept
from pyrovae.runs.measured import Gap
from pyrovae.storage import CheckpointError, load_information
from pyrovae.vae import VAE


@dataclass
class Opened:
    """A run with all that a report shows of it."""

    run: Run
    name: str
    """What it is called on the page."""
    rows: list[dict[str, float]]
    """Metrics of the epochs."""
    state: Mapping[str, Any]
    """What the last state says of the training; empty without a training."""
    kept: dict[str, Kept]
    """Held-out figures of the present weights, by split."""
    vae: VAE | None
    dataset: Dataset | None
    gap: Gap
    missing: dict[str, list[MissingError]]
    notes: list[str]
    """What is not there, a line each."""
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration."""
        return self.run.config

    @property
    def path(self) -> Path:
        """The folder."""
        return self.run.folder.path


def opened(run: Run, name: str, device: str = "cpu") -> Opened:
    """Look at a run.

    Parameters
    ----------
    run : Run
        The run.
    name : str
        What to call it.
    device : str, default "cpu"
        Where the pair is to be.

    Returns
    -------
    Opened
        What there is.

    Raises
    ------
    CheckpointError
        If a file is damaged.
    """
    folder, notes = run.folder, []
    state = load_information(folder.state_path) if folder.state_path.exists() else {}
    rows = folder.read_metrics()
    notes += _of_the_training(run, state)
    trained = folder.weights_path.exists() and not folder.is_untrained()
    vae = run.load_vae(device) if trained else None
    kept: dict[str, Kept] = {}
    if trained:
        digest, found = evaluations.weights_digest(folder), evaluations.kept(folder)
        kept = {split: part for split, part in found.items() if part.weights == digest}
        again = f"pyrovae evaluate {folder.path}"
        if not found:
            notes.append(f"It was not evaluated yet, so there are no held-out figures: {again}")
        for split in found.keys() - kept.keys():
            notes.append(f"The weights changed since the {split} rows were evaluated: {again} --split {split}")
    dataset = None
    if vae is not None:
        try:
            dataset = run.dataset()
        except (DataError, CheckpointError, ValueError) as error:
            reason = " ".join(str(error).split())
            notes.append(f"There are no samples, reconstructions and latents, as the data cannot be used: {reason}")
        known = run.config.get("fingerprints") or {}
        if dataset is not None and (changed := changed_splits(dataset, known)):
            which = f"{dataset.name} ({' and '.join(changed)} rows)"
            notes.append(f"Figures are drawn of other data than the run was trained on: {which}")
    gap, missing = Gap(None, "", is_stale=False), dict[str, list[MissingError]]()
    if trained:
        gap = measured.gap_of(folder)
        if gap.is_stale:
            notes.append("The inference gap was measured with earlier weights, and is left out")
        missing, stale = measured.errors_of(folder)
        notes += [measured.STALE.format(way=way).capitalize() for way in stale]
    return Opened(run, name, rows, state, kept, vae, dataset, gap, missing, notes)


def draw(run: Opened, condition: Mapping[str, Any], fit_steps: int, progress: Progress | None = None) -> None:
    """Draw the figures of a run, and note what could not be drawn."""
    problems: dict[str, str] = {}
    if run.vae is not None and run.dataset is not None:
        vae, dataset = posteriors.shown(run.vae, run.dataset, fit_steps)
        given = {name: value for name, value in condition.items() if name in vae.sites.shared}
        finished = run.run.load_finished(str(vae.device))
        run.figures |= plotting.run_figures(
            vae, dataset, run.rows, condition=given, finished=finished, problems=problems, progress=progress
        )
    elif run.rows:
        run.figures["training_curves"] = plotting.training_curves(run.rows)
    if run.gap.bounds is not None:
        run.figures["inference_gap"] = plotting.inference_gaps(run.gap.bounds)
    if run.missing:
        run.figures["missing_errors"] = plotting.missing_errors(run.missing)
    run.notes += [f"{name.replace('_', ' ')} cannot be drawn: {reason}" for name, reason in problems.items()]


def _of_the_training(run: Run, state: Mapping[str, Any]) -> list[str]:
    folder, again = run.folder, f"pyrovae resume {run.folder.path}"
    if not state:
        return ["The folder holds a VAE without a training, so there are no curves."]
    if folder.is_untrained():
        return [f"The training was stopped before its first epoch had ended, so nothing was trained yet: {again}"]
    if state.get("stopped") is None:
        epochs = run.config["training"].get("epochs")
        asked = f" of {epochs}" if epochs else ""
        return [f"The training was interrupted after epoch {state.get('epoch')}{asked}, or is under way: {again}"]
    return []
