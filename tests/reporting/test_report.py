"""The page on a run: its figures are those of the folder, its command repeats it, and it says what is not there."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from pages import read

from pyrovae import VAE, plotting
from pyrovae.cli import main
from pyrovae.metrics import InferenceGap, known_figures
from pyrovae.metrics.missing import MissingError
from pyrovae.pairs import find_pair
from pyrovae.reporting import report
from pyrovae.runs import Run
from pyrovae.runs.measured import errors_of, gap_of
from pyrovae.storage import CheckpointError
from pyrovae.training.callbacks import Callback
from pyrovae.training.checkpoint import RunFolder


def test_figures_are_those_of_the_folder(runs, capsys):
    assert main(["report", "plain"]) == 0
    assert capsys.readouterr().out == "plain/report.html\n"
    page = read(runs / "plain/report.html")
    figures = json.loads((runs / "plain/metrics.json").read_text())["test"]["figures"]
    single = {n: v for n, v in figures.items() if n in known_figures() and not isinstance(v, dict)}
    for name in ("standard_error", "sampling_error"):
        del single[name]  # they stand beside the figures
    assert {name: page.figures[name] for name in single} == {name: [value] for name, value in single.items()}
    error, value = figures["standard_error"], figures["log_likelihood"]
    (shown,) = page.captions["log_likelihood"]
    for told, right in zip(shown.split(" ± "), (value, error), strict=True):
        # It is the value as far as its digits go, which are those of the error that say something.
        assert abs(float(told) - right) <= 0.5 * 10.0 ** -len(told.partition(".")[2])
    assert len(shown.split(" ± ")[1].replace("0", "").replace(".", "")) in (1, 2)
    share, of_share = figures["knn_error_5"], figures["standard_errors"]["knn_error_5"]
    assert page.captions["knn_error_5"] == [f"{share:.3f} ± {of_share:.3f}"]
    assert page.captions["num_rows"] == ["60"]
    assert page.notes == []


def test_a_cross_entropy_is_called_so_and_has_its_error(runs):
    training = {"epochs": 1, "batch_size": 300}
    run = Run.create("grey", "gaussian", {"latent_dim": 2, "hidden": (4,)}, {"name": "digits"}, training)
    run.train(progress=False)
    figures = run.evaluate(num_samples=2, num_rows=50, keep=True)
    page = read(report(run))
    value, error = figures["cross_entropy"], figures["standard_error"]
    assert page.figures["cross_entropy"] == [value]
    shown, of_error = map(float, page.captions["cross_entropy"][0].split(" ± "))
    assert (shown, of_error) == (pytest.approx(value, abs=error / 10), pytest.approx(error, rel=0.05))
    assert "log_likelihood" not in page.figures


def test_figures_of_every_split_have_a_column(runs):
    Run.open("plain").evaluate("validation", num_samples=2, keep=True)
    page = read(report("plain"))
    found = json.loads((runs / "plain/metrics.json").read_text())
    assert page.figures["bound"] == [found[split]["figures"]["bound"] for split in ("test", "validation")]


def test_data_and_versions_are_told(runs):
    page = read(report("plain"))
    config = json.loads((runs / "plain/config.json").read_text())
    for part in config["fingerprints"].values():
        assert part["sha256"] in page.text
    for version in config["versions"].values():
        assert version in page.text
    assert page.headings[0] == "What was run"
    assert {"training_curves", "samples", "reconstructions", "interpolation", "latent_scatter"} <= page.pictures.keys()


@pytest.mark.parametrize("name", ["plain", "wide"])
def test_the_command_repeats_the_training(runs, name):
    page = read(report(name))
    words = shlex.split(page.commands[0])
    assert words[:3] == ["pyrovae", "train", "gaussian"]
    assert words[-2:] == ["--out", name]
    assert main([*words[1:-1], "again", "--quiet"]) == 0
    first, again = (Run.open(folder).folder for folder in (name, "again"))
    for row, other in zip(first.read_metrics(), again.read_metrics(), strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert first.weights_path.read_bytes() == again.weights_path.read_bytes()
    evaluate = shlex.split(page.commands[1])
    before = json.loads((runs / name / "metrics.json").read_text())
    assert main(evaluate[1:]) == 0
    after = json.loads((runs / name / "metrics.json").read_text())
    before["test"]["figures"]["run"] = name  # they were copied
    assert after == before


def test_pages_are_the_same_each_time(runs):
    first = report("plain").read_text()
    assert report("plain").read_text() == first


def test_a_dark_page_darkens_charts_and_leaves_pixels_as_they_are(runs):
    """Greys of a picture of the data, or of a heat map, mean values."""
    cards = re.findall(r'<figure id="figure-([^"]+)"><div class="picture( drawn)?"', report("plain").read_text())
    darkened = {name: bool(drawn) for name, drawn in cards}
    assert darkened["training_curves"]
    assert not darkened["samples"]
    assert not darkened["reconstructions"]


def test_what_is_written_is_escaped(runs):
    name = "<b>&'\"{{ 3 }}"
    shutil.copytree("plain", name)
    page = read(report(name))
    assert "<b>&'" not in page.text
    assert "&lt;b&gt;&amp;" in page.text
    assert ("b", {}) not in page.tags


class TestWhatIsNotThere:
    def test_not_evaluated(self, runs):
        (runs / "plain/metrics.json").unlink()
        page = read(report("plain"))
        assert page.notes[0] == ("It was not evaluated yet, so there are no held-out figures: pyrovae evaluate plain")
        assert "log_likelihood" not in page.figures

    def test_other_weights_were_evaluated(self, runs):
        shutil.copy("wide/metrics.json", "plain/metrics.json")
        page = read(report("plain"))
        assert page.notes[0].startswith("The weights changed since the test rows were evaluated: pyrovae evaluate")
        assert "log_likelihood" not in page.figures

    def test_interrupted(self, runs):
        training = {"epochs": 40, "checkpoint_seconds": 0.0}
        run = Run.create("stopped", "gaussian", {"hidden": (8,)}, {"name": "digits"}, training)
        with pytest.raises(KeyboardInterrupt):
            run.train(progress=False, callbacks=[Stop(2)])
        page = read(report("stopped"))
        done = len(run.folder.read_metrics())
        assert page.notes[0] == (
            f"The training was interrupted after epoch {done} of 40, or is under way: pyrovae resume stopped"
        )
        assert "training_curves" in page.pictures

    def test_untrained(self, runs):
        run = Run.create("begun", "gaussian", {"hidden": (8,)}, {"name": "digits"}, {"epochs": 4})
        with pytest.raises(KeyboardInterrupt):
            run.train(progress=False, callbacks=[Stop(0)])
        page = read(report("begun"))
        assert page.notes[0].startswith("The training was stopped before its first epoch had ended")
        assert page.pictures == {}

    def test_data_that_are_gone(self, runs):
        np.savez("mine.npz", x=np.random.default_rng(0).random((60, 5), dtype=np.float32))
        assert main(["train", "gaussian", "--data", "mine.npz", "--hidden", "4", "--epochs", "1", "--quiet"]) == 0
        (runs / "mine.npz").unlink()
        page = read(report("runs/gaussian-mine"))
        assert any("data cannot be used" in note and "mine.npz" in note for note in page.notes)
        assert list(page.pictures) == ["training_curves"]

    def test_no_training(self, runs):
        run = Run.open("plain")
        vae: VAE = run.load_vae()
        vae.save("saved", run.dataset())
        page = read(report("saved"))
        assert page.notes[0] == "The folder holds a VAE without a training, so there are no curves."
        assert "samples" in page.pictures
        assert "No training is written down" in page.text

    def test_a_figure_that_fails(self, runs, monkeypatch):
        def fails(run):
            raise RuntimeError("of <no>\nuse")

        monkeypatch.setitem(plotting.run._RUN_FIGURES, "samples", fails)
        page = read(report("plain"))
        assert page.notes == ["samples cannot be drawn: of <no> use"]
        assert "samples" not in page.pictures


class Stop(Callback):
    """A callback that interrupts a training after some epochs."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_start(self, progress):
        if self.epoch == 0:
            raise KeyboardInterrupt

    def on_epoch(self, progress):
        if progress.epoch == self.epoch:
            raise KeyboardInterrupt


