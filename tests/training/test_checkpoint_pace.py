"""A checkpoint that takes long is written less often."""

import time

import pytest
from training_runs import rows, seeded

from pyrovae.training import RunFolder, Trainer, saving


@pytest.mark.parametrize(("seconds", "most"), [(0.01, 3), (0.0, 40)])
def test_slow_checkpoints_are_far_apart(tmp_path, monkeypatch, seconds, most):
    """40 batches, and a save that takes .1 s: 2 s of training lie between two, unless every batch is to be saved."""
    saves = []
    plain = saving.save_state

    def slow(*arguments):
        saves.append(time.monotonic())
        time.sleep(0.1)
        return plain(*arguments)

    monkeypatch.setattr(saving, "save_state", slow)
    trainer = Trainer(epochs=1, batch_size=1, checkpoint_seconds=seconds, progress=False)
    trainer.fit(seeded(), rows(), run=RunFolder(tmp_path))
    assert len(saves) <= most + 1
    assert len(saves) > (10 if not seconds else 1)
