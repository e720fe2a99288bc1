"""Parquet files in chunks on the command line: training, going on after a stop, and what uses the run."""

import os
import signal

import numpy as np
import pandas as pd
import pytest
from command_line import enter, error_of
from safetensors.torch import load_file

from pyrovae.cli import main
from pyrovae.data import streamed_loading
from pyrovae.data.row_numbers import hidden_entries
from pyrovae.estimators.table_training import HELD_OUT
from pyrovae.runs import Run
from pyrovae.training import Callback

pytest.importorskip("pyarrow")
SMALL = ["--hidden", "16", "--latent-dim", "2", "--epochs", "2", "--batch-size", "32", "--quiet", "--no-trees"]


def frame(rows=400):
    rng = np.random.default_rng(2)
    size = rng.normal(90.0, 20.0, rows)
    table = pd.DataFrame(
        {
            "size": size,
            "price": 3 * size + rng.normal(0, 5, rows),
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], rows)),
            "garden": rng.random(rows) < 0.5,
        }
    )
    return table.mask(rng.random(table.shape) < 0.1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    frame().to_parquet("t.parquet", row_group_size=70)
    return tmp_path


class Kill(Callback):
    """Ctrl-C after some batches."""

    def __init__(self, count):
        self.left = count

    def on_batch(self, progress):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_streamed_run_is_used_as_any_other(place, caplog):
    assert (
        main(["train", "tabular", "--data", "t.parquet", "--stream", "--out", "r", "--validation", "40", *SMALL]) == 0
    )
    assert "rows: 320 for training, read in chunks, 40 for validation, 40 for test" in caplog.text
    dataset = Run.open("r").dataset()
    assert (len(dataset.train), dataset.spec.num_rows, len(dataset.test)) == (320, 320, 40)
    assert main(["evaluate", "r", "--num-samples", "20", "--baselines", "mean-mode"]) == 0
    assert main(["impute", "r", "--input", "t.parquet", "--out", "full.parquet"]) == 0
    filled = pd.read_parquet("full.parquet")
    assert not filled.isna().to_numpy().any()
    assert main(["sample", "r", "--num", "5", "--out", "new.csv"]) == 0


def test_resume_gives_the_weights_of_an_unbroken_training(place, capsys):
    words = ["tabular", {"hidden": (16,), "latent_dim": 2}, {"name": "t.parquet", "kind": "table", "stream": True}]
    training = {"epochs": 3, "batch_size": 32, "checkpoint_seconds": 0.0}
    Run.create("whole", *words, training, {"trees": False}).train(progress=False)
    with pytest.raises(KeyboardInterrupt):
        Run.create("broken", *words, training, {"trees": False}).train(progress=False, callbacks=[Kill(16)])
    assert main(["resume", "broken", "--quiet"]) == 0
    one, two = (load_file(f"{name}/model.safetensors") for name in ("whole", "broken"))
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)
    frame().iloc[:300].to_parquet("t.parquet")
    capsys.readouterr()
    assert "the training rows of t hold other values than those that the run was trained on" in error_of(
        ["resume", "broken", "--quiet"], capsys
    )


def test_entries_that_calibrate_a_run_are_hidden_from_its_training(place):
    run = Run.create("r", "tabular", {"hidden": (8,)}, {"name": "t.parquet", "kind": "table", "stream": True}, {})
    whole = run.dataset()
    shown = run.pair.finishing.hold_out(whole, 5, None)
    drawn = hidden_entries(whole.train.index.numpy(), 4, HELD_OUT, 5)
    assert (shown.train.mask.numpy() == (whole.train.mask.numpy() & ~drawn)).all()
    batches, before = ([*data.stream.batches(0, 0, 32)] for data in (shown, whole))
    hidden = sum(int((a.mask & ~b.mask).sum()) for a, b in zip(before, batches, strict=True))
    assert hidden == (whole.train.mask.numpy() & drawn).sum() > 0


def test_schema_of_a_large_file_is_that_of_the_whole(place, capsys, monkeypatch):
    assert main(["schema", "t.parquet"]) == 0
    whole = capsys.readouterr().out
    monkeypatch.setattr(streamed_loading, "STREAMED_FROM", 100)
    assert main(["schema", "t.parquet"]) == 0
    assert capsys.readouterr().out == whole


def test_files_that_are_refused(place, capsys):
    (place / "none.parquet").write_bytes(b"PAR1")
    frame().to_csv("t.csv", index=False)
    for data, words in {
        "none.parquet": "none.parquet cannot be read as a Parquet file",
        "t.csv": "stream is for .parquet files, and t.csv is none",
        "clinic": "stream is for .parquet files, and clinic is none",
        "gone.parquet": "there is no file gone.parquet",
    }.items():
        assert words in error_of(["train", "tabular", "--data", data, "--stream", "--out", "x", *SMALL], capsys)
    assert not (place / "x").exists()
