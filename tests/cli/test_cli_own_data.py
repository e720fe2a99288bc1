"""The command line on data of one's own: train, and evaluate and plot on other data."""

import json

import numpy as np
import pytest
from command_line import FIGURES, TINY, error_of
from PIL import Image

from pyrovae import data
from pyrovae.cli import main


@pytest.fixture(scope="module")
def digits():
    dataset = data.load("digits")
    parts = dataset.splits().values()
    return np.concatenate([part.x.numpy() for part in parts]), np.concatenate([part.y.numpy() for part in parts])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(run):
    return json.loads((run / "config.json").read_text())


def write(folder, form, x, y):
    """Digits in a form, with their labels where it has a place for them."""
    bytes_ = (x * 255).round().astype(np.uint8)
    if form == "csv":
        table = np.concatenate([x.reshape(len(x), 64), y[:, None]], 1)
        names = ",".join([*(f"x{i}" for i in range(64)), "label"])
        np.savetxt(folder / "mine.csv", table, delimiter=",", header=names, comments="")
        return ["mine.csv", "--label-column", "label"]
    if form == "folder":
        for row, picture in enumerate(bytes_):
            (folder / "mine" / str(y[row])).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[0]).save(folder / "mine" / str(y[row]) / f"{row}.png")
        return ["mine", "--image-size", "8"]
    np.savez(folder / "mine.npz", x=bytes_, y=y)
    return ["mine.npz"]


