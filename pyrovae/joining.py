"""How a process joins those that it works with, and parts from them."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# torch is imported where it is needed, since the help of the command line comes without it.

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables of a process that is one of several, as torchrun sets them."""
_JOINING = 600.0
"""Seconds that a process waits for all others to come."""


class LostProcessError(RuntimeError):
    """Another process of a training has ended; the message is one line."""


def join() -> tuple[int, int, Any] | None:
    """Join the other processes, where there are some.

    Returns
    -------
    tuple of int, int and object, or None
        The number of this process, how many there are, and the group of `torch.distributed` for tensors in main memory,
        None for the default group. None alone where there are no others.

    Raises
    ------
    ValueError
        For environment variables that are none.
    LostProcessError
        If not all processes come.
    """
    launched = all(os.environ.get(name) for name in VARIABLES)
    if not launched and "torch" not in sys.modules:
        return None
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        return None
    if not dist.is_initialized():
        if not launched:
            return None
        try:
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        except ValueError:
            rank = size = -1
        if not 0 <= rank < size:
            raise ValueError(
                f"RANK={os.environ['RANK']} and WORLD_SIZE={os.environ['WORLD_SIZE']} are the number of a process and "
                "how many there are; let torchrun set them, or unset them to train in one process"
            )
        if size == 1:
            return None
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        if cuda and local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(local_rank())
        # Functions of this module have the group that is there when it is imported as a default. Imported later, as a
        # training does, they would hold the group when it is closed; its threads would then run on until the
        # interpreter ends, and one that still lets go of a tensor aborts the process.
        import torch.distributed.nn.functional

        store = _fresh(*_meeting_place())
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=size)
        atexit.register(_part)
    if dist.get_world_size() == 1:
        return None
    in_memory = "gloo" in str(dist.get_backend_config())
    return dist.get_rank(), dist.get_world_size(), None if in_memory else dist.new_group(backend="gloo")


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def store() -> Any:
    """The keys and values that all processes see, which outlive a process that does not hold them."""
    global _kept
    if _kept is None:
        from torch.distributed import distributed_c10d

        _kept = distributed_c10d._get_default_store()
    return _kept


_kept: Any = None


def finish(operation: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Do an operation of `torch.distributed` on tensors in main memory, until its thread has let go of them.

    The thread enters Python when it does so. If the main thread forks just then, as loaders with workers do, the child
    waits for ever, before Python 3.12.
    """
    tensors = [one for given in args for one in (given if isinstance(given, list) else [given])]
    before = [_holders(one) for one in tensors]
    operation(*args, async_op=True, **options).wait()
    end = time.monotonic() + _LETTING_GO
    while [_holders(one) for one in tensors] != before and time.monotonic() < end:
        time.sleep(1e-5)


def _holders(tensor: Any) -> tuple[int, int]:
    """How many hold a tensor in torch, and in Python."""
    return tensor._use_count(), sys.getrefcount(tensor)


_LETTING_GO = 1.0
"""Seconds that a thread is waited for at most. It takes microseconds where the machine is idle."""


def forget_groups() -> None:
    """Close the connections to the other processes, so that they notice at once."""
    import torch.distributed as dist

    with suppress(RuntimeError, AssertionError, ValueError):
        if dist.is_initialized():
            dist.destroy_process_group()


def _part() -> None:
    """Close the connections, and the store of the first process, while Python still runs."""
    global _kept
    forget_groups()
    _kept = None


def _meeting_place() -> tuple[Any, int, int]:
    """The store that the launcher has for all processes, the number of this one, and how many there are."""
    from torch.distributed.rendezvous import rendezvous

    return next(iter(rendezvous("env://")))


def _fresh(store: Any, rank: int, size: int) -> Any:
    """A part of a store that only the processes of this start know, without keys of those before a restart.

    torchrun may keep its store when it starts processes again, and an address of a process that was killed is then
    taken for that of its successor. So each process says a number that nobody else has, and the first one answers
    with a name for the part until all have heard it.

    Raises
    ------
    LostProcessError
        If not all processes come.
    """
    from torch.distributed import PrefixStore

    own, end = uuid.uuid4().hex, time.monotonic() + _JOINING
    store.set(f"pyrovae.hello.{rank}", own)
    name, known = own, None
    while time.monotonic() < end:
        if rank == 0:
            here = [r for r in range(size) if store.check([f"pyrovae.hello.{r}"])]
            heard = {str(r): store.get(f"pyrovae.hello.{r}").decode() for r in here}
            if heard != known:
                store.set("pyrovae.answer", json.dumps({"name": name, "heard": heard}))
                known = heard
            if all(store.check([f"pyrovae.heard.{name}.{r}"]) for r in range(1, size)):
                return PrefixStore(name, store)
        elif store.check(["pyrovae.answer"]):
            answer = json.loads(store.get("pyrovae.answer"))
            if answer["heard"].get(str(rank)) == own:
                store.set(f"pyrovae.heard.{answer['name']}.{rank}", "yes")
                return PrefixStore(answer["name"], store)
        time.sleep(0.02)
    raise LostProcessError(f"process {rank} of {size} has waited {_JOINING:.0f} seconds for the others to come")
