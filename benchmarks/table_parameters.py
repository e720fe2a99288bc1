"""Natural and canonical parameters of the columns' distributions side by side, on the tables of VAEM.

    PYROVAE_DATA=... python benchmarks/table_parameters.py --data boston energy bank avocado

One net of `VAEImputer` without trees, protocol `vaem` of tables.py. For each: error of the hidden entries by VAEM's
formula; negative log-likelihood of the observed entries of the test rows, in nats per entry and in standardised units,
and of the rows with their hidden entries filled in by the truth; whether losses of all epochs were finite, and the
largest rise of the loss from one epoch to the next. One line of JSON each.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
from table_tasks import VAEM_NOMINAL, Cell, make_task, vaem_cells

from pyrovae.estimators import VAEImputer
from pyrovae.estimators.prediction import Sampling


def measure(cell: Cell, parameterization: str) -> dict[str, float | str | int | bool]:
    """Fit one net and score it."""
    task = make_task(cell)
    names = [f"x{number}" for number in range(task.train.shape[1])]
    kinds = {name: kind for name, kind in zip(names, task.kinds, strict=True)}
    options = {"trees": False, "num_nets": 1, "random_state": cell.seed, "kinds": kinds}
    imputer = VAEImputer(parameterization=parameterization, **options).fit(pd.DataFrame(task.train, columns=names))
    frame = pd.DataFrame(task.rows, columns=names)
    found = task.score(imputer.transform(frame).to_numpy(dtype=float))
    model, losses = imputer.model_, np.array([row["loss"] for row in imputer.history_.rows])
    figures = {"rmse": next(iter(found.values()))}
    for name, rows in (("observed", frame), ("complete", pd.DataFrame(task.truth, columns=names))):
        x, mask = model.encoded(rows, unseen="missing")
        raw = model.log_prob(x, mask, Sampling(2000, seed=cell.seed)).sum()
        standardised = raw + (mask.numpy() * model.codec.log_scale(x.numpy())).sum()
        figures[f"nll_{name}"] = -standardised / float(mask.sum())
    rise = np.diff(losses).max() if len(losses) > 1 else 0.0
    stable = {"finite": bool(np.isfinite(losses).all()), "largest_rise": float(rise)}
    return {"data": cell.data, "seed": cell.seed, "parameterization": parameterization, **figures, **stable}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(VAEM_NOMINAL), default=tuple(VAEM_NOMINAL))
    parser.add_argument("--seed", type=int, nargs="+", help="seeds (default: those of the protocol)")
    arguments = parser.parse_args()
    for cell in vaem_cells(arguments.data, arguments.seed):
        for parameterization in ("natural", "canonical"):
            print(json.dumps(measure(cell, parameterization)), flush=True)


if __name__ == "__main__":
    main()
