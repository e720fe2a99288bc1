"""Importing the library changes nothing that belongs to torch or Pyro, except for added divergences."""

import subprocess
import sys

PROGRAM = """
import random

import numpy as np
import pyro
import torch
from torch.distributions import Distribution, biject_to, kl, transform_to
from torch.distributions.constraints import Constraint


def everything(root):
    return {root} | {below for cls in root.__subclasses__() for below in everything(cls)}


def state():
    registered = {
        "kl": dict(kl._KL_REGISTRY),
        "biject_to": dict(biject_to._registry),
        "transform_to": dict(transform_to._registry),
    }
    bodies = {
        cls: dict(vars(cls))
        for root in (Distribution, Constraint, torch.distributions.Transform)
        for cls in everything(root)
        if cls.__module__.split(".")[0] != "pyrovae"
    }
    for body in bodies.values():
        for volatile in [name for name in body if name.startswith(("__", "_abc"))]:
            del body[volatile]
    flags = (
        Distribution._validate_args, pyro.settings.get(), torch.get_default_dtype(), torch.get_num_threads(),
        torch.is_grad_enabled(), random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(),
        sorted(pyro.get_param_store().keys()),
    )
    return registered, bodies, flags


def ours(key):
    return any(cls.__module__.split(".")[0] == "pyrovae" for cls in (key if isinstance(key, tuple) else (key,)))


registered, bodies, flags = state()
import pyrovae.distributions, pyrovae.testing
registered_after, bodies_after, flags_after = state()
for name, table in registered.items():
    after = registered_after[name]
    assert {key: after[key] for key in table} == table, name
    added = set(after) - set(table)
    assert added, name
    assert all(map(ours, added)), (name, added)
assert bodies_after.keys() == bodies.keys()
assert bodies_after == bodies
assert flags_after == flags
"""


def test_importing_adds_divergences_and_nothing_else():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
