"""The report of a run, or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pyrovae.metrics.evaluation import Progress
from pyrovae.reporting.comparison import compared
from pyrovae.reporting.opened import draw, opened
from pyrovae.reporting.page import render
from pyrovae.reporting.single import described
from pyrovae.rng import begin
from pyrovae.runs import Run, posteriors
from pyrovae.runs.configuration import read_configuration
from pyrovae.storage import write_atomically

NAME = "report.html"
_OURS = b'<meta name="generator" content="pyrovae'


def report(
    runs: Run | str | Path | Sequence[Run | str | Path],
    path: str | Path | None = None,
    *,
    device: str = "cpu",
    seed: int = 0,
    condition: Mapping[str, torch.Tensor] | None = None,
    fit_steps: int = posteriors.FIT_STEPS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write one self-contained HTML page on a run, or one that compares several runs.

    The page holds its pictures, and loads nothing. It shows what was run on which data, the training, the held-out
    figures that `Run.evaluate` kept, samples, reconstructions, latents, and what the families of the pair add; and it
    says what is not there. Nothing is trained or evaluated for it.

    Parameters
    ----------
    runs : Run, str or Path, or sequence of them
        Run folders, or what `Run.open` made of them, which pairs and data of your own need.
    path : str or Path, optional
        The page, a file that ends in ``.html``. None writes ``report.html`` into the folder of a single run, and into
        the working directory for several.
    device : str, default "cpu"
        Where to compute.
    seed : int, default 0
        Seed of samples.
    condition : mapping of str to Tensor, optional
        Values of latents that belong to all data, for the samples; see `plotting.run_figures`.
    fit_steps : int, default 200
        Gradient steps that fit the posterior of a row first, where the guide has parameters for each training row.
    overwrite : bool, default False
        Whether to replace a file that is no report. Reports are replaced anyway.
    progress : callable, optional
        Wraps the names of the figures of a run, for instance ``tqdm.tqdm``. None shows nothing.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    CheckpointError
        If a folder holds no run, or a file of it is damaged.
    ValueError
        If there is no run, one is given twice, or the path is something else than a page.

    Examples
    --------
    >>> report([])
    Traceback (most recent call last):
        ...
    ValueError: give at least one run to report on
    """
    given = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    if not given:
        raise ValueError("give at least one run to report on")
    found = [_as_written(run) if isinstance(run, Run) else Run.open(run) for run in given]
    folders = [run.folder.path.resolve() for run in found]
    if twice := next((run.folder.path for n, run in enumerate(found) if folders[n] in folders[:n]), None):
        raise ValueError(f"{twice} is given twice; give each run once")
    out = Path(path) if path is not None else found[0].folder.path / NAME if len(found) == 1 else Path(NAME)
    _check_free(out, overwrite)
    parts = [opened(run, name, device) for run, name in zip(found, _names(folders), strict=True)]
    vaes = [part.vae for part in parts if part.vae is not None]
    if vaes and not any(map(posteriors.has_rows, vaes)):
        posteriors.check_steps(vaes[0], fit_steps)
    for part in parts:
        begin(seed)
        draw(part, condition or {}, fit_steps, progress)
    write_atomically(out, render(described(parts[0]) if len(parts) == 1 else compared(parts)))
    return out


def _as_written(run: Run) -> Run:
    """A run with the configuration that its folder has by now, which says what the data were."""
    return replace(run, config=read_configuration(run.folder))


def _check_free(path: Path, overwrite: bool) -> None:
    """Refuse a file that is no page, or that holds something else.

    Raises
    ------
    ValueError
        Saying what to do.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is a file that ends in .html, got {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file that ends in .html")
    if path.exists() and not overwrite:
        with path.open("rb") as file:
            if _OURS not in file.read(1000):
                raise ValueError(
                    f"{path} is no report of pyrovae, so it is not replaced; choose another file (--out), or "
                    "give --overwrite"
                )


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders: their last part, and as many before it as tell them apart."""
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
