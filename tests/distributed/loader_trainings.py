"""Trainings on loaders that several processes share. Run as a script, it is one of the processes."""

import json
import os
import signal
import sys
from pathlib import Path

import pairs_of_processes as together
import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, WeightedRandomSampler

from pyrovae import VAE
from pyrovae.distributed import is_restart, processes
from pyrovae.training import Callback, Trainer

ROWS = 41
EPOCHS = 2


class Groups(nn.Module):
    """Two clusters of rows with missing entries, beside a shift by group, which the number of a row tells."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.tensor([[-1.0, 0.0, 0.5], [1.0, 0.5, -0.5]]))
        self.shift = nn.Parameter(torch.zeros(5, 3))
        self.net = nn.Linear(3, 2)

    def model(self, x, mask=None, index=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7], dtype=x.dtype)))
            loc = self.means[y] + (0.0 if index is None else self.shift[index % 5])
            pyro.sample("x", dist.Normal(loc, 1.0).mask(True if mask is None else mask).to_event(1), obs=x)

    def guide(self, x, mask=None, index=None):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=self.net(x)), infer={"enumerate": "parallel"})


class Numbered(torch.utils.data.Dataset):
    """Rows with their numbers and what of them is observed. Where `noise` is set, each row is drawn anew."""

    def __init__(self, noise=0.0, opened=True):
        self.x, self.noise, self.opened = together.data(ROWS), noise, opened

    def __len__(self):
        return ROWS

    def __getitem__(self, place):
        if not self.opened:
            raise OSError("the data set was not opened")
        noise = self.noise * torch.randn(3, dtype=torch.float64) if self.noise else 0.0
        return {"x": self.x[place] + noise, "mask": self.x[place].roll(1) > -1.0, "index": place}


def opened(worker):
    torch.utils.data.get_worker_info().dataset.opened = True


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


LOADERS = {
    "in order": lambda: DataLoader(Numbered(), batch_size=8),
    "shuffled": lambda: DataLoader(Numbered(), batch_size=8, shuffle=True),
    "by itself": lambda: DataLoader(Numbered(), batch_size=8, shuffle=True, generator=seeded()),
    "sampler": lambda: DataLoader(
        Numbered(), 8, sampler=RandomSampler(range(ROWS), generator=seeded()), drop_last=True
    ),
    "weighted": lambda: DataLoader(Numbered(), 8, sampler=WeightedRandomSampler([1.0, 2.0] * 20 + [5.0], 19)),
    "batches": lambda: DataLoader(
        Numbered(opened=False),
        batch_sampler=BatchSampler(RandomSampler(range(ROWS)), 9, False),
        num_workers=1,
        worker_init_fn=opened,
    ),
    "kept workers": lambda: DataLoader(
        Numbered(opened=False), 8, True, num_workers=2, worker_init_fn=opened, persistent_workers=True
    ),
}
NOISY = {
    "by itself": lambda: DataLoader(Numbered(noise=0.1), batch_size=8, shuffle=True, generator=seeded()),
    "workers": lambda: DataLoader(Numbered(noise=0.1), 8, True, num_workers=1),
}


class Seen(Callback):
    """The numbers of the rows of each batch."""

    def __init__(self):
        self.batches, self.now = [], []

    def collate(self, batch):
        self.now += batch["index"].tolist() if "index" in batch else []
        return batch

    def on_start(self, progress):
        self.now = []  # without those that the pair was tried on

    def on_batch(self, progress):
        self.batches.append(self.now)
        self.now = []


def train(loader, *callbacks, **options):
    torch.manual_seed(3 + processes().rank)
    made = Groups().double()
    vae = VAE(made.model, made.guide)
    how = {"objective": "enum", "epochs": EPOCHS, "lr": 0.02, "progress": False, "seed": 5, "callbacks": callbacks}
    folder = options.pop("run", None)
    how |= {"checkpoint_seconds": 0.0} if folder else {}
    collate = next((c.collate for c in callbacks if isinstance(c, Seen)), None)
    validation = DataLoader([{"x": row} for row in together.data(7)], 3, shuffle=True)
    return vae, Trainer(**how, **options).fit(vae, loader, validation, collate=collate, run=folder)


def report(out):
    """What a training on each loader finds, and weights of others that draw noise, which nothing stops."""
    found = {}
    for name, make in LOADERS.items():
        vae, history = train(make(), seen := Seen())
        found[name] = {
            "parameters": {n: p.detach().tolist() for n, p in vae.named_parameters()},
            "history": [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows],
            "seen": seen.batches,
        }
    Path(out, f"{processes().rank}.json").write_text(json.dumps(found))
    for name, make in NOISY.items():
        folder = Path(out, name)
        folder.mkdir(exist_ok=True)
        vae, _ = train(make())
        together.save(vae, folder)


def killed(name, folder, batch):
    """A training whose second process is killed, unless torchrun has started it again."""
    dies = processes().rank == 1 and not is_restart()
    action = together.Action(batch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    vae, _ = train(NOISY[name](), *([action] if dies else []), run=folder)
    together.save(vae, folder)


if __name__ == "__main__":
    globals()[sys.argv[1]](*json.loads(sys.argv[2]))
