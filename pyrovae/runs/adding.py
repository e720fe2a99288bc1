"""Adding sticks to a finished run: a new run that begins with what the old one has learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyrovae.runs.configuration import free_folder
from pyrovae.runs.growing import add_sticks
from pyrovae.runs.run import Run
from pyrovae.training.options import without_idle
from pyrovae.vae import VAE


def with_more_sticks(
    run: Run, count: int, path: str | Path | None = None, *, overwrite: bool = False
) -> tuple[Run, VAE]:
    """A new run of a stick-breaking run with more weights, and the VAE to train in it.

    The VAE computes what the best one of the old run does (see `add_sticks`). Nothing is written before `Run.train`.

    Parameters
    ----------
    run : Run
        A finished run of the pair stick-breaking.
    count : int
        Weights to add, at least 1.
    path : str or Path, optional
        The new run folder. By default that of `run` with the number of weights behind its name, and a further number
        if there is one.
    overwrite : bool, default False
        Whether the new folder may hold a run, which `Run.train` then replaces.

    Returns
    -------
    run : Run
        The new run.
    vae : VAE
        What to train in it.

    Raises
    ------
    CheckpointError
        If the new folder already holds a run, or the weights of the old one cannot be used.
    ValueError
        For a run of another pair, or one that sticks cannot be added to.
    """
    if run.pair.name != "stick-breaking":
        raise ValueError(f"sticks are for runs of the pair stick-breaking; {run.folder.path} is of {run.pair.name}")
    vae = add_sticks(run.load_vae(), count)
    weights = vae.model.prior.num_features
    folder = free_folder(run.folder.path.with_name(f"{run.folder.path.name}-{weights}")) if path is None else path
    options = {**run.pair.without_idle(run.config["pair_options"], run.spec), "truncation": weights}
    data = run.config["data"] if run.given is None else run.given
    new = Run.create(folder, run.pair.name, options, data, without_idle(run.config["training"]), overwrite=overwrite)
    return replace(new, config={**new.config, "grown_from": str(run.folder.path)}), vae
