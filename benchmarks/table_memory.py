"""Memory of trainings on tables: Parquet files of ten times the rows, a training that is killed, wide tables.

    python benchmarks/table_memory.py parquet --rows 200000      # peak memory for N and for 10 N rows
    python benchmarks/table_memory.py resume                     # killed and resumed, against unbroken
    python benchmarks/table_memory.py bank-full                  # the imputer's defaults on bank-full
    python benchmarks/table_memory.py wide                       # 20 000 levels, 1000 columns against 20

Every measurement runs in a process of its own, whose largest resident memory the system tells. Tables are synthetic and
seeded (seed 0), but for bank-full. Figures are printed as JSON, one line each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GROUP = 50_000


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Write a Parquet file of 12 columns of mixed types, a tenth of the entries of ten of them missing."""
    import numpy as np
    import pandas as pd
    import pyarrow
    from pyarrow import parquet

    rng, grades, writer = np.random.default_rng(seed), ["low", "middle", "high"], None
    cities = np.array([f"city {number}" for number in range(50)])
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        z = rng.normal(size=n)
        frame = pd.DataFrame(
            {
                "id": np.arange(start, start + n) % 1000,
                "real": z + 0.3 * rng.normal(size=n),
                "tail": np.exp(z + 0.5 * rng.normal(size=n)),
                "count": pd.array(rng.poisson(np.exp(1 + z / 2)), dtype="Int64"),
                "flag": pd.array(z > 0, dtype="boolean"),
                "city": cities[np.clip((z * 8 + 25).astype(int), 0, 49)],
                "grade": pd.Categorical(np.array(grades)[np.clip((z + 1.5).astype(int), 0, 2)], grades, ordered=True),
                "day": pd.Timestamp("2020-01-01") + pd.to_timedelta((z * 100 + 500).clip(0).astype(int), unit="D"),
                "whole": np.rint(z * 1000),
                "text": rng.choice(list("abc"), n),
                "even": rng.uniform(size=n),
                "twice": 2 * z + rng.normal(size=n),
            }
        )
        holes = rng.uniform(size=frame.shape) < 0.1
        for column, name in enumerate(frame.columns[2:], 2):
            frame[name] = frame[name].mask(holes[:, column])
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        writer = parquet.ParquetWriter(path, table.schema) if writer is None else writer
        writer.write_table(table)
    if writer is not None:
        writer.close()


def child(what: str, **arguments: Any) -> dict[str, Any]:
    """Run a function of this file in a process of its own, and measure it."""
    started = time.monotonic()
    command = [sys.executable, __file__, "child", what, json.dumps(arguments)]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(process.stdout.splitlines()[-1])
    return {"task": what, **arguments, **found, "seconds": round(time.monotonic() - started, 1)}


def train(path: str, out: str, epochs: int, epoch_rows: int, stream: bool = True) -> dict[str, Any]:
    """Train `pyrovae train tabular` on a file, without trees, in epochs of so many rows."""
    from pyrovae.data import table_streams
    from pyrovae.runs import Run

    table_streams.EPOCH_ROWS = epoch_rows
    options = {"name": path, "kind": "table", "stream": stream}
    training = {"epochs": epochs, "checkpoint_seconds": 0.5, "seed": 0}
    run = Run.create(out, "tabular", {"hidden": (128, 128)}, options, training, {"trees": False})
    history = run.train(progress=False)
    return {"epochs": len(history.rows), "loss": history.rows[-1]["loss"]}


def resumed(out: str, epoch_rows: int) -> dict[str, Any]:
    """Go on with a training."""
    from pyrovae.data import table_streams
    from pyrovae.runs import Run

    table_streams.EPOCH_ROWS = epoch_rows
    history = Run.open(out).train(resume=True, progress=False)
    return {"epochs": len(history.rows), "loss": history.rows[-1]["loss"]}


