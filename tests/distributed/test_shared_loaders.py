"""Loaders whose batches several processes share: each row is read once, and what is learned is that of one process."""

import json

import loader_trainings as trainings
import pairs_of_processes as together
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from pyrovae import VAE
from pyrovae.distributed import Processes
from pyrovae.training.data import Stream
from pyrovae.training.loaders import SharedLoader
from pyrovae.training.parallel import Parallel
from pyrovae.training.state import TrainingState

SCRIPT = trainings.__file__


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process and several find, by their number."""
    made = {size: tmp_path_factory.mktemp(str(size)) for size in (1, 2, 3)}
    trainings.report(made[1])
    for size in (2, 3):
        for output, status in together.ended(together.started(size, [SCRIPT, "report", json.dumps([str(made[size])])])):
            assert status == 0, output
    return made


@pytest.fixture
def alone(folders):
    return json.loads((folders[1] / "0.json").read_text())


@pytest.fixture(params=[2, 3])
def shared(request, folders):
    return [json.loads((folders[request.param] / f"{rank}.json").read_text()) for rank in range(request.param)]


@pytest.mark.parametrize("name", trainings.LOADERS)
def test_processes_learn_what_one_learns(alone, shared, name):
    for found in shared:
        parameters, expected = found[name]["parameters"], alone[name]["parameters"]
        assert parameters.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(torch.tensor(parameters[key]), torch.tensor(value), rtol=0, atol=1e-9)
        for row, other in zip(found[name]["history"], alone[name]["history"], strict=True):
            assert row == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("name", trainings.LOADERS)
def test_the_parts_of_the_processes_are_the_batches_of_one(alone, shared, name):
    for batch, *parts in zip(alone[name]["seen"], *(found[name]["seen"] for found in shared), strict=True):
        assert [row for part in parts for row in part] == batch
        lengths = [len(part) for part in parts]
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("name", ["in order", "shuffled", "by itself", "batches", "kept workers"])
def test_each_row_is_read_once_an_epoch(alone, shared, name):
    number = len(alone[name]["seen"]) // trainings.EPOCHS
    for epoch in range(trainings.EPOCHS):
        some = slice(epoch * number, (epoch + 1) * number)
        read = [row for found in shared for batch in found[name]["seen"][some] for row in batch]
        assert sorted(read) == list(range(trainings.ROWS))


@pytest.mark.parametrize("name", trainings.NOISY)
def test_a_killed_process_is_started_again_and_the_weights_are_the_same(tmp_path, folders, name):
    """Within the second epoch, so that the sampler goes on from the end of the first one."""
    command = [SCRIPT, "killed", json.dumps([name, str(tmp_path), 9])]
    [(output, status)] = together.ended([together.torchrun(2, command, "--max-restarts", "1")])
    assert status == 0, output
    for rank in (0, 1):
        found, expected = (load_file(folder / f"{rank}.safetensors") for folder in (tmp_path, folders[2] / name))
        assert all(torch.equal(found[key], value) for key, value in expected.items())


class Silent(Processes):
    """One of two processes, which does not ask the other one."""

    def agree(self, *args, **options):
        pass


def part_of(rank, loader):
    made = trainings.Groups().double()
    vae = VAE(made.model, made.guide)
    return SharedLoader(Stream(loader, vae), Parallel(Silent(rank, 2), vae, 0))


def read_by(rank, num_workers, epoch=0):
    loader = DataLoader(trainings.Numbered(noise=1.0), 8, num_workers=num_workers)
    batches = part_of(rank, loader)
    with torch.random.fork_rng():
        read = [rows for rows, _ in batches.epoch(TrainingState(epoch=epoch))]
    return torch.cat([rows.x - loader.dataset.x[rows.index] for rows in read if len(rows)])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_a_data_set_draws_is_the_same_again_and_another_in_each_process_and_epoch(num_workers):
    first, second = read_by(0, num_workers), read_by(1, num_workers)
    assert torch.equal(first, read_by(0, num_workers))
    for other in (second, read_by(0, num_workers, epoch=1)):
        size = min(len(first), len(other))
        assert not torch.isclose(first[:size], other[:size]).any()


def test_batches_of_a_sampler_that_leave_processes_without_rows_in_each_of_them_are_refused():
    small = part_of(0, DataLoader(trainings.Numbered(), batch_sampler=[[0], [1]]))
    with pytest.raises(ValueError, match="the batches of the DataLoader have 1 rows for all processes together"):
        next(small.epoch(TrainingState()))
    some = part_of(0, DataLoader(trainings.Numbered(), batch_sampler=[[0], [1, 2]]))
    assert [count for _, count in some.epoch(TrainingState())] == [0, 1]
