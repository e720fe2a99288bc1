"""Steps captured as one graph: the same training bit for bit, or none at all. A tape stands in for a GPU's graph.

Like a graph, the tape repeats operations of the same tensors with the same numbers and runs no Python of the step.
"""

import os
import signal
from contextlib import nullcontext
from functools import partial
from typing import ClassVar
from unittest.mock import patch

import pytest
import torch
from pairs import LinearGuide, LinearModel, same_weights, weights_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from training_runs import Watcher, rows, seeded

from pyrovae import VAE
from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.infer import CompiledLoss
from pyrovae.pairs import find_pair
from pyrovae.training import NonFiniteLossError, Trainer, TrainingInterrupted, captured, compiling, losses
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.graphs import GRAPHS


def tensors(out):
    return [out] if isinstance(out, torch.Tensor) else list(out or [])


def reads(tensor):
    raise RuntimeError("numbers are read while a graph is recorded")


class Tape(TorchDispatchMode):
    """Operations as they were, to be done again."""

    made: ClassVar[list["Tape"]] = []

    def __init__(self, device):
        super().__init__()
        self.device, self.replays = device, 0
        self.operations, self.made_here, self.before = [], [], {}
        Tape.made.append(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a number is read while a graph is recorded")
        flat = [*args, *(kwargs[a.name] for a in func._schema.arguments[len(args) :] if a.name in kwargs)]
        for argument, value in zip(func._schema.arguments, flat, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in value if isinstance(value, list) else [value]:
                    self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        out = func(*args, **kwargs)
        self.made_here += tensors(out)
        aliases = any(one.alias_info is not None for one in func._schema.returns)
        self.operations.append((func, args, kwargs, None if aliases else out))
        return out

    def aside(self):
        return nullcontext()

    @torch.no_grad()
    def record(self, body):
        draws = self.draws()
        with self, patch.object(torch.Tensor, "tolist", reads):
            loss = body()
        for tensor, value in self.before.values():  # since a graph does nothing while it is recorded
            tensor.copy_(value)
        self.set_draws(draws)
        return loss

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, out in self.operations:
            new = func(*args, **kwargs)
            if out is not None:
                for old, value in zip(tensors(out), tensors(new), strict=True):
                    old.copy_(value)

    def draws(self):
        return [torch.get_rng_state()]

    def set_draws(self, draws):
        torch.set_rng_state(draws[0])


def never_compared(monkeypatch):
    """Let no step be compared with the programs, which is done without the graph."""
    begin = compiling.CompiledSteps.begin
    monkeypatch.setattr(
        compiling.CompiledSteps, "begin", lambda self, *, first, last: begin(self, first=first, last=False)
    )
    for name, value in (("EARLY", 0), ("APART", 10**9), ("AT_MOST_APART", 10**9)):
        monkeypatch.setattr(compiling, name, value)


@pytest.fixture(autouse=True)
def tapes(monkeypatch):
    """Let the processor be a device whose losses wait and whose steps are captured, after few replays anew."""
    monkeypatch.setitem(losses.AT_ONCE, "cpu", 64)
    monkeypatch.setitem(GRAPHS, "cpu", Tape)
    monkeypatch.setattr(captured, "WORTH", 1)
    never_compared(monkeypatch)
    monkeypatch.setattr(compiling, "CompiledLoss", partial(CompiledLoss, backend="eager"))
    monkeypatch.setattr(Tape, "made", [])
    return Tape.made


def pair():
    return seeded(lambda: VAE(LinearModel(5, 2), LinearGuide(5, 2)))


def fit(run=None, resume=False, vae=None, num=72, **options):
    """Five batches an epoch, of which the last one is smaller."""
    settings = {"epochs": 3, "batch_size": 16, "progress": False, "objective": "iwae", "num_particles": 3, **options}
    vae = pair() if vae is None else vae
    history = Trainer(compile=True, **settings).fit(vae, rows(num), run=run, resume=resume)
    return [row["loss"] for row in history.rows], weights_of(vae)


def uncaptured(monkeypatch, **options):
    with monkeypatch.context() as patched:
        patched.delitem(GRAPHS, "cpu")
        return fit(**options)


def same(first, second):
    return first[0] == second[0] and same_weights(first[1], second[1])


def replays(tapes):
    """Without those of the trials."""
    return [tape.replays - 2 for tape in tapes]


OPTIONS = [
    {},
    {"optimizer": "adamw", "optimizer_options": {"weight_decay": 0.1}},
    {"kl_weight": "warm-up:2"},
    {"kl_weight": 0.5, "gradient_clip": 0.1},
    {"objective": "elbo", "num_particles": 1},
    {"lr": {"model": 0.01, "guide": 0.001}},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_bit_for_bit(monkeypatch, tapes, options):
    """Two steps until the optimizer has its state, then replays; the smaller last batch is done as ever."""
    expected = uncaptured(monkeypatch, **options)
    assert not tapes
    assert same(fit(**options), expected)
    assert replays(tapes) == [3 * 4 - 2]
    assert len(tapes[0].operations) > 50


@pytest.mark.parametrize("watched", [False, True])
def test_replays_without_a_look_between_them(monkeypatch, tapes, watched):
    """Nothing changes between two steps of an epoch, unless there is a callback that may do so."""
    looks, looked = [], captured.CapturedSteps.__call__
    monkeypatch.setattr(captured.CapturedSteps, "__call__", lambda *args: looks.append(1) or looked(*args))
    options = {"callbacks": [Watcher("on_batch", lambda progress: None)] if watched else []}
    expected = uncaptured(monkeypatch, **options)
    assert same(fit(**options), expected)
    assert replays(tapes) == [3 * 4 - 2]
    assert len(looks) == (12 if watched else 4 + 2)  # of the first epoch all, since it began without a graph


@pytest.mark.parametrize("known", ["all", "none", "some"])
@pytest.mark.parametrize("name", ["gaussian", "semi-supervised"])
def test_labels(monkeypatch, tapes, caplog, name, known):
    """They are looked at before a capture; a GPU would be waited for in each step otherwise."""
    caplog.set_level("INFO", logger="pyrovae")
    x = torch.bernoulli(torch.full((64, 20), 0.4), generator=torch.Generator().manual_seed(0))
    y = {"all": torch.arange(64) % 3, "none": torch.full((64,), -1), "some": torch.arange(64) % 4 - 1}[known]
    if (name, known) == ("semi-supervised", "none"):
        y[0] = 2  # it refuses to train without any

    def train():
        torch.manual_seed(0)
        spec = DataSpec("bits", (20,), "binary", num_rows=64, num_classes=3)
        vae = find_pair(name).builder(spec, hidden=(6,), latent_dim=2)
        options = {"epochs": 3, "batch_size": 16, "progress": False, "compile": True}
        history = Trainer("enum" if name == "semi-supervised" else "elbo", **options).fit(vae, Rows(x, y))
        return [row["loss"] for row in history.rows], weights_of(vae)

    with monkeypatch.context() as patched:
        patched.delitem(GRAPHS, "cpu")
        expected = train()
    assert same(train(), expected)
    assert "not captured" not in caplog.text or (name, known) == ("semi-supervised", "none")
    assert tapes


def test_steps_that_are_compared_are_the_same(monkeypatch, tapes):
    """They run without the graph: the first, second, fourth and eighth of twelve."""
    expected = uncaptured(monkeypatch)
    monkeypatch.setattr(compiling, "EARLY", 8)
    assert same(fit(), expected)
    assert replays(tapes) == [12 - 5]


def test_baselines_that_a_step_moves(monkeypatch, tapes):
    """VIMCO's sibling keeps running means in buffers, which the graph writes."""
    x = torch.bernoulli(torch.full((64, 20), 0.4), generator=torch.Generator().manual_seed(0))

    def train():
        torch.manual_seed(0)
        vae = find_pair("sbn").builder(DataSpec("bits", (20,), "binary", num_rows=64), sizes=(6,)).prepare(x)
        options = {"epochs": 3, "batch_size": 16, "progress": False, "compile": True}
        history = Trainer("nvil", **options).fit(vae, x)
        return [row["loss"] for row in history.rows], weights_of(vae)

    with monkeypatch.context() as patched:
        patched.delitem(GRAPHS, "cpu")
        expected = train()
    assert same(train(), expected)
    assert replays(tapes) == [10]


def test_a_schedule_leads_to_other_graphs(monkeypatch, tapes):
    """A rate is a number of the graph; after it has changed, one step tells that all else is as it was."""
    expected = uncaptured(monkeypatch, lr_schedule="cosine")
    assert same(fit(lr_schedule="cosine"), expected)
    assert replays(tapes) == [2, 3, 3]


def test_what_changes_too_often_is_left_alone(monkeypatch, tapes, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(captured, "WORTH", 3)
    expected = uncaptured(monkeypatch, lr_schedule="cosine")
    assert same(fit(lr_schedule="cosine"), expected)
    assert replays(tapes) == [2]
    assert caplog.text.count("not captured as one graph: what they do changed after 2 of them") == 1


def test_memory_that_moves(monkeypatch, tapes):
    """A callback that gives a parameter other memory; the old one is never read again."""

    def run():
        vae = pair()

        def move(progress):
            if (progress.epoch, progress.batch) == (1, 2):
                vae.guide.mean.weight.data = vae.guide.mean.weight.data.clone() * 0.5

        return fit(vae=vae, callbacks=[Watcher("on_batch", move)])

    with monkeypatch.context() as patched:
        patched.delitem(GRAPHS, "cpu")
        expected = run()
    assert same(run(), expected)
    assert len(tapes) == 2


class Fails(Tape):
    """It cannot record."""

    def record(self, body):
        super().record(body)
        raise RuntimeError("operation not permitted when stream is capturing")


class Stale(Tape):
    """Its draws are those of the recording, as where a program draws elsewhere."""

    def replay(self):
        draws = self.draws()
        super().replay()
        self.set_draws(draws)


class Rounds(Tape):
    """Its parameters are not those of the step in the last bit."""

    @torch.no_grad()
    def replay(self):
        super().replay()
        for func, args, _, _ in self.operations:
            if func is torch.ops.aten._fused_adam_.default:
                value = args[0][0]
                value.copy_(torch.nextafter(value, value + 1))


class Frozen(Tape):
    """It has taken in the values of the batch, or of the weight, that it was recorded with."""

    shape: tuple[int, ...] = (16, 5)

    def record(self, body):
        loss = super().record(body)

        def frozen(value):
            given = isinstance(value, torch.Tensor) and not any(value is out for out in self.made_here)
            return value.clone() if given and value.shape == self.shape else value

        for place, (func, args, kwargs, out) in enumerate(self.operations):
            if func is not torch.ops.aten._fused_adam_.default:
                self.operations[place] = func, tree_map(frozen, args), kwargs, out
        return loss


class FrozenWeight(Frozen):
    shape = ()


FAULTS = {
    Fails: ({}, "operation not permitted when stream is capturing"),
    Stale: ({}, "in a trial it gave other losses"),
    Rounds: ({}, "in a trial it gave other"),
    Frozen: ({}, "in a trial it gave other losses"),
    FrozenWeight: ({"kl_weight": "warm-up:2"}, "in a trial it gave other losses"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_graph_that_is_wrong_is_not_used(monkeypatch, tapes, caplog, kind):
    """One line, everything as it was before the trial, and the training goes on."""
    caplog.set_level("INFO")
    options, why = FAULTS[kind]
    monkeypatch.setitem(GRAPHS, "cpu", kind)
    expected = uncaptured(monkeypatch, **options)
    assert same(fit(**options), expected)
    assert len(tapes) == 1
    assert caplog.text.count("not captured") == 1
    assert f"the steps are not captured as one graph: {why}" in caplog.text


@pytest.mark.parametrize(
    "options", [{"optimizer": "sgd"}, {"optimizer": "adamax"}, {"optimizer_options": {"amsgrad": True}}]
)
def test_other_optimizers_are_not_captured(monkeypatch, tapes, caplog, options):
    caplog.set_level("INFO")
    assert same(fit(**options), uncaptured(monkeypatch, **options))
    assert not tapes
    assert caplog.text.count("not captured as one graph: that takes one process, Adam or AdamW") == 1


def test_only_where_the_device_can_and_steps_are_compiled(monkeypatch, tapes, caplog):
    caplog.set_level("INFO")
    Trainer(epochs=1, batch_size=16, progress=False).fit(pair(), rows(64))
    monkeypatch.delitem(GRAPHS, "cpu")
    assert list(GRAPHS) == ["cuda"]
    fit()
    assert not tapes
    assert "captured" not in caplog.text


def interrupt_at(count):
    """Ctrl-C after so many batches."""
    left = [count]

    def act(progress):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGINT)

    return Watcher("on_batch", act)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("options", [{}, {"kl_weight": "warm-up:2", "lr_schedule": "cosine"}])
def test_stopped_and_resumed_bit_for_bit(monkeypatch, tapes, tmp_path, count, options):
    """Before the trial, after it, and where an epoch ends; the resumed training has a trial of its own."""
    straight = fit(**options)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingInterrupted):
        fit(run, callbacks=[interrupt_at(count)], checkpoint_seconds=0.0, **options)
    before = len(tapes)
    assert same(fit(run, resume=True, **options), straight)
    assert len(tapes) > before
    assert same(uncaptured(monkeypatch, **options), straight)


def test_what_is_resumed_stays_what_it_was(monkeypatch, tapes, tmp_path):
    """A training whose steps could not be captured is not captured later, and the other way round only if it can."""
    straight = fit()
    monkeypatch.setitem(GRAPHS, "cpu", Fails)
    fit(RunFolder(tmp_path / "a"), epochs=1)
    tapes.clear()
    monkeypatch.setitem(GRAPHS, "cpu", Tape)
    assert same(fit(RunFolder(tmp_path / "a"), resume=True), straight)
    assert not tapes
    fit(RunFolder(tmp_path / "b"), epochs=1)
    monkeypatch.setitem(GRAPHS, "cpu", Fails)
    assert same(fit(RunFolder(tmp_path / "b"), resume=True), straight)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_bad_loss_is_found_within_the_epoch(monkeypatch, tapes, batch):
    """The graph's own check leaves out the steps after it; the message names the batch, the site and the parameter."""
    messages, left = [], []

    def run():
        vae = pair()

        def spoil(progress):
            if (progress.epoch, progress.batch) == (1, batch - 1):
                with torch.no_grad():
                    vae.guide.mean.bias.fill_(torch.nan)

        with pytest.raises(NonFiniteLossError) as error:
            fit(vae=vae, callbacks=[Watcher("on_batch", spoil)])
        messages.append(str(error.value))
        left.append(weights_of(vae))

    run()
    assert replays(tapes) == [2 + 4]
    with monkeypatch.context() as patched:
        patched.delitem(GRAPHS, "cpu")
        run()
    assert messages[0] == messages[1]
    assert f"the loss is nan in epoch 2, batch {batch}, from parameter 'mean.bias' of the guide" in messages[0]
    assert same_weights(*left)


def test_a_second_ctrl_c_in_a_trial_leaves_everything_as_it_was(monkeypatch, tapes):
    class Stopped(Tape):
        def replay(self):
            super().replay()
            raise KeyboardInterrupt

    monkeypatch.setitem(GRAPHS, "cpu", Stopped)
    vae, seen = pair(), []
    watch = Watcher("on_batch", lambda _: seen.append((weights_of(vae), torch.get_rng_state())))
    with pytest.raises(KeyboardInterrupt):
        fit(
            vae=vae,
            callbacks=[watch, Watcher("on_end", lambda _: seen.append((weights_of(vae), torch.get_rng_state())))],
        )
    assert same_weights(seen[-1][0], seen[-2][0])
    assert torch.equal(seen[-1][1], seen[-2][1])