@pytest.mark.parametrize("form", ["npz", "csv", "folder"])
def test_every_verb(form, here, digits, capsys, caplog):
    x, y = digits
    words = write(here, form, x[:300], y[:300])
    assert main(["train", "gaussian", "--data", *words, "--validation", "40", "--test", "0.2", *TINY]) == 0
    capsys.readouterr()
    kind = "unit" if form == "csv" else "8-bit"
    (line,) = (record.message for record in caplog.records if record.name == "pyrovae.data.own")
    assert f"values of kind {kind} (" in line
    assert "200 for train, 40 for validation, 60 for test" in line
    run = here / "runs/gaussian-mine"
    assert config_of(run)["spec"]["num_classes"] == 10
    assert config_of(run)["data"]["kind"] == kind
    assert main(["evaluate", str(run), "--num-samples", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["num_rows"], record["data"]) == (60, "mine")
    assert "knn_error_3" in record
    assert sum(record.name == "pyrovae.data.own" for record in caplog.records) == 1, "the kind is told once"
    assert main(["plot", str(run)]) == 0
    assert {path.stem for path in (run / "figures").iterdir()} == FIGURES
    assert main(["sample", str(run), "--num", "2", "--out", "x.npz"]) == 0
    assert main(["resume", str(run), "--quiet"]) == 0


def test_missing_entries(here, digits):
    x = np.where(np.random.default_rng(0).random(digits[0].shape) < 0.2, np.nan, digits[0])
    np.save("holes.npy", x)
    assert main(["train", "gaussian", "--data", "holes.npy", "--evaluate", "--out", "run", *TINY]) == 0


def test_options_of_named_sets_apply(here, digits):
    np.savez("mine.npz", x=digits[0], y=digits[1])
    words = [
        "--binarize",
        "dynamic",
        "--labels",
        "0.1",
        "--data-seed",
        "3",
        "--validation",
        "mine.npz",
        "--kind",
        "unit",
    ]
    assert main(["train", "semi-supervised", "--data", "mine.npz", *words, "--out", "run", *TINY]) == 0
    config = config_of(here / "run")
    assert (config["spec"]["kind"], config["data"]["kind"]) == ("binary", "unit")
    assert config["data"]["validation"] == "mine.npz"
    assert config["spec"]["num_labelled"] == round(0.1 * config["spec"]["num_rows"])


class TestOtherData:
    @pytest.fixture
    def run(self, here, digits, capsys):
        np.savez("mine.npz", x=digits[0][:200], y=digits[1][:200])
        np.savez("other.npz", x=digits[0][200:250], y=digits[1][200:250])
        np.savez("split.npz", x_train=digits[0][:50], x_test=digits[0][50:80])
        assert main(["train", "gaussian", "--data", "mine.npz", "--binarize", "static", "--out", "run", *TINY]) == 0
        capsys.readouterr()

    def test_evaluate(self, run, capsys):
        for words, rows in ((["other.npz"], 50), (["split.npz"], 30), (["split.npz", "--split", "train"], 50)):
            assert main(["evaluate", "run", "--num-samples", "3", "--json", "--data", *words]) == 0
            record = json.loads(capsys.readouterr().out)
            assert (record["num_rows"], record["data"]) == (rows, words[0].partition(".")[0])
            assert record["bits_per_dimension"] is not None, "binary, as the training data became"
        assert main(["evaluate", "run", "--num-samples", "3", "--json", "--data", "digits"]) == 0
        assert json.loads(capsys.readouterr().out)["num_rows"] == 297

    def test_plot(self, run, capsys):
        assert main(["plot", "run", "--data", "other.npz"]) == 0
        assert "latent_profile" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--data gone.npz", "there is no file or folder gone.npz"),
            ("--data gone", "no data set, file or folder 'gone'"),
            ("--data other.npz --split train", "other has no train rows, only test rows; choose others with --split"),
            (
                "--data real.npy",
                "real.npy: row 0, entry (0, 0, 0) (counted from 0) is -1, and kind 'unit' means",
            ),
            ("--data wide.npy", "wide has shape (1, 8, 9), and the run was trained on data with shape (1, 8, 8)"),
            (
                "--data labels.npz",
                "labels has the label 12 in its test rows, and the run was trained on data",
            ),
        ],
    )
    def test_refused(self, words, message, run, capsys):
        np.save("real.npy", np.full((3, 1, 8, 8), -1.0))
        np.save("wide.npy", np.full((3, 1, 8, 9), 0.5))
        np.savez("labels.npz", x=np.full((3, 1, 8, 8), 0.5), y=[0, 1, 12])
        assert message in error_of(["evaluate", "run", "--num-samples", "3", *words.split()], capsys)
        if "--split" not in words:
            assert message in error_of(["plot", "run", *words.split()], capsys)

    def test_components(self, run, capsys):
        assert main(["train", "gaussian", "--data", "mine.npz", "--pca", "5", "--out", "pca", *TINY]) == 0
        capsys.readouterr()
        line = error_of(["evaluate", "pca", "--data", "other.npz"], capsys)
        assert "trained on principal components of its training rows" in line

    def test_the_file_is_gone_or_another(self, run, here, capsys):
        (here / "mine.npz").rename("moved.npz")
        for words in ("evaluate run", "plot run", "resume run"):
            line = error_of(words.split(), capsys)
            assert "there is no file or folder mine.npz (run was trained on it; the path is as it was given)" in line
        assert main(["sample", "run", "--num", "2", "--out", "x.npz"]) == 0
        assert main(["evaluate", "run", "--num-samples", "3", "--data", "moved.npz"]) == 0
        capsys.readouterr()
        np.savez("mine.npz", x=np.full((30, 1, 8, 8), 0.5))
        assert "rows of mine.npz are not those that run was trained on" in error_of(["resume", "run"], capsys)
        line = error_of(["resume", "run", "--allow-changed-data"], capsys)
        assert "mine has 24 training rows, and the training of run began" in line
        np.savez("mine.npz", x=np.full((30, 5), 0.5))
        assert "mine has shape (5,), and the run was trained on data" in error_of(["evaluate", "run"], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gone.npy", "there is no file or folder gone.npy"),
        ("rows.txt", "rows.txt cannot be read: data are in .npy, .npz, .pt, .csv, .h5, .hdf5 files, or in a folder"),
        (
            "rows.npy --kind unit",
            "rows.npy: row 0, entry 0 (counted from 0) is -2, and kind 'unit' means values",
        ),
        ("rows.npy --kind colour", "argument --kind: invalid choice: 'colour' (choose from 'binary', 'unit', "),
        ("rows.npy --validation 1.5", "validation must be a share of the rows"),
        ("rows.npy --validation gone.npy", "there is no file or folder gone.npy"),
        ("rows.npy --validation half", "there is no file or folder half"),
        ("rows.npy --test 10", "rows.npy has 10 rows, and 10 for test and 1 for validation leave none for training"),
        ("rows.npy --label-column y", "--label-column is for .csv files, and rows.npy is none"),
        ("rows.npy --binarize static", "binarize needs values of kind '8-bit' or 'unit', but rows is 'real'"),
        ("rows.npy --labels 0.5", "labels needs labelled training rows, and rows has none"),
        ("digits --test 0.1", "test is for data of your own; leave it out with the data set digits"),
        ("digits --image-size 8", "--image-size is for data of your own"),
    ],
)
def test_refused(words, message, here, capsys):
    np.save("rows.npy", np.full((10, 2), -2.0))
    (here / "rows.txt").write_text("1 2")
    assert message in error_of(["train", "gaussian", "--out", "run", *TINY, "--data", *words.split()], capsys)
    assert not (here / "run").exists()


def test_training_without_held_out_rows(here, capsys):
    np.save("rows.npy", np.random.default_rng(0).normal(size=(60, 3)))
    words = ["--data", "rows.npy", "--validation", "0", "--test", "0", "--out", "run", *TINY]
    assert main(["train", "gaussian", *words]) == 0
    capsys.readouterr()
    assert "rows has no test rows, only train rows" in error_of(["evaluate", "run"], capsys)
    assert main(["evaluate", "run", "--split", "train", "--num-samples", "3"]) == 0
    assert main(["plot", "run"]) == 0
