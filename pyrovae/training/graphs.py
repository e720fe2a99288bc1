"""What a device can record and repeat: CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from pyrovae.infer.compared import Generators


class Graph(Protocol):
    """What a device can record and repeat."""

    def aside(self) -> AbstractContextManager[None]:
        """A context for runs before the recording, which it needs."""
        ...

    def record(self, body: Callable[[], Tensor]) -> Tensor:
        """Record what a function does, without doing it; the tensor that it returns is filled by each replay."""
        ...

    def replay(self) -> None:
        """Do what was recorded, with the values that the tensors have now."""
        ...

    def draws(self) -> list[Tensor]:
        """Where the random numbers stand."""
        ...

    def set_draws(self, draws: Sequence[Tensor]) -> None:
        """Let the random numbers go on from there."""
        ...


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all recordings of a device, because libraries keep memory for each that they have worked on."""
    return torch.cuda.Stream(device)


class CudaGraph:
    """Kernels of a CUDA device that are launched by one call.

    Parameters
    ----------
    device : device
        The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._graph = torch.cuda.CUDAGraph()
        self._stream, self._generators = _stream(self._device), Generators(self._device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A context that runs on the stream of the recording, so that libraries make there what they need."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            main.wait_stream(self._stream)

    def record(self, body: Callable[[], Tensor]) -> Tensor:
        """Record what a function does; a recording that fails leaves the random numbers usable."""
        generator = torch.cuda.default_generators[self._device.index]
        before = generator.clone_state()
        how: dict[str, Any] = {"stream": self._stream, "capture_error_mode": "thread_local"}
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(self._graph, **how):
                return body()
        except BaseException:
            generator.graphsafe_set_state(before)  # the state in use waits for the end of a recording
            raise

    def replay(self) -> None:
        """Launch what was recorded. The device's random numbers go on as if it had been done kernel by kernel."""
        self._graph.replay()

    def draws(self) -> list[Tensor]:
        """The states of the processor's and the device's random numbers."""
        return self._generators.state()

    def set_draws(self, draws: Sequence[Tensor]) -> None:
        """Set both states."""
        self._generators.set(draws)


GRAPHS: dict[str, Callable[[torch.device], Graph]] = {"cuda": CudaGraph}
"""What records steps, by the type of the device. On others, steps are not captured."""
