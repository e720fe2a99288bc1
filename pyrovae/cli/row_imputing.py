"""`pyrovae impute` for a run of the pair auto-decoder on a table: the rows of the file are fitted, then filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrovae.data.dataset import Rows
from pyrovae.rng import seeded
from pyrovae.runs import Run, posteriors

if TYPE_CHECKING:
    import pandas as pd

NUM_SAMPLES = 200
"""Draws of the latent that an entry is made from."""


def completed(
    run: Run, frame: pd.DataFrame, draws: int | None, seed: int, device: str, fit_steps: int
) -> list[pd.DataFrame]:
    """Completed copies of a table, by posteriors that are fitted to what is observed of each row.

    Parameters
    ----------
    run : Run
        The run.
    frame : DataFrame
        The table.
    draws : int or None
        How many drawn copies; None gives one, which is best in the mean.
    seed : int
        Seed of the draws.
    device : str
        Where to compute.
    fit_steps : int
        Gradient steps of a row.

    Raises
    ------
    ValueError
        If a column has a level that the run does not know.
    """
    from pyrovae.data.tables import TableCodec

    codec, vae = TableCodec.from_dict(run.spec.schema or {}), run.load_vae(device)
    rows: Rows = codec.rows(frame[list(codec.schema.names)], unseen="missing").to(device)
    if rows.mask is None:
        raise ValueError("the rows of a table come with a mask")
    fitted = posteriors.fitted(vae, rows, fit_steps)
    with seeded(seed):
        filled = fitted.impute(rows.x, rows.mask, num_samples=NUM_SAMPLES, num_draws=draws)
    copies = filled.unsqueeze(0) if draws is None else filled
    return [codec.schema.fill(frame, codec.complete(copy.cpu().double().numpy())) for copy in copies]
