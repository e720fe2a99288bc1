"""The command line trains: new runs, resumed ones, losses that are not numbers, sticks that are added."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import EVALUATION_KEYS, TINY, error_of
from safetensors.torch import load_file

from pyrovae.cli import main
from pyrovae.runs import Run


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
        words = ["train", "--data", "linear_gaussian", "gaussian", "--epochs=1", "--validation", "500", *TINY[2:]]
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
        assert config["data"]["validation"] == 500
        assert config["data"]["name"] == "linear-gaussian"

    def test_progress_bar(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["train", "gaussian", "--data", "digits", *TINY[:-1]]) == 0
        assert re.search(r"epoch 2/2: 100%.*loss=\d.*validation_loss=\d", capsys.readouterr().err)

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
        words = ["train", "gaussian", "--data", "digits", "--out", "run", *TINY, "--net", net]
        words += ["--channels", "2,3"] if net == "conv" else []
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
        command = "pyrovae resume stopped --pair mymodule:make_vae"
        assert re.fullmatch(rf"pyrovae: interrupted .*; everything is saved, go on with: {command}\n", line)
        monkeypatch.delenv("TEST_INTERRUPT_AT")
        assert main([*command.split()[1:], "--quiet"]) == 0
        first, second = (load_file(folder / name / "model.safetensors") for name in ("whole", "stopped"))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_resuming_what_is_done(self, folder, out):
        before = (folder / "gaussian/model.safetensors").read_bytes()
        assert main(["resume", "gaussian", "--quiet"]) == 0
        assert "all 2 epochs done" in out()
        assert (folder / "gaussian/model.safetensors").read_bytes() == before

    def test_ctrl_c(self, tmp_path):
        words = ["train", "gaussian", "--data", "digits", "--out", "run", *TINY, "--epochs", "100000"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrovae", *words, "--checkpoint-seconds", "0"],
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
        assert re.fullmatch(r"pyrovae: interrupted .*go on with: pyrovae resume run\n", stderr)


class TestNotANumber:
    def test_message_and_what_is_left(self, folder, capsys):
        words = ["train", "gaussian", "--data", "digits", "--out", "wild", "--likelihood", "normal-predicted", *TINY]
        line = error_of([*words, "--lr", "1e6"], capsys)
        assert re.search(r"(loss|parameter) .* in epoch \d, batch \d+", line)
        assert "the VAE has the first weights; try a smaller learning rate" in line
        assert not (folder / "wild").exists()


class TestGrow:
    """More sticks for a run: a new run that begins with what the old one has learned."""

    @staticmethod
    def train(weights, *words):
        sizes = ["--truncation", str(weights), "--hidden", "8", "--epochs", "2", "--lr", "0.01", "--seed", "4"]
        out = ["--out", f"sticks-of-{weights}", "--quiet", *words]
        return main(["train", "stick-breaking", "--data", "digits", *sizes, *out])

    def test_a_new_run(self, folder, capsys):
        assert self.train(3) == 0
        assert main(["grow", "sticks-of-3", "--sticks", "4", "--quiet"]) == 0
        old, new = Run.open("sticks-of-3"), Run.open("sticks-of-3-7")
        assert new.config["pair_options"]["truncation"] == 7
        assert new.config["grown_from"] == "sticks-of-3"
        assert new.config["training"] == old.config["training"]
        rows = [run.folder.read_metrics() for run in (old, new)]
        assert rows[1][0]["validation_loss"] < rows[0][0]["validation_loss"] - 1  # not from the start
        assert main(["evaluate", "sticks-of-3-7", "--num-samples", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["latent_dim"] == 6
        assert main(["resume", "sticks-of-3-7", "--quiet"]) == 0
        capsys.readouterr()
        again = ["grow", "sticks-of-3", "--sticks", "4"]
        assert "already holds a run" in error_of([*again, "--out", "sticks-of-3-7"], capsys)
        assert "count must be at least 1, got 0" in error_of(["grow", "sticks-of-3", "--sticks", "0"], capsys)

    def test_no_need(self, folder, capsys):
        assert self.train(60) == 0
        assert main(["grow", "sticks-of-60", "--out", "more"]) == 0
        assert "need no more sticks than sticks-of-60 has; nothing to do" in capsys.readouterr().out
        assert not (folder / "more").exists()

    def test_refused(self, folder, capsys):
        assert self.train(5, "--posterior", "gamma") == 0
        capsys.readouterr()
        assert "at the prior exactly; got StickBreakingVAE and GammaHead" in error_of(["grow", "sticks-of-5"], capsys)
