"""Compiled steps one after another without what lies between them: the same training, bit for bit, or not used."""

import os
import signal
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from torch import nn
from training_runs import Watcher

from pyrovae import VAE
from pyrovae.data import Rows, load
from pyrovae.infer import IWAE, NVIL
from pyrovae.infer.bound_loss import BoundLoss
from pyrovae.pairs import find_pair
from pyrovae.training import Callback, NonFiniteLossError, Trainer, TrainingInterrupted, batching
from pyrovae.training.batching import HeldBatches
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.data import training_data
from pyrovae.training.direct_steps import DirectSteps
from pyrovae.training.fused_steps import FusedSteps
from pyrovae.training.saving import Saving
from pyrovae.training.state import TrainingState

NEXT = HeldBatches.next
X = torch.randn(72, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def count(monkeypatch):
    """How many steps are done directly; `count.off()` does none from then on."""

    class Count:
        steps = 0

        def off(self):
            monkeypatch.setattr(DirectSteps, "can_run", lambda self, fit: False)
            self.steps = 0

    found, call = Count(), BoundLoss.__call__

    def counted(self, *args):
        found.steps += 1
        return call(self, *args)

    monkeypatch.setattr(BoundLoss, "__call__", counted)
    return found


class Net(nn.Module):
    """An encoder with a running statistic and draws of its own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU())
        self.loc, self.scale = nn.Linear(8, 2), nn.Linear(8, 2)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x):
        hidden = self.body(x)
        return self.loc(hidden), self.scale(hidden).exp()


def pair_with_buffers():
    encoder, decoder = Net(), nn.Linear(2, 5)

    def model(x, mask=None, shift=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = decoder(z) if shift is None else decoder(z) + shift
            likelihood = dist.Normal(loc, 1.0) if mask is None else dist.Normal(loc, 1.0).mask(mask)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(x, mask=None, shift=None):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*encoder(x)).to_event(1))

    return VAE(model, guide, example=X[:2])


def train(make=linear_pair, objective="elbo", data=X, run=None, resume=False, **options):
    pyro.clear_param_store()
    torch.manual_seed(0)
    vae = make()
    settings = {"batch_size": 4, "epochs": 4, "progress": False, "compile": "recorded", **options}
    history = Trainer(objective, **settings).fit(vae, data, run=run, resume=resume)
    return weights_of(vae), [row["loss"] for row in history.rows], torch.get_rng_state()


def both(count, **options):
    """A training with direct steps and one without give the same; how many were direct."""
    weights, losses, generator = train(**options)
    steps = count.steps
    count.off()
    other, other_losses, other_generator = train(**options)
    assert not count.steps
    assert same_weights(weights, other)
    assert losses == other_losses
    assert torch.equal(generator, other_generator)
    return steps


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 5},  # and a smaller last batch
        {"batch_size": 5, "drop_last": True},
        {"kl_weight": "warm-up:3", "lr_schedule": "cosine"},
        {"objective": IWAE(3)},
        {"objective": NVIL(), "optimizer": "adamw"},
        {"make": pair_with_buffers},
        {"make": pair_with_buffers, "batch_size": 5, "epochs": 6},  # rows that do not begin at a multiple of 16 bytes
        {"data": {"x": X, "mask": X > 0, "shift": torch.arange(5.0)}, "make": pair_with_buffers},
        {"validation_data": X[:10], "patience": 2},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_the_same_training_bit_for_bit(count, options):
    if "validation_data" in options:
        options = {**options, "data": (X, options["validation_data"])}
        del options["validation_data"]
    assert both(count, **options) > 20


def test_chunks_are_the_same_wherever_a_training_goes_on(monkeypatch):
    """And one of them is held at a time; a tensor for all rows does not count, whatever its shape."""
    monkeypatch.setattr(batching, "_GATHERED", 560)  # five batches of four rows
    vae = linear_pair()
    data = training_data(vae, {"x": X, "temperature": torch.tensor(2.0)})
    places = {}
    for start in (0, 2, 5, 7):
        batches, state = HeldBatches(vae, data.train, data, 4), TrainingState(batch=start)
        state.permutation = torch.arange(len(X))
        found = list(batches.epoch(state))
        places[start] = [part.x.storage_offset() for part, _ in found]
        assert torch.equal(torch.cat([part.x for part, _ in found]), X[4 * start :])
    assert places[0][:6] == [0, 20, 40, 60, 80, 0]
    for start in (2, 5, 7):
        assert places[start] == places[0][start:]
    state.permutation = None
    held = weakref.ref(batches._held.rows.x)
    del found
    monkeypatch.setattr(Rows, "gathered", lambda rows, positions: held() or pytest.fail("the last chunk is gone"))
    with pytest.raises(pytest.fail.Exception, match="the last chunk is gone"):
        next(batches.epoch(TrainingState()))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_compiled_code(count):
    assert both(count, compile=True) > 20


def test_labels_are_looked_at_in_each_batch(count):
    """Batches with all labels, some or none of them are other code."""
    digits = load("digits", labels=400)
    x, y = digits.train.x[:600], digits.train.y[:600]

    def make():
        return find_pair("semi-supervised").build(digits, latent_dim=2, hidden=(6,))

    options = {"make": make, "objective": "enum", "data": {"x": x, "y": y}, "batch_size": 2, "epochs": 1}
    assert both(count, **options) > 10


def test_changes_between_epochs_count(count):
    """A frozen part, other memory of a parameter, and a learning rate."""

    def change(progress):
        net = progress.vae.guide if isinstance(progress.vae.guide, nn.Module) else progress.vae
        first, second = list(net.parameters())[:2]
        if progress.epoch == 1:
            first.requires_grad_(False)
        elif progress.epoch == 2:
            second.data = second.data.clone() * 2
        elif progress.epoch == 3:
            first.requires_grad_(True)

    assert both(count, epochs=6, callbacks=[Watcher("on_epoch", change)]) > 20


class Silent(Callback):
    """Direct steps are not done with it."""

    def on_batch(self, progress):
        pass


class Interrupting(Callback):
    """Ctrl-C with a save."""

    def __init__(self, number):
        self.left = number

    def on_save(self, progress):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("number", [3, 9, 20])
def test_stopped_in_an_epoch_and_resumed_bit_for_bit(count, tmp_path, direct, number):
    """Also where rows begin anywhere in memory, by which products may round."""
    if not direct:
        count.off()
    options = {"make": pair_with_buffers, "batch_size": 5}
    straight = train(**options)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingInterrupted, match=r"after batch [0-9]+; everything is saved"):
        train(run=run, checkpoint_seconds=0.0, callbacks=[Interrupting(number)], **options)
    before = count.steps
    resumed = train(run=run, resume=True, **options)
    assert (count.steps > before) == direct
    assert same_weights(resumed[0], straight[0])
    assert resumed[1] == straight[1]


def test_saves_change_nothing(count, tmp_path):
    options = {"make": pair_with_buffers, "batch_size": 5}
    saved = train(run=RunFolder(tmp_path / "run"), checkpoint_seconds=0.0, **options)
    assert same_weights(saved[0], train(**options)[0])


def test_what_a_callback_changes_with_a_save_counts(count, tmp_path, monkeypatch):
    monkeypatch.setattr(Saving, "is_due", property(lambda own: (own._fit.state.epoch, own._fit.state.batch) == (1, 6)))

    def freeze(progress):
        if progress.batch == 6:
            next(progress.vae.parameters()).requires_grad_(False)

    trained = {}
    for direct in (True, False):
        run = RunFolder(tmp_path / str(direct))
        trained[direct] = train(run=run, callbacks=[Watcher("on_save", freeze)])[0]
        assert bool(count.steps) == direct
        count.off()
    assert same_weights(trained[True], trained[False])


def test_a_callback_that_is_told_of_batches_later(count):
    """It says so when the training starts, or after an epoch."""

    class Late(Callback):
        def on_start(self, progress):
            if self.event == "start":
                self.on_batch = self.freeze

        def on_epoch(self, progress):
            if self.event == "epoch":
                self.on_batch = self.freeze

        def freeze(self, progress):
            if progress.epoch == 2 and progress.batch == 9:
                next(progress.vae.parameters()).requires_grad_(False)

    for event in ("start", "epoch"):
        trained = []
        for asked in (True, False):
            callback = Late()
            callback.event = event
            trained.append(train(callbacks=[callback, *([] if asked else [Silent()])])[0])
        assert same_weights(*trained)


def test_a_loss_that_is_not_finite_is_placed(count):
    """By batch and site, in the words of other steps; and the best weights are put back."""

    def spoil(progress):
        if progress.epoch == 2:
            with torch.no_grad():
                next(progress.vae.parameters()).fill_(1e30)

    said = []
    for _ in range(2):
        with pytest.raises(NonFiniteLossError) as found:
            train(callbacks=[Watcher("on_epoch", spoil)], epochs=5)
        said.append(str(found.value))
        count.off()
    assert said[0] == said[1]
    assert "in epoch 3, batch 1" in said[0]


def test_given_up_where_most_steps_cannot_be_done_so(count, monkeypatch):
    """Here the optimizer has to look for its state each time."""
    monkeypatch.setattr(FusedSteps, "bound", lambda self, targets: None)
    asked = []
    monkeypatch.setattr(HeldBatches, "next", lambda self, state: asked.append(state.batch) or NEXT(self, state))
    assert both(count) == 0
    assert len(asked) < 12, "and gathered together from then on"


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip": 1.0},
        {"optimizer": "sgd"},
        {"callbacks": [Watcher("on_batch", lambda progress: None)]},
        {"callbacks": [Silent()]},
        {"kl_weight": lambda time: 1.0},
        {"compile": False},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_not_used_where_something_may_come_between(count, options):
    train(**options)
    assert not count.steps
