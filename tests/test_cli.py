"""The command line as a user meets it, almost always in process; a user's own pair goes through every verb."""

import csv
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pyrovae import __version__, data
from pyrovae.cli import main
from pyrovae.metrics import Evaluation
from pyrovae.registry import pairs
from pyrovae.runs import Run

TINY = ["--epochs", "2", "--hidden", "16", "--layer", "plain", "--latent-dim", "2", "--quiet"]
VERBS = ("train", "evaluate", "sample", "plot", "datasets", "models")
FIGURES = {
    "training_curves",
    "samples",
    "reconstructions",
    "interpolation",
    "latent_scatter",
    "latent_profile",
}
EVALUATION_KEYS = [  # as README.md has them; scripts rely on the names
    *("run", "data", "split", "log_likelihood", "standard_error", "sampling_error", "num_samples", "num_rows"),
    *("bound", "kl", "reconstruction_error", "active_units", "latent_dim", "bits_per_dimension"),
    "effective_sample_size",
    *("knn_error_3", "knn_error_5", "knn_error_10"),
]
MODULE = '''
import os, signal
from typing import Annotated, Literal

import pyro, pyro.distributions as dist, torch
from torch import nn
from pyrovae import VAE

class Net(nn.Module):
    def __init__(self, z_dim, hidden):
        super().__init__()
        self.z_dim, self.calls = z_dim, 0
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.Softplus(), nn.Linear(hidden, 2 * z_dim))
        self.decoder = nn.Sequential(nn.Linear(z_dim, hidden), nn.Softplus(), nn.Linear(hidden, 64), nn.Sigmoid())

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], self.z_dim), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(self.decoder(z)).to_event(1), obs=x.reshape(-1, 64))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        self.calls += 1
        if str(self.calls) == os.environ.get("TEST_INTERRUPT_AT"):
            os.kill(os.getpid(), signal.SIGINT)
        loc, log_scale = self.encoder(x.reshape(-1, 64)).chunk(2, -1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))

def make_vae(
    z_dim: Annotated[int, "size of the latent, 100% of it"] = 3,
    hidden: int = 16,
    seed: int | None = None,
    size: Literal["small", "large"] = "small",
    callback=None,
):
    """A net as in Pyro's tutorial."""
    if seed is not None:
        torch.manual_seed(seed)
    net = Net(z_dim, hidden if size == "small" else 10 * hidden)
    return VAE(net.model, net.guide)

def needs(z_dim: int): return make_vae(z_dim)
def fails(): raise KeyError("nothing here")
def no_vae(): return None
def unreadable(size: "Unknown" = 3): return make_vae()
def another(): return make_vae()

def mismatch():
    net = Net(3, 16)
    net.encoder = nn.Linear(32, 6)
    return VAE(net.model, net.guide)
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two trained runs, "gaussian" and "own", and the module of the latter; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mymodule.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        _enter(folder, patch)
        assert main(["train", "gaussian", "--data", "digits", "--binarize", "dynamic", "--out", "gaussian", *TINY]) == 0
        words = ["--data", "digits", "--binarize", "static", "--out", "own", "--epochs", "2", "--quiet"]
        assert main(["train", "mymodule:make_vae", *words, "--z-dim", "2"]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A working directory with a copy of the trained runs."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    _enter(tmp_path, monkeypatch)
    return tmp_path


def _enter(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("mymodule", "broken", "lonely"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


@pytest.fixture
def out(capsys):
    """What the last command wrote to standard output."""
    return lambda: capsys.readouterr().out


def error_of(words, capsys) -> str:
    """The one line that a refused command writes."""
    status = main(words)
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, ""), captured
    assert re.fullmatch(r"pyrovae: \S[^\n]*\n", captured.err), captured.err
    return captured.err


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_has_help(self, verb, folder, out):
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        text = out()
        assert stop.value.code == 0
        assert text.startswith(f"usage: pyrovae {verb}")
        assert max(map(len, text.splitlines())) <= 100
        # Placeholders are words of the field, not names of variables, and no switch shows "False" as its default.
        assert not re.search(r"PAIR_|[A-Z]_[A-Z]|default: (None|False)|==SUPPRESS==", text)

    def test_verbs_are_listed(self, out):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = out()
        assert all(re.search(rf"^ +{verb} +\w", text, re.MULTILINE) for verb in VERBS)

    def test_version(self, out):
        with pytest.raises(SystemExit) as stop:
            main(["--version"])
        assert (stop.value.code, out()) == (0, f"pyrovae {__version__}\n")

    @pytest.mark.parametrize(
        "words",
        [
            "train gaussian --help",
            "train --help gaussian",
            "train --data digits --epochs 3 gaussian --help",
            "train --latent-dim 3 gaussian --help",
            "train --kl-weight warm-up:2 --device cuda:1 gaussian --help",
        ],
    )
    def test_help_shows_the_options_of_the_pair(self, words, out):
        with pytest.raises(SystemExit):
            main(words.split())
        text = out()
        assert re.search(r"--latent-dim N +size of the latent \(default: 16\)", text)
        assert "--hidden N,N,..." in text
        assert "--prior {standard-normal,mixture,vamp}" in text
        assert re.search(r"--likelihood NAME +likelihood of the data", text), "its choices are too many for braces"

    def test_help_of_a_pair_of_ones_own(self, folder, out):
        with pytest.raises(SystemExit):
            main(["train", "mymodule:make_vae", "--help"])
        text = out()
        assert re.search(r"--z-dim N +size of the latent, 100% of it \(default: 3\)", text)
        assert "--size {small,large}" in text
        assert "--pair-seed N" in text, "ours is called --seed"
        assert "callback" not in text, "no value for it fits on a command line"

    def test_required_option(self, folder, out, capsys):
        with pytest.raises(SystemExit):
            main(["train", "mymodule:needs", "--help"])
        assert re.search(r"--z-dim N +\(required\)", out())
        assert "--z-dim" in error_of(["train", "mymodule:needs", "--data", "digits"], capsys)


class TestLists:
    def test_datasets(self, out):
        assert main(["datasets"]) == 0
        text = out()
        assert main(["datasets", "--json"]) == 0
        listed = json.loads(out())
        assert [info["name"] for info in listed] == [info.name for info in data.available()]
        assert all(re.search(rf"^{info['name']} ", text, re.MULTILINE) for info in listed)
        keys = ["name", "summary", "shape", "sizes", "kind", "source", "location"]
        assert all(list(info) == keys for info in listed)

    def test_models(self, out):
        assert main(["models"]) == 0
        text = out()
        assert main(["models", "--json"]) == 0
        listed = json.loads(out())
        assert [pair["name"] for pair in listed] == [pair.name for pair in pairs()]
        options = {pair["name"]: pair["options"] for pair in listed}
        assert options["gaussian"]["prior"]["choices"] == ["standard-normal", "mixture", "vamp"]
        assert all(f"--{name.replace('_', '-')} " in text for pair in listed for name in pair["options"])
        assert max(map(len, text.splitlines())) <= 100


class TestTrain:
    def test_run_folder(self, folder):
        run = folder / "gaussian"
        names = {"config.json", "metrics.csv", "model.safetensors", "last", "last/state.safetensors"}
        assert {str(path.relative_to(run)) for path in run.rglob("*")} == names
        config = json.loads((run / "config.json").read_text())
        assert config["pair"] == "gaussian"
        assert config["pair_options"] == {"hidden": [16], "layer": "plain", "latent_dim": 2}
        assert config["data"]["binarize"] == "dynamic"
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert float(rows[1]["loss"]) < float(rows[0]["loss"])

    def test_summary_and_evaluation(self, tmp_path, monkeypatch, capsys):
        # The data have no labels, so there are no errors of neighbours.
        monkeypatch.chdir(tmp_path)
        # A name with _, an option behind =, the default name of the folder, and a name of a data set in the wrong case.
        words = ["train", "--data", "linear_gaussian", "gaussian", "--epochs=1", "--validation-size", "500", *TINY[2:]]
        assert main([*words, "--lr-schedule", "cosine", "--kl-weight", "warm-up:1", "--evaluate"]) == 0
        captured = capsys.readouterr()
        first, *figures = captured.out.splitlines()
        assert re.fullmatch(
            r"all 1 epochs done; best epoch 1 \(loss -?[\d.]+, validation loss -?[\d.]+\); "
            r"run folder runs/gaussian-linear-gaussian",
            first,
        )
        assert [" ".join(line[:23].split()).replace(" ", "_") for line in figures] == EVALUATION_KEYS[:-3]
        assert re.search(r"^log likelihood +-[\d.]+  nats per datum$", captured.out, re.MULTILINE)
        assert re.search(r"^num samples +5000", captured.out, re.MULTILINE)
        assert captured.err == "", "--quiet"
        config = json.loads(Path("runs/gaussian-linear-gaussian/config.json").read_text())
        assert config["data"]["validation_size"] == 500
        assert config["data"]["name"] == "linear-gaussian"

    def test_progress_bar(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["train", "gaussian", "--data", "digits", *TINY[:-1]]) == 0
        assert re.search(r"epoch 2/2: 100%.*loss=\d.*validation=\d", capsys.readouterr().err)

    @pytest.mark.parametrize("pair", ["gaussian", "mymodule:make_vae"])
    def test_same_seed_same_weights(self, pair, folder):
        words = ["train", pair, "--data", "digits", "--binarize", "static", "--epochs", "1", "--quiet"]
        words += ["--hidden", "8"]
        for out, seed in (("a", 1), ("b", 1), ("c", 2)):
            assert main([*words, "--out", out, "--seed", str(seed)]) == 0
        first, second, other = ((folder / name / "model.safetensors").read_bytes() for name in "abc")
        assert first == second != other

    def test_options_that_share_a_name(self, folder):
        words = ["train", "mymodule:make_vae", "--data", "digits", "--binarize", "static", "--epochs", "1", "--quiet"]
        assert main([*words, "--out", "clash", "--seed", "7", "--pair-seed", "5", "--size", "large"]) == 0
        config = json.loads((folder / "clash/config.json").read_text())
        assert config["pair_options"] == {"seed": 5, "size": "large"}
        assert config["training"]["seed"] == 7
        assert main(["sample", "clash", "--pair", "mymodule:make_vae", "--num", "1", "--out", "x.csv"]) == 0

    @pytest.mark.parametrize("prior", ["mixture", "vamp"])
    @pytest.mark.parametrize("net", ["dense", "conv"])
    def test_options_of_the_gaussian_pair(self, prior, net, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = ["train", "gaussian", "--data", "digits", "--out", "run", *TINY, "--net", net, "--channels", "2,3"]
        assert main([*words, "--prior", prior, "--num-components", "5", "--tied", "--activation", "tanh"]) == 0
        assert main(["sample", "run", "--num", "2", "--out", "x.npz"]) == 0

    @pytest.mark.parametrize("likelihood", ["bernoulli", "normal", "normal-learned", "normal-predicted"])
    def test_likelihoods(self, likelihood, tmp_path, monkeypatch, out):
        monkeypatch.chdir(tmp_path)
        words = ["train", "gaussian", "--data", "digits", "--out", "run", *TINY, "--likelihood", likelihood]
        assert main(words) == 0
        assert main(["evaluate", "run", "--num-samples", "2", "--num-rows", "5"]) == 0


class TestResume:
    @pytest.mark.parametrize("calls", [15, 43], ids=["in the first epoch", "in the third epoch"])
    def test_interrupted_and_resumed_is_as_never_interrupted(self, calls, folder, monkeypatch, capsys):
        words = ["train", "mymodule:make_vae", "--data", "digits", "--binarize", "dynamic", "--epochs", "4", "--quiet"]
        words += ["--batch-size", "100"]
        assert main([*words, "--out", "whole"]) == 0
        capsys.readouterr()
        monkeypatch.setenv("TEST_INTERRUPT_AT", str(calls))
        assert main([*words, "--out", "stopped"]) == 130
        line = capsys.readouterr().err
        command = "pyrovae train --resume stopped --pair mymodule:make_vae"
        assert re.fullmatch(rf"pyrovae: interrupted .*; everything is saved, go on with: {command}\n", line)
        monkeypatch.delenv("TEST_INTERRUPT_AT")
        assert main([*command.split()[1:], "--quiet"]) == 0
        first, second = (load_file(folder / name / "model.safetensors") for name in ("whole", "stopped"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_resuming_what_is_done(self, folder, out):
        before = (folder / "gaussian/model.safetensors").read_bytes()
        assert main(["train", "--resume", "gaussian", "--quiet"]) == 0
        assert "all 2 epochs done" in out()
        assert (folder / "gaussian/model.safetensors").read_bytes() == before

    def test_ctrl_c(self, tmp_path):
        words = ["train", "gaussian", "--data", "digits", "--out", "run", *TINY, "--epochs", "100000"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrovae.cli", *words, "--checkpoint-seconds", "0"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / "run/metrics.csv").exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130, stderr
        assert stdout == ""
        assert re.fullmatch(r"pyrovae: interrupted .*go on with: pyrovae train --resume run\n", stderr)


class TestNotANumber:
    def test_message_and_what_is_left(self, folder, capsys, out):
        words = ["train", "gaussian", "--data", "digits", "--out", "wild", "--likelihood", "normal-predicted", *TINY]
        line = error_of([*words, "--lr", "1e6"], capsys)
        assert re.search(r"(loss|parameter) .* in epoch \d, batch \d+", line)
        assert "wild/model.safetensors have" in line
        assert "smaller learning rate" in line
        assert main(["evaluate", "wild", "--num-samples", "5", "--json"]) == 0
        assert np.isfinite(json.loads(out())["log_likelihood"])


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

    def test_readme_explains_the_same_keys(self):
        text = (Path(__file__).parents[1] / "README.md").read_text()
        table = text[text.index("`evaluate --json` prints") : text.index("## Estimators")]
        rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        optional = {field.name for field in fields(Evaluation)}  # some pairs have figures that others have not
        assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(optional.union(EVALUATION_KEYS))

    def test_train_split_is_binarised_as_in_training(self, folder, out):
        record = self.evaluate(out, "gaussian", "--num-samples", "5", "--split", "train", "--num-rows", "200")
        assert (record["split"], record["num_rows"]) == ("train", 200)
        # Grey values would have no code length: they are no outcomes of a Bernoulli distribution.
        assert record["bits_per_dimension"] is not None
        test = self.evaluate(out, "gaussian", "--num-samples", "5")
        assert record["log_likelihood"] == pytest.approx(test["log_likelihood"], abs=2)

    def test_grey_values_have_no_bits(self, folder, out):
        assert main(["train", "gaussian", "--data", "digits", "--out", "grey", *TINY]) == 0
        out()
        assert self.evaluate(out, "grey", "--num-samples", "5")["bits_per_dimension"] is None
        assert main(["evaluate", "grey", "--num-samples", "5"]) == 0
        assert re.search(r"^bits per dimension +-$", out(), re.MULTILINE)

    def test_seed_fixes_rows_and_samples(self, folder, out):
        words = ("gaussian", "--num-samples", "5", "--num-rows", "20")
        first, again, other = (self.evaluate(out, *words, "--seed", seed) for seed in "112")
        assert first == again
        assert first["log_likelihood"] != other["log_likelihood"]

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
        assert main(["train", "--resume", "own", *pair, "--quiet"]) == 0

    @pytest.mark.parametrize("words", ["evaluate own", "sample own --out x.csv", "plot own", "train --resume own"])
    def test_is_not_imported_on_the_word_of_a_file(self, words, folder, capsys):
        assert error_of(words.split(), capsys) == (
            "pyrovae: own is a run of a pair of your own; open it with --pair mymodule:make_vae\n"
        )
        assert "mymodule" not in sys.modules

    def test_through_a_process(self, folder):
        words = ["sample", "own", "--pair", "mymodule:make_vae", "--num", "2", "--out", "x.csv"]
        done = subprocess.run([sys.executable, "-m", "pyrovae.cli", *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 samples in x.csv\n", "")


class TestGrow:
    """More sticks for a run: a new run that begins with what the old one has learned."""

    @staticmethod
    def train(weights, *words):
        sizes = ["--truncation", str(weights), "--hidden", "8", "--epochs", "2", "--lr", "0.01", "--quiet", *words]
        return main(["train", "stick-breaking", "--data", "digits", "--out", f"sticks-of-{weights}", *sizes])

    def test_a_new_run(self, folder, capsys):
        assert self.train(3) == 0
        assert main(["train", "--grow", "sticks-of-3", "--sticks", "4", "--quiet"]) == 0
        old, new = Run.open("sticks-of-3"), Run.open("sticks-of-3-7")
        assert new.config["pair_options"]["truncation"] == 7
        assert new.config["grown_from"] == "sticks-of-3"
        assert new.config["training"] == old.config["training"]
        rows = [run.folder.read_metrics() for run in (old, new)]
        assert rows[1][0]["validation_loss"] < rows[0][0]["validation_loss"] - 1  # not from the start
        assert main(["evaluate", "sticks-of-3-7", "--num-samples", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["latent_dim"] == 6
        assert main(["train", "--resume", "sticks-of-3-7", "--quiet"]) == 0
        capsys.readouterr()
        assert "already holds a run" in error_of(["train", "--grow", "sticks-of-3", "--sticks", "4"], capsys)
        assert "count must be at least 1, got 0" in error_of(
            ["train", "--grow", "sticks-of-3", "--sticks", "0"], capsys
        )

    def test_no_need(self, folder, capsys):
        assert self.train(60) == 0
        assert main(["train", "--grow", "sticks-of-60", "--out", "more"]) == 0
        assert "need no more sticks than sticks-of-60 has; nothing to do" in capsys.readouterr().out
        assert not (folder / "more").exists()

    def test_refused(self, folder, capsys):
        assert self.train(5, "--posterior", "gamma") == 0
        capsys.readouterr()
        assert "at the prior exactly; got StickBreakingVAE and GammaSticks" in error_of(
            ["train", "--grow", "sticks-of-5"], capsys
        )


TRAIN = "train gaussian --data digits --out new --epochs 1"
BAD_INPUT = {
    "": "required: VERB",
    "tarin": "invalid choice: 'tarin' (choose from 'train', 'evaluate', 'sample', 'plot', 'datasets', 'models')",
    "train": "say what to train on what",
    "train gaussian": "say what to train on what",
    "train --data digits": "say what to train on what",
    "train gausian --data digits": "unknown pair 'gausian'; known are categorical, gaussian, ",
    "train gaussian --data digitz": "there is no data set 'digitz'; known are binarized-mnist, ",
    "train gaussian --data digits --out gaussian": "gaussian already holds a run; go on with it (--resume gaussian)",
    "train gaussian --data digits --out mymodule.py/new": "mymodule.py",
    "train gaussian --data digits --pair mymodule:make_vae": "--pair goes with --resume",
    "train --resume gaussian --data digits --lr 3": "leave out --data, --lr",
    "train gaussian --resume gaussian": "leave out PAIR",
    "train --resume gaussian --dequantize": "leave out --dequantize",
    "train --resume gaussian --latent-dim 3": "unknown arguments: --latent-dim",
    "train --resume nowhere": "nowhere is no run folder",
    "train --grow gaussian": "sticks are for runs of the pair stick-breaking; gaussian is of gaussian",
    "train --grow gaussian --lr 3": "--grow goes on with the run as it was configured; leave out --lr",
    "train --grow gaussian --resume gaussian": "leave out --grow",
    "train gaussian --grow gaussian": "leave out PAIR",
    "train --grow nowhere": "nowhere is no run folder",
    f"{TRAIN} --sticks 3": "--sticks goes with --grow RUN",
    "train --resume gaussian --pair mymodule:make_vae": "a run of the pair gaussian, not mymodule:make_vae",
    f"{TRAIN} --latent-dmi 3": "unknown arguments: --latent-dmi 3 (see pyrovae train --help)",
    f"{TRAIN} --latent-dim x": "argument --latent-dim: invalid int value: 'x'",
    f"{TRAIN} --latent-dim 0": "latent_dim must be at least 1, got 0",
    f"{TRAIN} --hidden 3,x": "argument --hidden: invalid integers value: '3,x'",
    f"{TRAIN} --hidden 0": "layer sizes must be at least 1",
    f"{TRAIN} --activation rleu": "unknown activation 'rleu'",
    f"{TRAIN} --layer gatd": "invalid choice: 'gatd' (choose from 'plain', 'gated', 'residual')",
    f"{TRAIN} --net conv --channels 3": "two numbers of channels",
    f"{TRAIN} --likelihood discretized-logistic": "digits is unit",
    f"{TRAIN} --likelihood normal --likelihood-scale -1": "scale",
    f"{TRAIN} --prior vamp --num-components 0": "components",
    f"{TRAIN} --prior mixture --num-components 0": "components",
    f"{TRAIN} --tied --layer gated": "tied",
    f"{TRAIN} --epochs 0": "epochs must be positive",
    f"{TRAIN} --epochs 1.5": "argument --epochs: invalid int value: '1.5'",
    f"{TRAIN} --lr 0": "lr must be positive",
    f"{TRAIN} --lr nan": "lr must be positive",
    f"{TRAIN} --objective eblo": "invalid choice: 'eblo' (choose from 'elbo', ",
    f"{TRAIN} --optimizer adm": "invalid choice: 'adm'",
    f"{TRAIN} --kl-weight warm-up:0": "positive number of epochs",
    f"{TRAIN} --kl-weight fast": "unknown schedule 'fast'; give a number, warm-up:EPOCHS, decay or cyclic:EPOCHS",
    f"{TRAIN} --device cuda:99": "device 'cuda:99' cannot be used",
    f"{TRAIN} --device tpu": "device 'tpu' cannot be used",
    f"{TRAIN} --binarize dynamic --scale symmetric": "exclude each other",
    f"{TRAIN} --dequantize": "dequantize needs values of kind '8-bit'",
    f"{TRAIN} --validation-size 0": "validation_size must be",
    f"{TRAIN} --seed 99999999999999999999": "argument --seed: a seed is a whole number from 0 to 2**32 - 1, got 9999",
    "train nomodule:make_vae --data digits": "there is no module 'nomodule' in the working directory or installed",
    "train no.module:make_vae --data digits": "there is no module 'no.module'",
    "train mymodule:make --data digits": "no function 'make'; it has make_vae, needs, fails, no_vae",
    "train mymodule: --data digits": "'mymodule:' is no pair",
    "train broken:make_vae --data digits": "module 'broken' cannot be imported: SyntaxError",
    "train lonely:make_vae --data digits": "lonely needs the module 'friend', which is not installed",
    "train mymodule:fails --data digits --out new": "mymodule:fails failed: KeyError: 'nothing here'",
    "train mymodule:no_vae --data digits --out new": "mymodule:no_vae must return a pyrovae.VAE, got NoneType",
    "train mymodule:unreadable --data digits": "the arguments of mymodule:unreadable cannot be read: NameError",
    "train mymodule:make_vae --data linear-gaussian --out new": "Shape mismatch inside plate('data') at site latent",
    "train mymodule:make_vae --data digits --out new": "'obs': Expected value argument (Tensor of shape (128, 64))",
    "train mymodule:mismatch --data digits --out new": "mat1 and mat2 shapes cannot be multiplied (128x64 and 32x6)",
    "train mymodule:make_vae --data digits --out new --size medium": "invalid choice: 'medium'",
    "evaluate": "required: RUN",
    "evaluate nowhere": "nowhere is no run folder",
    "evaluate gaussian --num-samples 0": "num_samples must be at least 1, got 0",
    "evaluate gaussian --num-samples 5 --num-rows 0": "num_rows must be at least 1, got 0",
    "evaluate gaussian --num-samples 5 --num-rows -3": "num_rows must be at least 1, got -3",
    "evaluate gaussian --num-samples 5 --chunk-size 0": "chunk_size must be at least 1",
    "evaluate gaussian --num 5": "unknown arguments: --num 5 (see pyrovae evaluate --help)",
    "evaluate gaussian --split all": "invalid choice: 'all' (choose from 'train', 'validation', 'test')",
    "evaluate gaussian --pair mymodule:make_vae": "is a run of the pair gaussian, not mymodule:make_vae",
    "evaluate own --pair mymodule:another": "is a run of the pair mymodule:make_vae, not mymodule:another",
    "evaluate own --pair gaussian": "is a run of the pair mymodule:make_vae, not gaussian",
    "evaluate no-json": "no-json/config.json is damaged",
    "evaluate no-pair": "no-pair/config.json is damaged: it lacks a str 'pair'",
    "evaluate odd-data": "no data set 'digitz'",
    "evaluate odd-option": "pair 'gaussian' has no option 'latent'; it has latent_dim, ",
    "evaluate newer": "newer/config.json has format version 99",
    "evaluate truncated": "truncated/model.safetensors is damaged or truncated",
    "evaluate no-weights": "no-weights/model.safetensors does not exist",
    "evaluate other-net": "other-net/model.safetensors is of another architecture",
    "evaluate foreign": "foreign/model.safetensors was not written by pyrovae",
    "train --resume truncated": "truncated/last/state.safetensors is damaged or truncated",
    "sample gaussian": "required: --out",
    "sample gaussian --out x.jpg": "--out must end in .png, .csv or .npz, got x.jpg",
    "sample gaussian --out x.csv --num 0": "--num must be at least 1, got 0",
    "sample gaussian --out x.csv --output median": "invalid choice: 'median' (choose from 'draw', 'mean', 'mode')",
    "sample gaussian --out mymodule.py/x.csv": "mymodule.py",
    "sample gaussian --out mymodule.py/x.npz": "mymodule.py",
    "sample gaussian --out mymodule.py/x.png": "mymodule.py",
    "sample truncated --out x.csv": "truncated/model.safetensors is damaged",
    "plot gaussian --format jpg": "invalid choice: 'jpg'",
    "plot truncated": "truncated/model.safetensors is damaged",
    "datasets digits": "unknown arguments: digits (see pyrovae datasets --help)",
}


@pytest.fixture(scope="module")
def bad_folder(trained, tmp_path_factory):
    """The trained runs and damaged copies of one of them."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    (folder / "broken.py").write_text("def make_vae(:\n")
    (folder / "lonely.py").write_text("import friend\n")
    config = json.loads((folder / "gaussian/config.json").read_text())
    configs = {
        "no-pair": {name: value for name, value in config.items() if name != "pair"},
        "odd-data": {**config, "data": {"name": "digitz"}},
        "odd-option": {**config, "pair_options": {"latent": 3}},
        "newer": {**config, "format_version": 99},
        "other-net": {**config, "pair_options": {**config["pair_options"], "latent_dim": 5}},
    }
    for name in ("no-json", "truncated", "no-weights", "foreign", *configs):
        shutil.copytree(folder / "gaussian", folder / name)
    for name, changed in configs.items():
        (folder / name / "config.json").write_text(json.dumps(changed))
    (folder / "no-json/config.json").write_text('{"format_version": 1, "pair"')
    (folder / "no-weights/model.safetensors").unlink()
    save_file({"weight": torch.zeros(3)}, folder / "foreign/model.safetensors")
    for name in ("model.safetensors", "last/state.safetensors"):
        path = folder / "truncated" / name
        path.write_bytes(path.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize("words", BAD_INPUT)
def test_bad_input(words, bad_folder, monkeypatch, capsys):
    _enter(bad_folder, monkeypatch)
    before = files_in(bad_folder)
    try:
        line = error_of(words.split(), capsys)
        assert files_in(bad_folder) == before, "nothing is written"
    finally:
        shutil.rmtree("new", ignore_errors=True)
    assert BAD_INPUT[words] in line
    assert len(line) < 300, "a line, not a page"


def test_debugging_shows_where(monkeypatch):
    monkeypatch.setenv("PYROVAE_DEBUG", "1")
    with pytest.raises(ValueError, match="required: VERB"):
        main([])


@pytest.mark.parametrize("pair", [pair.name for pair in pairs()])
def test_options_of_our_pairs_need_no_prefix(pair, out):
    with pytest.raises(SystemExit):
        main(["train", pair, "--help"])
    assert "--pair-" not in out()
