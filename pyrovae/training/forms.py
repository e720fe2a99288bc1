"""The forms in which data are given, and rows out of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import LABEL
from pyrovae.data.arrays import is_array, labels_of, rows_of, tensor_of
from pyrovae.data.dataset import Rows
from pyrovae.vae import VAE

Collate = Callable[[Any], Any]
"""From a batch to what is passed: a tensor, a tuple of arguments by position, or a dict of them by name."""
_RESERVED = ("x", "condition", "num_samples", "chunk_size", "return_details", "compile")  # arguments of methods of VAE
_MASK = "mask"


def rows_from(vae: VAE, value: Any, what: str = "the data") -> Rows:
    """Rows out of what is passed to the programs of a pair.

    Parameters
    ----------
    vae : VAE
        The pair, whose programs name the arguments.
    value : Rows, Tensor, ndarray, DataFrame, mapping of str to object, tuple or list
        Rows; the data alone; arguments by name, the data under the name of the first argument or ``x``; or arguments by
        position, the data first. Tensors with a row for each datum are cut with the data. Arrays of NumPy and frames of
        pandas become tensors, and 64-bit data get the precision of the pair, see `pyrovae.data.arrays.tensor_of`.
    what : str, default "the data"
        What it is, for messages.

    Returns
    -------
    Rows
        The rows.

    Raises
    ------
    TypeError
        If it is something else, or the data are neither a tensor nor an array of numbers.
    ValueError
        If there is no data in a dict, there are more values than arguments, or 64-bit data would lose something.
    """
    dtype = precision_of(vae)
    if isinstance(value, Rows):
        return value.replace(x=tensor_of(value.x, what, dtype))
    if is_array(value):
        return rows_of(value, what, dtype)
    if isinstance(value, Mapping):
        first, given = _by_name(vae, value, what)
    elif isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        first, given = _by_position(vae, value, what)
    else:
        first, given = value, {}
    if is_array(first):
        seen = rows_of(first, what, dtype)
        first, given = seen.x, given if seen.mask is None or _MASK in given else {**given, _MASK: seen.mask}
    if not isinstance(first, Tensor) or not first.dim():
        found = f"a tensor of shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise TypeError(
            f"{what} must begin with a tensor that holds a row for each datum, got {found}; give a tensor as the first "
            "argument of the programs and everything else beside it, by name in a dict"
        )
    first = tensor_of(first, what, dtype)
    for name, part in list(given.items()):
        if is_array(part):
            given[name] = labels_of(part) if name == LABEL else tensor_of(part, repr(name), dtype)
        if name in _RESERVED:
            raise ValueError(f"an argument besides the data cannot be called {name!r}; rename it in model and guide")
    return Rows.of(first, **given)


def precision_of(vae: VAE) -> torch.dtype | None:
    """The floating-point type of a pair's parameters; None where none is known yet."""
    return next((p.dtype for p in vae.parameters() if p.is_floating_point()), None)


def _first_names(vae: VAE) -> list[str]:
    names = [programs.argument_names(program, positional=True)[:1] for program in (vae.model, vae.guide)]
    return list(dict.fromkeys(name for found in names for name in found))


def _by_name(vae: VAE, value: Mapping[str, Any], what: str) -> tuple[Any, dict[str, Any]]:
    names = _first_names(vae)
    found = [name for name in names if name in value]
    if not found and "x" in value and not any(programs.accepts(p, "x") for p in (vae.model, vae.guide)):
        found = ["x"]  # the data, whatever the programs call them
    if len(found) != 1:
        wanted = " or ".join(map(repr, names)) or "'x'"
        fault = "the data twice" if found else "no data"
        raise ValueError(
            f"{what} hold {fault}, among {', '.join(map(repr, value))}; the data go under the name of the first "
            f"argument, {wanted}"
        )
    return value[found[0]], {name: part for name, part in value.items() if name != found[0]}


def _by_position(vae: VAE, values: Sequence[Any], what: str) -> tuple[Any, dict[str, Any]]:
    if not values:
        raise ValueError(f"{what} are empty")
    names = programs.argument_names(vae.model, positional=True)
    of_guide = programs.argument_names(vae.guide, positional=True)
    by_name = 'give a dict by argument name, {"x": x, "c": c}'
    if len(values) > max(len(names), 1):
        raise ValueError(
            f"{what} hold {len(values)} values, and {programs.describe(vae.model)} takes "
            f"{', '.join(names) or 'none'} by position; {by_name}, or drop some of them, as collate=lambda batch: "
            "batch[0] does"
        )
    for mine, theirs in zip(names[1 : len(values)], of_guide[1:], strict=False):
        if mine != theirs:
            raise ValueError(f"the model calls an argument {mine!r} and the guide {theirs!r}; give both one name")
    given = dict(zip(names[1:], values[1:], strict=False))
    mask, first = given.get(_MASK), values[0]
    if isinstance(mask, Tensor) and isinstance(first, Tensor) and mask.dim() == 1 < first.dim():
        raise ValueError(
            f"{what} would give a tensor of shape {tuple(mask.shape)} to the argument 'mask'; {by_name}, with labels "
            'as "y"'
        )
    return first, given


def arguments_of(rows: Rows, form: str, first: str = "x") -> Any:
    """Rows as what they came from: ``"tensor"``, ``"tuple"`` or ``"dict"``, for a function `collate`."""
    given = {name: value for name, value in rows.fields().items() if name != "index" or form == "dict"}
    if form == "tuple":
        return (rows.x, *given.values())
    return {first: rows.x, **given} if form == "dict" else rows.x
