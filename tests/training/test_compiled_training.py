"""Compiled trainings: when they are chosen, what is said, and what a stop in between changes, which is nothing."""

import os
import signal
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from torch import nn
from torch.testing import assert_close

from pyrovae import VAE
from pyrovae.data import Dataset
from pyrovae.data.dataset import Rows
from pyrovae.infer import CompiledLoss, CompileError
from pyrovae.infer import compile as compile_module
from pyrovae.infer.bound_loss import BoundLoss
from pyrovae.training import Callback, Trainer, TrainingInterrupted, compiling
from pyrovae.training.checkpoint import RunFolder

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def recorded(monkeypatch):
    """What is recorded runs as it is, because compiling it takes long; how often it does is counted."""
    calls = []

    class Counted(CompiledLoss):
        def __call__(self, *args, **data):
            calls.append(len(args[0]))
            return super().__call__(*args, **data)

    class Bound(BoundLoss):
        def __call__(self, *args):
            calls.append(len(args[0]))
            return super().__call__(*args)

    monkeypatch.setattr(compiling, "CompiledLoss", partial(Counted, backend="eager"))
    monkeypatch.setattr(compile_module, "BoundLoss", Bound)
    return calls


def train(run=None, resume=False, epochs=3, callbacks=(), **options):
    torch.manual_seed(0)
    vae = linear_pair().prepare(X)
    settings = {"batch_size": 16, "progress": False, "lr_schedule": "cosine", "checkpoint_seconds": 0.0, **options}
    Trainer("elbo", epochs=epochs, callbacks=callbacks, **settings).fit(vae, (X, X[:10]), run=run, resume=resume)
    return weights_of(vae)


@pytest.mark.parametrize(("enough", "calls"), [(9, 6), (10, 0)])
def test_the_length_decides(recorded, monkeypatch, caplog, enough, calls):
    """Three epochs of three batches, of which two are full."""
    monkeypatch.setattr(compiling, "ENOUGH_STEPS", enough)
    caplog.set_level("INFO")
    train(compile="auto")
    assert recorded == [16] * (calls and calls + 1), "and a trial"
    assert ("9 steps are enough" if calls else "9 steps are few") in caplog.text
    assert "recording the step" not in caplog.text
    assert ("compiling the step for batches of 16 rows" in caplog.text) == bool(calls)


class StopAt(Callback):
    """Ctrl-C after so many batches."""

    def __init__(self, count):
        self.left = count

    def on_batch(self, progress):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("options", [{}, {"kl_weight": "warm-up:2"}, {"gradient_clip": 0.5, "optimizer": "sgd"}])
def test_stopped_and_resumed_bit_for_bit(recorded, tmp_path, options):
    """In the middle of an epoch; and with more epochs than were asked for at first."""
    straight = train(compile=True, **options)
    with pytest.raises(TrainingInterrupted):
        train(RunFolder(tmp_path / "a"), compile=True, callbacks=[StopAt(5)], **options)
    assert same_weights(train(RunFolder(tmp_path / "a"), resume=True, compile=True, **options), straight)
    constant = {**options, "lr_schedule": "constant"}
    train(RunFolder(tmp_path / "b"), epochs=1, compile=True, **constant)
    more = train(RunFolder(tmp_path / "b"), resume=True, compile=True, **constant)
    assert same_weights(more, train(compile=True, **constant))


@pytest.mark.parametrize("options", [{}, {"kl_weight": "warm-up:2"}, {"gradient_clip": 0.5}])
def test_the_last_batch_is_compiled_in_long_trainings(recorded, monkeypatch, tmp_path, options):
    """The same training up to rounding; bit for bit when it is stopped, also before that epoch and with few epochs."""
    monkeypatch.setattr(compiling, "LATER_EPOCHS", 2)
    options |= {"lr_schedule": "constant"}
    straight = train(epochs=4, compile=True, **options)
    assert recorded == [16] * 5 + [16, 16, 8, 8, 16, 16, 8], "and two trials"
    assert_close(straight, train(epochs=4, **options))
    train(RunFolder(tmp_path / "a"), epochs=1, compile=True, **options)
    assert same_weights(train(RunFolder(tmp_path / "a"), epochs=4, resume=True, compile=True, **options), straight)
    for count in (8, 11):  # in the first such epoch, and after its last batch was compiled
        run = RunFolder(tmp_path / str(count))
        with pytest.raises(TrainingInterrupted):
            train(run, epochs=4, compile=True, callbacks=[StopAt(count)], **options)
        assert same_weights(train(run, epochs=4, resume=True, compile=True, **options), straight)


