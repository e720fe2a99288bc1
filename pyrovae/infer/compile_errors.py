"""Why a pair cannot be compiled: what failed, where in the programs, and what to do."""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyro
import torch

from pyrovae import programs
from pyrovae.infer.densities import masked_log_prob

WHY = (
    "; a recording holds what the programs decide in Python, or assign anew, as it was; make it an argument or a "
    "buffer that is changed in place, or train without compilation"
)
"""What to do where a recording and the programs differ."""


class CompileError(ValueError):
    """A pair, an objective or this machine does not allow compilation; the message says which and why."""


def reason_of(error: Exception) -> str:
    """Why programs could not be recorded, in one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "a value of a tensor is needed in Python" if "_local_scalar_dense" in text else text


def place_of(error: Exception) -> str:
    """The site and the line of the program where tracing stopped, in words, as far as its frames show them."""
    site = line = ""
    libraries = tuple(str(Path(module.__file__ or "").parent) for module in (torch, pyro, programs, os))
    for frame, number in traceback.walk_tb(error.__traceback__):
        name, local = frame.f_code.co_filename, frame.f_locals
        if frame.f_code is pyro.sample.__code__:
            site = f" at site {local['name']!r}"
        elif frame.f_code is masked_log_prob.__code__:
            site = f" at site {local['site']['name']!r}"
        elif not name.startswith((*libraries, "<")):
            line = f", {Path(name).name} line {number}: {linecache.getline(name, number).strip()}"
    return site + line


@contextmanager
def running() -> Iterator[None]:
    """A context of trials, which may trip over an operation once it is recorded."""
    try:
        yield
    except CompileError:
        raise
    except Exception as error:
        raise CompileError(
            f"the pair cannot be compiled: what was recorded does not run ({reason_of(error)}); train it without "
            "compilation"
        ) from error
