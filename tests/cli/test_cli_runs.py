"""The command line on a trained run: evaluate, sample, plot; a user's own pair goes through every verb."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import EVALUATION_KEYS, FIGURES, TINY, error_of

from pyrovae import data
from pyrovae.cli import main
from pyrovae.infer import recorded
from pyrovae.runs import Run


class TestEvaluate:
    def evaluate(self, out, *words):
        assert main(["evaluate", *words, "--json"]) == 0
        return json.loads(out())

    def test_keys(self, folder, out):
        record = self.evaluate(out, "gaussian", "--num-samples", "20")
        assert list(record) == EVALUATION_KEYS
        assert (record["run"], record["data"], record["split"]) == ("gaussian", "digits", "test")
        assert (record["num_samples"], record["num_rows"], record["latent_dim"]) == (20, 297, 2)
        assert record["bits_per_dimension"] == pytest.approx(-record["log_likelihood"] / (64 * np.log(2)))
        assert record["bound"] < record["log_likelihood"] < 0
        assert record["sampling_error"] < record["standard_error"]

    def test_train_split_is_binarised_as_in_training(self, folder, out):
        record = self.evaluate(out, "gaussian", "--num-samples", "5", "--split", "train", "--num-rows", "200")
        assert (record["split"], record["num_rows"]) == ("train", 200)
        # Grey values would have no code length: they are no outcomes of a Bernoulli distribution.
        assert record["bits_per_dimension"] is not None
        test = self.evaluate(out, "gaussian", "--num-samples", "5")
        assert record["log_likelihood"] == pytest.approx(test["log_likelihood"], abs=2)

    def test_grey_values_have_no_likelihood(self, folder, out, caplog):
        """The same formula is called a cross-entropy, and a line says why; of one latent, it is that of the pixels."""
        assert main(["train", "gaussian", "--data", "digits", "--out", "grey", *TINY]) == 0
        out()
        with caplog.at_level("INFO", "pyrovae"):
            record = self.evaluate(out, "grey", "--num-samples", "5")
        assert "grey values no probability" in caplog.text
        assert record["bits_per_dimension"] is None
        assert "log_likelihood" not in record
        run = Run.open("grey")
        vae, x = run.load_vae(), run.dataset().test.x
        torch.manual_seed(0)
        again = [-vae.log_likelihood(x, 5).mean() for _ in range(4)]
        assert record["cross_entropy"] == pytest.approx(float(torch.stack(again).mean()), abs=0.5)
        assert record["bound"] < -record["cross_entropy"]
        assert main(["evaluate", "grey", "--num-samples", "5"]) == 0
        assert re.search(r"^bits per dimension +-  bits per entry$", out(), re.MULTILINE)

    def test_binary_values_have_one(self, folder, out, caplog):
        with caplog.at_level("INFO", "pyrovae"):
            record = self.evaluate(out, "gaussian", "--num-samples", "2")
        assert "grey" not in caplog.text
        assert "cross_entropy" not in record

    def test_seed_fixes_rows_and_samples(self, folder, out):
        words = ("gaussian", "--num-samples", "5", "--num-rows", "20")
        first, again, other = (self.evaluate(out, *words, "--seed", seed) for seed in "112")
        assert first == again
        assert first["log_likelihood"] != other["log_likelihood"]

    def test_compiled(self, folder, out, monkeypatch):
        """The same figures; what is recorded runs as it is, because compiling takes long."""
        found, words = [], ("gaussian", "--num-samples", "40", "--num-rows", "9", "--chunk-size", "36")
        monkeypatch.setattr(recorded, "compiled", lambda graph, example, backend: found.append(backend) or graph)
        compiled, plain = self.evaluate(out, *words, "--compile"), self.evaluate(out, *words)
        assert found == ["inductor"]
        assert compiled["log_likelihood"] == pytest.approx(plain["log_likelihood"], rel=1e-5)
        assert compiled["bound"] == plain["bound"]

    def test_one_row(self, folder, out):
        record = self.evaluate(out, "gaussian", "--num-samples", "5", "--num-rows", "1", "--chunk-size", "2")
        assert record["num_rows"] == 1
        assert record["standard_error"] is None

    def test_more_rows_than_there_are(self, folder, out):
        assert self.evaluate(out, "gaussian", "--num-samples", "2", "--num-rows", "9999")["num_rows"] == 297


class TestSample:
    @pytest.mark.parametrize("output", ["draw", "mean", "mode"])
    def test_formats_hold_the_same(self, output, folder, out):
        for name in ("x.csv", "new/folder/x.npz", "x.PNG"):
            assert main(["sample", "gaussian", "--num", "5", "--out", name, "--output", output]) == 0
            assert out() == f"5 samples in {name}\n"
        with (folder / "x.csv").open() as file:
            header, *rows = list(csv.reader(file))
        values = np.load(folder / "new/folder/x.npz")["x"]
        assert header == [f"x{i}" for i in range(64)]
        assert values.shape == (5, 1, 8, 8)
        np.testing.assert_array_equal(np.array(rows, dtype=np.float32), values.reshape(5, 64))
        assert set(np.unique(values)) <= {0, 1} or output == "mean"
        assert (folder / "x.PNG").read_bytes().startswith(b"\x89PNG")

    def test_seed(self, folder):
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
            assert main(["sample", "gaussian", "--num", "3", "--out", f"{name}.csv", "--seed", seed]) == 0
        first, again, other = ((folder / f"{name}.csv").read_text() for name in "abc")
        assert first == again != other

    def test_needs_no_data(self, folder, monkeypatch):
        monkeypatch.setattr(data, "load", None)
        assert main(["sample", "gaussian", "--num", "3", "--out", "x.csv"]) == 0


class TestPlot:
    @pytest.mark.parametrize("kind", ["png", "svg"])
    def test_figures(self, kind, folder, out):
        assert main(["plot", "gaussian", "--format", kind]) == 0
        paths = [Path(line) for line in out().splitlines()]
        assert {path.stem for path in paths} == FIGURES
        assert all(path.stat().st_size > 1000 and path.suffix == f".{kind}" for path in paths)
        assert {path.name for path in Path("gaussian/figures").iterdir()} == {path.name for path in paths}


class TestOwnPair:
    """One `nn.Module` with methods model and guide that call `pyro.module`, as in Pyro's VAE tutorial."""

    def test_every_verb(self, folder, out):
        pair = ["--pair", "mymodule:make_vae"]
        assert main(["evaluate", "own", *pair, "--num-samples", "20", "--json"]) == 0
        record = json.loads(out())
        assert list(record) == EVALUATION_KEYS
        assert record["latent_dim"] == 2
        assert record["bits_per_dimension"] is not None
        assert main(["sample", "own", *pair, "--num", "4", "--out", "x.npz"]) == 0
        assert np.load("x.npz")["x"].shape == (4, 1, 8, 8)
        assert main(["plot", "own", *pair]) == 0
        assert {path.stem for path in Path("own/figures").iterdir()} == FIGURES
        assert main(["resume", "own", *pair, "--quiet"]) == 0

    @pytest.mark.parametrize("words", ["evaluate own", "sample own --out x.csv", "plot own", "resume own"])
    def test_is_not_imported_on_the_word_of_a_file(self, words, folder, capsys):
        assert error_of(words.split(), capsys) == (
            "pyrovae: own is a run of a pair of your own; open it with --pair mymodule:make_vae\n"
        )
        assert "mymodule" not in sys.modules

    def test_through_a_process(self, folder):
        words = ["sample", "own", "--pair", "mymodule:make_vae", "--num", "2", "--out", "x.csv"]
        done = subprocess.run([sys.executable, "-m", "pyrovae", *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 samples in x.csv\n", "")
