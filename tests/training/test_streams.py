"""Trainings on streams: Ctrl-C, resume, the progress bar, the schedule of the KL weight."""

import io
import os
import signal

import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from torch.utils.data import DataLoader, IterableDataset, RandomSampler
from training_runs import Watcher, rows, seeded

from pyrovae.training import Callback, ProgressBar, RunFolder, Trainer, TrainingInterrupted, WarmUp


class Parts(IterableDataset):
    """Four batches, of a number that nobody knows."""

    def __iter__(self):
        return iter(rows().split(10))


class InterruptAt(Callback):
    """Ctrl-C after a number of batches."""

    def __init__(self, count):
        self.left = count

    def on_batch(self, progress):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


LOADERS = {
    "in order": Parts,
    "shuffled": lambda: DataLoader(rows(), batch_size=10, shuffle=True),
    "shuffled by itself": lambda: DataLoader(rows(), 10, shuffle=True, generator=torch.Generator().manual_seed(4)),
    "shuffled by its sampler": lambda: DataLoader(
        rows(), 10, sampler=RandomSampler(range(40), generator=torch.Generator().manual_seed(4))
    ),
}


@pytest.mark.parametrize("stop", [2, 6, 8])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_stream_goes_on_at_the_last_finished_epoch(loader, stop, tmp_path):
    """Ctrl-C within the first epoch, within the second one, and at its end."""
    options = {"epochs": 4, "progress": False, "lr": 0.02}
    whole, other = seeded(linear_pair), seeded(linear_pair)
    history = Trainer(**options).fit(whole, LOADERS[loader](), rows(8))
    with pytest.raises(TrainingInterrupted) as caught:
        Trainer(**options, callbacks=[InterruptAt(stop)]).fit(other, LOADERS[loader](), rows(8), run=tmp_path)
    finished = 2 if stop == 8 and loader != "in order" else (stop - 1) // 4
    if stop != 8 or loader == "in order":
        assert f"a stream begins its epochs anew, so what is saved is the end of epoch {finished}" in str(caught.value)
    again = seeded(linear_pair, 9)
    resumed = Trainer(**options).fit(again, LOADERS[loader](), rows(8), run=tmp_path, resume=True)
    assert same_weights(weights_of(whole), weights_of(again))
    assert [row["loss"] for row in resumed.rows] == [row["loss"] for row in history.rows]


def test_the_bar_counts_without_a_total():
    text = io.StringIO()
    trainer = Trainer(epochs=2, progress=False, callbacks=[ProgressBar(file=text, mininterval=0)])
    trainer.fit(linear_pair(), Parts())
    assert "8batch" in text.getvalue()
    assert "%" not in text.getvalue()


def test_the_kl_weight_moves_with_epochs_where_batches_are_not_known():
    times = []
    options = {"epochs": 3, "progress": False, "kl_weight": WarmUp(2)}
    for data in (Parts(), DataLoader(rows(), 10)):
        seen = Watcher("on_batch", lambda progress: times.append(progress.time))
        history = Trainer(**options, callbacks=[seen]).fit(linear_pair(), data)
        assert [row["kl_weight"] for row in history.rows] == [0.0, 0.5, 1.0]
    assert times == [0.0] * 4 + [1.0] * 4 + [2.0] * 4 + [i / 4 for i in range(1, 13)]


def test_patience_and_best_weights_of_a_stream(tmp_path):
    vae = seeded(linear_pair)
    trainer = Trainer(lr=0.5, epochs=40, patience=3, progress=False)
    history = trainer.fit(vae, Parts(), DataLoader(rows(8), 4), run=RunFolder(tmp_path))
    losses = [row["validation_loss"] for row in history.rows]
    assert history.best_epoch == 1 + losses.index(min(losses))
    assert len(losses) == history.best_epoch + 3


@pytest.mark.parametrize("compile", [False, "recorded"])
@pytest.mark.parametrize("objective", ["elbo", "mean-field", "iwae"])
def test_a_later_batch_of_another_width(objective, compile):
    class Wider(IterableDataset):
        def __iter__(self):
            part = rows(10)
            return iter([part, part, torch.cat([part, part], 1)])

    with pytest.raises(ValueError, match=r"^x has rows of shape \(\d+,\), and the pair has seen rows of shape"):
        Trainer(objective, epochs=2, progress=False, compile=compile).fit(linear_pair(), Wider())
