"""Infer spikes from calcium fluorescence, with the black-box interface.

A neuron fires spikes. Each spike lets the calcium concentration jump by one, and between spikes the calcium decays:

    c_t = decay c_{t-1} + s_t,    f_t = amplitude c_t + baseline + noise,    s_t ~ Bernoulli(rate).

Only the trace f is seen. The model has these five parameters, with prior knowledge of some of them. The inference
network is a convolution over time. It gives every frame a probability of a spike. Spikes are discrete, so it is trained
with VIMCO and with wake-wake. Both are scored against the true spikes of held-out traces.

Simple methods are the lower mark: deconvolutions that a threshold turns into spikes. One takes differences of the trace
(`f_t - decay f_{t-1}`), the other non-negative least squares. Their thresholds are chosen in hindsight. The upper mark
is the posterior under the true parameters, by Gibbs sampling.

    python tutorials/spike_inference.py --figure spikes.png

It takes less than a minute on two cores.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.optimize import nnls
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from pyrovae.blackbox import (
    VIMCO,
    BetaRegularizer,
    GenerativeModel,
    InferenceNetwork,
    NormalRegularizer,
    fit,
    wake_wake,
)

TRUE = {"decay": 0.85, "amplitude": 1.0, "baseline": 0.5, "noise": 0.35, "rate": 0.08}


def response(decay: Tensor, num_frames: int) -> Tensor:
    """Calcium at frame t from a spike at frame u, `[frames, frames]`."""
    frame = torch.arange(num_frames)
    lag = frame.unsqueeze(1) - frame
    return torch.where(lag >= 0, decay ** lag.clamp(min=0), 0.0)


class Calcium(GenerativeModel):
    """Spikes, autoregressive calcium and fluorescence; data `[batch, frames]`, spikes `[batch, samples, frames]`."""

    LINKS = {  # noqa: RUF012
        "decay": torch.sigmoid,
        "amplitude": F.softplus,
        "baseline": nn.Identity(),
        "noise": F.softplus,
        "rate": torch.sigmoid,
    }
    # Deliberately off: what an experimenter would write down before having seen the data.
    START = {"decay": 1.4, "amplitude": 0.8, "baseline": 0.2, "noise": -0.2, "rate": -2.0}  # noqa: RUF012

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        for name, value in self.START.items():
            setattr(self, name, nn.Parameter(torch.tensor(value)))

    def value(self, name: str) -> Tensor:
        """A parameter on its own scale."""
        return self.LINKS[name](getattr(self, name))

    def trace(self, spikes: Tensor) -> Tensor:
        """Fluorescence without noise: spikes `[..., frames]` -> `[..., frames]`."""
        calcium = spikes @ response(self.value("decay"), self.num_frames).T
        return self.value("amplitude") * calcium + self.value("baseline")

    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> dict[str, Tensor]:
        """The trace that the spikes give, `[batch, samples, frames]`."""
        return {"mean": self.trace(latents[0])}

    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        """Traces and their spikes."""
        spikes = self.value("rate").expand(num_samples, 1, self.num_frames).bernoulli()
        trace = self.trace(spikes[:, 0])
        return [trace + self.value("noise") * torch.randn_like(trace)], [spikes]

    def log_prob(self, data: list[Tensor], latents: list[Tensor]) -> Tensor:
        """Log-density of traces and spikes, `[batch, samples]`."""
        log_likelihood = Normal(self.params_["mean"], self.value("noise")).log_prob(data[0].unsqueeze(1))
        return (log_likelihood + Bernoulli(self.value("rate")).log_prob(latents[0])).sum(-1)


class SpikeNetwork(InferenceNetwork):
    """Every frame's probability of a spike, from a convolution over time."""

    def __init__(self, num_samples: int, channels: int = 24) -> None:
        super().__init__(num_samples)
        self.net = nn.Sequential(
            nn.Conv1d(1, channels, 11, padding=5),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(channels, 1, 5, padding=2),
        )
        nn.init.constant_(self.net[-1].bias, -2.0)  # spikes are rare

    def parameterise(self, data: list[Tensor]) -> dict[str, Tensor]:
        """Log-odds of a spike, `[batch, frames]`."""
        return {"logits": self.net(data[0].unsqueeze(1)).squeeze(1)}

    def sample(self, num_samples: int | None = None) -> list[Tensor]:
        """Spikes `[batch, samples, frames]`."""
        probs = self.params_["logits"].sigmoid().unsqueeze(1)
        return [probs.expand(-1, num_samples or self.num_samples, -1).bernoulli().detach()]

    def log_prob(self, latents: list[Tensor]) -> Tensor:
        """Log-probability of spikes, `[batch, samples]`."""
        return Bernoulli(logits=self.params_["logits"].unsqueeze(1)).log_prob(latents[0]).sum(-1)


