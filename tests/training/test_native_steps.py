"""Groups of steps in the machine's own code: the same trainings, bit for bit."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from torch import nn

from pyrovae import VAE
from pyrovae.data import load
from pyrovae.infer import entries
from pyrovae.pairs import find_pair
from pyrovae.training import Callback, NonFiniteLossError, Trainer, TrainingInterrupted, direct_steps
from pyrovae.training.callbacks import ProgressBar
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.native_steps import NATIVE, NativeSteps

X = torch.randn(72, 5, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


@pytest.fixture
def groups(monkeypatch):
    """The sizes of groups, and their KL weights; `groups.off()` does none from then on."""

    class Groups(list):
        def __init__(self):
            self.weights = []

        def off(self):
            monkeypatch.setattr(NativeSteps, "is_there", lambda self: False)
            self.clear()

    found, run = Groups(), NativeSteps.run

    def watched(self, entry, fixed, batches, steps, move):
        found.append(steps)
        found.weights.append(fixed[-1].tolist())
        return run(self, entry, fixed, batches, steps, move)

    NATIVE.wait()
    assert NATIVE.is_there(), "the tests need a C++ compiler"
    monkeypatch.setattr(NativeSteps, "run", watched)
    monkeypatch.setattr(direct_steps, "_BEFORE_GROUPS", 0)
    return found


class Covariates(nn.Module):
    """A pair with a mask, a shift that is passed whole, and a parameter that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 4)
        self.unused = nn.Parameter(torch.ones(3))

    def model(self, x, mask=None, shift=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = self.decoder(z) if shift is None else self.decoder(z) + shift
            likelihood = dist.Normal(loc, 1.0) if mask is None else dist.Normal(loc, 1.0).mask(mask)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(self, x, mask=None, shift=None):
        loc, scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def pair_with_covariates():
    made = Covariates()
    return VAE(made.model, made.guide, example=X[:2])


def double_pair():
    made = Covariates().double()
    return VAE(made.model, made.guide, example=X[:2].double())


def train(make=linear_pair, data=X, run=None, resume=False, **options):
    pyro.clear_param_store()
    torch.manual_seed(0)
    vae = make()
    settings = {"batch_size": 4, "epochs": 8, "progress": False, "compile": True, **options}
    history = Trainer(**settings).fit(vae, data, run=run, resume=resume)
    return weights_of(vae), [row["loss"] for row in history.rows], torch.get_rng_state()


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 70},  # over comparisons with the programs, and the clearing of small moments
        {"batch_size": 5, "optimizer": "adamw", "optimizer_options": {"weight_decay": 0.1}},  # and a smaller last batch
        {"epochs": 12, "kl_weight": "warm-up:5", "lr_schedule": "cosine", "optimizer_options": {"maximize": True}},
        {"make": pair_with_covariates, "data": {"x": X, "mask": X > 0, "shift": torch.arange(5.0)}},
        {"make": double_pair, "data": X.double()},
        {"lr": {"model": 0.01, "guide": 0.02}},  # two calls of Adam
    ],
    ids=["long", "adamw", "schedules", "covariates", "double", "rates"],
)
def test_the_same_training_bit_for_bit(groups, options):
    weights, losses, generator = train(**options)
    done = sum(groups)
    groups.off()
    other, other_losses, other_generator = train(**options)
    assert done > 60
    assert not groups
    assert same_weights(weights, other)
    assert losses == other_losses
    assert torch.equal(generator, other_generator)


@pytest.mark.parametrize("weight", ["warm-up:5", "cyclic:2"])
def test_kl_weights_may_change_within_a_group(groups, weight):
    options = {"epochs": 12, "kl_weight": weight}
    weights, losses, _ = train(**options)
    assert any(len({*one}) > 2 for one in groups.weights)
    groups.off()
    other, other_losses, _ = train(**options)
    assert same_weights(weights, other)
    assert losses == other_losses


@pytest.mark.parametrize("labels", ["some", "all"])
def test_batches_alike_in_their_labels_are_grouped(groups, labels):
    """Those with all labels, some or none of them are other code."""
    digits = load("digits", labels=900 if labels == "some" else None)
    x, y = digits.train.x[:600], digits.train.y[:600]

    def make():
        return find_pair("semi-supervised").build(digits, latent_dim=2, hidden=(6,))

    options = {"make": make, "objective": "enum", "data": {"x": x, "y": y}, "batch_size": 3, "epochs": 3}
    weights, losses, _ = train(**options)
    assert sum(groups) > 60
    assert max(groups) > 2
    groups.off()
    other, other_losses, _ = train(**options)
    assert same_weights(weights, other)
    assert losses == other_losses


def test_what_cannot_be_grouped_is_done_step_by_step(groups):
    """Running statistics, which torch counts as changed outside of the compiled function."""

    def pair_with_buffers():
        made = Covariates()
        made.encoder = nn.Sequential(nn.BatchNorm1d(5), made.encoder)
        return VAE(made.model, made.guide, example=X[:2])

    train(make=pair_with_buffers)
    assert not groups


