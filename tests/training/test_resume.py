"""A training that is stopped or killed and resumed ends bit for bit like one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pairs import library_pair, linear_pair, param_pair, pictures, same_weights, tutorial_pair, weights_of
from safetensors.torch import load_file, save_file
from torch import nn

from pyrovae import VAE, data
from pyrovae.data import Dataset, Rows, transform_x
from pyrovae.guides import AmortizedGaussian, KumaraswamySticks
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE, StickBreakingVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.pairs import find_pair
from pyrovae.priors import StandardNormal
from pyrovae.runs import fit_growing
from pyrovae.storage import CheckpointError
from pyrovae.training import Callback, Trainer, TrainingData, TrainingInterrupted
from pyrovae.training.checkpoint import RunFolder


class NoisyEncoder(nn.Module):
    """Draws random numbers of its own and keeps running statistics."""

    out_features = 8

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))

    def forward(self, x):
        return self.net(x)


def noisy_pair():
    likelihood = BernoulliLikelihood((1, 8, 8))
    decoder = DenseDecoder(2, likelihood.raw_shape, (8,), dropout=0.2)
    return VAE(GaussianVAE(StandardNormal(2), decoder, likelihood), AmortizedGaussian(NoisyEncoder(), 2))


def grey_pictures():
    """Data that every batch binarises anew."""
    grey = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return TrainingData(Rows(grey), Rows(grey[:10].round()), transform_x(torch.bernoulli))


def binary_pictures():
    torch.manual_seed(11)
    return pictures(40), pictures(10)


def labelled_pair():
    return find_pair("semi-supervised").build(labelled_digits(), hidden=(8,), latent_dim=2, dropout=0.2)


def labelled_digits():
    digits = data.load("digits", labels=20)
    with_label = digits.train.labelled.nonzero()[:, 0]  # two of every class
    return replace(digits, train=digits.train.take(torch.cat([with_label, (~digits.train.labelled).nonzero()[:20, 0]])))


CASES = {
    "adam-cosine-dropout": (noisy_pair, grey_pictures, {"lr_schedule": "cosine", "kl_weight": "warm-up:3"}),
    "sgd-plateau": (
        tutorial_pair,
        binary_pictures,
        {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "lr_schedule": "plateau", "patience": 3},
    ),
    "adamax-step": (param_pair, binary_pictures, {"optimizer": "adamax", "lr_schedule": "step", "gradient_clip": 0.5}),
    "adamw-particles": (
        library_pair,
        binary_pictures,
        {"optimizer": "adamw", "objective": "renyi", "num_particles": 3},
    ),
    "enum-error": (labelled_pair, labelled_digits, {"objective": "enum", "monitor": "validation_error"}),
}


def make(case, seed=0):
    build, data, options = CASES[case]
    torch.manual_seed(seed)
    return build(), data(), options


class InterruptAt(Callback):
    """Ctrl-C after a given number of batches."""

    def __init__(self, count):
        self.left = count

    def on_batch(self, progress):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("stops", [(1,), (6,), (3, 4), (2, 1, 1, 5)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_interrupted_and_resumed(case, stops, tmp_path):
    """Ctrl-C after the first batch, at the end of an epoch, several times; there are four epochs of three batches."""
    options = {"epochs": 4, "batch_size": 16, "progress": False, "lr": 0.01}
    vae, data, extra = make(case)
    whole = RunFolder(tmp_path / "whole")
    history = Trainer(**options, **extra).fit(vae, data, run=whole)

    run = RunFolder(tmp_path / "stopped")
    for i, stop in enumerate(stops):
        other, data, extra = make(case, seed=i)  # the first weights come from the run folder, but for the first start
        trainer = Trainer(**options, **extra, callbacks=[InterruptAt(stop)])
        with pytest.raises(TrainingInterrupted, match=f"everything is saved in {run.path}, go on with resume=True"):
            trainer.fit(other, data, run=run, resume=i > 0)
    other, data, extra = make(case, seed=9)
    resumed = Trainer(**options, **extra).fit(other, data, run=run, resume=True)

    assert same_weights(weights_of(vae), weights_of(other))
    assert without_seconds(resumed.rows) == without_seconds(history.rows)
    assert (resumed.best_epoch, resumed.reason) == (history.best_epoch, history.reason)
    assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()


@pytest.mark.parametrize("stop", [2, 10])
def test_growing_interrupted_and_resumed(stop, tmp_path):
    """Ctrl-C in the first and in the second of two trainings of two epochs of three batches."""

    def grown(folder, callbacks=()):
        torch.manual_seed(0)
        likelihood = BernoulliLikelihood((1, 8, 8))
        guide = KumaraswamySticks(DenseEncoder((1, 8, 8), (8,)), 3, 5.0)
        with torch.no_grad():
            guide.head.linear.weight.mul_(10)  # the last stick is in use
        vae = VAE(StickBreakingVAE(3, 5.0, DenseDecoder(3, likelihood.raw_shape, (8,)), likelihood), guide)
        x, held_out = binary_pictures()
        dataset = Dataset("some", Rows(x), Rows(held_out), Rows(held_out), "binary")
        options = {"objective": "mean-field", "epochs": 2, "batch_size": 16, "lr": 0.01, "progress": False}
        return fit_growing(Trainer(**options, callbacks=callbacks), vae, dataset, count=2, most=5, run=folder)

    whole = grown(tmp_path / "whole")
    assert whole.model.prior.num_features == 5
    with pytest.raises(TrainingInterrupted):
        grown(tmp_path / "stopped", [InterruptAt(stop)])
    assert (tmp_path / "stopped" / "5-weights").exists() == (stop == 10)
    assert same_weights(weights_of(grown(tmp_path / "stopped")), weights_of(whole))


def test_seconds_add_up_over_sittings(tmp_path):
    run, options = RunFolder(tmp_path), {"epochs": 2, "batch_size": 16, "progress": False}

    class Slow(Callback):
        def on_batch(self, progress):
            time.sleep(0.05)

    x = torch.randn(40, 5)
    with pytest.raises(TrainingInterrupted):
        Trainer(**options, callbacks=[Slow(), InterruptAt(4)]).fit(linear_pair(), x, run=run)
    history = Trainer(**options).fit(linear_pair(), x, run=run, resume=True)
    seconds = [row["seconds"] for row in history.rows]
    assert seconds[0] >= 0.15
    assert 0.2 <= seconds[1] < 5


def test_finished_training_is_resumed_to_its_result(tmp_path):
    run, x, options = RunFolder(tmp_path), torch.randn(40, 5), {"batch_size": 16, "progress": False}
    first, second = linear_pair(), linear_pair()
    history = Trainer(epochs=3, **options).fit(first, x, run=run)
    again = Trainer(epochs=3, **options).fit(second, x, run=run, resume=True)
    assert again.rows == history.rows
    assert same_weights(weights_of(first), weights_of(second))


def test_finished_training_goes_on_with_more_epochs(tmp_path):
    x, options = torch.randn(40, 5), {"batch_size": 16, "progress": False}
    torch.manual_seed(0)
    whole, part = linear_pair(), linear_pair()
    part.load_state_dict(whole.state_dict())
    Trainer(epochs=5, **options).fit(whole, x)
    Trainer(epochs=3, **options).fit(part, x, run=RunFolder(tmp_path))
    history = Trainer(epochs=5, **options).fit(part, x, run=RunFolder(tmp_path), resume=True)
    assert len(history.rows) == 5
    assert same_weights(weights_of(whole), weights_of(part))


# -- a process killed outright ----------------------------------------------------------------------------------------

TRAINING = {"epochs": 40, "batch_size": 8, "progress": False, "checkpoint_seconds": 0.0, "lr_schedule": "cosine"}


def train_into(folder):
    """Train as far as it goes; called in a process that may be killed."""
    vae, data, _ = make("adam-cosine-dropout")
    run = RunFolder(folder)
    Trainer(**TRAINING).fit(vae, data, run=run, resume=run.state_path.exists())


def train_under_fire(folder, kills=6):
    """Start the training in processes that are killed after a random number of checkpoints, the first one at once.

    One Python forks them all, because importing torch takes longer than the training.
    """
    torch.set_num_threads(1)  # as in the tests: sums over several threads round differently
    state, dice = RunFolder(folder).state_path, random.Random(3)

    def version():
        return state.stat().st_mtime_ns if state.exists() else 0

    for kill in range(kills):
        child = os.fork()
        if not child:
            train_into(folder)
            os._exit(0)
        for _ in range(dice.randrange(2, 30) if kill else 0):
            before, deadline = version(), time.monotonic() + 20
            while version() == before and time.monotonic() < deadline:
                time.sleep(0.0002)
        time.sleep(dice.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def test_killed_process(tmp_path):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    train_into(whole.path)
    tests = str(Path(__file__).parents[1])  # where `pairs` is
    code = f"import sys; sys.path.append({tests!r})\n"
    code += f"import test_resume; test_resume.train_under_fire({str(killed.path)!r})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=500
    )
    assert result.stdout.split() == [str(-signal.SIGKILL)] * 6, result.stderr
    assert len(killed.read_metrics()) < TRAINING["epochs"]  # it was not finished
    train_into(killed.path)
    assert killed.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert without_seconds(killed.read_metrics()) == without_seconds(whole.read_metrics())
    assert len(whole.read_metrics()) == TRAINING["epochs"]
    final, expected = load_file(killed.state_path), load_file(whole.state_path)
    assert same_weights(final, expected)
    # What a kill in the middle of writing left behind is gone.
    assert not [file for file in killed.path.rglob("*") if file.name.startswith(".")]


# -- states that cannot be used ---------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path):
    """A run that was interrupted in the middle of an epoch."""
    run = RunFolder(tmp_path / "run")
    trainer = Trainer(epochs=3, batch_size=16, progress=False, callbacks=[InterruptAt(5)])
    with pytest.raises(TrainingInterrupted):
        trainer.fit(linear_pair(), torch.randn(40, 5), run=run)
    return run


def resume(run, vae=None, rows=40, **options):
    trainer = Trainer(**{"epochs": 3, "batch_size": 16, "progress": False, **options})
    return trainer.fit(vae or linear_pair(), torch.randn(rows, 5), run=run, resume=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "state.safetensors does not exist"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "state.safetensors is damaged or truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "state.safetensors is damaged or truncated"),
        (lambda path: path.write_bytes(b""), "state.safetensors is damaged or truncated"),
        (
            lambda path: save_file(load_file(path), path, metadata={"pyrovae": json.dumps({"format_version": 2})}),
            "has format version 2, and this pyrovae reads up to 1: install a newer one",
        ),
    ],
    ids=["missing", "end-cut", "header-cut", "empty", "newer"],
)
def test_damaged_state(stopped, damage, message):
    damage(stopped.state_path)
    with pytest.raises(CheckpointError, match=message) as error:
        resume(stopped)
    assert "\n" not in str(error.value)


def test_state_of_another_architecture(stopped):
    vae = linear_pair(latent_dim=3)
    before = weights_of(vae)
    with pytest.raises(CheckpointError, match=r"is of another architecture: .* has shape .* there and .* here"):
        resume(stopped, vae)
    assert same_weights(weights_of(vae), before)


def test_state_of_another_optimizer(stopped):
    with pytest.raises(CheckpointError, match="is of the optimizer Adam, not SGD"):
        resume(stopped, optimizer="sgd")


def test_state_of_other_data(stopped):
    with pytest.raises(CheckpointError, match="is of a training on 40 rows, and the data have 50"):
        resume(stopped, rows=50)


def test_another_batch_size_in_the_middle_of_an_epoch(stopped):
    with pytest.raises(CheckpointError, match="of batches of 16; go on with batch_size=16, not 8"):
        resume(stopped, batch_size=8)


def test_nothing_to_resume():
    with pytest.raises(ValueError, match="resume=True needs the run folder to resume"):
        resume(None)


def test_state_is_whole_after_every_write(tmp_path):
    """What a reader sees at any time is a state that loads: here, after every batch."""
    run = RunFolder(tmp_path)
    seen = []

    class Reader(Callback):
        def on_batch(self, progress):
            seen.append(load_file(run.state_path).keys() >= {"rng.cpu"})

    options = {"epochs": 2, "batch_size": 16, "progress": False, "checkpoint_seconds": 0.0}
    Trainer(**options, callbacks=[Reader()]).fit(linear_pair(), torch.randn(40, 5), run=run)
    assert seen == [True] * 6


VALIDATION = {
    "others": (lambda rows: rows, lambda rows: torch.zeros_like(rows), "the validation rows are not those"),
    "fewer": (lambda rows: rows, lambda rows: rows[:3], "the validation rows are not those"),
    "none any more": (lambda rows: rows, lambda rows: None, "was chosen by validation_loss, and loss would choose"),
    "none before": (lambda rows: None, lambda rows: rows, "was chosen by loss, and validation_loss would choose"),
}


@pytest.mark.parametrize("case", VALIDATION)
def test_best_epochs_of_other_validation_rows_are_not_compared(case, tmp_path):
    first, then, message = VALIDATION[case]
    train, validation = binary_pictures()
    vae, options = library_pair(), {"progress": False, "lr": 0.02}
    Trainer(epochs=2, **options).fit(vae, train, first(validation), run=tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Trainer(epochs=4, **options).fit(vae, train, then(validation), run=tmp_path, resume=True)
    assert len(Trainer(epochs=3, **options).fit(vae, train, first(validation), run=tmp_path, resume=True).rows) == 3
    if message.startswith("the validation"):
        on_purpose = {"resume": True, "allow_changed_data": True}
        assert len(Trainer(epochs=4, **options).fit(vae, train, then(validation), run=tmp_path, **on_purpose).rows) == 4
