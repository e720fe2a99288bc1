"""Ctrl-C during a training."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """A context in which the first Ctrl-C is only noted, so that the batch under way ends; a second one acts at once.

    Outside of the main thread, which alone gets signals, nothing is changed.

    Attributes
    ----------
    seen : bool
        Whether there was one.
    """

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> Interrupt:
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._before: Any = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, self._before)
