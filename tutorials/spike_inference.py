"""Infer spikes from calcium fluorescence, with the black-box interface.

A neuron fires spikes, each lets the calcium concentration jump by one, and between spikes it decays:

    c_t = decay c_{t-1} + s_t,    f_t = amplitude c_t + baseline + noise,    s_t ~ Bernoulli(rate).

Only the trace f is seen. The model has these five parameters, with prior knowledge of some of them; the inference
network, a convolution over time, gives every frame a probability of a spike. Spikes are discrete, so it is trained with
VIMCO and with wake-wake, and both are scored against the true spikes beside thresholded deconvolution, whose threshold
is chosen in hindsight.

    python tutorials/spike_inference.py --figure spikes.png
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
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
        lag = torch.arange(self.num_frames)
        lag = lag.unsqueeze(1) - lag  # [t, u]: frames since u
        response = torch.where(lag >= 0, self.value("decay") ** lag.clamp(min=0), 0.0)
        return self.value("amplitude") * (spikes @ response.T) + self.value("baseline")

    def parameterise(self, data: list[Tensor], latents: list[Tensor]) -> dict[str, Tensor]:
        return {"mean": self.trace(latents[0])}

    def sample(self, num_samples: int = 1) -> tuple[list[Tensor], list[Tensor]]:
        spikes = self.value("rate").expand(num_samples, 1, self.num_frames).bernoulli()
        trace = self.trace(spikes[:, 0])
        return [trace + self.value("noise") * torch.randn_like(trace)], [spikes]

    def log_prob(self, data: list[Tensor], latents: list[Tensor]) -> Tensor:
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
        return {"logits": self.net(data[0].unsqueeze(1)).squeeze(1)}

    def sample(self, num_samples: int | None = None) -> list[Tensor]:
        probs = self.params_["logits"].sigmoid().unsqueeze(1)
        return [probs.expand(-1, num_samples or self.num_samples, -1).bernoulli().detach()]

    def log_prob(self, latents: list[Tensor]) -> Tensor:
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


def deconvolve(trace: Tensor) -> Tensor:
    """Differences f_t - decay f_{t-1}, which are high at spikes.

    The decay is the ratio of the autocovariances at lags two and one, which the noise does not enter.
    """
    centred = trace - trace.mean()
    decay = (centred[:, 2:] * centred[:, :-2]).mean() / (centred[:, 1:] * centred[:, :-1]).mean()
    return F.pad(trace[:, 1:] - decay * trace[:, :-1], (1, 0), mode="replicate")


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


def main(args: argparse.Namespace) -> dict[str, Score]:
    """Train both, print the scores on traces held out, and return them."""
    torch.manual_seed(args.seed)
    truth = Calcium(args.frames)
    with torch.no_grad():
        for name, value in TRUE.items():
            raw = {torch.sigmoid: lambda v: np.log(v / (1 - v)), F.softplus: lambda v: np.log(np.expm1(v))}
            getattr(truth, name).fill_(raw.get(truth.LINKS[name], lambda v: v)(value))
        (train_data,), _ = truth.sample(args.traces)
        (test_data,), (spikes,) = truth.sample(200)
    spikes = spikes[:, 0]

    jump = deconvolve(test_data)
    scores = {"deconvolution": score(jump, spikes, best_threshold(jump, spikes))}
    inferred, histories = {}, {}
    for method in ("VIMCO", "wake-wake"):
        start = time.perf_counter()
        network, model, histories[method] = train(method, train_data, args)
        with torch.no_grad():
            inferred[method] = network([test_data]).params_["logits"].sigmoid()
        scores[method] = score(inferred[method], spikes)
        found = ", ".join(f"{name} {model.value(name).item():.3f} ({true})" for name, true in TRUE.items())
        print(f"{method}: {time.perf_counter() - start:.0f} s; found (true): {found}")

    print(f"{'':15}correlation    AUC     F1")
    for method, value in scores.items():
        print(f"{method:15}{value.correlation:11.3f}{value.auc:7.3f}{value.f1:7.3f}")
    if args.figure:
        draw(args.figure, test_data[0], spikes[0], {name: p[0] for name, p in inferred.items()}, histories)
    return scores


def draw(path: str, trace: Tensor, spikes: Tensor, inferred: dict[str, Tensor], histories: dict) -> None:
    """One trace with its spikes, what was inferred, and the loss during training."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(8, 7), layout="constrained")
    axes[0].plot(trace, color="0.3")
    axes[0].vlines(spikes.nonzero(), trace.min() - 0.6, trace.min() - 0.2, color="C3", label="true spikes")
    axes[0].set(ylabel="fluorescence", xlabel="frame")
    axes[0].legend(loc="upper right")
    for number, (method, probability) in enumerate(inferred.items()):
        axes[1].plot(probability, color=f"C{number}", label=method)
    axes[1].plot(spikes.nonzero(), [1.05] * int(spikes.sum()), "v", color="C3")
    axes[1].set(ylabel="probability of a spike", xlabel="frame", ylim=(0, 1.12))
    axes[1].legend(loc="upper right")
    for number, (method, history) in enumerate(histories.items()):
        loss = torch.tensor(next(iter(history.values())))
        width = max(1, len(loss) // 50)
        smooth = loss[: len(loss) // width * width].reshape(-1, width).mean(1)
        axes[2].plot(torch.arange(len(smooth)) * width, smooth, color=f"C{number}", label=method)
    axes[2].set(ylabel="minus bound, nats", xlabel="step")
    axes[2].legend(loc="upper right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--steps", type=int, default=2000, help="minibatches for each method")
    result.add_argument("--frames", type=int, default=60)
    result.add_argument("--traces", type=int, default=500, help="training traces")
    result.add_argument("--num-particles", type=int, default=10)
    result.add_argument("--batch-size", type=int, default=32)
    result.add_argument("--lr", type=float, default=5e-3)
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--figure", metavar="PATH", help="save a figure here")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
