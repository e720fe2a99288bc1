"""Cost of parameters for each row: step and memory against the number of rows, checkpoints, and test-time inference.

Run it on a machine that does nothing else::

    python benchmarks/auto_decoder.py steps        # ms per step and peak memory for 10 000 and 1 000 000 rows
    python benchmarks/auto_decoder.py checkpoint   # seconds of a checkpoint of a million rows
    python benchmarks/auto_decoder.py inference    # seconds for 10 000 MNIST images, 200 steps
    python benchmarks/auto_decoder.py gap RUN      # the inference gap of a run on 1000 test images, and what is closed

Times of steps are those of the processor, which another process on the machine changes little.
"""

from __future__ import annotations

import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pyrovae import VAE, data
from pyrovae.data.dataset import DataSpec
from pyrovae.metrics.gaps import inference_gap, mean_bound
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.training import Callback, RunFolder, Trainer

COLUMNS, LATENT, BATCH, STEPS = 100, 50, 128, 400


class Times(Callback):
    """The time of each step, in seconds; the training ends after a number of them."""

    def __init__(self, most: int) -> None:
        self.most, self.last = most, 0.0
        self.times: list[float] = []

    def on_start(self, progress: Any) -> None:
        """Begin."""
        self.last = time.process_time()

    def on_batch(self, progress: Any) -> None:
        """Take the time of a step."""
        self.times.append(time.process_time() - self.last)
        if len(self.times) >= self.most:
            raise StopIteration
        self.last = time.process_time()


def make_pair(rows: int) -> tuple[VAE, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.rand(rows, COLUMNS)
    spec = DataSpec("synthetic", (COLUMNS,), "real", rows, 0, None)
    return find_pair("auto-decoder").build(spec, latent_dim=LATENT, hidden=(200,)), x


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def steps(rows: int, compiled: bool) -> dict[str, float]:
    """Median time of a step, and how much the peak memory grew beyond the data."""
    vae, x = make_pair(rows)
    start = peak_mib()
    times = Times(STEPS)
    objective = "iwae" if compiled else "mean-field"
    settings: dict[str, Any] = {"objective": objective, "compile": compiled, "batch_size": BATCH, "progress": False}
    if compiled:
        settings["num_particles"] = 1
    with contextlib.suppress(StopIteration):
        Trainer(epochs=10_000, callbacks=[times], **settings).fit(vae, x)
    rows_mib = rows * LATENT * 4 / 2**20
    return {
        "rows": rows,
        "compiled": compiled,
        "ms_per_step": 1000 * statistics.median(times.times[20:]),
        "memory_grew_mib": peak_mib() - start,
        "parameters_of_rows_mib": rows_mib,
    }


def checkpoint() -> dict[str, float]:
    """Seconds of one epoch end and of one checkpoint of a million rows."""
    vae, x = make_pair(1_000_000)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(objective="mean-field", epochs=1, batch_size=20_000, progress=False)
        trainer.fit(vae, x)
        found["peak_mib_without_run"] = peak_mib()
        from pyrovae.training.saving import Saving

        plain, durations = Saving.save, []

        def timed(self: Any) -> None:
            begun = time.perf_counter()
            plain(self)
            durations.append(time.perf_counter() - begun)

        Saving.save = timed  # type: ignore[method-assign]
        trainer.fit(vae, x, run=RunFolder(Path(folder, "run")))
        found["checkpoint_seconds"] = max(durations)
        found["peak_mib_with_run"] = peak_mib()
        found["folder_mib"] = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 2**20
    return found


def inference(num_rows: int = 10_000, steps: int = 200) -> dict[str, float]:
    """Seconds to fit test images with an untrained decoder of the usual size, whose cost is that of a trained one."""
    x = data.load("mnist").test.x[:num_rows].round()
    spec = DataSpec("mnist", (1, 28, 28), "binary", 100, 0, None)
    vae = find_pair("auto-decoder").build(spec, latent_dim=50, hidden=(200,))
    found = {}
    for batch_size in (500, 2000):
        begun, used = time.perf_counter(), time.process_time()
        vae.fit_posterior(x, steps=steps, batch_size=batch_size, progress=False)
        found[f"seconds_batch_{batch_size}"] = time.perf_counter() - begun
        found[f"processor_seconds_batch_{batch_size}"] = time.process_time() - used
    return found


def gap(run: str) -> dict[str, float]:
    """The gaps of a run, and the share of the amortisation gap that few steps close."""
    opened = Run.open(run)
    vae, x = opened.load_vae(), opened.dataset().test.x[:1000]
    measured = inference_gap(vae, x, steps=1000)
    found = measured.means()
    for steps in (5, 10, 20, 50, 200):
        bound = mean_bound(vae.fit_posterior(x, steps=steps), x)
        gained = bound - measured.amortised
        found[f"closed_by_{steps}"] = float(gained.mean() / measured.amortisation.mean())
        found[f"worst_row_after_{steps}"] = float(gained.min())
    return found


def main() -> None:
    """Run one of the measurements, each number of rows in a process of its own."""
    what = sys.argv[1] if len(sys.argv) > 1 else "steps"
    if what == "steps" and len(sys.argv) == 2:
        for compiled in ("no", "yes"):
            found = []
            for rows in (10_000, 1_000_000):
                command = [sys.executable, __file__, "steps", str(rows), compiled]
                found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
                print(json.dumps(found[-1]), flush=True)
            print(f"ratio of a step: {found[1]['ms_per_step'] / found[0]['ms_per_step']:.2f}", flush=True)
        return
    if what == "steps":
        found_one: dict[str, float] = steps(int(sys.argv[2]), sys.argv[3] == "yes")
    elif what == "gap":
        found_one = gap(sys.argv[2])
    else:
        found_one = {"checkpoint": checkpoint, "inference": inference}[what]()
    print(json.dumps(found_one))


if __name__ == "__main__":
    main()
