"""Groups of compiled steps that the machine's own code does, without Python between them.

What lies between two steps in Python takes little time by itself, but it takes the data of the step out of the caches.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence
from importlib import resources
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyrovae.infer.compiled_code import forgets_broken_library
from pyrovae.infer.entries import Entry, handles_of, tensors_of
from pyrovae.training.batching import Together
from pyrovae.training.fused_steps import BoundSteps, Moves

logger = logging.getLogger(__name__)
_ROOM = 1 << 16
_SAME, _ROWS, _NUMBER = range(3)
"""Kinds of arguments: the same in all steps, rows of all batches, a number for each step."""
_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_handle_of = _POINTER(("PyCapsule_GetPointer", ctypes.pythonapi))


class NativeSteps:
    """The library that does groups of steps. It is compiled beside the training, in a second or two, once on a machine.

    Steps are the same with it, bit for bit, so that it does not matter from when on a training has it.
    """

    def __init__(self) -> None:
        self._library: ctypes.PyDLL | None = None
        self._thread: threading.Thread | None = None

    def is_there(self) -> bool:
        """Whether the library can be used; a first call begins to load or to compile it."""
        if self._thread is None:
            # Python ends after the thread, so that no library is left half written.
            self._thread = threading.Thread(target=self._prepare, daemon=False)
            try:
                self._thread.start()
            except RuntimeError as error:  # where no further thread is allowed
                logger.debug("steps are not grouped: %s", error)
        return self._library is not None

    def wait(self) -> None:
        """Wait until it is known whether there is a library."""
        if not self.is_there() and self._thread is not None and self._thread.ident is not None:
            self._thread.join()

    def _prepare(self) -> None:
        try:
            source = resources.files("pyrovae.training").joinpath("native_steps.cpp").read_text(encoding="utf-8")
            try:
                library = _compiled(source)
            except (ImportError, OSError) as error:
                if not forgets_broken_library(error):
                    raise
                library = _compiled(source)
            library.pyrovae_steps.restype = ctypes.c_bool
            self._library = library
        except Exception as error:  # no compiler, or one that torch has no settings for
            logger.debug("steps are not grouped: %s", error)

    def run(
        self, entry: Entry, fixed: Sequence[Tensor], batches: Together, steps: int, move: BoundSteps
    ) -> tuple[list[float], int, BaseException | None]:
        """Do steps of compiled code and of Adam. Call it without autograd.

        Parameters
        ----------
        entry : Entry
            The code.
        fixed : sequence of Tensor
            Its arguments before those of the batch. The last one holds a number for each step.
        batches : Together
            The batches, as many as steps at least.
        steps : int
            Number of steps.
        move : BoundSteps
            What Adam moves.

        Returns
        -------
        list of float, int and Exception or None
            The losses, the number of steps done, and what went wrong in the next one, if anything. A loss that is not
            finite is the last one, and its step is not done.
        """
        assert self._library is not None
        losses, done, text = (ctypes.c_double * steps)(), ctypes.c_int64(0), ctypes.create_string_buffer(_ROOM)
        problem: BaseException | None = None
        rows = [_ROWS if cut else _SAME for cut in batches.is_cut]
        kinds = bytes([*[_SAME] * (len(entry.constants) + len(fixed) - 1), _NUMBER, *rows])
        with _Handles() as handles:
            try:
                moves = [_move(*one, handles) for one in zip(move.calls, move.places, strict=True)]
                self._library.pyrovae_steps(
                    ctypes.c_void_p(entry.address),
                    ctypes.c_int64(len(kinds)),
                    handles([*entry.constants, *fixed, *batches.arguments]),
                    ctypes.c_char_p(kinds),
                    ctypes.c_int64(batches.first),
                    ctypes.c_int64(batches.size),
                    ctypes.c_int64(steps),
                    ctypes.c_int64(entry.num_outputs),
                    ctypes.c_byte(entry.is_double),
                    ctypes.c_int64(len(moves)),
                    (_Move * len(moves))(*moves),
                    losses,
                    ctypes.byref(done),
                    text,
                    ctypes.c_int64(_ROOM),
                )
            except BaseException as error:  # of an operation in Python, which the code calls
                problem = error
        if text.value:
            problem = RuntimeError(text.value.decode(errors="replace"))
        counted = min(done.value + (problem is None), steps)
        return losses[:counted], done.value, problem


NATIVE = NativeSteps()
"""The one library of this process."""


def can_move(move: BoundSteps) -> bool:
    """Whether the library moves these parameters as torch's optimizer does."""
    return all(call.counts.dtype == torch.float32 and call.counts.device.type == "cpu" for call in move.calls)


class _Move(ctypes.Structure):
    """What one call of Adam moves, as the library takes it."""

    _fields_: ClassVar = [
        ("number", ctypes.c_int64),
        ("places", ctypes.POINTER(ctypes.c_int64)),
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in ("parameters", "means", "squares", "counts")),
        ("count", ctypes.c_void_p),
        *((name, ctypes.c_double) for name in ("lr", "beta1", "beta2", "weight_decay", "eps")),
        *((name, ctypes.c_byte) for name in ("maximize", "decoupled")),
    ]


def _move(call: Moves, places: Sequence[int], handles: _Handles) -> _Move:
    lr, weight_decay, eps, maximize, decoupled, beta1, beta2 = call.settings
    return _Move(
        len(places),
        (ctypes.c_int64 * len(places))(*(1 + place for place in places)),  # the loss is the first output
        *map(handles, (call.parameters, call.means, call.squares, call.steps)),
        call.counts.data_ptr(),
        *(lr, beta1, beta2, weight_decay, eps),
        *(bool(maximize), bool(decoupled)),
    )


class _Handles:
    """Handles of tensors as arrays, which are let go of at the end of the context."""

    def __init__(self) -> None:
        self._held: list[list[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for own in self._held:
            tensors_of(own)

    def __call__(self, tensors: Sequence[Tensor]) -> ctypes.Array:
        """The handles of some tensors."""
        self._held.append(handles_of(tensors))
        return (ctypes.c_void_p * len(tensors))(*(_handle_of(one, None) for one in self._held[-1]))


def _compiled(source: str) -> Any:
    """The library, by inductor, which looks into its cache first and knows the compiler."""
    from torch._inductor import codecache  # a second that only those who compile wait for

    class Code(codecache.CppCodeCache):
        cache: dict[str, Any] = {}  # noqa: RUF012
        cpp_compile_command_flags: dict[str, Any] = {"include_pytorch": True, "shared": True}  # noqa: RUF012

        @staticmethod
        def _load_library_inner(path: str, key: str) -> ctypes.PyDLL:
            return ctypes.PyDLL(path)  # which keeps the lock of Python, as the code expects

    return Code.load_async(source, "cpu")()
