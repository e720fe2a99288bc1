"""Tables on the command line: training, resuming, evaluation, imputation, samples, and what is refused."""

import json
import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import enter, error_of, files_in
from safetensors.torch import load_file

from pyrovae.cli import main
from pyrovae.data.columns import NUMBERS
from pyrovae.estimators import VAEImputer
from pyrovae.runs import Run
from pyrovae.training import Callback

SMALL = ["--hidden", "16", "--latent-dim", "2", "--epochs", "3", "--quiet"]
TYPING = ["--column-kind", "rooms=count", "--likelihood", "rooms=poisson", "--likelihood", "real=student-t"]


def houses(rows=120, holes=0.2):
    rng = np.random.default_rng(1)
    size = rng.normal(90.0, 20.0, rows)
    frame = pd.DataFrame(
        {
            "size": size.round(1),
            "rooms": np.clip((size / 25).round(), 1, None).astype(int),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "sold": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), "D"),
            "garden": rng.random(rows) < 0.5,
        }
    )
    return frame.mask(rng.random(frame.shape) < holes)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Runs of tables, "houses" of a file and "clinic" of a named table; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("tables")
    houses().to_csv(folder / "houses.csv", index=False)
    houses(30).to_csv(folder / "more.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        words = ["train", "tabular", "--data", "houses.csv", "--out", "houses", "--validation", "0.1"]
        assert main([*words, *SMALL, *TYPING]) == 0
        assert main(["train", "tabular", "--data", "clinic", "--out", "clinic", "--scaling", "normalize", *SMALL]) == 0
        assert main(["train", "gaussian", "--data", "linear-gaussian", "--out", "gaussian", *SMALL]) == 0
    return folder


@pytest.fixture
def place(tables, tmp_path, monkeypatch):
    """A working directory with a copy of the runs."""
    shutil.copytree(tables, tmp_path, dirs_exist_ok=True)
    enter(tmp_path, monkeypatch)
    return tmp_path


def test_a_run_says_how_it_was_trained(place):
    run = Run.open("houses")
    training = run.config["training"]
    assert {name: training[name] for name in ("kl_weight", "lr", "lr_schedule", "batch_size")} == {
        "kl_weight": 0.02,
        "lr": 0.002,
        "lr_schedule": "cosine",
        "batch_size": 256,
    }
    assert run.config["data"]["column_kinds"] == {"rooms": "count"}
    assert run.spec.kind == "table"
    families = dict(zip(houses(), run.spec.schema["columns"]["families"], strict=True))
    assert families == {
        "size": "student-t",
        "rooms": "poisson",
        "colour": "categorical",
        "sold": "normal",
        "garden": "bernoulli",
    }
    sizes = [len(split) for split in run.dataset().splits().values()]
    assert sizes == [96, 12, 12]


def test_epochs_go_by_the_number_of_rows(place, monkeypatch):
    monkeypatch.setattr("pyrovae.pairs.table_defaults.STEPS", 10)
    small = (*SMALL[:4], "--num-nets", "1", "--quiet")
    assert main(["train", "tabular", "--data", "houses.csv", "--out", "new", *small]) == 0
    assert Run.open("new").config["training"]["epochs"] == 24  # 10 steps of 256 rows


class Stop(Callback):
    """Ctrl-C in the first epoch."""

    def on_batch(self, progress):
        if progress.epoch == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stopped_training_goes_on_bit_for_bit(place, monkeypatch):
    words = ["train", "tabular", "--data", "houses.csv", "--out", "new", "--validation", "0.1", *SMALL, *TYPING]
    with monkeypatch.context() as patch:
        train = Run.train
        patch.setattr(Run, "train", lambda run, **options: train(run, **{**options, "callbacks": [Stop()]}))
        assert main(words) == 130
    assert main(["resume", "new", "--quiet"]) == 0
    first, second = (load_file(f"{run}/model.safetensors") for run in ("houses", "new"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("more", [[], ["--data", "more.csv"], ["--split", "validation"], ["--baselines", "none"]])
def test_evaluate(place, out, more):
    assert main(["evaluate", "houses", "--num-samples", "20", "--json", *more]) == 0
    found = json.loads(out())
    assert found["num_rows"] == (30 if "--data" in more else 12)
    assert found["bits_per_dimension"] is None
    run = Run.open("houses", data="more.csv" if "--data" in more else None)
    rows = getattr(run.dataset(), "validation" if "validation" in more else "test")
    entries = int(rows.mask.sum())
    assert found["nll_per_entry"] == pytest.approx(-found["log_likelihood"] * len(rows) / entries)
    scale = torch.tensor(run.spec.schema["scaler"]["scale"]).log()
    shift = float((rows.mask * scale).sum()) / entries
    assert found["nll_per_entry_raw"] - found["nll_per_entry"] == pytest.approx(shift, abs=1e-5)
    alone = "--data" in more or "none" in more
    others = [] if alone else ["mean-mode", "knn", "bayesian-ridge", "extra-trees", "hist-gradient-boosting"]
    methods = ["vae", "vae-alone", *others]
    assert list(found["imputation"]) == methods
    assert list(found["imputation_seconds"]) == methods
    assert found["interval_coverage"]["ordered levels"] is None
    assert 0 < found["interval_coverage"]["numbers"] <= 1
    assert list(found["imputation_by_column"]) == list(houses())
    assert all(list(part) == methods for part in found["imputation_by_column"].values())
    assert 0 < found["imputation"]["vae"]["numeric"] < 1
    kinds = {column["name"]: column["kind"] for column in run.spec.schema["schema"]["columns"]}
    for method, errors in found["imputation"].items():  # the same entries over the same ranges
        numbers = [part[method] for name, part in found["imputation_by_column"].items() if kinds[name] in NUMBERS]
        assert errors["numeric"] == pytest.approx(np.mean(numbers))


def test_figures_do_not_move_with_the_chunk_size(place, out):
    found, words = [], ["evaluate", "clinic", "--num-samples", "5", "--baselines", "mean-mode"]
    for chunk in ("64", "8192"):
        assert main([*words, "--chunk-size", chunk, "--json"]) == 0
        found.append(json.loads(out()))
    assert found[0]["imputation"] == found[1]["imputation"]
    assert main([*words, "--seed", "1", "--json"]) == 0
    assert json.loads(out())["imputation"] != found[0]["imputation"]
    assert main(words) == 0
    assert "mean-mode" in out()


def test_mean_and_mode_are_those_of_the_training_rows(place, out):
    """The figures of a baseline that can be made by hand."""
    assert main(["evaluate", "houses", "--num-samples", "5", "--baselines", "mean-mode", "--json"]) == 0
    found = json.loads(out())["imputation_by_column"]
    assert found["colour"]["mean-mode"] > 0.3
    assert found["size"]["mean-mode"] == pytest.approx(20 / 100, rel=0.8)


class TestImpute:
    def test_holes_are_filled_and_the_rest_stays(self, place, out):
        given = pd.read_csv("more.csv")
        assert main(["impute", "houses", "--input", "more.csv", "--out", "full.csv"]) == 0
        assert f"{given.isna().to_numpy().sum()} of {given.size} entries filled" in out()
        full = pd.read_csv("full.csv")
        assert list(full) == list(given)
        assert not full.isna().to_numpy().any()
        seen = given.notna().to_numpy()
        assert (full.astype(str).to_numpy() == _as_written(given, full).to_numpy())[seen].all()
        assert (full.rooms.dtype, full.garden.dtype) == (np.dtype("int64"), np.dtype("bool"))
        assert set(full.colour) <= {"red", "green", "blue"}

    def test_values_that_a_column_cannot_have_are_told(self, place, capsys):
        given = pd.read_csv("more.csv")
        given.loc[[3, 5], "colour"] = "purple"
        given.to_csv("more.csv", index=False)
        assert main(["impute", "houses", "--input", "more.csv", "--out", "full.csv"]) == 0
        (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        count = given.colour.notna().sum()
        told = "note: 'colour' has 'purple', which the column cannot have; it stays and counts as missing"
        assert note == f"{told} (2 of {count} entries)"
        assert list(pd.read_csv("full.csv").colour[[3, 5]]) == ["purple", "purple"]

    def test_the_table_of_the_training_is_not_written_over(self, place, capsys):
        before = (place / "houses.csv").read_bytes()
        words = ["impute", "houses", "--input", "more.csv", "--out", "houses.csv", "--overwrite"]
        assert "houses.csv is the table that houses was trained on; give another" in error_of(words, capsys)
        assert (place / "houses.csv").read_bytes() == before

    def test_draws_are_stacked(self, place):
        assert main(["impute", "houses", "--input", "more.csv", "--out", "full.csv.gz", "--draws", "3"]) == 0
        full = pd.read_csv("full.csv.gz")
        assert list(full) == ["draw", *houses()]
        assert full.draw.value_counts().to_dict() == {1: 30, 2: 30, 3: 30}
        assert not full.isna().to_numpy().any()
        parts = [part.drop(columns="draw").reset_index(drop=True) for _, part in full.groupby("draw")]
        assert not parts[0].equals(parts[1])

    def test_intervals_hold_the_value(self, place):
        assert main(["impute", "houses", "--input", "more.csv", "--out", "full.csv", "--intervals", "0.8"]) == 0
        full = pd.read_csv("full.csv", parse_dates=["sold", "sold_low", "sold_high"])
        ends = ["size", "size_low", "size_high", "rooms", "rooms_low", "rooms_high", "colour"]
        assert list(full) == [*ends, "sold", "sold_low", "sold_high", "garden"]
        missing = pd.read_csv("more.csv")["size"].isna()
        assert (full.size_low <= full.size_high).all()
        assert (full.size_low < full.size_high)[missing].all()
        assert (full.size_low == full["size"])[~missing].all()
        assert not full.isna().to_numpy().any()

    def test_the_estimator_opens_the_run(self, place):
        full = VAEImputer.load("clinic").transform(_clinic())
        assert not full.isna().to_numpy().any()
        assert full.dtypes.equals(_clinic().dtypes)


def _clinic():
    from pyrovae.data.clinic import clinic

    return clinic().head(20)


def _as_written(given, full):
    """The table as text, whole numbers without a decimal point where the other one has none."""
    return pd.DataFrame(
        {
            name: given[name].map(
                lambda v, kind=full[name].dtype.kind: str(int(v)) if kind == "i" and v == v else str(v)
            )
            for name in given
        }
    )


class TestSample:
    def test_rows_have_the_columns_of_the_table(self, place):
        assert main(["sample", "houses", "--num", "40", "--out", "new.csv"]) == 0
        new = pd.read_csv("new.csv", parse_dates=["sold"])
        assert (list(new), len(new)) == (list(houses()), 40)
        assert not new.isna().to_numpy().any()
        assert set(new.colour) <= {"red", "green", "blue"}
        assert new.garden.dtype == bool
        assert new["size"].between(houses()["size"].min(), houses()["size"].max()).all()

    def test_given_columns_are_fixed(self, place):
        words = [
            "sample",
            "houses",
            "--num",
            "7",
            "--out",
            "new.csv",
            "--given",
            "colour=red",
            "--given",
            "garden=TRUE",
        ]
        assert main([*words, "--given", "size=100.5", "--given", "sold=2024-03-01"]) == 0
        new = pd.read_csv("new.csv")
        assert len(new) == 7
        assert set(new.colour) == {"red"}
        assert set(new.garden) == {True}
        assert set(new["size"]) == {100.5}
        assert {text[:10] for text in new.sold} == {"2024-03-01"}
        assert (
            main(
                ["sample", "clinic", "--num", "3", "--out", "again.csv", "--given", "visits=2", "--given", "pain=mild"]
            )
            == 0
        )
        assert set(pd.read_csv("again.csv").visits) == {2}


BAD_INPUT = {
    "sample houses --out new.csv --given colour=pink": "--given colour=pink: the levels of colour are blue, green, red",
    "sample houses --out new.csv --given color=red": "--given names 'color', which is no column; columns are size, ",
    "sample houses --out new.csv --given size=large": "--given size=large: size holds numbers",
    "sample houses --out new.csv --given sold=monday": "--given sold=monday: sold holds dates, such as 2024-01-31",
    "sample houses --out new.csv --given size": "argument --given: expected NAME=VALUE, got 'size'",
    "sample houses --out new.png": "--out must end in .csv, .csv.gz or .parquet for a table",
    "sample houses --out new.csv --num 0": "--num must be at least 1, got 0",
    "sample houses --out new.csv --output mean": "--output mean is not for runs of tables",
    "sample houses --out new.csv --like test": "--like is not for runs of tables",
    "sample gaussian --out new.csv --given x=1": "--given is for runs of tables",
    "impute gaussian --input more.csv --out new.csv": "gaussian is a run of the pair gaussian, whose data are no table",
    "impute nowhere --input more.csv --out new.csv": "nowhere is no run folder",
    "impute houses --input nothing.csv --out new.csv": "there is no file nothing.csv",
    "impute houses --input other.csv --out new.csv": "other.csv lacks the column 'rooms' of the run",
    "impute houses --input extra.csv --out new.csv": "extra.csv has the column 'price', which the run does not have",
    "impute houses --input ragged.csv --out new.csv": "ragged.csv, line 3 has 2 cells, the first line has 5",
    "impute houses --input texts.csv --out new.csv": "texts.csv: column 'size'",
    "impute houses --input more.csv --out new.npz": "--out must end in .csv, .csv.gz or .parquet for a table",
    "impute houses --input more.csv --out new.csv --draws 0": "--draws must be at least 1, got 0",
    "impute houses --input more.csv --out new.csv --intervals 1.5": "--intervals must be between 0 and 1, got 1.5",
    "impute houses --input more.csv --out new.csv --draws 2 --intervals 0.9": "exclude each other",
    "evaluate houses --data other.csv": "other.csv: the table lacks the column 'rooms'",
    "evaluate houses --data digits": "digits is no table, and the run was trained on one",
    "evaluate houses --num-samples 2 --baselines tree": "there is no baseline 'tree'; known are mean-mode, ",
    "train gaussian --data clinic": "clinic is a table, whose columns are of several kinds; use the pair tabular",
    "train tabular --data digits": "digits is no table: it says nothing of columns; the pair tabular is for tables",
    "train tabular --data digits --scaling none": "scaling is for tables",
    "train tabular --data houses.csv --kind real": "houses.csv",
    "train tabular --data houses.csv --likelihood count=poisson": "likelihoods names the kind 'count', and no",
    "train tabular --data houses.csv --binarize static": "binarize is not for tables",
    "train tabular --data houses.csv --label-column colour": "--label-column is not for tables",
    "train tabular --data houses.csv --column-kind color=count": "houses.csv: kinds has 'color', which is no column",
    "train tabular --data houses.csv --column-kind colour=count": "houses.csv: column 'colour'",
    "train tabular --data houses.csv --column-kind colour=colourful": "houses.csv: kind",
    "train tabular --data houses.csv --column-kind size=real --column-kind size=count": "names 'size' twice",
    "train tabular --data houses.csv --likelihood colour=normal": "houses.csv: column 'colour' is categorical",
    "train tabular --data houses.csv --scaling log": "invalid choice: 'log'",
    "train tabular --data houses.csv --test 119 --validation 1": "leave none for training; take fewer",
    "train tabular --data ragged.csv": "ragged.csv, line 3 has 2 cells, the first line has 5",
    "train tabular --data absent.parquet": "there is no file absent.parquet",
    "schema absent.csv": "there is no file absent.csv",
}


@pytest.mark.parametrize("command", BAD_INPUT)
def test_bad_input(command, place, capsys):
    more = pd.read_csv("more.csv")
    more[["size", "colour"]].to_csv("other.csv", index=False)
    more.assign(price=1).to_csv("extra.csv", index=False)
    more.assign(size="large").to_csv("texts.csv", index=False)
    (place / "ragged.csv").write_text("\n".join([",".join(more), "90,3,red,2024-01-01,True", "90,3"]))
    before = files_in(place)
    assert BAD_INPUT[command] in _last_line(command.split(), capsys)
    assert files_in(place) == before


def _last_line(words, capsys):
    """What a refused command says, below what the log told of the data."""
    status = main(words)
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    (line,) = [line for line in captured.err.splitlines() if line.startswith("pyrovae: ")]
    return line


def test_a_changed_file_is_refused(place, capsys):
    frame = pd.read_csv("houses.csv")
    frame.assign(colour=frame.colour.replace("red", "pink")).to_csv("houses.csv", index=False)
    assert "levels of the column 'colour' is" in error_of(["evaluate", "houses"], capsys)
    frame.assign(size=2 * frame["size"]).to_csv("houses.csv", index=False)
    assert "hold other values than those that the run was trained on" in error_of(["evaluate", "houses"], capsys)


def test_schema(place, out):
    assert main(["schema", "houses.csv"]) == 0
    assert "garden" in out()
    assert main(["schema", "houses.csv", "--json"]) == 0
    assert [column["name"] for column in json.loads(out())["columns"]] == list(houses())


def test_schema_of_a_table_by_name(capsys):
    assert main(["schema", "clinic"]) == 0
    assert capsys.readouterr().out.startswith("column ")
    assert main(["schema", "digits"]) == 2  # no table
    assert "digits is a data set by name, and no table; see pyrovae datasets digits" in capsys.readouterr().err