class Score(NamedTuple):
    """Agreement with the true spikes, over all frames."""

    correlation: float
    auc: float
    f1: float


def score(probability: Tensor, spikes: Tensor, threshold: float = 0.5) -> Score:
    """Score probabilities, or any other number that is high at spikes."""
    p, s = probability.flatten().numpy(), spikes.flatten().numpy()
    return Score(float(np.corrcoef(p, s)[0, 1]), roc_auc_score(s, p), f1_score(s, p > threshold))


def estimate_decay(trace: Tensor) -> Tensor:
    """The ratio of the autocovariances at lags two and one, which the noise does not enter."""
    centred = trace - trace.mean()
    return (centred[:, 2:] * centred[:, :-2]).mean() / (centred[:, 1:] * centred[:, :-1]).mean()


def differences(trace: Tensor) -> Tensor:
    """`f_t - decay f_{t-1}`, which is high at spikes."""
    return F.pad(trace[:, 1:] - estimate_decay(trace) * trace[:, :-1], (1, 0), mode="replicate")


def non_negative(trace: Tensor) -> Tensor:
    """Non-negative deconvolution: the spikes s >= 0 and the baseline with the least squared error."""
    matrix = response(estimate_decay(trace), trace.shape[1]).numpy()
    matrix = np.concatenate([matrix, np.ones((len(matrix), 1))], 1)
    return torch.from_numpy(np.stack([nnls(matrix, row)[0][:-1] for row in trace.numpy()]))


