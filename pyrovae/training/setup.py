"""What is found out before a training begins: its objective, its columns of metrics, its monitor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae.data.dataset import Rows
from pyrovae.families import families_of
from pyrovae.infer.objectives import make_objective
from pyrovae.metrics.classification import infers_label
from pyrovae.training.options import TrainingOptions
from pyrovae.vae import VAE


def objective_for(vae: VAE, options: TrainingOptions, x: Tensor, **data: Any) -> Any:
    """The objective for a pair; one given by name is new, and loops over particles that do not vectorise.

    It is an `ELBO`, a class that does not declare the `loss` and `loss_and_grads` that all of its subclasses have.
    """
    name, num_particles = options.objective, options.num_particles
    if not isinstance(name, str):
        return name
    # The depth of plates is known, and a program without plates has its rows in dimension -1 all the same.
    settings: dict[str, Any] = {"max_plate_nesting": max(1, vae.sites.max_plate_nesting)}
    objective = make_objective(name, num_particles=num_particles, **settings)
    if objective.num_particles > 1 and not vae.vectorizes(x, **data):
        settings["vectorize_particles"] = False
        objective = make_objective(name, num_particles=num_particles, **settings)
    return objective


def validation_figures(vae: VAE, rows: Rows | None) -> tuple[dict[str, Callable[[], float]], Rows | None]:
    """Columns that the families of a pair add to the metrics, and the rows for the validation loss.

    The columns are computed on the validation rows with their labels. The loss does not see labels that the pair
    infers, since a bound with labels leaves q(y|x) out.
    """
    if rows is None:
        return {}, None
    found: dict[str, Callable[[], float]] = {}
    for family in families_of(vae):
        if family.validation_figures is not None:
            found |= family.validation_figures(vae, rows)
    hidden = rows.y is not None and infers_label(vae, rows)
    return found, rows.without_labels() if hidden else rows


def find_monitor(name: str, columns: Sequence[str]) -> str:
    """The column of the metrics that tells the best epoch: the one asked for, or "loss" without validation rows.

    Raises
    ------
    ValueError
        If the metrics of this training have no such column.
    """
    if name == "validation_loss" and name not in columns:
        return "loss"
    known = ["loss", *columns, "kl_weight", "seconds"]
    if name not in known:
        raise ValueError(
            f"monitor must be a column of the metrics, which are {', '.join(known)} for this pair and these data, "
            f"got {name!r}"
        )
    return name