def test_gaps_and_errors_of_missing_entries_are_those_of_the_files(runs):
    assert main(["evaluate", "plain", "--inference-gap", "--num-rows", "20", "--num-samples", "10"]) == 0
    assert main(["evaluate", "plain", "--missing", "0.2,0.5", "--num-samples", "2", "--num-rows", "30"]) == 0
    page = read(report("plain"))
    assert {"inference_gap", "missing_errors"} <= page.pictures.keys()
    folder = RunFolder(runs / "plain")
    gap, split, _ = gap_of(folder)
    assert isinstance(gap, InferenceGap)
    assert split == "test"
    for name, value in gap.means().items():
        assert page.figures[name] == [value]
    assert all(isinstance(error, MissingError) for error in errors_of(folder).fresh["random"])
    (runs / "plain/model.safetensors").touch()  # as a copy of the folder does
    assert {"inference_gap", "missing_errors"} <= read(report("plain")).pictures.keys()
    assert main(["resume", "plain", "--epochs", str(len(folder.read_metrics()) + 3), "--quiet"]) == 0
    later = read(report("plain"))
    assert not {"inference_gap", "missing_errors"} & later.pictures.keys()
    assert sum("measured with earlier weights" in note for note in later.notes) == 2


def refused(words, capsys):
    """The one line that a refused command writes."""
    capsys.readouterr()
    status, captured = main(words), capsys.readouterr()
    assert (status, captured.out, captured.err.count("\n")) == (2, "", 1)
    return captured.err


