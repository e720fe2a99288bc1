"""Time of a training step of a 784-200-50 Bernoulli VAE with Adam: this library beside others, and the ratios.

Everything is measured in one run, by turns: for each batch size all kinds are trainings in processes of their own. In
each round each of them, in an order drawn anew, goes on for some epochs while the others stand still. The first epoch
of a turn is not counted. Ratios are taken within a round, and the median over the rounds is shown, so they do not shift
when a machine becomes slower or faster. What is timed is an epoch as a user has it, its shuffling and its batches
included, without validation. Nothing else may share the machine: the run is refused when it is busy. `--force` measures
all the same, and marks the figures as contended. A virtual machine may move its two processors away from each other in
the middle (see `processors.py`): with two threads, turns near and far are told apart.

    python benchmarks/speed.py                                    # two threads, wall time
    python benchmarks/speed.py --python BENCH_PYTHON              # an interpreter with the extra [bench] for the others
    python benchmarks/speed.py --cpu-time --force --rounds 3      # one thread, processor time, on a busy machine
    python benchmarks/speed.py --profile ours --batch-size 128    # what the handlers of Pyro cost
    python benchmarks/speed.py --device cuda                      # on a GPU
    python benchmarks/speed.py --family sbn --kind "by hand" "ours, compiled"

Families: a Gaussian VAE; one of 4-4-2 units, of which little is arithmetic (`--batch-size 4`); a sigmoid belief network
with VIMCO, K = 10; a stick-breaking VAE; a table of 100 columns.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import json
import math
import os
import pstats
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from processors import distance, is_near
from speed_families import FAMILIES, HIDDEN, LATENT, PIXELS, ROWS, Family, Gaussian
from torch import Tensor, nn

WARM = 2  # epochs that are not timed
device = "cpu"
family: Family = FAMILIES["gaussian"]


def pair() -> Any:
    """The pair of this library."""
    torch.manual_seed(0)
    return family.pair().to(device)


def batches(x: Tensor, batch: int) -> Iterator[Tensor]:
    """An epoch of minibatches."""
    order = torch.randperm(len(x), device=x.device)
    for start in range(0, len(x), batch):
        yield x[order[start : start + batch]]


def by_hand(batch: int, *, compiled: bool = False) -> Callable[[], None]:
    """An epoch written by hand, with fused Adam."""
    torch.manual_seed(0)
    x, net = family.data().to(device), family.by_hand().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    on_cpu = x.device.type == "cpu"
    loss_of: Any = torch.compile(net, mode=None if on_cpu else "reduce-overhead") if compiled else net

    def epoch() -> None:
        total: Any = 0.0
        for part in batches(x, batch):
            loss = loss_of(part) / len(part)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total = total + (loss.item() if on_cpu else loss.detach())  # a GPU is waited for once an epoch
        float(total)

    return epoch


def stock_pyro(batch: int) -> Callable[[], None]:
    """An epoch of `SVI` on the same pair."""
    import pyro

    pyro.clear_param_store()
    pyro.settings.set(validate_distributions_pyro=False, validate_infer=False, validate_poutine=False)
    x, vae = family.data().to(device), pair()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())

    def epoch() -> None:
        for part in batches(x, batch):
            svi.step(part)

    return epoch


class Clock:
    """Milliseconds per step of each epoch, and how far the processors were from each other in it."""

    by_turns = False  # each epoch waits for a line of standard input, and prints its time
    watches = True  # the processors

    def __init__(self, batch: int) -> None:
        self.steps, self.epochs = ROWS // batch, list[tuple[float, float]]()
        self._begin()

    def _begin(self) -> None:
        if self.by_turns and not sys.stdin.readline():
            raise SystemExit
        self.distance = self._distance()
        self.begun = now()

    def _distance(self) -> float:
        return distance() if self.watches and torch.get_num_threads() > 1 else math.nan

    def lap(self) -> None:
        """An epoch ends, and the next one begins."""
        ms = (now() - self.begun) / self.steps * 1000
        self.epochs.append((ms, max(self.distance, self._distance())))
        if self.by_turns:
            print("epoch", json.dumps(self.epochs[-1]), flush=True)
        self._begin()


def ours(batch: int, *, compiled: bool | str) -> Clock:
    """The epochs of a Trainer."""
    from pyrovae.training import Callback, Trainer

    class Watch(Callback):
        def on_epoch(self, progress: Any) -> None:
            clock.lap()

    clock = Clock(batch)
    trainer = Trainer(
        family.objective, epochs=EPOCHS + WARM, batch_size=batch, compile=compiled, progress=False, callbacks=[Watch()]
    )
    trainer.fit(pair(), family.data().to(device))
    return clock


def numpyro(batch: int, *, scan: bool) -> Callable[[], None]:
    """An epoch of NumPyro: a jitted step for each batch, or one `lax.scan` over all of them."""
    import jax
    import jax.numpy as jnp
    import numpyro as npr
    import numpyro.distributions as dist
    from jax.example_libraries import stax

    encoder = stax.serial(
        stax.Dense(HIDDEN),
        stax.Relu,
        stax.FanOut(2),
        stax.parallel(stax.Dense(LATENT), stax.serial(stax.Dense(LATENT), stax.Exp)),
    )
    decoder = stax.serial(stax.Dense(HIDDEN), stax.Relu, stax.Dense(PIXELS))

    def model(x: Any) -> None:
        net = npr.module("decoder", decoder, (batch, LATENT))
        with npr.plate("data", len(x)):
            z = npr.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            npr.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        loc, scale = npr.module("encoder", encoder, (batch, PIXELS))(x)
        with npr.plate("data", len(x)):
            npr.sample("z", dist.Normal(loc, scale).to_event(1))

    svi = npr.infer.SVI(model, guide, npr.optim.Adam(1e-3), npr.infer.Trace_ELBO())
    x = jnp.asarray(family.data().numpy())
    held = {"state": svi.init(jax.random.PRNGKey(0), x[:batch]), "key": jax.random.PRNGKey(1)}
    step = jax.jit(svi.update)

    @jax.jit
    def whole(state: Any, order: Any) -> Any:
        return jax.lax.scan(lambda s, index: svi.update(s, x[index]), state, order)

    def epoch() -> None:
        held["key"], key = jax.random.split(held["key"])
        order = jax.random.permutation(key, ROWS).reshape(-1, batch)
        if scan:
            held["state"], losses = whole(held["state"], order)
            losses.block_until_ready()
            return
        for index in order:
            held["state"], loss = step(held["state"], x[index])
        loss.block_until_ready()

    return epoch


def pythae(batch: int) -> Clock:
    """The epochs of Pythae's trainer."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.loc, self.scale = Gaussian().encoder, nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

        def forward(self, x: Tensor) -> ModelOutput:
            hidden = self.body(x.flatten(1))
            return ModelOutput(embedding=self.loc(hidden), log_covariance=self.scale(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = Gaussian().decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.body(z).sigmoid())

    class Watch(TrainingCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            clock.lap()

    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    from pythae.data.datasets import BaseDataset

    rows = family.data()
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=EPOCHS + WARM,
            per_device_train_batch_size=batch,
            no_cuda=device == "cpu",
            train_dataloader_num_workers=0,
        )
        trainer = BaseTrainer(
            VAE(config, Encoder(), Decoder()),
            BaseDataset(rows, torch.ones(len(rows))),
            training_config=settings,
            callbacks=[Watch()],
        )
        clock = Clock(batch)
        trainer.train()
    return clock


KINDS: dict[str, Callable[[int], Any]] = {
    "stock Pyro": stock_pyro,
    "by hand": by_hand,
    "by hand, compiled": lambda batch: by_hand(batch, compiled=True),
    "ours": lambda batch: ours(batch, compiled=False),
    "ours, recorded": lambda batch: ours(batch, compiled="recorded"),
    "ours, compiled": lambda batch: ours(batch, compiled=True),
    "NumPyro, jit": lambda batch: numpyro(batch, scan=False),
    "NumPyro, scan": lambda batch: numpyro(batch, scan=True),
    "Pythae": pythae,
}
OTHERS = ("NumPyro, jit", "NumPyro, scan", "Pythae")
OURS = ("ours, compiled", "ours, recorded", "ours")
EPOCHS = 3
now: Callable[[], float] = time.perf_counter


def measure(kind: str, batch: int) -> float:
    """Milliseconds per step: the median over the epochs."""
    made = KINDS[kind](batch)
    if isinstance(made, Clock):
        clock = made
    else:
        clock = Clock(batch)
        for _ in range(EPOCHS + WARM):
            made()
            clock.lap()
    return statistics.median(ms for ms, _ in clock.epochs[WARM:])


class Turns:
    """A training in a process of its own, which goes on only in its turns."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )

    def epoch(self) -> tuple[float, float] | None:
        """Milliseconds per step of the next epoch, and the processors' distance; None if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return None
        for line in self.process.stdout:
            if line.startswith("epoch "):
                return tuple(json.loads(line.removeprefix("epoch ")))
        return None

    def turn(self, epochs: int) -> tuple[float, float]:
        """Medians over the epochs, after one that is not counted; the largest distance."""
        found = [self.epoch() for _ in range(1 + epochs)]
        if None in found:
            raise RuntimeError(self.why())
        return statistics.median(ms for ms, _ in found[1:]), max(far for _, far in found[1:])

    def why(self) -> str:
        """The last line of the errors."""
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["no output"])[-1]

    def close(self) -> None:
        """The process ends."""
        self.process.communicate()  # an end of its input
        self.errors.close()


