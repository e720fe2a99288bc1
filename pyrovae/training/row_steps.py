"""Steps of tables of rows, which cost what a batch costs: only the rows of the batch and their state are touched."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from pyrovae.nn.row_table import RowTable
from pyrovae.training.data import Stream, TrainingData
from pyrovae.training.grouped_optimizer import stepping
from pyrovae.vae import VAE

logger = logging.getLogger(__name__)


def tables_of(vae: VAE) -> list[RowTable]:
    """The tables of rows of a pair that are trained."""
    return [m for m in vae.modules() if isinstance(m, RowTable) and m.values.requires_grad]


def without_unknown_rows(vae: VAE, data: TrainingData) -> TrainingData:
    """The same data without validation rows that a guide with parameters for each row knows nothing of."""
    rows = data.validation
    if rows is None or isinstance(rows, Stream) or rows.index is not None:
        return data
    if not any(isinstance(module, RowTable) for module in vae.modules()):
        return data
    logger.info(
        "the %d validation rows have no parameters of their own, so the training loss tells the best epoch; "
        "fit_posterior and inference_gap show held-out figures",
        len(rows),
    )
    return data._replace(validation=None)


class RowSteps:
    """Steps of the tables of a pair, beside an optimizer that steps everything else.

    The tables are in the groups of that optimizer, which tell their learning rate and other settings, and keep their
    state in it. Their gradient is that of the rows of a batch alone, so they never have one as a whole, and the
    optimizer passes them over.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer of the training.
    tables : sequence of RowTable
        The tables.

    Notes
    -----
    Adam is lazy: a row that is not in the batch keeps its value and its moments, while dense Adam would move it on by
    its momentum and let its moments decay. The number of steps that corrects the bias of the moments is the row's own.
    Weight decay too applies to the rows of the batch alone. Where a batch holds all rows, both are the same.
    """

    def __init__(self, optimizer: Optimizer, tables: Sequence[RowTable]) -> None:
        self.optimizer, self.tables = optimizer, list(tables)

    @contextmanager
    def picking(self, index: Tensor) -> Iterator[list[Tensor]]:
        """A context in which the tables are those rows alone; yields the leaves, whose gradients `step` takes."""
        with ExitStack() as stack:
            yield [stack.enter_context(table.picking(index)) for table in self.tables]

    @torch.no_grad()
    def step(self, index: Tensor, leaves: Sequence[Tensor]) -> None:
        """Move the rows of a batch by the gradients of the leaves.

        Parameters
        ----------
        index : Tensor of whole numbers, shape ``[B]``
            The rows. The gradients of a row that stands there twice are added.
        leaves : sequence of Tensor, each ``[B, P]``
            The leaves of `picking`, with their gradients.
        """
        rows, places = torch.unique(index.long(), return_inverse=True)
        for table, leaf in zip(self.tables, leaves, strict=True):
            if leaf.grad is None:
                continue
            gradient = leaf.grad.new_zeros(len(rows), leaf.shape[1]).index_add_(0, places, leaf.grad)
            group, state = _group(self.optimizer, table), self.optimizer.state[table.values]
            kind = stepping(self.optimizer, group)
            if isinstance(kind, SGD):
                _sgd(table.values.data, rows, gradient, group)
            else:
                _adam(table.values.data, rows, gradient, group, state, isinstance(kind, AdamW))


def _adam(
    values: Tensor,
    rows: Tensor,
    gradient: Tensor,
    group: Mapping[str, Any],
    state: dict[str, Any],
    decoupled: bool,
) -> None:
    if not state:
        state["step"] = torch.zeros(len(values), device=values.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(values), torch.zeros_like(values)
    (first, second), lr, decay = group["betas"], float(group["lr"]), group["weight_decay"]
    value = values[rows]
    if decay and (decoupled or group.get("decoupled_weight_decay")):
        value = value * (1 - lr * decay)
    elif decay:
        gradient = gradient.add(value, alpha=decay)
    step = state["step"][rows] + 1
    mean = state["exp_avg"][rows].lerp_(gradient, 1 - first)
    square = state["exp_avg_sq"][rows].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    exact = step.double().unsqueeze(1)
    root = (square / (1 - second**exact).to(square)).sqrt_().add_(group["eps"])
    value = value - mean / root * (lr / (1 - first**exact)).to(value)
    for table, new in (
        (values, value),
        (state["step"], step),
        (state["exp_avg"], mean),
        (state["exp_avg_sq"], square),
    ):
        table.index_copy_(0, rows, new)


def _group(optimizer: Optimizer, table: RowTable) -> dict[str, Any]:
    return next(g for g in optimizer.param_groups if any(p is table.values for p in g["params"]))


def row_steps(optimizer: Optimizer, tables: Sequence[RowTable]) -> RowSteps | None:
    """The steps of tables for an optimizer; None where there are no tables.

    An optimizer that has no such steps moves every table as a whole, with one log line.
    """
    if not tables:
        return None
    unable = None
    for group in (_group(optimizer, table) for table in tables):
        kind = type(stepping(optimizer, group))
        adam = kind in (Adam, AdamW) and not (group["amsgrad"] or group["maximize"])
        sgd = kind is SGD and not (group["momentum"] or group["maximize"])
        if not (adam or sgd):
            unable = kind.__name__
    if unable is None:
        return RowSteps(optimizer, tables)
    logger.info(
        "%s moves the parameters of all rows in each step, whose cost grows with their number; Adam, AdamW and SGD "
        "without momentum move those of the batch alone",
        unable,
    )
    return None


def _sgd(values: Tensor, rows: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
    if group["weight_decay"]:
        gradient = gradient.add(values[rows], alpha=group["weight_decay"])
    values.index_add_(0, rows, gradient, alpha=-float(group["lr"]))