def test_a_last_batch_that_cannot_be_compiled_runs_as_it_is(recorded, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "LATER_EPOCHS", 1)
    caplog.set_level("INFO")
    prepare = CompiledLoss.prepare

    def fail(self, x, *args, **data):
        if len(x) == 8:
            raise CompileError("too small")
        prepare(self, x, *args, **data)

    monkeypatch.setattr(CompiledLoss, "prepare", fail)
    train(compile=True)
    assert recorded == [16] * (1 + 6)
    assert caplog.text.count("the last batch of an epoch is not compiled: too small") == 1


def test_what_is_resumed_stays_what_it_was(recorded, monkeypatch, tmp_path, caplog):
    """Compiled code rounds otherwise, so the number of epochs that is now asked for does not decide."""
    caplog.set_level("INFO")
    train(RunFolder(tmp_path), epochs=1, compile="auto")
    monkeypatch.setattr(compiling, "ENOUGH_STEPS", 1)
    train(RunFolder(tmp_path), resume=True, compile="auto")
    assert not recorded
    assert "the steps are not compiled, as before" in caplog.text


class Branching(nn.Module):
    """A guide with a branch on values."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 2)

    def forward(self, x):
        loc = self.net(x)
        loc = loc if loc.sum() > 0 else 2 * loc
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def test_only_auto_goes_on_uncompiled(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(compiling, "ENOUGH_STEPS", 1)
    caplog.set_level("INFO")
    vae = VAE(linear_pair().model, Branching(), example=X)
    history = Trainer("elbo", epochs=1, batch_size=16, compile="auto", progress=False).fit(vae, X)
    assert len(history.rows) == 1
    assert "the steps are not compiled: the pair cannot be compiled, test_compiled_training.py line" in caplog.text
    train(RunFolder(tmp_path), epochs=1)
    weights = RunFolder(tmp_path).weights_path.read_bytes()
    trainer = Trainer("elbo", epochs=1, batch_size=16, compile=True, progress=False)
    with pytest.raises(CompileError, match="cannot be compiled"):
        trainer.fit(vae, X, run=RunFolder(tmp_path), overwrite=True)
    assert RunFolder(tmp_path).weights_path.read_bytes() == weights, "a training that cannot begin replaces nothing"


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="compile must be True, False, 'auto' or 'recorded', got 'yes'"):
        Trainer(compile="yes")
    with pytest.raises(ValueError, match="leave out compile='recorded' or refine_steps"):
        Trainer(compile="recorded", refine_steps=1)


def losses(**options):
    torch.manual_seed(0)
    vae = linear_pair().prepare(X)
    trainer = Trainer("elbo", epochs=3, batch_size=16, progress=False, **options)
    return [row["loss"] for row in trainer.fit(vae, X).rows]


def test_recorded_training_is_the_same_training(caplog):
    """With the same draws, and without a run of the programs for full batches."""
    caplog.set_level("INFO")
    assert losses(compile="recorded") == pytest.approx(losses(), rel=1e-5)
    assert "recording the step for batches of 16 rows" in caplog.text
    assert "compiling the step" not in caplog.text


def transformed(x, transform):
    return Dataset("wide", Rows(x), Rows(x[:0]), Rows(x), "real", transform=transform)


@pytest.mark.parametrize("compile", ["recorded", True])
@pytest.mark.parametrize("rows", ["columns", "gaps", "expanded", "cut by a transform"])
def test_rows_that_do_not_lie_in_one_piece(rows, compile):
    """A matrix by columns, every other column of a wider one, one row for all, or batches that are parts of others."""
    wide = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    x = {"columns": X.t().contiguous().t(), "gaps": wide[:, ::2], "expanded": X[:1].expand(40, 5)}.get(rows, wide)

    def fit(how):
        torch.manual_seed(0)
        vae = linear_pair()
        given = transformed(x, cut) if rows == "cut by a transform" else x
        return [r["loss"] for r in Trainer(epochs=2, batch_size=16, compile=how, progress=False).fit(vae, given).rows]

    def cut(some):
        return some.replace(x=some.x[:, ::2])

    assert fit(compile) == pytest.approx(fit(False), rel=1e-5)


def test_recorded_training_is_resumed_bit_for_bit(tmp_path):
    straight = train(compile="recorded")
    with pytest.raises(TrainingInterrupted):
        train(RunFolder(tmp_path), compile="recorded", callbacks=[StopAt(5)])
    assert same_weights(train(RunFolder(tmp_path), resume=True, compile="auto"), straight), "as it was before"


@pytest.mark.parametrize(("enough", "said"), [(9, "the steps are recorded, not compiled"), (10, "are not compiled")])
def test_trainings_of_middle_length_are_recorded(monkeypatch, caplog, enough, said):
    monkeypatch.setattr(compiling, "ENOUGH_TO_RECORD", enough)
    caplog.set_level("INFO")
    losses(compile="auto")
    assert said in caplog.text
    assert ("recording the step" in caplog.text) == (enough == 9)


def test_without_a_compiler_auto_records(monkeypatch, caplog):
    def none(graph, example, backend, **options):
        if backend == "inductor":
            raise CompileError("compilation needs a C++ compiler")
        return graph

    monkeypatch.setattr(compile_module, "compiled", none)
    monkeypatch.setattr(compiling, "ENOUGH_STEPS", 1)
    caplog.set_level("INFO")
    losses(compile="auto")
    assert "the steps are not compiled: compilation needs a C++ compiler" in caplog.text
    assert "recording the step" in caplog.text
    with pytest.raises(CompileError, match="needs a C"):
        losses(compile=True)


class Cooling(Callback):
    """Changes a number of the guide after each epoch, as an annealed temperature."""

    def __init__(self, guide, how):
        self.guide, self.how = guide, how

    def on_epoch(self, progress):
        self.how(self.guide)


class Scaled(nn.Module):
    """A guide with a temperature that Python holds, and one that is a buffer."""

    def __init__(self):
        super().__init__()
        self.net, self.number = nn.Linear(5, 2), 1.0
        self.register_buffer("tensor", torch.ones(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x) * self.number * self.tensor, 1.0).to_event(1))


def test_an_attribute_that_a_callback_changes_is_refused():
    """A recording holds numbers of Python as they were; what a buffer holds is read in every step."""

    def cooled(how, **options):
        torch.manual_seed(0)
        guide = Scaled()
        vae = VAE(linear_pair().model, guide, example=X)
        callbacks = [Cooling(guide, how)]
        settings = {"epochs": 3, "batch_size": 20, "callbacks": callbacks, "progress": False, **options}
        trainer = Trainer("elbo", **settings)
        return [row["loss"] for row in trainer.fit(vae, X).rows]

    def number(guide):
        guide.number *= 0.5

    def tensor(guide):
        guide.tensor *= 0.5

    with pytest.raises(CompileError, match="what the steps compute has changed since they were recorded: the loss is"):
        cooled(number, compile="recorded", epochs=30)
    assert cooled(tensor, compile="recorded") == pytest.approx(cooled(tensor), rel=1e-5)
    assert cooled(number) == pytest.approx(cooled(tensor), rel=1e-5)


@pytest.mark.parametrize("seen", [True, False])
def test_a_number_that_is_changed_late_is_refused(seen):
    """By what is seen of it, soon; and else in the first step of the last epoch."""
    hidden = [[[[[[1.0]]]]]]  # deeper than anybody looks

    class Deep(Scaled):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                scale = self.number * hidden[0][0][0][0][0][0]
                pyro.sample("z", dist.Normal(self.net(x) * scale, 1.0).to_event(1))

    torch.manual_seed(0)
    guide, epochs = Deep(), []

    def change(progress):
        epochs.append(progress.epoch)
        if progress.epoch == 60:
            guide.number, hidden[0][0][0][0][0][0] = (0.5, 1.0) if seen else (1.0, 0.5)

    vae = VAE(linear_pair().model, guide, example=X)
    trainer = Trainer("elbo", epochs=90, batch_size=2, compile="recorded", progress=False, callbacks=[Told(change)])
    with pytest.raises(CompileError, match="what the steps compute has changed since they were recorded"):
        trainer.fit(vae, X)
    assert (epochs[-1] < 66) if seen else (epochs[-1] <= 90)


class Told(Callback):
    """Calls a function after each epoch."""

    def __init__(self, how):
        self.on_epoch = how
