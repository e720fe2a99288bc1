"""Time of a training step of a 784-200-50 Bernoulli VAE with Adam: this library beside others, and the ratios.

Everything is measured in one run: rounds of separate processes, in an order that is drawn anew for each round, and the
medians over the rounds. What is timed is an epoch as a user has it, its shuffling and its batches included, without
validation, after two epochs of warming up. Processes do not share the machine with anything else: the run is refused
when it is busy. `--force` measures all the same, and marks the figures as contended.

    python benchmarks/speed.py                                    # two threads, wall time
    python benchmarks/speed.py --python BENCH_PYTHON              # an interpreter with the extra [bench] for the others
    python benchmarks/speed.py --cpu-time --force --rounds 3      # one thread, processor time, on a busy machine
    python benchmarks/speed.py --profile ours --batch-size 128    # what the handlers of Pyro cost
    python benchmarks/speed.py --family sbn --kind "by hand" "ours, compiled"

Families: a Gaussian VAE; a sigmoid belief network with VIMCO, K = 10; a stick-breaking VAE; a table of 100 columns.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import os
import pstats
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from speed_families import FAMILIES, HIDDEN, LATENT, PIXELS, ROWS, Family, Gaussian
from torch import Tensor, nn

WARM = 2  # epochs that are not timed
family: Family = FAMILIES["gaussian"]


def pair() -> Any:
    """The pair of this library."""
    torch.manual_seed(0)
    return family.pair()


def batches(x: Tensor, batch: int) -> Iterator[Tensor]:
    """An epoch of minibatches."""
    order = torch.randperm(len(x))
    for start in range(0, len(x), batch):
        yield x[order[start : start + batch]]


def by_hand(batch: int, *, compiled: bool = False) -> Callable[[], None]:
    """An epoch written by hand, with fused Adam."""
    torch.manual_seed(0)
    x, net = family.data(), family.by_hand()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    loss_of: Any = torch.compile(net) if compiled else net

    def epoch() -> None:
        total = 0.0
        for part in batches(x, batch):
            loss = loss_of(part) / len(part)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()

    return epoch


def stock_pyro(batch: int) -> Callable[[], None]:
    """An epoch of `SVI` on the same pair."""
    import pyro

    pyro.clear_param_store()
    pyro.settings.set(validate_distributions_pyro=False, validate_infer=False, validate_poutine=False)
    x, vae = family.data(), pair()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())

    def epoch() -> None:
        for part in batches(x, batch):
            svi.step(part)

    return epoch


def ours(batch: int, *, compiled: bool | str) -> list[float]:
    """Seconds of the epochs of a Trainer."""
    from pyrovae.training import Callback, Trainer

    seen: list[float] = []

    class Clock(Callback):
        def on_epoch(self, progress: Any) -> None:
            seen.append(now())

    trainer = Trainer(
        family.objective, epochs=EPOCHS + WARM, batch_size=batch, compile=compiled, progress=False, callbacks=[Clock()]
    )
    trainer.fit(pair(), family.data())
    return [after - before for before, after in itertools.pairwise(seen)][WARM - 1 :]


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


def pythae(batch: int) -> list[float]:
    """Seconds of the epochs of Pythae's trainer, from its own log of them."""
    import tempfile

    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    seen: list[float] = []

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

    class Clock(TrainingCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            seen.append(now())

    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    from pythae.data.datasets import BaseDataset

    rows = family.data()
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=EPOCHS + WARM,
            per_device_train_batch_size=batch,
            no_cuda=True,
            train_dataloader_num_workers=0,
        )
        trainer = BaseTrainer(
            VAE(config, Encoder(), Decoder()),
            BaseDataset(rows, torch.ones(len(rows))),
            training_config=settings,
            callbacks=[Clock()],
        )
        trainer.train()
    return [after - before for before, after in itertools.pairwise(seen)][WARM - 1 :]


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
EPOCHS = 6
now: Callable[[], float] = time.perf_counter


