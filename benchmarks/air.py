"""Counting digits: attend, infer, repeat on pictures of 0 to 2 digits, trained with VIMCO.

The program is that of the tests (tests/programs/examples/air.py): up to three steps, each with a discrete latent that
says whether it is there, a place and looks. The pictures are made from scikit-learn's digits; held-out pictures hold
other digits than those of the training.

    python benchmarks/air.py

Training resumes where it stopped. One JSON line tells how many held-out pictures are counted right, by the guide's most
probable steps. `--objective graph --particles 1` takes Pyro's `TraceGraph_ELBO` in place of VIMCO.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from pyrovae.training import RunFolder, Trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/programs"))

from examples import air


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--objective", default="vimco")
    parser.add_argument("--particles", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/air"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    vae = air.make_vae()
    trainer = Trainer(
        objective=options.objective,
        num_particles=options.particles,
        epochs=options.epochs,
        batch_size=64,
        gradient_clip=10.0,
        seed=options.seed,
    )
    run = RunFolder(options.out / f"{options.objective}-{options.particles}-{options.seed}")
    x, _ = air.scenes(4000, seed=0)
    history = trainer.fit(vae, x, run=run, resume=run.state_path.exists())
    x, counts = air.scenes(2000, seed=1)
    found = air.counted(vae, x)
    record = {
        **{name: getattr(options, name) for name in ("objective", "particles", "epochs", "seed")},
        "counted_right": (found == counts).double().mean().item(),
        "by_number": {n: (found == n)[counts == n].double().mean().item() for n in range(3)},
        "log_likelihood": vae.log_likelihood(x[:200], 500).mean().item(),
        "seconds": round(history.rows[-1]["seconds"]),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
