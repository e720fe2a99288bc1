"""The Gaussian mixture of "Revisiting Reweighted Wake-Sleep": VIMCO, wake-wake, defensive wake-wake and wake-sleep.

There are twenty clusters with means 0, 10, ..., 190 and standard deviation 5. Cluster c has the probability
(c + 5) / 290. The model learns these probabilities. It starts far off, with logits 19, 18, ..., 0. The guide is a net
1-16-20. Every step sees 100 fresh draws of the true mixture.

All runs of one estimator and K are replicas that learn side by side, each with its own weights, data and moments of
Adam. Rows of the data plate belong to replicas, so no gradient mixes them. Estimators share initial weights and data.

    python benchmarks/gmm.py train
    python benchmarks/gmm.py report
    python benchmarks/gmm.py plot --figure benchmarks/figures/gmm.png

`train` goes on with the configurations that are not in the folder yet.

References
----------
T. A. Le, A. Kosiorek, N. Siddharth, Y. W. Teh and F. Wood (2018), "Revisiting reweighted wake-sleep", arXiv:1805.10469,
section 4.3.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from PIL import Image
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae import VAE
from pyrovae.infer import VIMCO, ReweightedWakeSleep, WakeSleep
from pyrovae.plotting import save_figure

CLUSTERS = 20
LOCS = 10.0 * torch.arange(CLUSTERS)
SCALE = 5.0
TRUE_PRIOR = (torch.arange(CLUSTERS) + 5.0) / (torch.arange(CLUSTERS) + 5.0).sum()
METRICS = {
    "prior": "prior",
    "posterior": "posterior (true mixture)",
    "model_posterior": "posterior (learned mixture)",
}
COLOURS = {"vimco": "#D55E00", "wake-wake": "#0072B2", "defensive": "#009E73", "wake-sleep": "#CC79A7"}

OPTIONS = {"vectorize_particles": True, "max_plate_nesting": 1}
ESTIMATORS: dict[str, Callable[[int, float], ELBO]] = {
    "vimco": lambda k, delta: VIMCO(k, **OPTIONS),
    "wake-wake": lambda k, delta: ReweightedWakeSleep(k, wake_phi=1.0, sleep_phi=0.0, **OPTIONS),
    "defensive": lambda k, delta: ReweightedWakeSleep(k, wake_phi=1.0, sleep_phi=0.0, defensive=delta, **OPTIONS),
    "wake-sleep": lambda k, delta: WakeSleep(k, **OPTIONS),
}


class Cluster(dist.Categorical):
    """A categorical that draws one uniform number. That of torch draws one per cluster, which takes most of a step."""

    def expand(self, batch_shape: torch.Size, _instance: dist.Categorical | None = None) -> dist.Categorical:
        """Return the distribution for more particles. Its probabilities are computed once for all of them."""
        _ = self.probs
        return super().expand(batch_shape, _instance)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws by inversion of the distribution function."""
        cumulative = self.probs.cumsum(-1)
        uniform = torch.rand(*sample_shape, *self.batch_shape, 1)
        return (uniform > cumulative).sum(-1).clamp(max=CLUSTERS - 1)