def fitted(table: str) -> dict[str, Any]:
    """Fit the imputer with its defaults on bank-full, on 20 000 levels, or on wide tables for one epoch."""
    import numpy as np
    import pandas as pd

    from pyrovae.data import load
    from pyrovae.data.tables import TableCodec
    from pyrovae.estimators import VAEImputer

    rng, options = np.random.default_rng(0), {"random_state": 0}
    if table == "bank-full":
        dataset = load("bank-full", test=0)
        codec = TableCodec.from_dict(dataset.schema or {})
        x = dataset.train.x.double()
        mask = dataset.train.mask
        values = x.numpy() if mask is None else x.where(mask, float("nan")).numpy()
        frame = codec.schema.decode(codec.complete(values))
    elif table == "levels":
        frame = pd.DataFrame({"level": [f"level {n}" for n in rng.integers(0, 20_000, 25_000)]})
        frame["level"] = frame["level"].where(rng.uniform(size=len(frame)) > 0.1)
        frame["number"] = rng.normal(size=len(frame))
        frame["other"] = frame["number"] + rng.normal(size=len(frame))
        options |= {"epochs": 1, "trees": False}
    else:
        columns = int(table.removeprefix("columns-"))
        rows = 8192
        z = rng.normal(size=(rows, 10)) @ rng.normal(size=(10, columns)) + rng.normal(size=(rows, columns))
        z[:, ::2] = z[:, ::2] > 0
        frame = pd.DataFrame(z, columns=[f"c{number}" for number in range(columns)])
        frame = frame.mask(rng.uniform(size=frame.shape) < 0.1)
        options |= {"epochs": 4, "trees": False}
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    imputer = VAEImputer(**options).fit(frame)
    history = imputer.history_
    found = {
        "megabytes_before": round(before / 1024),
        "processor_seconds": round(time.process_time() - seconds, 1),
        "epochs": imputer.n_iter_,
    }
    if history is not None and table.startswith("columns"):
        rows_of = history.rows
        spent = (rows_of[-1]["seconds"] - rows_of[0]["seconds"]) / (len(rows_of) - 1)
        found["microseconds_per_entry"] = round(spent / frame.size * 1e6, 3)
    return found


def parquet(rows: int, epochs: int, epoch_rows: int) -> None:
    """Peak memory of trainings on N and 10 N rows."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (rows, 10 * rows):
            path = Path(folder) / f"{count}.parquet"
            subprocess.run([sys.executable, __file__, "write", str(path), "--rows", str(count)], check=True)
            found = child("train", path=str(path), out=f"{folder}/run-{count}", epochs=epochs, epoch_rows=epoch_rows)
            found |= {"rows": count, "file_megabytes": round(path.stat().st_size / 2**20)}
            print(json.dumps(found), flush=True)
            peaks.append(found["peak_megabytes"])
    print(json.dumps({"task": "parquet", "grown_megabytes": peaks[1] - peaks[0]}), flush=True)


def resume(rows: int, epochs: int, epoch_rows: int) -> None:
    """A training that is killed with SIGKILL three times, and one that is not."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/t.parquet"
        write(Path(path), rows)
        print(
            json.dumps(child("train", path=path, out=f"{folder}/whole", epochs=epochs, epoch_rows=epoch_rows)),
            flush=True,
        )
        broken = f"{folder}/broken"
        again = {"out": broken, "epoch_rows": epoch_rows}
        state = Path(broken) / "last" / "state.safetensors"
        for attempt in range(3):
            arguments = again if attempt else {"path": path, "epochs": epochs, **again}
            what = "resumed" if attempt else "train"
            command = [sys.executable, __file__, "child", what, json.dumps(arguments)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            seen = state.stat().st_mtime_ns if state.exists() else 0
            changes = 0
            while process.poll() is None and changes < 3 + attempt:
                time.sleep(0.05)
                now = state.stat().st_mtime_ns if state.exists() else seen
                changes += now != seen
                seen = now
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        print(json.dumps(child("resumed", **again)), flush=True)
        one, two = (load_file(f"{folder}/{name}/model.safetensors") for name in ("whole", "broken"))
        same = one.keys() == two.keys() and all(bool((one[name] == two[name]).all()) for name in one)
        print(json.dumps({"task": "resume", "kills": 3, "equal_weights": same}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("parquet", "resume", "bank-full", "wide", "write", "child"))
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the smaller file")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of a training")
    parser.add_argument("--epoch-rows", type=int, default=51_200, help="rows of an epoch: 200 steps by default")
    given = parser.parse_args()
    if given.task == "write":
        write(Path(given.words[0]), given.rows)
    elif given.task == "child":
        found = {"train": train, "resumed": resumed, "fitted": fitted}[given.words[0]](**json.loads(given.words[1]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "peak_megabytes": round(peak)}))
    elif given.task == "parquet":
        parquet(given.rows, given.epochs, given.epoch_rows)
    elif given.task == "resume":
        resume(given.rows, given.epochs, given.epoch_rows)
    else:
        for table in ("bank-full",) if given.task == "bank-full" else ("levels", "columns-20", "columns-1000"):
            print(json.dumps(child("fitted", table=table)), flush=True)


if __name__ == "__main__":
    main()
