"""Rows, short trainings and a callback for the tests of the Trainer."""

import torch
from pairs import linear_pair
from torch.utils.data import DataLoader, IterableDataset

from pyrovae.training import Callback, Trainer


def rows(num=40):
    """Rows of five numbers for the linear pair."""
    return torch.randn(num, 5, generator=torch.Generator().manual_seed(7)) @ torch.diag(torch.tensor([3.0, 2, 1, 1, 1]))


def seeded(make=linear_pair, seed=0):
    torch.manual_seed(seed)
    return make()


def trained(data=None, make=linear_pair, **options):
    vae = seeded(make)
    size = {} if isinstance(data, DataLoader | IterableDataset) else {"batch_size": 16}
    options = {"epochs": 3, **size, "progress": False} | options
    history = Trainer(**options).fit(vae, rows() if data is None else data)
    return vae, history


class Watcher(Callback):
    """Calls a function at every event of one kind."""

    def __init__(self, event, action):
        setattr(self, event, action)