class Mixture(nn.Module):
    """The model: replicas of a mixture with a learned prior. `x` ``[replicas * batch]`` goes replica by replica."""

    def __init__(self, replicas: int, multiplier: float) -> None:
        super().__init__()
        self.multiplier = multiplier
        start = torch.arange(CLUSTERS).flip(0) / multiplier
        self.raw = nn.Parameter(start.repeat(replicas, 1))

    @property
    def logits(self) -> Tensor:
        """Logits of the prior, `[replicas, 20]`."""
        return self.multiplier * self.raw

    def forward(self, x: Tensor) -> None:
        """Run the program."""
        logits = self.logits.repeat_interleave(len(x) // len(self.raw), 0)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Cluster(logits=logits))
            pyro.sample("x", dist.Normal(LOCS[z], SCALE), obs=x)


class Guide(nn.Module):
    """Replicas of a net 1-16-20 with tanh, started as `nn.Linear` starts."""

    def __init__(self, replicas: int, hidden: int = 16) -> None:
        super().__init__()
        for name, inputs, outputs in (("1", 1, hidden), ("2", hidden, CLUSTERS)):
            limit = inputs**-0.5
            for kind, rows in (("weight", inputs), ("bias", 1)):
                value = torch.empty(replicas, rows, outputs).uniform_(-limit, limit)
                setattr(self, kind + name, nn.Parameter(value))

    def logits(self, x: Tensor) -> Tensor:
        """Logits of q(z|x): `[replicas, B]` -> `[replicas, B, 20]`."""
        hidden = torch.baddbmm(self.bias1, x.unsqueeze(-1), self.weight1).tanh()
        return torch.baddbmm(self.bias2, hidden, self.weight2)

    def forward(self, x: Tensor) -> None:
        """Run the program."""
        logits = self.logits(x.reshape(len(self.bias1), -1)).flatten(0, 1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", Cluster(logits=logits))


def true_draws(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws of the true mixture."""
    count = int(np.prod(shape))
    z = torch.multinomial(TRUE_PRIOR, count, replacement=True, generator=generator)
    return (LOCS[z] + SCALE * torch.randn(count, generator=generator)).reshape(shape)


def posterior(prior: Tensor, x: Tensor) -> Tensor:
    """The exact posterior of priors `[..., 20]` at data `[N]`: `[..., N, 20]`."""
    log_likelihood = -((x.unsqueeze(-1) - LOCS) ** 2) / (2 * SCALE**2)
    return (prior.log().unsqueeze(-2) + log_likelihood).softmax(-1)


@torch.no_grad()
def evaluate(model: Mixture, guide: Guide, x: Tensor) -> dict[str, list[float]]:
    """Distances of each replica, and the clusters that its guide has forgotten."""
    prior, exact = model.logits.softmax(-1), posterior(TRUE_PRIOR, x)
    guessed = guide.logits(x.expand(len(prior), -1)).softmax(-1)
    return {
        "prior": (prior - TRUE_PRIOR).norm(dim=-1).tolist(),
        "posterior": (guessed - exact).norm(dim=-1).mean(-1).tolist(),
        "model_posterior": (guessed - posterior(prior, x)).norm(dim=-1).mean(-1).tolist(),
        "pruned": (guessed.mean(1) < 0.1 * exact.mean(0)).sum(-1).tolist(),
    }


def settings(estimator: str, particles: int, arguments: argparse.Namespace) -> dict:
    """What tells one configuration from another."""
    names = ("steps", "replicas", "seed", "delta", "multiplier")
    return {"estimator": estimator, "K": particles, **{name: getattr(arguments, name) for name in names}}


def train(estimator: str, particles: int, arguments: argparse.Namespace) -> dict:
    """Train the replicas of one configuration."""
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed + 1)
    test = true_draws((100,), torch.Generator().manual_seed(12345))
    model, guide = Mixture(arguments.replicas, arguments.multiplier), Guide(arguments.replicas)
    vae = VAE(model, guide, example=torch.zeros(arguments.replicas))
    objective = ESTIMATORS[estimator](particles, arguments.delta)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    history, start = [], time.process_time()
    with vae.scope(), pyro.validation_enabled(False):
        for step in range(arguments.steps + 1):
            if step % max(1, arguments.steps // 30) == 0:
                history.append({"step": step, **evaluate(model, guide, test)})
            x = true_draws((arguments.replicas, 100), generator).flatten()
            objective.loss_and_grads(model, guide, x)
            optimizer.step()
            optimizer.zero_grad()
    seconds = round(time.process_time() - start, 1)
    return {**settings(estimator, particles, arguments), "seconds": seconds, "history": history}


def train_all(path: Path, arguments: argparse.Namespace) -> None:
    """Train every configuration that is not in the file yet, and append it as a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [{key: value for key, value in run.items() if key not in ("seconds", "history")} for run in read(path)]
    for particles, estimator in itertools.product(arguments.particles, ESTIMATORS):
        if settings(estimator, particles, arguments) in known:
            continue
        run = train(estimator, particles, arguments)
        with path.open("a") as file:
            file.write(json.dumps(run) + "\n")
        print(f"{estimator} K={particles}: {run['seconds']} s", flush=True)


def read(path: Path) -> list[dict]:
    """The configurations in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def final(run: dict, metric: str) -> np.ndarray:
    """A metric of each replica, averaged over the last tenth of the evaluations."""
    rows = [row[metric] for row in run["history"]]
    return np.mean(rows[-max(1, len(rows) // 10) :], 0)


def report(runs: list[dict]) -> None:
    """A table of final distances, mean and standard error over the replicas, and the trend in K of each estimator."""
    for key in ("steps", "replicas", "seed", "delta", "multiplier"):
        print(f"{key}: {', '.join(sorted({str(run[key]) for run in runs}))}")
    print(f"seconds of processor time: {sum(run['seconds'] for run in runs):.0f}\n")
    names = (*METRICS, "pruned")
    titles = [METRICS.get(name, "forgotten clusters") for name in names]
    print("| estimator | K | " + " | ".join(titles) + " |\n" + "| --- " * (2 + len(names)) + "|")
    for estimator in ESTIMATORS:
        for run in sorted((run for run in runs if run["estimator"] == estimator), key=lambda run: run["K"]):
            values = [final(run, name) for name in names]
            errors = [value.std(ddof=1) / len(value) ** 0.5 if len(value) > 1 else float("nan") for value in values]
            cells = [f"{value.mean():.3f} ± {error:.3f}" for value, error in zip(values, errors, strict=True)]
            print(f"| {estimator} | {run['K']} | " + " | ".join(cells) + " |")
    print()
    for estimator, metric in itertools.product(ESTIMATORS, METRICS):
        found = {run["K"]: final(run, metric) for run in runs if run["estimator"] == estimator}
        if len(found) > 1:
            low, high = found[min(found)], found[max(found)]
            verdict = "better" if high.mean() < low.mean() else "worse"
            figures = f"{low.mean():.3f} at K = {min(found)}, {high.mean():.3f} at K = {max(found)}"
            count = f"lower in {(high < low).sum()} of {len(high)} runs"
            print(f"{estimator}, {METRICS[metric]}: {verdict} with K ({figures}; {count})")


def curves(runs: list[dict]) -> Figure:
    """Distances by step: a row for each metric, a column for each K; lines are medians, bands are all replicas."""
    columns = sorted({run["K"] for run in runs})
    figure = Figure(figsize=(2.6 * len(columns) + 0.8, 7.2), layout="constrained")
    grid = figure.subplots(len(METRICS), len(columns), sharex=True, sharey="row", squeeze=False)
    for run, (row, (metric, title)) in itertools.product(runs, enumerate(METRICS.items())):
        axes = grid[row, columns.index(run["K"])]
        steps = np.array([point["step"] for point in run["history"]]) / 1000
        values = np.array([point[metric] for point in run["history"]])
        colour = COLOURS[run["estimator"]]
        style = "--" if run["estimator"] == "vimco" else "-"
        axes.plot(steps, np.median(values, 1), style, color=colour, label=run["estimator"])
        axes.fill_between(steps, values.min(1), values.max(1), color=colour, alpha=0.15, linewidth=0)
        axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if run["K"] == columns[0]:
            axes.set_ylabel(f"$L_2$ distance\n{title}")
    for column, particles in enumerate(columns):
        grid[0, column].set_title(f"$K = {particles}$")
        grid[-1, column].set_xlabel("thousand steps")
    labels = {line.get_label(): line for axes in grid[0] for line in axes.lines}
    figure.legend(labels.values(), labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "report", "plot"))
    parser.add_argument("--steps", type=int, default=20_000, help="the paper takes 100000")
    parser.add_argument("--replicas", type=int, default=4, help="runs of each configuration, side by side")
    parser.add_argument("--particles", type=int, nargs="+", default=[2, 5, 10, 20], metavar="K")
    parser.add_argument(
        "--delta", type=float, default=0.2, help="weight of the uniform proposal of defensive wake-wake"
    )
    parser.add_argument("--multiplier", type=float, default=1.0, help="logits are this times the parameters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/gmm"))
    parser.add_argument("--figure", type=Path, help="where plot saves; gmm.png in --out by default")
    arguments = parser.parse_args()
    path = arguments.out / "results.jsonl"
    if arguments.verb == "train":
        train_all(path, arguments)
        return
    runs = read(path)
    if not runs:
        parser.error(f"there are no results in {path}; train first")
    if arguments.verb == "report":
        report(runs)
        return
    figure = arguments.figure or arguments.out / "gmm.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    save_figure(curves(runs), figure)
    if figure.suffix == ".png":
        Image.open(figure).convert("RGB").quantize(128).save(figure, optimize=True)  # a third of the bytes
    print(figure)


if __name__ == "__main__":
    main()