def test_refusals(runs, capsys):
    for words, text in (
        (["report", "nowhere"], "nowhere is no run folder"),
        (["report", "plain", "--out", "page.txt"], "a report is a file that ends in .html, got page.txt"),
        (["report", "plain", "plain"], "plain is given twice"),
    ):
        assert text in refused(words, capsys)
    assert main(["report", "plain", "wide", "--pair", "mymodule:make"]) == 0  # for runs that need one
    (runs / "page.html").write_text("<p>mine</p>")
    with pytest.raises(ValueError, match=r"page.html is no report of pyrovae, so it is not replaced"):
        report("plain", "page.html")
    assert (runs / "page.html").read_text() == "<p>mine</p>"
    assert "page.html" in refused(["report", "plain", "--out", "page.html"], capsys)
    assert main(["report", "plain", "--out", "page.html", "--overwrite"]) == 0
    read(runs / "page.html")
    (runs / "plain/metrics.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"metrics.json is damaged"):
        report("plain")


def test_a_pair_of_your_own(runs):
    run = Run.open("plain")
    vae = find_pair("gaussian").build(run.dataset(), latent_dim=2, hidden=(4,))
    vae.made_by = None
    vae.save("own", run.dataset())
    with pytest.raises(CheckpointError, match="a pair of your own"):
        report("own")
    page = read(report(Run.open("own", vae)))
    assert "samples" in page.pictures
    assert "a pair of your own" in page.text


def test_runs_side_by_side(runs, capsys):
    assert main(["report", "plain", "wide"]) == 0
    assert capsys.readouterr().out == "report.html\n"
    page = read(runs / "report.html")
    found = [json.loads((runs / name / "metrics.json").read_text())["test"]["figures"] for name in ("plain", "wide")]
    for name in ("log_likelihood", "bound", "kl", "latent_dim", "num_rows", "knn_error_3"):
        assert page.figures[name] == [figures[name] for figures in found]
    assert page.headings[:3] == ["Settings", "Held-out figures", "Training"]
    text = page.text.partition("<h2>Settings")[2].partition("</section>")[0]
    rows = [row.partition("</th>")[0].strip() for row in text.split('<th scope="row">')[1:]]
    assert rows == ["latent dim", "seed", "epochs done", "time of the training"]  # what differs, and how long it took
    assert {"compared_curves", "samples-1", "samples-2", "latent_scatter-2"} <= page.pictures.keys()
    assert [shlex.split(command)[2] for command in page.commands] == ["gaussian", "gaussian"]
    assert page.notes == []


def test_runs_on_different_data_are_told(runs):
    data = {"name": "digits", "binarize": "static", "seed": 9}
    Run.create("other", "gaussian", {"latent_dim": 2, "hidden": (8,)}, data, {"epochs": 1}).train(progress=False)
    page = read(report(["plain", "other"]))
    assert any("rows of the runs are not the same" in note for note in page.notes)
    assert any(note.startswith("other: It was not evaluated yet") for note in page.notes)
