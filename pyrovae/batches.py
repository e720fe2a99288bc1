"""From rows of data to the arguments of a pair's programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.data.dataset import Rows
from pyrovae.data.rows import to_device

if TYPE_CHECKING:
    from pyrovae.vae import VAE


LABEL = "y"
"""The argument by which programs take labels."""
OPTIONAL = (LABEL, "index")
"""Arguments that are left out where the programs do not name them."""
_TAKEN: WeakKeyDictionary[VAE, dict[str, bool]] = WeakKeyDictionary()  # by pair and argument, found out once


def arguments(vae: VAE, rows: Rows, device: torch.device | None = None) -> tuple[Tensor, dict[str, Any]]:
    """What the programs of a pair get of some rows, on the pair's device: the data, and keyword arguments.

    An argument is passed if a program names it and the other one takes it too. `y` and `index` are left out otherwise,
    any other one is refused, because a pair that takes no mask, say, would learn from missing entries as if they were
    observed.

    Parameters
    ----------
    vae : VAE
        The pair.
    rows : Rows
        The rows.
    device : torch.device, optional
        The pair's device, for those who ask often; by default it is looked up.

    Returns
    -------
    x : Tensor, shape ``[B, ...]``
        The data.
    data : dict of str to object
        Those of `mask`, `y`, `index` and the further arguments that the programs get.

    Raises
    ------
    TypeError
        If there is an argument, a mask say, that a program does not take.
    """
    taken, given = _TAKEN.setdefault(vae, {}), dict[str, Any]()
    device = vae.device if device is None else device
    for name, value in rows.fields().items():
        if name not in taken:
            taken[name] = takes(vae, name)
        if taken[name]:
            given[name] = to_device(value, device)
    return rows.x.to(device), given


def takes(vae: VAE, name: str) -> bool:
    """Whether the programs of a pair take an argument that the data have: one names it, and the other takes it.

    Raises
    ------
    TypeError
        If they do not, and it is none of `OPTIONAL`.
    """
    both = (vae.model, vae.guide)
    named = [programs.accepts(program, name) for program in both]
    refusing = [
        program
        for program, names in zip(both, named, strict=True)
        if not names and not programs.takes_any_keyword(program)
    ]
    if any(named) and not refusing:
        return True
    if name in OPTIONAL:
        return False
    known = ", ".join(dict.fromkeys(n for program in both for n in programs.argument_names(program)))
    if refusing:
        fault = f"{programs.describe(refusing[0])} takes no argument {name!r}"
        also = "; model and guide are called with the same arguments" if any(named) else ""
        if name == "mask":
            raise TypeError(
                f"the data have missing entries (mask), and {fault}{also}; give both programs an argument mask, True "
                "where an entry is observed, or give complete data"
            )
        raise TypeError(f"{name}= was given, but {fault}{also}; the arguments are {known}")
    raise TypeError(
        f"{name}= was given, but neither program names it, and nothing is passed to ** alone; the arguments are {known}"
    )


def batches(vae: VAE, rows: Rows, batch_size: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """`arguments` of the rows in parts of `batch_size`; the last part holds what is left.

    Raises
    ------
    ValueError
        If `batch_size` is below 1.
    """
    return (arguments(vae, part) for part in rows.batches(batch_size))
