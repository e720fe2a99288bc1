"""What several processes would do another way than one is refused, in all of them with the same line."""

import json

import pairs_of_processes as together
import pytest
import refusals

EXPECTED = {
    "layer": "the BatchNorm layer 'owners.model.layer' would take its statistics from the rows of one process of 2",
    "buffer": "'owners.model.layer.mean' changes with the rows that the pair sees in training",
    "renyi": "RenyiELBO may weigh the rows of a batch together",
    "average": "the decaying-average baseline of site 'z' has a number for each row of a batch",
    "place": "parameter 'loc' has a value for each of the 10 rows of a batch, by its place in it",
    "stream": "2 processes train, and the batches of the training rows come from a Parts and cannot be cut",
    "loader of a stream": "2 processes train, and the batches of the training rows come from a DataLoader over the",
    "validation stream": "2 processes train, and the batches of the validation rows come from a Parts",
    "own loader": "2 processes train, and the batches of the training rows come from a Twice, whose own __iter__",
    "no batches": "2 processes train, and the batches of the training rows are made by the data set itself",
    "cut already": "2 processes train, and the batches of the training rows are cut here, and a DistributedSampler",
    "no length": "2 processes train, and the batches of the training rows come from a sampler that does not say",
    "order": "process 1 has another order of the training rows than process 0; let the sampler of the DataLoader draw",
    "small batches": "the batches of the DataLoader have 1 rows for all processes together, and there are 2 processes",
    "few rows in a loader": "there are 2 processes and 1 training rows",
    "length": "process 1 has another number of rows than process 0 (21, not 20)",
    "batches": "process 1 has another number of training batches than process 0 (4, not 5)",
    "data in a loader": "process 1 has another fingerprint of the train rows than process 0",
    "validation in a loader": "process 1 has another fingerprint of the validation rows than process 0",
    "validation of one": "process 1 has another fingerprint of the validation rows than process 0",
    "batches of validation": "process 1 has another number of validation batches than process 0 (2, not 3)",
    "rows of a loader": "each of 2 processes moves the parameters of its own rows",
    "fine loader": "nothing was refused",
    "seedless": "seed=None takes random numbers that the processes of a training do not share",
    "batch": "batch_size=1 is the number of rows of all processes together, and there are 2 processes",
    "rows": "there are 2 processes and 1 training rows",
    "seed": "process 1 has another seed than process 0 (2, not 1)",
    "rate": "process 1 has another lr than process 0 (0.2, not 0.1)",
    "data": "process 1 has another fingerprint of the train rows than process 0",
    "validation": "process 1 has another fingerprint of the validation rows than process 0",
    "one": "process 1: x has NaN in",
    "fine": "nothing was refused",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    for output, status in together.ended(together.started(2, [refusals.__file__, str(folder)])):
        assert status == 0, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", EXPECTED)
def test_all_processes_say_the_same_line(found, name):
    first, second = found[0][name], found[1][name]
    assert first.startswith(EXPECTED[name])
    assert "\n" not in first
    assert first.removeprefix("process 1: ") == second


def test_parts_of_rows_come_back_in_their_order(found):
    assert found[0]["parts"] == found[1]["parts"] == [0, 2, 4, 6, 8]


def test_a_row_that_one_process_reads_is_named_by_its_place_in_the_batch(found):
    first, second = found[0]["bad row"], found[1]["bad row"]
    assert second.startswith("row 2 of batch 3 of the stream")
    assert first.startswith(f"process 1: {second}")
