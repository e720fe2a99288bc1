"""What the Trainer records: history, best weights, callbacks, progress, and what its seed fixes."""

import math
import sys

import pyro
import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from training_runs import Watcher, rows, seeded, trained

from pyrovae.storage import load_weights
from pyrovae.training import Callback, TensorBoard, Trainer
from pyrovae.training.checkpoint import RunFolder

# -- what is recorded -------------------------------------------------------------------------------------------------


def test_history_and_metrics_on_disk(tmp_path):
    run = RunFolder(tmp_path / "run")
    vae = seeded()
    history = Trainer(epochs=3, batch_size=16, progress=False).fit(vae, (rows(), rows(8)), run=run)
    assert list(history.rows[0]) == ["epoch", "loss", "validation_loss", "kl_weight", "lr", "seconds"]
    assert [row["epoch"] for row in history.rows] == [1, 2, 3]
    assert history.reason == "all 3 epochs done"
    assert run.read_metrics() == history.rows
    assert list(history.frame().index) == [1, 2, 3]
    assert not vae.training
    other = seeded(seed=1)
    information = load_weights(other, run.weights_path)
    assert same_weights(weights_of(vae), weights_of(other))
    assert information["epoch"] == history.best_epoch


def test_loss_is_the_mean_over_rows_not_over_batches():
    """With a learning rate of next to nothing and an analytic KL the epoch's loss is the loss of the set."""
    vae, x = seeded(), rows(40)
    history = Trainer(objective="mean-field", lr=1e-30, epochs=60, batch_size=16, progress=False).fit(vae, x)
    with torch.no_grad():
        _, nll, kl = vae(x.repeat(500, 1))
    expected = float((nll + kl).mean())
    assert history.frame()["loss"].mean() == pytest.approx(expected, rel=0.02)


def test_early_stopping_restores_the_best_weights():
    """Training rows are all zeros and validation rows far away: after a while every epoch is worse than the last."""
    snapshots = {}

    def keep(progress):
        snapshots[progress.epoch] = weights_of(progress.vae)

    data = (torch.zeros(32, 5), torch.full((8, 5), 0.9))
    vae, history = trained(
        data, objective="mean-field", lr=0.05, epochs=200, patience=4, callbacks=[Watcher("on_epoch", keep)]
    )
    values = [row["validation_loss"] for row in history.rows]
    best = min(range(len(values)), key=values.__getitem__) + 1
    assert history.best_epoch == best
    assert len(values) == best + 4 < 200
    assert history.reason == "no better validation_loss for 4 epochs"
    assert same_weights(weights_of(vae), snapshots[best])
    assert not same_weights(weights_of(vae), snapshots[len(values)])


def test_monitoring_the_training_loss():
    data = (rows(), rows(8))
    _, history = trained(data, monitor="loss", patience=2, lr=0.5, epochs=60)
    losses = [row["loss"] for row in history.rows]
    assert history.best_epoch == losses.index(min(losses)) + 1
    assert "no better loss" in history.reason


def test_callbacks_see_every_event():
    events = []

    class Log(Callback):
        def on_start(self, progress):
            events.append("start")

        def on_batch(self, progress):
            events.append((progress.epoch, progress.batch))
            assert math.isfinite(progress.loss)

        def on_epoch(self, progress):
            events.append(progress.metrics["epoch"])

        def on_end(self, progress):
            events.append("end")

    trained(rows(20), callbacks=[Log()], epochs=2, batch_size=10)
    assert events == ["start", (0, 1), (0, 2), 1, (1, 1), (1, 2), 2, "end"]


def test_progress_bar(capsys):
    trained((rows(), rows(8)), progress=True)
    text = capsys.readouterr().err
    assert "epoch 3/3" in text
    assert "9/9" in text
    assert "loss=" in text
    assert "validation_loss=" in text


def test_tensorboard_writes_scalars(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, history = trained(callbacks=[TensorBoard(tmp_path)])
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    written = [event.value for event in events.Scalars("loss")]
    assert written == pytest.approx([row["loss"] for row in history.rows], rel=1e-5)


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"needs the extra: pip install pyrovae\[tensorboard\]"):
        TensorBoard(tmp_path)


# -- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("caller_rng")
def test_same_seed_same_weights_and_the_callers_random_numbers_untouched():
    vaes = [linear_pair() for _ in range(3)]
    for vae in vaes[1:]:
        vae.load_state_dict(vaes[0].state_dict())
    state = torch.get_rng_state()
    for vae, seed in zip(vaes, (3, 3, 4), strict=True):
        torch.rand(5)  # the caller's position does not matter
        position = torch.get_rng_state()
        Trainer(epochs=1, progress=False, seed=seed).fit(vae, (rows(), rows(8)))
        assert torch.equal(torch.get_rng_state(), position)
    torch.set_rng_state(state)
    first, second, third = map(weights_of, vaes)
    assert same_weights(first, second)
    assert not same_weights(first, third)
    pyro.set_rng_seed(0)


def test_without_a_seed_the_caller_decides():
    results = []
    for seed in (1, 1, 2):
        vae = seeded()
        torch.manual_seed(seed)
        Trainer(epochs=1, progress=False, seed=None).fit(vae, rows())
        results.append(weights_of(vae))
    assert same_weights(results[0], results[1])
    assert not same_weights(results[0], results[2])