def measure(kind: str, batch: int) -> float:
    """Milliseconds a step: the median over the epochs."""
    made = KINDS[kind](batch)
    if isinstance(made, list):
        seconds = made
    else:
        seconds = []
        for _ in range(EPOCHS + WARM):
            start = now()
            made()
            seconds.append(now() - start)
        seconds = seconds[WARM:]
    return statistics.median(seconds) / (ROWS // batch) * 1000


def main() -> None:
    global EPOCHS, now, family
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[32, 128, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="timed epochs of each process")
    parser.add_argument("--family", choices=FAMILIES, default="gaussian")
    parser.add_argument("--kind", nargs="*", choices=KINDS, help="default: all; of other families those in torch")
    parser.add_argument("--python", default=sys.executable, help="interpreter for NumPyro and Pythae")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="processor time, on one thread")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, and say so")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--profile", choices=KINDS, help="show where the time of one kind goes, call by call")
    options = parser.parse_args()
    EPOCHS, family = options.epochs, FAMILIES[options.family]
    own = KINDS if options.family == "gaussian" else ("by hand", "by hand, compiled", *OURS)
    if any(kind not in own for kind in options.kind or ()):
        parser.error(f"of this family there are {', '.join(own)}")
    options.kind = options.kind or list(own)
    threads = 1 if options.cpu_time else options.threads
    if options.cpu_time:
        now = time.process_time
    if options.profile is not None:
        torch.set_num_threads(threads)
        profile = cProfile.Profile(now)
        print(f"{profile.runcall(measure, options.profile, options.batch_size[0]):.3f} ms a step, as profiled")
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    if options.worker is not None:
        torch.set_num_threads(threads)
        if threads == 1:  # JAX takes two threads all the same, unless there is one processor
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(measure(options.worker, options.batch_size[0])))
        return
    load = os.getloadavg()[0]
    if load > 0.5 and not options.force:
        raise SystemExit(f"the machine is busy (load {load:.1f}), so figures would be wrong; wait, or give --force")
    words = [
        "--family",
        options.family,
        "--epochs",
        str(EPOCHS),
        "--threads",
        str(threads),
        *(["--cpu-time"] if options.cpu_time else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if options.force:  # threads that spin while they wait take the time of others; alone they are as users have them
        environment["OMP_WAIT_POLICY"] = "passive"
    if threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    found: dict[tuple[str, int], list[float]] = {}
    missing: dict[str, str] = {}
    for _ in range(options.rounds):
        tasks = [(kind, batch) for kind in options.kind for batch in options.batch_size]
        random.shuffle(tasks)
        for kind, batch in tasks:
            if kind in missing:
                continue
            python = options.python if kind in OTHERS else sys.executable
            command = [python, __file__, "--worker", kind, "--batch-size", str(batch), *words]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                missing[kind] = (done.stderr.strip().splitlines() or ["no output"])[-1]
                continue
            found.setdefault((kind, batch), []).append(json.loads(done.stdout.strip().splitlines()[-1]))
    busy = f", CONTENDED (load {load:.1f} at the start)" if load > 0.5 else ""
    clock = "processor time" if options.cpu_time else "wall time"
    print(f"ms a step, {threads} threads, {clock}, medians of {options.rounds} rounds, {options.family}{busy}\n")
    print("| | " + " | ".join(f"batch {batch}" for batch in options.batch_size) + " |")
    print("|---" * (1 + len(options.batch_size)) + "|")
    for kind in options.kind:
        if kind in missing:
            print(f"| {kind} | not run: {missing[kind]} |")
            continue
        cells = [f"{statistics.median(found[kind, batch]):.3f}" for batch in options.batch_size]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    for name in OURS:
        for other in ("NumPyro, scan", "by hand", "stock Pyro"):
            if all((kind, batch) in found for kind in (name, other) for batch in options.batch_size):
                pairs = [(found[name, batch], found[other, batch]) for batch in options.batch_size]
                cells = [f"{statistics.median(a) / statistics.median(b):.2f}" for a, b in pairs]
                print(f"| {name} over {other} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
