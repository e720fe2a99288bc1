"""Losses that wait on the device: the same training, bit for bit, as if each were read, also when it goes wrong."""

import re
from functools import partial
from itertools import pairwise

import pytest
import torch
from pairs import Fragile, LinearGuide, same_weights, weights_of
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import Watcher, rows, seeded

from pyrovae import VAE, programs
from pyrovae.infer import CompiledLoss
from pyrovae.training import NonFiniteLossError, Trainer, TrainingInterrupted, compiling, losses
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.losses import Losses


def pair():
    return seeded(lambda: VAE(Fragile(5, 2), LinearGuide(5, 2)))


def fit(at_once, monkeypatch, vae=None, run=None, data=None, **options):
    monkeypatch.setitem(losses.AT_ONCE, "cpu", at_once)
    settings = {"epochs": 3, "batch_size": 16, "progress": False, "objective": "iwae", "num_particles": 3, **options}
    resume = settings.pop("resume", False)
    vae = pair() if vae is None else vae
    history = Trainer(**settings).fit(vae, rows(64) if data is None else data, run=run, resume=resume)
    return [row["loss"] for row in history.rows], weights_of(vae)


ONE = {"num_particles": 1}


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "sgd"}, {"gradient_clip": 0.1}, {"objective": "elbo"}, {"objective": "elbo", **ONE}],
)
@pytest.mark.parametrize("at_once", [3, 64])
def test_bit_for_bit(monkeypatch, at_once, options):
    expected, weights = fit(1, monkeypatch, **options)
    found, ours = fit(at_once, monkeypatch, **options)
    assert found == expected
    assert same_weights(ours, weights)


def test_mean_field_up_to_rounding(monkeypatch):
    """Its losses are then those of compiled steps, which add up in another order."""
    expected, weights = fit(1, monkeypatch, objective="mean-field", **ONE)
    found, ours = fit(64, monkeypatch, objective="mean-field", **ONE)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(ours, weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_double_precision(monkeypatch, optimizer):
    """Fused optimizers take the tensor that lets them skip a step in single precision alone."""
    options = {"optimizer": optimizer, "epochs": 1}
    found = [fit(at_once, monkeypatch, vae=pair().double(), data=rows(64).double(), **options) for at_once in (1, 64)]
    assert found[0][0] == found[1][0]
    assert same_weights(found[0][1], found[1][1])


def test_few_are_read(monkeypatch):
    """Once for three batches, and where an epoch ends; a callback that looks at the loss has it at once."""
    calls, read = [], Losses.read

    def counted(self):
        if len(self):
            calls.append(len(self))
        return read(self)

    monkeypatch.setattr(Losses, "read", counted)
    fit(3, monkeypatch, epochs=2)
    assert calls == [3, 1, 3, 1]
    calls.clear()
    seen = []
    fit(3, monkeypatch, epochs=1, callbacks=[Watcher("on_batch", lambda p: seen.append(p.loss))])
    assert calls == [1, 1, 1, 1]
    one = []
    fit(1, monkeypatch, epochs=1, callbacks=[Watcher("on_batch", lambda p: one.append(p.loss))])
    assert seen == one


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_bad_loss_is_found_within_the_epoch(monkeypatch, batch):
    """With the same message, and the best weights; the place is looked for with parameters that it did not move."""
    messages, weights, moved = [], [], []
    for at_once in (1, 3, 64):
        vae, good = pair(), {}

        def watch(progress, vae=vae, good=good):
            if (progress.epoch, progress.batch) == ((1, batch - 1) if batch > 1 else (0, 4)):
                vae.model.broken = True
                good.update(weights_of(vae))

        def look(*args, vae=vae, good=good, find=programs.find_non_finite, **kwargs):
            moved.append(not same_weights(good, weights_of(vae)))
            return find(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(programs, "find_non_finite", look)
            with pytest.raises(NonFiniteLossError) as error:
                fit(at_once, patched, vae=vae, callbacks=[Watcher("on_batch", watch)])
        messages.append(str(error.value))
        weights.append(weights_of(vae))
    expected = rf"the loss is nan in epoch 2, batch {batch}, from site 'x' of the model, .*best weights before it"
    assert re.match(expected, messages[0])
    assert len(set(messages)) == 1
    assert moved == [False] * 3
    assert all(same_weights(weights[0], other) for other in weights)


def test_resumed_in_the_middle_of_an_epoch(monkeypatch, tmp_path):
    """What is saved has all losses up to then, and goes on bit for bit."""
    expected, weights = fit(64, monkeypatch)

    def interrupt(progress):
        if (progress.epoch, progress.batch) == (1, 2):
            raise KeyboardInterrupt

    options = {"callbacks": [Watcher("on_batch", interrupt)], "checkpoint_seconds": 0.0}
    with pytest.raises((KeyboardInterrupt, TrainingInterrupted)):
        fit(64, monkeypatch, run=RunFolder(tmp_path / "run"), **options)
    found, ours = fit(64, monkeypatch, run=RunFolder(tmp_path / "run"), resume=True)
    assert found == expected
    assert same_weights(ours, weights)


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        Reads.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "elbo", "num_particles": 1},
        {"objective": "mean-field", "num_particles": 1},
        {"compile": True},
        {"compile": True, "objective": "elbo", "num_particles": 1, "gradient_clip": 1.0},
    ],
)
def test_no_step_reads_a_number(monkeypatch, options):
    """So that on a GPU no step waits for the one before."""
    monkeypatch.setattr(compiling, "CompiledLoss", partial(CompiledLoss, backend="eager"))
    monkeypatch.setattr(compiling, "EARLY", 0)
    counts = {}
    for at_once in (1, 64):
        seen = counts[at_once] = []

        def watch(progress, seen=seen):
            seen.append(Reads.count)

        with monkeypatch.context() as patched, Reads():
            fit(at_once, patched, epochs=2, batch_size=8, callbacks=[Watcher("on_batch", watch)], **options)
    per_step = {at_once: [b - a for a, b in pairwise(seen[8:])] for at_once, seen in counts.items()}
    assert per_step[64] == [0] * 7
    assert all(per_step[1]), "what counts them is there"
