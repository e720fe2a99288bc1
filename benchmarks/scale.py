"""Several processes against one: equal weights, equal mean gradients, speed, and kills.

    python benchmarks/scale.py equal
    python benchmarks/scale.py gradients --steps 2000
    python benchmarks/scale.py speed --rows 8192 --epochs 4 --rounds 3 [--compile]
    python benchmarks/scale.py kills --count 20 --epochs 100

Each starts torchrun by itself, and prints a line for each figure. All processes compute on one thread. `speed` takes
turns, and the best epoch of each counts; "apart" are two trainings at once that do not speak to each other, each with
half of the rows and of the batch, which is as fast as two processes can be here. Two cores must be free.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pyrovae import VAE, shared_memory
from pyrovae.data.dataset import DataSpec
from pyrovae.distributed import processes
from pyrovae.guides import PerDatum
from pyrovae.infer import objective_names
from pyrovae.infer.nvil import NVIL
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer

OF_BITS = ("enum", "nvil", "vimco", "rws", "wake-wake", "wake-sleep", "graph")
QUIET = {"progress": False, "seed": 0}


class Small(nn.Module):
    """Five numbers and two latents, normal or binary."""

    def __init__(self, binary: bool, enumerated: bool) -> None:
        super().__init__()
        self.binary, self.how = binary, {"enumerate": "parallel"} if enumerated else {}
        self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 2 if binary else 4)

    def model(self, x: torch.Tensor, index: torch.Tensor | None = None) -> None:
        """The model."""
        one = x.new_ones(2)
        with pyro.plate("data", len(x)):
            prior = dist.Bernoulli(0.4 * one).to_event(1) if self.binary else dist.Normal(0 * one, one).to_event(1)
            if self.how:
                each = [pyro.sample(f"z{i}", dist.Bernoulli(0.4 * one[0])) for i in range(2)]
                z = torch.stack(torch.broadcast_tensors(*each), -1)
            else:
                z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: torch.Tensor) -> None:
        """The guide, a linear map."""
        answer = self.encoder(x)
        with pyro.plate("data", len(x)):
            if self.how:
                for i in range(2):
                    pyro.sample(f"z{i}", dist.Bernoulli(logits=answer[:, i]), infer=self.how)
            elif self.binary:
                pyro.sample("z", dist.Bernoulli(logits=answer).to_event(1))
            else:
                loc, raw = answer.chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class Recorder(torch.optim.SGD):
    """Adds up gradients, and moves nothing."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Take in the gradients of a step."""
        flat = torch.cat(
            [p.grad.reshape(-1) for group in self.param_groups for p in group["params"] if p.grad is not None]
        )
        self.sums = getattr(self, "sums", 0) + torch.stack([flat, flat.square()]).double()


