"""What the handlers of Pyro cost in an uncompiled step of a 784-200-50 Bernoulli VAE: processor time on one thread.

The ways to do a step alternate in one process, so that a busy machine slows all alike; medians of the ratios to the
step by hand. All do the same step of Adam. "no handlers" has the modules and distributions of the pair, and no
Pyro program.

    python benchmarks/handler_cost.py
    python benchmarks/handler_cost.py --batch-size 32 --rounds 100
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from pyro.infer import Trace_ELBO
from speed_families import Gaussian, gaussian, pictures
from torch import Tensor

from pyrovae import VAE
from pyrovae.infer import CompiledLoss
from pyrovae.infer.direct_elbo import Estimator, direct_elbo
from pyrovae.training.fused_steps import FusedSteps


def by_hand() -> Callable[[Tensor], None]:
    """The step as a user of torch writes it."""
    net = Gaussian()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def step(x: Tensor) -> None:
        loss = net(x) / len(x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def ways(vae: VAE) -> dict[str, Callable[[Tensor], None]]:
    """The other ones, on one pair."""
    steps = FusedSteps(torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True))
    objective = Trace_ELBO(max_plate_nesting=1)
    of_trainer = Estimator(objective, vae, vae.model)
    recorded = CompiledLoss(vae, objective, per_row=True, backend="eager")

    def without_handlers(x: Tensor) -> None:
        q, p = vae.guide.posterior(x), vae.model.prior()
        z = q.rsample()
        scored = vae.model.likelihood(vae.model.decoder(z)).log_prob(x)
        ((q.log_prob(z) - p.log_prob(z) - scored).sum() / len(x)).backward()

    def moved(gradients: Callable[[Tensor], object], *, divides: bool = True) -> Callable[[Tensor], None]:
        def step(x: Tensor) -> None:
            gradients(x)
            if not divides:
                torch._foreach_mul_([p.grad for p in steps.parameters if p.grad is not None], 1 / len(x))
            steps.step()
            steps.forget_gradients()

        return step

    return {
        "Pyro's Trace_ELBO": moved(lambda x: objective.loss_and_grads(vae.model, vae.guide, x), divides=False),
        "direct, with param sites": moved(lambda x: direct_elbo(objective, vae.model, vae.guide, len(x), x)),
        "the Trainer's": moved(lambda x: of_trainer(len(x), x)),
        'the Trainer\'s, compile="recorded"': moved(recorded),
        "no handlers": moved(without_handlers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, vae = pictures()[: options.batch_size], gaussian()
    vae.prepare(x).train()
    kinds = {"by hand": by_hand(), **ways(vae)}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with vae.scope(), pyro.validation_enabled(False):
        for number in range(options.rounds + 5):
            for kind, step in kinds.items():
                start = time.process_time()
                step(x)
                if number >= 5:
                    found[kind].append(time.process_time() - start)
    print(f"batch {options.batch_size}, one thread, {options.rounds} rounds\n")
    print("| | ms per step | over by hand |")
    print("|---|---|---|")
    for kind, seconds in found.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, found["by hand"], strict=True))
        print(f"| {kind} | {1e3 * statistics.median(seconds):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