@dataclasses.dataclass
class Figures:
    """Milliseconds per step by kind and batch size, one for each round, and the distance of the processors in it."""

    found: dict[tuple[str, int], list[tuple[float, float]]] = dataclasses.field(default_factory=dict)

    def near(self, *, near: bool) -> dict[tuple[str, int], dict[int, float]]:
        """The rounds in which the processors were near each other, or far."""
        least = min((far for turns in self.found.values() for _, far in turns), default=math.nan)
        return {
            key: {turn: ms for turn, (ms, far) in enumerate(turns) if is_near(far, least) is near}
            for key, turns in self.found.items()
        }

    def table(self, kinds: Sequence[str], batches: Sequence[int], *, near: bool) -> Iterator[str]:
        """Medians over the rounds, with their number; of the ratios within a round, with their quartiles."""
        found = self.near(near=near)
        yield "| | " + " | ".join(f"batch {batch}" for batch in batches) + " |"
        yield "|---" * (1 + len(batches)) + "|"
        for kind in kinds:
            rounds = [list(found.get((kind, batch), {}).values()) for batch in batches]
            cells = [f"{statistics.median(ms):.3f} ({len(ms)})" if ms else "" for ms in rounds]
            yield f"| {kind} | " + " | ".join(cells) + " |"
        for name in OURS:
            for other in ("NumPyro, scan", "by hand", "stock Pyro"):
                if not {name, other} <= {*kinds}:
                    continue
                both = [(found.get((name, batch), {}), found.get((other, batch), {})) for batch in batches]
                ratios = [sorted(a[turn] / b[turn] for turn in a.keys() & b.keys()) for a, b in both]
                if any(ratios):
                    yield f"| {name} over {other} | " + " | ".join(map(_spread, ratios)) + " |"


