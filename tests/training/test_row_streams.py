"""Trainings on rows that are not held, but come in a known order: resumed within an epoch, in epochs that go on."""

import os
import signal
from dataclasses import dataclass, replace
from itertools import chain

import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from training_runs import Watcher, rows, seeded

from pyrovae.data import Dataset, Rows
from pyrovae.distributed import Processes
from pyrovae.storage import CheckpointError
from pyrovae.training import Trainer, TrainingInterrupted
from pyrovae.training.batching import batches_of
from pyrovae.training.data import training_data
from pyrovae.training.parallel import Parallel
from pyrovae.training.state import TrainingState


@dataclass
class Known:
    """A stream of rows that are at hand, 40 of them; what was asked for is kept."""

    epoch_rows: int = 40
    num_rows: int = 40

    def __post_init__(self):
        self.asked = []

    def batches(self, seed, number, batch_size, start=0, *, share=(0, 1)):
        self.asked.append((number, start))
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1000 * seed + number))
        cut = Processes(*share).share
        return (Rows(rows()[part[cut(len(part))]]) for part in order.split(batch_size)[start:])


def dataset(**options):
    held = Rows(rows(8))
    return Dataset("known", Rows(rows()[:5]), held, held, "real", stream=Known(**options))


def numbers(batch):
    return [int((rows() == row).all(1).nonzero()) for row in batch.x]


def epochs_of(batches, count, batch=0):
    return [
        [numbers(part) for part, _ in batches.epoch(TrainingState(epoch=epoch, batch=batch))] for epoch in range(count)
    ]


@pytest.mark.parametrize("epoch_rows", [40, 24])
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_training_goes_on_within_an_epoch(epoch_rows, stop, tmp_path):
    options = {"epochs": 4, "batch_size": 8, "progress": False, "lr": 0.02, "checkpoint_seconds": 0.0}
    whole, other, again = (seeded(linear_pair, seed) for seed in (0, 0, 9))
    history = Trainer(**options).fit(whole, dataset(epoch_rows=epoch_rows))
    seen = []

    def interrupt(progress):
        seen.append(progress.batch)
        if len(seen) == stop:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        Trainer(**options, callbacks=[Watcher("on_batch", interrupt)]).fit(
            other, dataset(epoch_rows=epoch_rows), run=tmp_path
        )
    resumed = Trainer(**options).fit(again, dataset(epoch_rows=epoch_rows), run=tmp_path, resume=True)
    assert same_weights(weights_of(whole), weights_of(again))
    assert [row["loss"] for row in resumed.rows] == [row["loss"] for row in history.rows]


def test_epochs_of_fewer_rows_go_through_all_of_them():
    data = training_data(linear_pair(), dataset(epoch_rows=24))
    batches = batches_of(linear_pair(), data.train, data, 8, drop_last=False, seed=3)
    assert (batches.num_batches, batches.total) == (3, 40)
    epochs = epochs_of(batches, 5)
    assert [len(epoch) for epoch in epochs] == [3] * 5
    passes = [batch for epoch in epochs for batch in epoch]
    for part in (passes[:5], passes[5:10], passes[10:]):
        assert sorted(number for batch in part for number in batch) == list(range(40))
    assert passes[:5] != passes[5:10]
    # One pass after the other, each read from its start without a break.
    assert data.train.asked == [(0, 0), (1, 0), (2, 0)]
    assert batches_of(linear_pair(), data.train, data, 8, drop_last=False, seed=4)._batch(0) is not None
    later = batches_of(linear_pair(), data.train, data, 8, drop_last=False, seed=3)
    assert [numbers(part) for part, _ in later.epoch(TrainingState(epoch=2, batch=1))] == epochs[2][1:]


def test_rows_lie_at_the_same_place_in_memory_wherever_a_training_was_resumed():
    """Products may round by it; here a stream cuts its batches out of blocks that begin where it is asked to begin."""

    class Cut(Known):
        def batches(self, seed, number, batch_size, start=0, *, share=(0, 1)):
            block = Rows(torch.cat([part.x for part in super().batches(seed, number, batch_size, start)]))
            return block.batches(batch_size)

    data = training_data(linear_pair(), replace(dataset(), stream=Cut()))
    places = {}
    for start in (0, 1, 3):
        batches = batches_of(linear_pair(), data.train, data, 3, drop_last=False, seed=3)
        places[start] = [part.x.data_ptr() % 16 for part, _ in batches.epoch(TrainingState(batch=start))]
    assert places[1] == places[0][1:]
    assert places[3] == places[0][3:]


def test_processes_share_the_batches_of_one():
    data, vae = training_data(linear_pair(), dataset(epoch_rows=24)), linear_pair()
    alone = batches_of(vae, data.train, data, 9, drop_last=False, seed=3)
    parts = [
        batches_of(vae, data.train, data, 9, drop_last=False, seed=3, parallel=Parallel(Processes(rank, 5), vae, 3))
        for rank in range(5)
    ]
    whole, *shares = (epochs_of(batches, 6) for batches in (alone, *parts))
    assert [[[*chain(*each)] for each in zip(*epochs, strict=True)] for epochs in zip(*shares, strict=True)] == whole
    assert min(len(batch) for epochs in shares for batches in epochs for batch in batches) == 0, (
        "of 4 rows, one has none"
    )


def test_the_last_batch_of_a_pass_is_smaller_or_left_out():
    vae, data = linear_pair(), training_data(linear_pair(), dataset())
    kept = batches_of(vae, data.train, data, 16, drop_last=False)
    assert [len(batch) for batch in epochs_of(kept, 1)[0]] == [16, 16, 8]
    full = batches_of(vae, data.train, data, 16, drop_last=True)
    assert [len(batch) for batch in epochs_of(full, 1)[0]] == [16, 16]
    assert full.num_batches == 2
    with pytest.raises(ValueError, match="drop_last leaves nothing of 40 rows in batches of 64"):
        batches_of(vae, data.train, data, 64, drop_last=True)


def test_rows_pass_through_the_transform_and_collate():
    moved = dataset()
    object.__setattr__(moved, "transform", lambda part: part.replace(x=part.x + 1))
    data = training_data(linear_pair(), moved, collate=lambda part: {"x": part["x"] * 2})
    batches = batches_of(linear_pair(), data.train, data, 40, drop_last=False)
    (batch,) = [part for part, _ in batches.epoch(TrainingState())]
    assert torch.equal(batch.x.sort(0).values, ((rows() + 1) * 2).sort(0).values)
    assert torch.equal(batches.first().x, batch.x)
    assert len([*batches.in_order()]) == 1


def test_another_batch_size_within_an_epoch_is_refused(tmp_path):
    def interrupt(progress):
        if progress.batch == 3:
            os.kill(os.getpid(), signal.SIGINT)

    options = {"epochs": 2, "progress": False, "checkpoint_seconds": 0.0}
    with pytest.raises(TrainingInterrupted):
        Trainer(**options, batch_size=8, callbacks=[Watcher("on_batch", interrupt)]).fit(
            seeded(linear_pair), dataset(), run=tmp_path
        )
    with pytest.raises(CheckpointError, match="stopped in the middle of an epoch of batches of 8"):
        Trainer(**options, batch_size=10).fit(seeded(linear_pair), dataset(), run=tmp_path, resume=True)
