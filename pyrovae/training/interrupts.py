"""Ctrl-C during a training."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """A context in which the first Ctrl-C is only noted, so that the batch under way ends; a second one acts at once.

    Outside of the main thread, which alone gets signals, nothing is changed.

    Parameters
    ----------
    ends : bool, default False
        Whether SIGTERM, by which torchrun and schedulers of clusters end processes, is noted too.

    Attributes
    ----------
    seen : bool
        Whether there was one.
    """

    def __init__(self, *, ends: bool = False) -> None:
        self.seen = False
        self._signals = [signal.SIGINT, *([signal.SIGTERM] if ends else [])]
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(number, self._before[number])
