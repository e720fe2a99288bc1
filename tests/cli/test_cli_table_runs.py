"""A run of a table is a fitted imputer: what follows the training, and what every verb makes of it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import enter, error_of
from test_cli_tables import SMALL, houses
from torch import nn

from pyrovae import data
from pyrovae.cli import main
from pyrovae.data.table_files import read_table
from pyrovae.estimators import VAEImputer, table_runs
from pyrovae.estimators.table_estimator import seed_of
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.training import Trainer
from pyrovae.training.checkpoint import RunFolder

TRAIN = ["train", "tabular", "--data", "houses.csv", *SMALL]
PARTS = {"trees.npz", "latents.npz"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A run of a table and a saved imputer of the same; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("tables")
    houses().to_parquet(folder / "houses.parquet")
    houses().to_csv(folder / "houses.csv", index=False)
    houses(30).to_parquet(folder / "more.parquet")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        words = ["train", "tabular", "--data", "houses.parquet", "--test", "0", "--out", "run"]
        assert main([*words, "--seed", str(seed_of(7)), *SMALL]) == 0
        imputer(epochs=3).fit(read_table("houses.parquet")).save("saved")
    return folder


@pytest.fixture
def place(tables, tmp_path, monkeypatch):
    """A working directory with a copy of both."""
    shutil.copytree(tables, tmp_path, dirs_exist_ok=True)
    enter(tmp_path, monkeypatch)
    return tmp_path


def imputer(**options):
    return VAEImputer(n_components=2, hidden=(16,), random_state=7, **options)


def schema_of(run):
    return json.loads((run / "config.json").read_text())["spec"]["schema"]


def test_a_run_is_the_imputer_that_is_fitted_with_its_seed(place):
    fitted = imputer(epochs=3).fit(read_table("houses.parquet"))
    run, saved, frame = VAEImputer.load("run"), VAEImputer.load("saved"), read_table("more.parquet")
    for loaded in (run, saved):
        first, second = fitted.model_.predictor, loaded.model_.predictor
        nets = [(first.vae, second.vae), *zip(first.others, second.others, strict=True)]
        for own, theirs in (pair for net in nets for pair in zip(*map(nn.Module.parameters, net), strict=True)):
            torch.testing.assert_close(own, theirs, rtol=0, atol=0)
        np.testing.assert_allclose(first.net_weights, second.net_weights)
        np.testing.assert_array_equal(first.tree_weights, second.tree_weights)
        np.testing.assert_allclose(first.spread, second.spread)
        pd.testing.assert_frame_equal(fitted.transform(frame), loaded.transform(frame))
    of_nets = {"num_nets": 5, "variants": run.variants, "objective": "mean-field"}
    given = {name: value for name, value in fitted.get_params().items() if name != "random_state"} | of_nets
    assert {name: run.get_params()[name] for name in given} == given


@pytest.mark.parametrize("folder", ["run", "saved"])
def test_the_command_line_gives_the_numbers_of_the_imputer(place, folder):
    loaded, frame = VAEImputer.load(folder), read_table("more.parquet")
    words = ["impute", folder, "--input", "more.parquet"]
    assert main([*words, "--out", "full.parquet"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet("full.parquet"), loaded.transform(frame))
    assert main([*words, "--out", "draws.parquet", "--draws", "2"]) == 0
    assert main([*words, "--out", "draw-{draw}.parquet", "--draws", "2"]) == 0
    stacked = pd.read_parquet("draws.parquet")
    for number, draw in enumerate(loaded.impute_draws(frame, 2), 1):
        pd.testing.assert_frame_equal(pd.read_parquet(f"draw-{number}.parquet"), draw)
        part = stacked[stacked.draw == number].drop(columns="draw").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, draw)
    assert main([*words, "--out", "ends.parquet", "--intervals", "0.9"]) == 0
    ends, (low, high) = pd.read_parquet("ends.parquet"), loaded.intervals(frame, 0.9)
    pd.testing.assert_series_equal(ends["size_low"], low["size"], check_names=False)
    pd.testing.assert_series_equal(ends["size_high"], high["size"], check_names=False)
    given = {"colour": "red", "rooms": 3}
    assert (
        main(["sample", folder, "--num", "9", "--out", "new.parquet", "--given", "colour=red", "--given", "rooms=3"])
        == 0
    )
    pd.testing.assert_frame_equal(pd.read_parquet("new.parquet"), loaded.sample(9, given, random_state=0))


def test_labels_of_rows_stay(place):
    frame = houses(4).set_axis([f"row {number}" for number in range(4)])
    frame.to_csv("labelled.csv")
    frame.to_parquet("labelled.parquet")
    for name in ("labelled.csv", "labelled.parquet"):
        assert main(["impute", "run", "--input", name, "--out", f"full-{name}", "--draws", "2"]) == 0
    assert pd.read_csv("full-labelled.csv", index_col=0).index.tolist() == 2 * frame.index.tolist()
    assert pd.read_parquet("full-labelled.parquet").index.tolist() == 2 * frame.index.tolist()


def test_trees_are_an_option(place):
    assert {path.name for path in (place / "run").iterdir()} >= PARTS
    assert any(schema_of(place / "run")["tree_weights"])
    assert main([*TRAIN, "--out", "alone", "--no-trees"]) == 0
    assert not (place / "alone" / "trees.npz").exists()
    assert (place / "alone" / "latents.npz").exists()
    assert not any(schema_of(place / "alone")["tree_weights"])
    assert VAEImputer.load("alone").get_params()["trees"] is False


def test_nothing_is_learned_from_test_rows(place, monkeypatch):
    assert main([*TRAIN, "--out", "new", "--test", "0.3"]) == 0
    run = Run.open("new")
    dataset = run.dataset()
    assert len(dataset.test) == 36
    other = dataclasses.replace(dataset, test=dataset.test.replace(x=dataset.test.x + 100))
    expected = {name: schema_of(place / "new")[name] for name in ("tree_weights", "spread")}
    found = table_runs.finish(run, other)
    assert {name: found[name] for name in expected} == expected


class TestInterrupted:
    """Ctrl-C and kills between the end of a training and that of what follows."""

    @pytest.fixture
    def unfinished(self, place, monkeypatch, capsys):
        def stop(*arguments, **options):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(table_runs, "fit_trees", stop)
            assert main([*TRAIN, "--out", "new"]) == 130
        message = capsys.readouterr().err
        assert message.count("pyrovae: ") == 1
        assert "the training is done and saved" in message
        assert "pyrovae resume new" in message
        assert main([*TRAIN, "--out", "whole"]) == 0
        capsys.readouterr()
        return place / "new"

    @staticmethod
    def check(run, told):
        assert told.count("new still lacks the trees, latents and spreads") <= 1
        assert {path.name for path in run.iterdir()} >= PARTS
        expected, found = schema_of(run.parent / "whole"), schema_of(run)
        assert found == expected

    def test_resume_finishes(self, unfinished):
        assert main(["resume", "new", "--quiet"]) == 0
        self.check(unfinished, "")

    @pytest.mark.parametrize(
        "words",
        [
            ["impute", "new", "--input", "more.parquet", "--out", "full.csv"],
            ["sample", "new", "--num", "2", "--out", "new.csv"],
            ["evaluate", "new", "--num-samples", "2", "--baselines", "none"],
        ],
    )
    def test_the_next_verb_finishes_and_says_so(self, unfinished, words, caplog):
        assert main(words) == 0
        told = [record.message for record in caplog.records if "still lacks" in record.message]
        assert len(told) == 1
        self.check(unfinished, caplog.text)

    def test_a_kill_after_the_trees_is_mended(self, unfinished, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("pyrovae.estimators.latent_mixture.LatentMixture.save", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                Run.open("new").finish()
        assert (unfinished / "trees.npz").exists()
        VAEImputer.load("new")
        self.check(unfinished, "")

    def test_it_goes_on_without_its_data(self, unfinished, caplog):
        (unfinished.parent / "houses.csv").unlink()
        assert main(["impute", "new", "--input", "more.parquet", "--out", "full.csv"]) == 0
        assert "new goes without the trees, latents and spreads" in caplog.text
        assert not pd.read_csv("full.csv").isna().to_numpy().any()

    def test_what_was_found_for_other_weights_is_found_again(self, unfinished):
        assert main(["resume", "new", "--quiet"]) == 0
        folder = RunFolder(unfinished)
        config = folder.read_config()
        folder.write_config({**config, "training": {**config["training"], "epochs": 12}})
        before = schema_of(unfinished)
        assert main(["resume", "new", "--quiet"]) == 0
        after = schema_of(unfinished)
        assert after["finished"]["epoch"] > 3
        assert after["finished"] != before["finished"]


class TestOfPython:
    """Runs whose training saw all entries, since it was no matter of the command line."""

    @pytest.mark.parametrize("validation", [0, 24])
    def test_a_saved_pair_is_calibrated_on_validation_rows(self, place, validation, caplog):
        dataset = data.load("houses.csv", kind="table", validation=validation)
        torch.manual_seed(0)
        vae = find_pair("tabular").build(dataset, latent_dim=2, hidden=(16,))
        Trainer(epochs=2, progress=False).fit(vae, dataset, run="new")
        vae.save("new", data=dataset, overwrite=True)
        loaded = VAEImputer.load("new")
        assert loaded.model_.is_calibrated == (validation > 0)
        assert ("new is not calibrated: its training saw all entries" in caplog.text) == (validation == 0)
        assert not loaded.transform(houses(30)).isna().to_numpy().any()

    def test_a_folder_without_a_configuration_says_what_to_do(self, place, capsys):
        dataset = data.load("houses.csv", kind="table")
        vae = find_pair("tabular").build(dataset, latent_dim=2, hidden=(16,))
        Trainer(epochs=1, progress=False).fit(vae, dataset, run="new")
        Path("new/config.json").unlink()
        words = ["impute", "new", "--input", "more.parquet", "--out", "full.csv"]
        assert "new is no run folder: it has no config.json" in error_of(words, capsys)