def rows(number: int, size: int) -> torch.Tensor:
    return torch.randn(number, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def small(binary: bool, enumerated: bool = False) -> VAE:
    torch.manual_seed(2)
    made = Small(binary, enumerated).double()
    return VAE(made.model, made.guide)


def equal(out: str, _: argparse.Namespace) -> None:
    """Fifty steps of what draws nothing."""
    vae = small(binary=True, enumerated=True)
    Trainer(objective="enum", epochs=10, batch_size=9, lr=0.01, **QUIET).fit(vae, rows(41, 5))
    torch.manual_seed(2)
    decoder = Small(binary=False, enumerated=False)
    points = VAE(decoder.model, PerDatum(41, 2, scale="none")).double()
    Trainer(epochs=10, batch_size=9, lr=0.01, **QUIET).fit(points, rows(41, 5))
    state = {f"{n}.{k}": v for n, pair in (("enum", vae), ("points", points)) for k, v in pair.state_dict().items()}
    if processes().first:
        save_file({name: value.detach().clone() for name, value in state.items()}, out)


def of_name(name: str) -> Any:
    """An objective; the net of a baseline is the same whatever the number of processes."""
    if name != "nvil":
        return name
    torch.manual_seed(5)
    return NVIL(baseline=nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double())


def gradients(out: str, options: argparse.Namespace) -> None:
    """Mean gradients of all objectives at fixed parameters."""
    found = {}
    for name in options.only or objective_names():
        made: list[Recorder] = []

        def recorder(groups: list, made: list[Recorder] = made) -> Recorder:
            made.append(Recorder(groups, lr=1e-3))
            return made[0]

        vae = small(binary=name in OF_BITS, enumerated=name == "enum")
        trainer = Trainer(
            objective=of_name(name),
            optimizer=recorder,
            epochs=options.steps,
            batch_size=16,
            progress=False,
            seed=options.seed + processes().size,
        )
        trainer.fit(vae, rows(16, 5))
        total, squares = made[0].sums / options.steps
        found[f"{name}.mean"] = total
        found[f"{name}.error"] = ((squares - total.square()).clamp(min=0) / options.steps).sqrt()
    if processes().first:
        save_file(found, out)


def speed(out: str, options: argparse.Namespace) -> None:
    """Seconds of an epoch of the benchmark VAE, 784-200-50."""
    x = (torch.rand(options.rows, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    torch.manual_seed(0)
    spec = DataSpec("noise", (1, 28, 28), "binary", num_rows=len(x))
    vae = find_pair("gaussian").build(spec, latent_dim=50, hidden=(200,))
    how = {"compile": True, "objective": "iwae", "num_particles": 1} if options.compile else {"objective": "mean-field"}
    history = Trainer(epochs=options.epochs + 1, batch_size=options.batch_size, **how, **QUIET).fit(vae, x)
    seconds = [row["seconds"] for row in history.rows]
    if processes().first:
        best = min(b - a for a, b in pairwise(seconds))
        save_file({"seconds": torch.tensor(best)}, out)


def kills(out: str, options: argparse.Namespace) -> None:
    """A training that may be killed at any moment."""
    x = rows(512, 5)
    vae = small(binary=False)
    how = {"epochs": options.epochs, "batch_size": 16, "checkpoint_seconds": 0.0, "lr": 0.01}
    Trainer(**how, **QUIET).fit(vae, x, run=f"{out}.run")
    if processes().first:
        save_file({name: p.detach().clone() for name, p in vae.named_parameters()}, out)


def start(size: int, options: argparse.Namespace, out: Path, restarts: int = 0) -> subprocess.Popen:
    """Start processes that do the task."""
    own = [
        __file__,
        options.task,
        "--out",
        str(out),
        *(f"--{n}={getattr(options, n.replace('-', '_'))}" for n in ("steps", "rows", "epochs", "batch-size", "seed")),
    ]
    own += ["--compile"] if options.compile else []
    own += ["--sockets"] if options.sockets else []
    own += ["--only", *options.only] if options.only else []
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", f"--max-restarts={restarts}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen([sys.executable, *launcher, *own], env=environment, stdout=log, stderr=log)


def result(size: int, options: argparse.Namespace, folder: Path) -> dict[str, torch.Tensor]:
    """What so many processes find."""
    path = folder / f"{size}.safetensors"
    if start(size, options, path).wait():
        raise SystemExit(f"{path.with_suffix('.log').read_text()}\n{size} processes failed")
    return load_file(path)


def compare_speed(options: argparse.Namespace, folder: Path) -> None:
    """The best epochs of one process, of two, of two over sockets, and of two that do not speak to each other."""
    half = argparse.Namespace(**{**vars(options), "rows": options.rows // 2, "batch_size": options.batch_size // 2})
    sockets = argparse.Namespace(**{**vars(options), "sockets": True})
    best = dict.fromkeys(("one", "two", "sockets", "apart"), float("inf"))
    for _ in range(options.rounds):
        for size, name, how in ((1, "one", options), (2, "two", options), (2, "sockets", sockets)):
            best[name] = min(best[name], float(result(size, how, folder)["seconds"]))
        paths = [folder / f"half{number}.safetensors" for number in range(2)]
        if any([process.wait() for process in [start(1, half, path) for path in paths]]):
            raise SystemExit("a training of half of the rows failed")
        best["apart"] = min(best["apart"], max(float(load_file(path)["seconds"]) for path in paths))
    fast = {name: round(best["one"] / best[name], 2) for name in ("two", "sockets", "apart")}
    shown = {name: round(value, 4) for name, value in best.items()}
    print(json.dumps({"seconds of an epoch": shown, "times as fast": fast, "load": os.getloadavg()[0]}))


def children(pid: int) -> list[int]:
    """Processes that another one has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_at_random(options: argparse.Namespace, folder: Path) -> None:
    """Trainings one of whose processes is killed once, at a random moment, against one that nothing stops."""
    chance, whole = random.Random(0), result(2, options, folder)
    begun = time.monotonic()
    start(2, options, folder / "timed.safetensors").wait()
    lasts, same, killed, trainings = time.monotonic() - begun, 0, 0, 0
    while killed < options.count and trainings < 3 * options.count:
        trainings += 1
        path = folder / f"killed{trainings}.safetensors"
        process = start(2, options, path, restarts=3)
        time.sleep(chance.uniform(0.2, 0.95) * lasts)
        workers = children(process.pid)
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed += 1
        process.wait()
        found = load_file(path)
        same += all(torch.equal(found[name], whole[name]) for name in whole)
    print(json.dumps({"trainings": trainings, "killed": killed, "equal bit for bit": same}))


def main() -> None:
    """Run a task, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["equal", "gradients", "speed", "kills"])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="+", help="objectives of `gradients`")
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=20, help="trainings that are killed")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--sockets", action="store_true", help="sum over sockets, not through shared memory")
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.sockets:
        shared_memory._MOST = 0
    if options.out:
        {"equal": equal, "gradients": gradients, "speed": speed, "kills": kills}[options.task](options.out, options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.task == "kills":
            kill_at_random(options, folder)
            return
        if options.task == "speed":
            compare_speed(options, folder)
            return
        one = result(1, options, folder)
        for size in (2, 3) if options.task == "equal" else (2,):
            other = result(size, options, folder)
            if options.task == "equal":
                for pair in ("enum", "points"):
                    furthest = max(float((one[n] - other[n]).abs().max()) for n in one if n.startswith(pair))
                    print(json.dumps({"pair": pair, "processes": size, "largest difference": furthest}))
            else:
                for objective in options.only or objective_names():
                    spread = (one[f"{objective}.error"].square() + other[f"{objective}.error"].square()).sqrt()
                    apart = (one[f"{objective}.mean"] - other[f"{objective}.mean"]).abs()
                    furthest = float((apart / spread.clamp(min=1e-9)).max())
                    print(
                        json.dumps(
                            {"objective": objective, "entries": len(apart), "standard errors": round(furthest, 2)}
                        )
                    )


if __name__ == "__main__":
    main()
