"""Devices by name."""

from __future__ import annotations

import os

import torch

from pyrovae.distributed import local_rank, processes


def pick_device(name: str) -> str:
    """A torch device by name.

    Parameters
    ----------
    name : str
        Such as "cpu", "cuda" or "cuda:1". "auto" is CUDA where there is one, and otherwise the CPU. Where several
        processes work together, "cuda" is a device for each process of a machine, and "auto" too if there are so many.

    Returns
    -------
    str
        The name of a device that is there.

    Raises
    ------
    ValueError
        If the device cannot be used.

    Examples
    --------
    >>> pick_device("cpu")
    'cpu'
    """
    if processes().several and name in ("auto", "cuda"):
        devices, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", local_rank() + 1))
        if devices >= wanted:
            return f"cuda:{local_rank()}"
        if name == "cuda":
            raise ValueError(f"{wanted} processes on this machine need a CUDA device each, and it has {devices}")
        return "cpu"
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return name
