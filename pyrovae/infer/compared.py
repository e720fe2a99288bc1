"""Compiled steps beside the programs: what a recording holds as it was, and what has changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

Slot = tuple[dict[str, Any], str]
"""Where a module keeps a tensor: in which of its dictionaries, and under which name."""


class Generators:
    """The state of torch's generators of the CPU and of a device.

    Parameters
    ----------
    device : torch.device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None

    def state(self) -> list[Tensor]:
        """The present state."""
        of_device = [] if self._device is None else [torch.cuda.get_rng_state(self._device)]
        return [torch.get_rng_state(), *of_device]

    def set(self, state: Sequence[Tensor]) -> None:
        """Go back to a state."""
        torch.set_rng_state(state[0])
        if self._device is not None:
            torch.cuda.set_rng_state(state[1], self._device)


@contextmanager
def full_precision() -> Iterator[None]:
    """A context in which a GPU multiplies single precision as it is, where it may round factors to ten bits otherwise.

    Convolutions are rounded so by default, and then differ by a thousandth from one kernel to another.
    """
    switches = _switches()
    try:
        for switch in switches:
            switch.set(switch.exact)
        yield
    finally:
        for switch in switches:
            switch.set(switch.before)


class _Switch(NamedTuple):
    """A setting of torch: what sets it, what makes it exact, and what it was."""

    set: Callable[[Any], None]
    exact: Any
    before: Any


def _switches() -> list[_Switch]:
    """The settings that round factors, each as it was set: others are left alone, lest they count as set."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    try:
        products, before, convolutions = matmul.allow_tf32, torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:  # somebody has set what torch 2.9 has for single operations instead
        kinds = matmul, cudnn.conv, cudnn.rnn
        return [_Switch(partial(setattr, kind, "fp32_precision"), "ieee", kind.fp32_precision) for kind in kinds]
    found = []
    if products:  # by a flag of the GPU alone, or by one that is of the processor, too
        of_all = getattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", "") != "none"
        of_gpu = _Switch(partial(setattr, matmul, "allow_tf32"), False, True)
        found.append(_Switch(torch.set_float32_matmul_precision, "highest", before) if of_all else of_gpu)
    if convolutions:
        found.append(_Switch(partial(setattr, cudnn, "allow_tf32"), False, True))
    return found


def precision_of_products() -> tuple[str, ...]:
    """How single precision is multiplied, in torch's words."""
    try:
        return (torch.get_float32_matmul_precision(),)
    except RuntimeError:  # somebody has set what torch 2.9 has for single operations instead
        backends: Any = torch.backends
        return backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision


class Result(NamedTuple):
    """What a step gives, and what it leaves behind."""

    loss: Tensor
    gradients: list[Tensor | None]
    tensors: list[Tensor]
    """Copies of the tensors of the pair and of the objective after it."""


@torch.no_grad()
def put_back(slots: Sequence[Slot], held: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Let modules hold these tensors again, with these values."""
    for (where, name), tensor, value in zip(slots, held, values, strict=True):
        if where.get(name) is not tensor:
            where[name] = tensor
        if tensor.shape == value.shape:
            tensor.copy_(value)


def difference_of(
    compiled: Result, programs: Result, names: Sequence[str], trained: int, rows: int, entries: int
) -> str:
    """Where a compiled step and one of the programs differ by more than rounding, in words; empty if they do not.

    Parameters
    ----------
    compiled, programs : Result
        The steps, from the same state and the same random numbers.
    names : sequence of str
        Names of the tensors, of which the first ones are trained.
    trained : int
        How many are trained.
    rows : int
        Rows of the batch.
    entries : int
        Entries of the data. The loss of each is rounded, by 1e-6 in single precision for a logit of 15.
    """
    single = torch.finfo(compiled.loss.dtype).bits <= 32
    small = 1e-4 if single else 1e-9
    ours, theirs = float(compiled.loss), float(programs.loss)
    if _is_finite(ours) != _is_finite(theirs) or abs(ours - theirs) > small * (abs(theirs) + rows + entries / 100):
        return f"the loss is {theirs / rows:.6g} nats per row by the programs, and {ours / rows:.6g} as recorded"
    if not _is_finite(ours):
        return ""
    pairs = [_both(*pair) for pair in zip(compiled.gradients, programs.gradients, strict=True)]
    norm = max((float(b.norm()) for _, b in pairs), default=0.0)
    for (a, b), name in zip(pairs, names[:trained], strict=True):
        if not float((a - b).norm()) <= 10 * small * norm + 1e-12:
            return f"the gradient of {name!r} is another one by the programs than as recorded"
    for a, b, name in zip(compiled.tensors, programs.tensors, names, strict=True):
        if a.shape != b.shape or not _is_close(a, b, small):
            return f"{name!r} is left with other values by the programs than as recorded"
    return ""


def _is_finite(value: float) -> bool:
    return value - value == 0.0


def _both(first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor]:
    """Two gradients in double precision; none is one of zeros."""
    some = first if second is None else second
    if some is None:
        some = torch.zeros(())
    zeros = torch.zeros_like(some, dtype=torch.float64)
    return zeros if first is None else first.double(), zeros if second is None else second.double()


def _is_close(first: Tensor, second: Tensor, small: float) -> bool:
    if not first.is_floating_point():
        return bool(torch.equal(first, second))
    largest = float(second.detach().nan_to_num().abs().max()) if second.numel() else 0.0
    return torch.allclose(first, second, rtol=0.0, atol=small * (largest + 1e-3), equal_nan=True)


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies that nothing changes."""
    return [tensor.detach().clone() for tensor in tensors]


def gradients_of(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of a loss, none where it does not depend on a tensor."""
    if not tensors or not loss.requires_grad:
        return [None for _ in tensors]
    return list(torch.autograd.grad(loss, list(tensors), allow_unused=True))
