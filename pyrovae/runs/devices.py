"""Devices by name."""

from __future__ import annotations

import torch


def pick_device(name: str) -> str:
    """A torch device by name.

    Parameters
    ----------
    name : str
        Such as "cpu", "cuda" or "cuda:1". "auto" is CUDA where there is one, and otherwise the CPU.

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
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return name
