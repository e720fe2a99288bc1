"""The Trainer in trouble: losses that are not numbers, late parameters, interrupts."""

import os
import signal
import threading
import time

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import Fragile, LinearGuide, LinearModel, function_pair, pictures, same_weights, weights_of
from torch import nn
from training_runs import Watcher, rows, seeded, trained

from pyrovae import VAE
from pyrovae.storage import load_tensors
from pyrovae.training import NonFiniteLossError, Trainer, TrainingInterrupted
from pyrovae.training.checkpoint import RunFolder

# -- trouble ----------------------------------------------------------------------------------------------------------


def fragile():
    return VAE(Fragile(5, 2), LinearGuide(5, 2))


def test_non_finite_loss_names_epoch_batch_and_site_and_keeps_the_best_weights(tmp_path):
    vae, run, kept = seeded(fragile), RunFolder(tmp_path / "run"), {}

    def on_batch(progress):
        vae.model.broken = (progress.epoch, progress.batch) == (2, 1)

    def on_epoch(progress):
        kept[progress.epoch] = weights_of(vae)

    callbacks = [Watcher("on_batch", on_batch), Watcher("on_epoch", on_epoch)]
    trainer = Trainer(epochs=5, batch_size=16, progress=False, callbacks=callbacks, lr=0.01, checkpoint_seconds=1000)
    message = r"the loss is nan in epoch 3, batch 2, from site 'x' of the model, .*best weights before it \(epoch 2\)"
    with pytest.warns(UserWarning, match="NaN"), pytest.raises(NonFiniteLossError, match=message) as error:
        trainer.fit(vae, rows(), run=run)
    assert str(run.weights_path) in str(error.value)
    tensors, _ = load_tensors(run.weights_path)
    assert same_weights(weights_of(vae), kept[2])
    assert same_weights(tensors, kept[2])


def test_non_finite_loss_in_the_first_epoch_leaves_the_first_weights_and_no_folder(tmp_path):
    vae, run = seeded(fragile), RunFolder(tmp_path / "run")
    before = weights_of(vae)

    def on_batch(progress):
        vae.model.broken = True

    trainer = Trainer(epochs=5, batch_size=16, progress=False, callbacks=[Watcher("on_batch", on_batch)])
    with (
        pytest.warns(UserWarning, match="NaN"),
        pytest.raises(NonFiniteLossError, match=r"batch 2, .*the first weights"),
    ):
        trainer.fit(vae, rows(), run=run)
    assert same_weights(weights_of(vae), before)
    assert not run.path.exists()


def test_weights_that_explode_in_the_last_batch_are_never_the_best():
    """The loss of an epoch is finite although its last step gave NaN weights: they must not be kept."""
    vae, good = seeded(), {}

    def on_batch(progress):
        if progress.epoch == 1 and progress.batch == progress.num_batches:
            with torch.no_grad():
                vae.model.offset.fill_(torch.nan)

    callbacks = [Watcher("on_batch", on_batch), Watcher("on_epoch", lambda p: good.update(weights_of(vae)))]
    message = (
        r"parameter 'owners.model.offset' is not finite in epoch 2, batch 3; the VAE has the best weights before it"
    )
    with pytest.raises(NonFiniteLossError, match=message):
        Trainer(epochs=5, batch_size=16, progress=False, callbacks=callbacks).fit(vae, rows())
    assert same_weights(weights_of(vae), good)


def test_non_finite_validation_loss():
    validation = rows(8)
    validation[3] = 1e30  # whose square is no float32
    with pytest.raises(NonFiniteLossError, match=r"the validation loss is .* in epoch 1"):
        trained((rows(), validation))


def test_parameter_that_appears_late_is_an_error():
    steps = []

    def guide(x):
        steps.append(1)
        loc = pyro.param("late", torch.zeros(2)) if len(steps) > 8 else torch.zeros(2)
        early = pyro.param("early", torch.ones(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc * early, 1.0).to_event(1))

    vae = VAE(function_pair().model, guide)
    with pytest.raises(ValueError, match="parameter 'late' appeared only during training, so it was not trained"):
        Trainer(epochs=20, progress=False, batch_size=4).fit(vae, pictures(16))


def test_arguments_are_checked_once():
    """A bad scale is found in the first run, by name, although training itself checks nothing."""

    class Bad(LinearGuide):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.mean(x), -self.scale).to_event(1))

    with pytest.raises(ValueError, match="scale"):
        trained(make=lambda: VAE(LinearModel(5, 2), Bad(5, 2)))


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupt_at(epoch, batch):
    def on_batch(progress):
        if (progress.epoch, progress.batch) == (epoch, batch):
            os.kill(os.getpid(), signal.SIGINT)

    return Watcher("on_batch", on_batch)


def test_interrupt_without_a_folder():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(
        TrainingInterrupted, match="interrupted in epoch 1 after batch 2; the weights are as they were then"
    ):
        trained(callbacks=[interrupt_at(0, 2)])
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupt_in_the_last_batch_of_an_epoch_lets_the_epoch_end():
    rows_seen = []
    watcher = Watcher("on_epoch", lambda progress: rows_seen.append(progress.metrics["epoch"]))
    with pytest.raises(TrainingInterrupted, match="interrupted after epoch 2; "):
        trained((rows(), rows(8)), callbacks=[interrupt_at(1, 3), watcher])
    assert rows_seen == [1, 2]


def test_interrupt_in_the_very_last_batch_comes_too_late():
    _, history = trained(callbacks=[interrupt_at(2, 3)])
    assert len(history.rows) == 3


def test_interrupt_is_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=[interrupt_at(0, 1)])


def test_second_interrupt_acts_at_once():
    def twice(progress):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)  # two signals that wait to be handled would count as one
        raise AssertionError("still running")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore the signal
    try:
        with pytest.raises(KeyboardInterrupt) as error:
            trained(callbacks=[Watcher("on_batch", twice)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert not isinstance(error.value, TrainingInterrupted)


def test_training_outside_the_main_thread():
    """Signals belong to the main thread; a training elsewhere leaves them alone."""
    results = []
    thread = threading.Thread(target=lambda: results.append(trained()[1].reason))
    thread.start()
    thread.join()
    assert results == ["all 3 epochs done"]


def test_running_statistics_are_those_of_training_batches():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalise = nn.BatchNorm1d(64)
            self.encoder = nn.Linear(64, 2)

        def model(self, x):
            function_pair().model(x)

        def guide(self, x):
            pyro.module("net", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(self.normalise(x.flatten(1))), 1.0).to_event(1))

    net = Model()
    Trainer(epochs=2, batch_size=8, progress=False).fit(VAE(net.model, net.guide), (pictures(16), pictures(8)))
    assert int(net.normalise.num_batches_tracked) in (2, 4)  # after the better of two epochs