@torch.no_grad()
def exact_posterior(model: Calcium, data: Tensor, sweeps: int = 200) -> Tensor:
    """Every frame's probability of a spike under a model, by Gibbs sampling of two neighbouring frames at a time.

    One frame at a time would hardly ever move a spike: on its way it would have to vanish or to be doubled.
    """
    columns = model.value("amplitude") * response(model.value("decay"), data.shape[1])  # [t, u]: what u adds at t
    precision, prior = model.value("noise") ** -2, model.value("rate").logit()
    gram = columns.T @ columns
    spikes, total = torch.zeros_like(data), torch.zeros_like(data)
    for sweep in range(sweeps):
        for u in range(data.shape[1] - 1):
            spikes[:, u : u + 2] = 0
            left = data - model.value("baseline") - spikes @ columns.T
            log_odds = prior + precision * (left @ columns[:, u : u + 2] - gram.diagonal()[u : u + 2] / 2)
            both = log_odds.sum(1) - precision * gram[u, u + 1]
            state = torch.stack([torch.zeros_like(both), log_odds[:, 0], log_odds[:, 1], both], 1)
            probability = state.softmax(1)  # of no spike, one in the first frame, one in the second, two
            choice = probability.multinomial(1)[:, 0]
            spikes[:, u], spikes[:, u + 1] = (choice % 2).float(), (choice // 2).float()
            if sweep >= sweeps // 4:
                total[:, u] += probability[:, 1] + probability[:, 3]
                if u == data.shape[1] - 2:
                    total[:, u + 1] += probability[:, 2] + probability[:, 3]
    return total / (sweeps - sweeps // 4)


def best_threshold(value: Tensor, spikes: Tensor) -> float:
    """The threshold with the highest F1 for these very spikes: more than a real experiment could know."""
    precision, recall, thresholds = precision_recall_curve(spikes.flatten().numpy(), value.flatten().numpy())
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(np.nextafter(thresholds[f1[:-1].argmax()], -np.inf))


def train(method: str, data: Tensor, args: argparse.Namespace) -> tuple[SpikeNetwork, Calcium, dict[str, list[float]]]:
    """Train an inference network and a model from scratch."""
    torch.manual_seed(args.seed)
    model, network = Calcium(data.shape[1]), SpikeNetwork(args.num_particles)
    regularizers = [
        BetaRegularizer(model, "decay", mean=0.85, std=0.05),
        BetaRegularizer(model, "rate", mean=0.1, std=0.05),
        NormalRegularizer(model, "amplitude", mean=1.2, std=0.5, link=F.softplus),
    ]
    make = {"VIMCO": VIMCO, "wake-wake": wake_wake}[method]
    losses = make(network, model, regularizers=regularizers)
    history = fit(losses, [data], num_steps=args.steps, batch_size=args.batch_size, lr=args.lr)
    return network, model, history


def true_model(num_frames: int) -> Calcium:
    """The model with the parameters that the data are made with."""
    model = Calcium(num_frames)
    raw = {torch.sigmoid: torch.logit, F.softplus: lambda value: value.expm1().log()}
    with torch.no_grad():
        for name, value in TRUE.items():
            link = raw.get(model.LINKS[name], lambda value: value)
            getattr(model, name).copy_(link(torch.tensor(value)))
    return model


def main(args: argparse.Namespace) -> dict[str, Score]:
    """Train both, print the scores on traces held out, and return them."""
    torch.manual_seed(args.seed)
    truth = true_model(args.frames)
    with torch.no_grad():
        (train_data,), _ = truth.sample(args.traces)
        (test_data,), (spikes,) = truth.sample(args.test_traces)
    spikes = spikes[:, 0]

    scores = {}
    for name, deconvolve in {"differences": differences, "non-negative": non_negative}.items():
        value = deconvolve(test_data)
        scores[name] = score(value, spikes, best_threshold(value, spikes))
    inferred, fits, histories = {}, {}, {}
    for method in ("VIMCO", "wake-wake"):
        start = time.perf_counter()
        network, model, histories[method] = train(method, train_data, args)
        with torch.no_grad():
            inferred[method] = network([test_data]).params_["logits"].sigmoid()
            fits[method] = model.trace(inferred[method])
        scores[method] = score(inferred[method], spikes)
        found = ", ".join(f"{name} {model.value(name).item():.3f} ({true})" for name, true in TRUE.items())
        print(f"{method}: {time.perf_counter() - start:.0f} s; found (true): {found}")
    scores["posterior"] = score(exact_posterior(truth, test_data), spikes)

    print(f"{'':15}correlation    AUC     F1")
    for method, value in scores.items():
        print(f"{method:15}{value.correlation:11.3f}{value.auc:7.3f}{value.f1:7.3f}")
    if args.figure:
        shown = [{name: value[0] for name, value in part.items()} for part in (inferred, fits)]
        draw(args.figure, test_data[0], spikes[0], *shown, histories)
    return scores


def draw(path: str, trace: Tensor, spikes: Tensor, inferred: dict, fits: dict, histories: dict) -> None:
    """One held-out trace with its spikes, what was inferred, and the bounds during training."""
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    above, middle, below = figure.subplots(3, 1)
    middle.sharex(above)
    outside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "frameon": False}
    when = spikes.nonzero()[:, 0].numpy()
    above.plot(trace, ".-", color="0.6", label="trace")
    middle.plot(when, np.full(len(when), 1.06), "v", color="k", label="true spikes")
    for number, method in enumerate(inferred):
        style = {"color": f"C{number}", "linestyle": ("-", "--")[number % 2], "label": method}
        above.plot(fits[method], **style)
        middle.plot(inferred[method], **style)
        loss = torch.tensor(next(iter(histories[method].values())))
        width = max(1, len(loss) // 50)
        below.plot(
            torch.arange(len(loss) // width) * width,
            -loss[: len(loss) // width * width].reshape(-1, width).mean(1),
            **style,
        )
    above.set(ylabel="fluorescence", title="A held-out trace, the spikes inferred from it, and training")
    middle.set(ylabel="probability of a spike", xlabel="frame", ylim=(0, 1.14))
    below.set(ylabel="bound less penalties, nats", xlabel="step")
    for axes in (above, middle, below):
        axes.legend(**outside)
    figure.savefig(path, dpi=120)


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--steps", type=int, default=2000, help="minibatches for each method")
    result.add_argument("--frames", type=int, default=60)
    result.add_argument("--traces", type=int, default=500, help="training traces")
    result.add_argument("--test-traces", type=int, default=200, help="held-out traces")
    result.add_argument("--num-particles", type=int, default=10)
    result.add_argument("--batch-size", type=int, default=32)
    result.add_argument("--lr", type=float, default=5e-3)
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--figure", metavar="PATH", help="save a figure here")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
