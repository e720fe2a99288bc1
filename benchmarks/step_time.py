"""Time and noise of a step on the sigmoid belief network 200-200-200, estimator by estimator.

Steps of all estimators alternate in one process, so that a busy machine slows all alike. Times are medians, and their
ratios to the time of `IWAE` on the same pair. The variance of gradients is that of all parameters of the guide
together, on one batch, after a short training with VIMCO. It is relative to the plain score function: the
importance-weighted bound as raw learning signal, which is what `IWAE` gives a discrete pair.

    OMP_NUM_THREADS=1 python benchmarks/step_time.py
    OMP_NUM_THREADS=1 PYROVAE_DATA=... python benchmarks/step_time.py --data binarized-mnist
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO
from torch import Tensor

from pyrovae import VAE, data, metrics
from pyrovae.infer import IWAE, NVIL, VIMCO, CompiledLoss, Renyi, ReweightedWakeSleep, WakeSleep
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer


def estimators(k: int) -> dict[str, ELBO]:
    """The objectives to compare, with Pyro's own for comparison."""
    pyros = {"num_particles": k, "vectorize_particles": True, "max_plate_nesting": 1}
    return {
        "iwae": IWAE(k),
        "vimco": VIMCO(k),
        "vimco arithmetic": VIMCO(k, control_variate="arithmetic"),
        "nvil": NVIL(k, baseline="input"),
        "renyi 0.5": Renyi(0.5, k),
        "wake-wake": ReweightedWakeSleep(k, wake_phi=1.0, sleep_phi=0.0),
        "rws": ReweightedWakeSleep(k),
        "wake-sleep": WakeSleep(k),
        "Pyro's Trace_ELBO": Trace_ELBO(**pyros),
        "Pyro's RenyiELBO": RenyiELBO(alpha=0, **pyros),
    }


def stepper(objective: ELBO, vae: VAE, x: Tensor, *, compiled: bool = False) -> Callable[[], None]:
    """Make a function that does one step of the optimizer on a batch."""
    objective.loss(vae.model, vae.guide, x)  # makes what a baseline learns
    learned = getattr(objective, "module", None)
    parameters = [*vae.parameters(), *(learned.parameters() if learned else ())]
    optimizer = torch.optim.Adam(parameters, lr=1e-5, fused=True)
    compiled_loss = CompiledLoss(vae, objective) if compiled else None

    def step() -> None:
        if compiled_loss is not None:
            compiled_loss(x).item()
        else:
            objective.loss_and_grads(vae.model, vae.guide, x)
        optimizer.step()
        optimizer.zero_grad()

    return step


def times(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each step. The order of the steps is drawn anew in each round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + 3):
        for index in torch.randperm(len(names)).tolist():
            start = time.perf_counter()
            steps[names[index]]()
            if number >= 3:
                found[names[index]].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="data set; grey values are rounded once, at random")
    parser.add_argument("--num-particles", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=600, help="of training before the variance is measured")
    parser.add_argument("--compile", nargs="*", default=["iwae", "vimco"], help="estimators to time compiled too")
    parser.add_argument("--draws", type=int, default=300, help="gradients of each estimator")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    binarize = {} if arguments.data.startswith("binarized") else {"binarize": "static"}
    dataset = data.load(arguments.data, **binarize)
    vae, x = find_pair("sbn").build(dataset), dataset.test.x[: arguments.batch_size]
    epochs = max(1, arguments.steps * arguments.batch_size // len(dataset.train.x))
    trained = Trainer(objective="vimco", num_particles=arguments.num_particles, epochs=epochs, progress=False)
    trained.batch_size = arguments.batch_size
    rows = dataset.train.x[: arguments.steps * arguments.batch_size]
    loss = trained.fit(vae, rows).rows[-1]["loss"]
    compared = estimators(arguments.num_particles)
    pyro.enable_validation(False)  # as in the Trainer
    steps = {name: stepper(objective, vae, x) for name, objective in compared.items()}
    for name in arguments.compile:
        steps[f"{name}, compiled"] = stepper(compared[name], vae, x, compiled=True)
    seconds = times(steps, arguments.rounds)
    frame = metrics.gradient_variance(vae, compared, x, num_draws=arguments.draws)
    variance = frame[frame["program"] == "guide"].set_index("objective")["total_variance"]
    print(
        f"{arguments.data}, {tuple(x.shape)}, K = {arguments.num_particles}, {torch.get_num_threads()} threads, "
        f"after {epochs} epochs of VIMCO (loss {loss:.1f} nats)\n"
    )
    print("| estimator | step, ms | relative to IWAE | gradient variance, guide | relative to plain score |")
    print("| --- | --- | --- | --- | --- |")
    for name, value in seconds.items():
        noise = f"{variance[name]:.4g} | {variance[name] / variance['iwae']:.3g}" if name in variance else "|"
        print(f"| {name} | {1e3 * value:.2f} | {value / seconds['iwae']:.2f} | {noise} |")


if __name__ == "__main__":
    main()
