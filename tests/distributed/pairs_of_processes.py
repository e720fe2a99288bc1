"""Trainings that several processes share, and what starts them. Run as a script, it is one of the processes."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from safetensors.torch import save_file
from torch import nn

from pyrovae import VAE, shared_memory
from pyrovae.distributed import LostProcessError, is_restart, processes
from pyrovae.guides import PerDatum
from pyrovae.joining import forget_groups
from pyrovae.training import Callback, Trainer, TrainingInterrupted
from pyrovae.training.parallel import Sum

TIME = 420
EPOCHS = {"enum": 10, "delta": 10, "clipped": 10, "drawn": 6}


class Mixture(nn.Module):
    """A model of two clusters whose guide, a net, is summed out: nothing is drawn."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.tensor([[-1.0, 0.0, 0.5], [1.0, 0.5, -0.5]]))
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7], dtype=x.dtype)))
            pyro.sample("x", dist.Normal(self.means[y], 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=self.net(x)), infer={"enumerate": "parallel"})


class Factors(nn.Module):
    """A linear model, whose latents have a row of parameters each."""

    def __init__(self, prior=None):
        super().__init__()
        self.weights = nn.Linear(2, 3)

    def forward(self, x, index=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.weights(z), 1.0).to_event(1), obs=x)


def data(rows=41):
    return torch.randn(rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pair(name, rows=41):
    if name == "enum":
        made = Mixture().double()
        return VAE(made.model, made.guide)
    scale = "learned" if name == "drawn" else "none"
    return VAE(Factors(), PerDatum(rows, 2, scale=scale, init="normal")).double()


def train(name, folder=None, resume=False, **options):
    """A training whose epochs have a last batch of one row; nothing is drawn, but for the pair "drawn"."""
    torch.manual_seed(3 + processes().rank)  # the weights of the first process count
    vae = pair(name)
    how = {"epochs": EPOCHS[name], "batch_size": 8, "lr": 0.02, "progress": False, "seed": 5} | options
    how |= {"checkpoint_seconds": 0.0} if folder else {}
    how |= {"objective": "enum"} if name == "enum" else {}
    how |= {"gradient_clip": 0.05} if name == "clipped" else {}
    history = Trainer(**how).fit(vae, (data(), data(7)) if name == "enum" else data(), run=folder, resume=resume)
    return vae, history


class Action(Callback):
    """Does something once, after a number of batches since the start."""

    def __init__(self, batch, action):
        self.batch, self.action = batch, action

    def on_batch(self, progress):
        self.batch -= 1
        if not self.batch:
            self.action()


def interrupted(folder, batch, rank):
    """A training that one process stops by Ctrl-C; with `batch` 0 it goes on to its end."""
    action = Action(batch, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        vae, _ = train("drawn", folder, resume=not batch, callbacks=[action] if processes().rank == rank else [])
    except TrainingInterrupted as stop:
        print(stop)
        return
    save(vae, folder)


def killed(folder, batch, rank):
    """A training one of whose processes is killed, unless torchrun has started it again."""
    action = Action(batch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    dies = processes().rank == rank and not is_restart()
    vae, _ = train("drawn", folder, callbacks=[action] if dies else [])
    save(vae, folder)


def plain(folder):
    """A training that nothing stops, without a run folder."""
    vae, _ = train("drawn")
    save(vae, folder)


def longer(folder, epochs):
    """A training that goes on where another one stopped."""
    train("delta", folder, resume=True, epochs=epochs)


def save(vae, folder):
    save_file({n: v.detach().clone() for n, v in vae.state_dict().items()}, f"{folder}/{processes().rank}.safetensors")


def parted(out):
    """The threads that are left when the processes have parted: after a training, and after one has ended alone."""
    importlib.import_module("torch.distributed.nn.functional")  # as some trainings do; it holds a group that it finds

    train("enum", epochs=2)
    kept = None
    if processes().rank == 0:
        try:
            processes().gather("nobody answers")
        except LostProcessError as lost:
            kept = lost
    forget_groups()
    threads = [Path("/proc/self/task", number, "comm").read_text().strip() for number in os.listdir("/proc/self/task")]
    Path(out, f"{processes().rank}.json").write_text(json.dumps([threads, str(kept)]))


def freed(out):
    """How many tensors were freed after sums over the processes, and how many of them by another thread."""
    by = []
    for _ in range(1000):
        tensor = torch.ones(3)
        weakref.finalize(tensor, lambda: by.append(threading.get_ident()))
        processes().sum(tensor)
        del tensor
    time.sleep(1.0)  # for a thread that still has the last one
    forget_groups()
    others = [ident for ident in by if ident != threading.main_thread().ident]
    Path(out, f"{processes().rank}.json").write_text(json.dumps([len(by), len(others)]))


def sums(out):
    """Sums through shared memory and over sockets, of numbers that rounding in another order would show."""
    found = {}
    for name, most in (("memory", shared_memory._MOST), ("sockets", 0)):
        shared_memory._MOST = most
        torch.manual_seed(processes().rank)
        parameters = [torch.nn.Parameter(torch.zeros(300, 7)), torch.nn.Parameter(torch.zeros(5))]
        summed, totals = Sum(processes(), parameters), []
        for step in range(20):
            time.sleep(0.01 * (step % 3 == processes().rank))  # so that each waits for each
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            loss, rows, _ = summed(0.5, 2, None, [False])
            totals += [loss, rows, *(p.grad.double().sum().item() for p in parameters)]
        found[name] = [summed._memory is not None, totals]
    Path(out, f"{processes().rank}.json").write_text(json.dumps(found))


def report(names, out):
    found = {}
    for name in names:
        vae, history = train(name)
        values = {n: p.detach().tolist() for n, p in vae.named_parameters()}
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
        found[name] = {"parameters": values, "history": rows, "best": history.best_epoch}
    Path(out, f"{processes().rank}.json").write_text(json.dumps(found))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(**more):
    """The environment of a process that finds this module and is the only one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more}


def torchrun(size, command, *options):
    """Start processes by torchrun, in a session of their own."""
    how = ["--standalone", "--nproc-per-node", str(size), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *how, *command],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(started):
    """The output of processes by rank when they have ended, with the exit status; none is left behind."""
    try:
        return [(process.communicate(timeout=TIME)[0], process.returncode) for process in started]
    finally:
        for process in started:
            process.terminate()
            process.wait()
            process.stdout.close()


def started(size, command):
    """Start processes as a launcher does."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def work(size, name, *arguments):
    """Let several processes do a function of this module."""
    return ended(started(size, [__file__, name, json.dumps(arguments)]))


if __name__ == "__main__":
    globals()[sys.argv[1]](*json.loads(sys.argv[2]))