def test_without_a_library_the_training_goes_on(monkeypatch, caplog):
    def refuses(source):
        raise OSError("no compiler")

    monkeypatch.setattr("pyrovae.training.native_steps._compiled", refuses)
    caplog.set_level("DEBUG", logger="pyrovae")
    native = NativeSteps()
    native.wait()
    assert not native.is_there()
    assert "steps are not grouped: no compiler" in caplog.text


class Poison(Callback):
    """Makes a row of the data infinite, once an epoch has begun."""

    def __init__(self, x):
        self.x = x

    def on_epoch(self, progress):
        if progress.epoch == 3:
            self.x[40] = float("inf")


def test_a_loss_that_is_not_finite_stops_at_its_batch(groups, tmp_path):
    found = {}
    for native in (True, False):
        if not native:
            assert max(groups) > 2
            groups.off()
        x = X.clone()
        with pytest.raises(NonFiniteLossError) as error:
            train(data=x, callbacks=[Poison(x)], run=RunFolder(tmp_path / str(native)), checkpoint_seconds=100.0)
        saved = torch.get_rng_state()
        found[native] = str(error.value).replace(str(native), ""), saved
    assert found[True][0] == found[False][0]
    assert torch.equal(found[True][1], found[False][1])
    assert "in epoch 4" in found[True][0] or "in epoch 5" in found[True][0]


class Classes(nn.Module):
    """A guide that looks a row up for each class."""

    def __init__(self):
        super().__init__()
        self.decoder, self.table = nn.Linear(2, 5), nn.Embedding(10, 2)

    def model(self, x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.table(c), 1.0).to_event(1))


class Ends(Callback):
    """Where a training stands when it ends."""

    def on_end(self, progress):
        self.seen = progress.epoch, progress.batch, progress.loss


def test_a_step_that_fails_stops_at_its_batch(groups):
    def make():
        made = Classes()
        return VAE(made.model, made.guide, example={"x": X[:2], "c": torch.zeros(2, dtype=torch.long)})

    classes, found = torch.arange(72) % 10, {}
    for native in (True, False):
        if not native:
            assert max(groups) > 2
            groups.off()
        bad, ends = {"x": X, "c": classes.clone()}, Ends()

        class Spoil(Callback):
            def on_epoch(self, progress, c=bad["c"]):
                c[33] = 10 + progress.epoch // 4 if progress.epoch >= 4 else c[33]

        with pytest.raises(RuntimeError, match="index out of bounds") as error:
            train(make=make, data=bad, callbacks=[Spoil(), ends])
        found[native] = str(error.value), ends.seen
    assert found[True] == found[False]


def test_slow_steps_are_not_grouped(groups, monkeypatch):
    """Ctrl-C would wait for all of them."""
    monkeypatch.setattr(direct_steps, "_SECONDS", 1e-6)
    train()
    assert not groups


class Interrupting(Callback):
    """Ctrl-C out of another thread, a while after the training has begun."""

    def on_start(self, progress):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_ctrl_c_in_a_group_and_resumed_bit_for_bit(groups, tmp_path):
    options = {"epochs": 400, "batch_size": 5}
    run = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingInterrupted, match="everything is saved"):
        train(run=run, callbacks=[Interrupting()], **options)
    resumed = train(run=run, resume=True, **options)
    assert groups
    groups.off()
    straight = train(**options)
    assert same_weights(resumed[0], straight[0])
    assert resumed[1] == straight[1]


def test_the_bar_counts_all_batches(groups, monkeypatch):
    counts, ends = [], ProgressBar.on_end

    def end(self, progress):
        counts.append((self._bar.n, self._bar.total))
        ends(self, progress)

    monkeypatch.setattr(ProgressBar, "on_end", end)
    train(batch_size=5, callbacks=[ProgressBar(file=io.StringIO())])
    assert max(groups) > 2
    assert counts == [(8 * 15, 8 * 15)]


class Memory(Callback):
    """The pages of this process, and how often parameters are held, after each epoch."""

    def __init__(self):
        self.pages, self.held = [], []

    def on_epoch(self, progress):
        self.pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
        self.held.append([parameter._use_count() for parameter in progress.vae.parameters()])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is what Linux tells")
def test_groups_leave_nothing_behind(groups):
    memory = Memory()
    x = torch.randn(72, 400)
    train(make=lambda: linear_pair(400, 50), data=x, epochs=60, callbacks=[memory])
    assert sum(groups) > 800  # of which each has gradients of 240 kB
    assert memory.held[10] == memory.held[-1]
    assert memory.pages[-1] - memory.pages[10] < 2500  # 10 MB


def test_code_that_gives_something_else_has_no_entry(monkeypatch, groups):
    """What torch does around it may be needed."""
    given = entries.tensors_of
    monkeypatch.setattr(entries, "tensors_of", lambda handles: [value + 1 for value in given(handles)])
    train(make=pair_with_covariates, batch_size=6)
    assert not groups


def test_a_process_that_ends_while_the_library_is_compiled_ends_well(tmp_path):
    code = "from pyrovae.training.native_steps import NATIVE; NATIVE.is_there(); print('done')"
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