def _spread(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}" if ratios else ""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    global EPOCHS, now, family, device
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[32, 128, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="timed epochs of each turn")
    parser.add_argument("--family", choices=FAMILIES, default="gaussian")
    parser.add_argument("--kind", nargs="*", choices=KINDS, help="default: all; of other families those in torch")
    parser.add_argument("--python", default=sys.executable, help="interpreter for NumPyro and Pythae")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; JAX takes a GPU if it sees one")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, on one thread")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, and say so")
    parser.add_argument("--worker", help="time one kind alone, in this process")
    parser.add_argument("--by-turns", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--profile", choices=KINDS, help="show where the time of one kind goes, call by call")
    options = parser.parse_args()
    EPOCHS, family, device = options.epochs, FAMILIES[options.family], options.device
    Clock.watches = device == "cpu"
    own = KINDS if options.family == "gaussian" else ("by hand", "by hand, compiled", *OURS)
    if any(kind not in own for kind in options.kind or ()):
        parser.error(f"of this family there are {', '.join(own)}")
    options.kind = options.kind or list(own)
    threads = 1 if options.cpu_time else options.threads
    if options.cpu_time:
        now = time.process_time
    if options.profile is not None:
        torch.set_num_threads(threads)
        Clock.watches = False
        profile = cProfile.Profile(now)
        print(f"{profile.runcall(measure, options.profile, options.batch_size[0]):.3f} ms per step, as profiled")
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    if options.worker is not None:
        torch.set_num_threads(threads)
        if threads == 1:  # JAX takes two threads all the same, unless there is one processor
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        Clock.by_turns = options.by_turns
        print(json.dumps(measure(options.worker, options.batch_size[0])))
        return
    load = os.getloadavg()[0]
    if load > 0.5 and not options.force:
        raise SystemExit(f"the machine is busy (load {load:.1f}), so figures would be wrong; wait, or give --force")
    words = [
        "--family",
        options.family,
        "--epochs",
        str(options.rounds * (1 + EPOCHS)),
        "--by-turns",
        "--threads",
        str(threads),
        "--device",
        device,
        *(["--cpu-time"] if options.cpu_time else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if options.force:  # threads that spin while they wait take the time of others; alone they are as users have them
        environment["OMP_WAIT_POLICY"] = "passive"
    if device == "cuda":
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the others need memory, too
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    figures, missing = Figures(), dict[str, str]()
    for batch in options.batch_size:
        trainings: dict[str, Turns] = {}
        for kind in options.kind:
            if kind in missing:
                continue
            python = options.python if kind in OTHERS else sys.executable
            command = [python, __file__, "--worker", kind, "--batch-size", str(batch), *words]
            trainings[kind] = Turns(command, environment)
            for _ in range(WARM):  # before the next one starts
                trainings[kind].epoch()
        for _ in range(options.rounds):
            for kind in random.sample(options.kind, len(options.kind)):
                if kind in missing:
                    continue
                try:
                    figures.found.setdefault((kind, batch), []).append(trainings[kind].turn(EPOCHS))
                except RuntimeError as error:
                    missing[kind] = str(error)
        for training in trainings.values():
            training.close()
    busy = f", CONTENDED (load {load:.1f} at the start)" if load > 0.5 else ""
    clock = "processor time" if options.cpu_time else "wall time"
    for kind, why in missing.items():
        print(f"{kind} did not run to the end: {why}")
    apart = [far for turns in figures.found.values() for _, far in turns if not math.isnan(far)]
    distances = f", processors {min(apart):.0f} to {max(apart):.0f} ns from each other" if apart else ""
    where = f"{threads} threads" if device == "cpu" else torch.cuda.get_device_name(device)
    print(f"ms per step, {where}, {clock}, medians (of rounds; quartiles), {options.family}{busy}{distances}\n")
    kinds = [kind for kind in options.kind if kind not in missing]
    print("\n".join(figures.table(kinds, options.batch_size, near=True)))
    if any(figures.near(near=False).values()):
        print("\nTurns in which the processors were far from each other (more than twice the least distance):\n")
        print("\n".join(figures.table(kinds, options.batch_size, near=False)))


if __name__ == "__main__":
    main()
