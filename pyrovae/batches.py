"""From rows of data to the arguments of a pair's programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyrovae import programs
from pyrovae.data.dataset import Rows

if TYPE_CHECKING:
    from pyrovae.vae import VAE


LABEL = "y"
"""The argument by which programs take labels."""


def arguments(vae: VAE, rows: Rows) -> tuple[Tensor, dict[str, Any]]:
    """What the programs of a pair get of some rows, on the pair's device: `x`, and keyword arguments.

    `y` and `index` are passed if both programs take them. `mask` is passed if there is one, because a pair that takes
    no mask would learn from missing entries as if they were observed.

    Parameters
    ----------
    vae : VAE
        The pair.
    rows : Rows
        The rows.

    Returns
    -------
    x : Tensor, shape ``[B, ...]``
        The data.
    data : dict of str to Tensor
        Those of `mask`, `y` and `index` that the programs get.

    Raises
    ------
    TypeError
        If there is a mask, and a program takes none.
    """
    both = (vae.model, vae.guide)
    fields = {
        name: value.to(vae.device)
        for name, value in rows.fields().items()
        if name == "mask" or all(programs.accepts(program, name) for program in both)
    }
    return rows.x.to(vae.device), programs.keywords(*both, **fields)


def batches(vae: VAE, rows: Rows, batch_size: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """`arguments` of the rows in parts of `batch_size`; the last part holds what is left.

    Raises
    ------
    ValueError
        If `batch_size` is below 1.
    """
    return (arguments(vae, part) for part in rows.batches(batch_size))
