"""The Trainer: what it does with its options, what it records, how it stops and how it fails."""

import math
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import (
    LinearGuide,
    LinearModel,
    function_pair,
    library_pair,
    linear_pair,
    pictures,
    same_weights,
    tutorial_pair,
    weights_of,
)
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyrovae import VAE
from pyrovae.callbacks import Callback, TensorBoard
from pyrovae.checkpoint import RunFolder, load_tensors, load_weights
from pyrovae.infer.objectives import make_objective
from pyrovae.schedules import WarmUp
from pyrovae.training import OPTIMIZERS, NonFiniteLossError, Trainer, TrainingData, TrainingInterrupted


def rows(num=40):
    """Rows of five numbers for the linear pair."""
    return torch.randn(num, 5, generator=torch.Generator().manual_seed(7)) @ torch.diag(torch.tensor([3.0, 2, 1, 1, 1]))


def seeded(make=linear_pair, seed=0):
    torch.manual_seed(seed)
    return make()


def trained(data=None, make=linear_pair, **options):
    vae = seeded(make)
    options = {"epochs": 3, "batch_size": 16, "progress": False} | options
    history = Trainer(**options).fit(vae, rows() if data is None else data)
    return vae, history


class Watcher(Callback):
    """Calls a function at every event of one kind."""

    def __init__(self, event, action):
        setattr(self, event, action)


# -- what is minimised ------------------------------------------------------------------------------------------------


def test_a_step_is_that_of_the_mean_gradient():
    """Plain gradient descent by hand on one batch: the weights move by lr times the gradient of the mean loss."""
    x, vae, twin = rows(16), seeded(), seeded()
    kl = TraceMeanField_ELBO()
    trainer = Trainer(objective=kl, optimizer="sgd", lr=0.1, epochs=1, batch_size=16, progress=False, seed=5)
    trainer.fit(vae, x)
    torch.manual_seed(5)
    order = torch.randperm(16)
    loss = kl.differentiable_loss(twin.model, twin.guide, x[order]) / 16
    loss.backward()
    for moved, parameter in zip(vae.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(moved, parameter - 0.1 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_last_batch_takes_what_is_left():
    sizes = []

    class Model(LinearModel):
        def forward(self, x):
            sizes.append(len(x))
            super().forward(x)

    vae = VAE(Model(5, 2), LinearGuide(5, 2), example=rows(2))
    watcher = Watcher("on_start", lambda progress: sizes.clear())
    trainer = Trainer(epochs=1, batch_size=16, progress=False, callbacks=[watcher])
    trainer.fit(vae, rows(40))
    assert sizes == [16, 16, 8]


def test_every_row_once_an_epoch_in_a_new_order():
    seen = []
    data = TrainingData(SimpleNamespace(x=torch.arange(10.0)[:, None].expand(10, 5), y=None, mask=None))

    class Model(LinearModel):
        def forward(self, x):
            seen.extend(x[:, 0].int().tolist())
            super().forward(x)

    vae = VAE(Model(5, 2), LinearGuide(5, 2), example=rows(2))
    watcher = Watcher("on_start", lambda progress: seen.clear())
    Trainer(epochs=2, batch_size=4, progress=False, callbacks=[watcher]).fit(vae, data)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_data_smaller_than_a_batch():
    _, history = trained(rows(3), batch_size=128)
    assert len(history.rows) == 3


def test_no_rows_at_all():
    with pytest.raises(ValueError, match="there are no rows to train or validate on"):
        trained(rows()[:0])


def test_labels_are_for_programs_that_take_them():
    """A data set with labels trains a pair without any; a pair that takes them gets them, and row numbers too."""
    labels = torch.arange(40)
    data = SimpleNamespace(train=SimpleNamespace(x=rows(), y=labels, mask=None), validation=None, transform=None)
    trained(data)
    seen = []

    class Model(LinearModel):
        def forward(self, x, y, index):
            assert torch.equal(y, index)  # row i has label i
            assert torch.equal(x, rows()[index])
            seen.append(len(y))
            super().forward(x)

    class Guide(LinearGuide):
        def forward(self, x, y, index):
            super().forward(x)

    trained(data, make=lambda: VAE(Model(5, 2), Guide(5, 2)))
    assert len(seen) >= 9


def test_missing_values_need_a_pair_that_takes_a_mask():
    x = torch.where(torch.rand(20, 1, 8, 8) < 0.3, torch.nan, pictures(20))
    data = SimpleNamespace(
        train=SimpleNamespace(x=x, y=None, mask=x.isfinite()),
        validation=SimpleNamespace(x=x[:4], y=None, mask=x[:4].isfinite()),
        transform=None,
    )
    vae, history = trained(data, make=library_pair)
    assert all(p.isfinite().all() for p in vae.parameters())
    assert all(math.isfinite(row["validation_loss"]) for row in history.rows)
    with pytest.raises(TypeError, match=r"mask= was given, but TutorialVAE.model takes no argument 'mask'"):
        trained(data, make=tutorial_pair)


def test_transform_is_new_for_every_training_batch_and_none_for_validation():
    calls = []

    def noisy(x):
        calls.append(len(x))
        return x.bernoulli()

    grey = torch.full((20, 1, 8, 8), 0.5)
    data = TrainingData(SimpleNamespace(x=grey, y=None, mask=None), None, noisy)
    trained(data, make=library_pair, epochs=2, batch_size=10)
    assert calls[-4:] == [10, 10, 10, 10]
    # Validation data are taken as they are: grey ones are refused by the Bernoulli's check of its support.
    data = TrainingData(data.train, SimpleNamespace(x=grey, y=None, mask=None), noisy)
    watcher = Watcher("on_batch", lambda progress: pyro.enable_validation(True))
    with pytest.raises(ValueError, match="Expected value"):
        trained(data, make=library_pair, callbacks=[watcher])


def test_transform_may_change_type_and_shape():
    bytes_ = torch.randint(256, (20, 64), dtype=torch.uint8)
    data = TrainingData(
        SimpleNamespace(x=bytes_, y=None, mask=None), None, lambda x: (x / 255).round().reshape(-1, 1, 8, 8)
    )
    trained(data, make=library_pair)


def test_models_whose_plate_subsamples():
    """The plate of a model may draw its own subsample of the batch, or know the size of the whole set."""

    def model(x):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x), subsample_size=4) as chosen:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x[chosen])

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.1))
        with pyro.plate("data", len(x), subsample_size=4) as chosen:
            pyro.sample("z", dist.Normal(slope * x[chosen], 0.7))

    x = 2 * torch.randn(400)
    vae = VAE(model, guide, example=x[:8])
    history = Trainer(lr=0.03, epochs=20, batch_size=20, progress=False).fit(vae, x)
    # The plate scales each subsample up to its batch, so the loss is still one datum's, and about its entropy.
    assert history.rows[-1]["loss"] == pytest.approx(math.log(2 * math.sqrt(2 * math.pi * math.e)), abs=0.25)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no sample sites configured for enumeration")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("objective", ["elbo", "enum", "graph", "mean-field", "renyi"])
def test_every_optimizer_and_objective_by_name(optimizer, objective):
    options = {"num_particles": 2} if objective == "renyi" else {}
    lr = 0.002 if optimizer == "sgd" else 0.02
    _, history = trained(objective=objective, optimizer=optimizer, lr=lr, epochs=8, **options)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_optimizer_options_and_optimizer_by_function():
    momentum, _ = trained(optimizer="sgd", optimizer_options={"momentum": 0.9})
    plain, _ = trained(optimizer="sgd")
    by_function, _ = trained(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9))
    assert not same_weights(weights_of(momentum), weights_of(plain))
    for first, second in zip(momentum.parameters(), by_function.parameters(), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.filterwarnings("ignore:.* was not registered in the param store")
def test_frozen_parameters_stay():
    vae = seeded(library_pair)
    vae.model.requires_grad_(False)
    before = weights_of(vae)
    Trainer(epochs=1, progress=False).fit(vae, pictures(8))
    after = weights_of(vae)
    moved = {name.partition(".")[2].partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"guide"}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0] * 6),
        ("cosine", [(1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in range(6)]),
        ("step", [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_learning_rates(schedule, expected):
    _, history = trained(lr=1e-3, lr_schedule=schedule, epochs=6)
    assert [row["lr"] / 1e-3 for row in history.rows] == pytest.approx(expected)


def test_learning_rate_falls_on_a_plateau():
    """With a rate that moves nothing the loss does not fall: after ten epochs beyond the best the rate is cut."""
    _, history = trained(
        objective="mean-field", optimizer="sgd", lr=1e-30, lr_schedule="plateau", epochs=30, data=(rows(), rows(8))
    )
    rates = [row["lr"] for row in history.rows]
    assert rates[0] == rates[10] == 1e-30
    assert rates[-1] == pytest.approx(1e-30 / 3**2, rel=1e-6)


def test_gradient_clip_bounds_the_step():
    clipped, start = trained(optimizer="sgd", lr=1.0, gradient_clip=1e-3, epochs=1, batch_size=40)[0], seeded()
    moved = [a - b for a, b in zip(clipped.parameters(), start.parameters(), strict=True)]
    assert torch.cat([m.detach().flatten() for m in moved]).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_kl_weight_zero_learns_to_reconstruct_only():
    """Without the KL nothing holds the posterior, so it shrinks; with a heavy one it is the prior."""
    free, _ = trained(kl_weight=0.0, lr=0.05, epochs=40)
    held, _ = trained(kl_weight=50.0, lr=0.05, epochs=40)
    x = rows()
    with torch.no_grad():
        assert free(x).kl.mean() > 3 * held(x).kl.mean()
        assert held(x).kl.mean() < 0.1
        assert free(x).nll.mean() < held(x).nll.mean()


def test_kl_warm_up_is_recorded_and_ends_up_in_the_steps():
    betas = []

    class Beta(Trace_ELBO):
        def loss_and_grads(self, model, guide, *args, **kwargs):
            trace = pyro.poutine.trace(guide).get_trace(*args, **kwargs)
            betas.append(float(trace.nodes["z"]["scale"]))
            return super().loss_and_grads(model, guide, *args, **kwargs)

    _, history = trained(objective=Beta(), kl_weight="warm-up:2", epochs=3, batch_size=20)
    assert betas == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert [row["kl_weight"] for row in history.rows] == [0.0, 0.5, 1.0]


def test_validation_uses_weight_one_and_one_set_of_random_numbers():
    data = (rows(), rows(8))
    _, first = trained(data, lr=1e-30, kl_weight=0.1, epochs=2)
    _, second = trained(data, lr=1e-30, kl_weight=WarmUp(10), epochs=2, seed=9)
    values = {row["validation_loss"] for history in (first, second) for row in history.rows}
    assert len(values) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "iwae2"}, "unknown objective 'iwae2'; known are elbo, enum, graph, iwae, iwae-dreg, "),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; known are adam, adamax, adamw, sgd"),
        (
            {"lr_schedule": "linear"},
            "unknown learning-rate schedule 'linear'; known are constant, cosine, plateau, step",
        ),
        ({"monitor": "accuracy"}, "monitor must be one of validation_loss, loss, validation_error, got 'accuracy'"),
        ({"kl_weight": "slow"}, "unknown schedule 'slow'"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"batch_size": -1}, "batch_size must be positive, got -1"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"num_particles": 0}, "num_particles must be positive, got 0"),
        ({"patience": 0}, "patience must be positive, got 0"),
        ({"gradient_clip": -1.0}, "gradient_clip must be positive, got -1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(**options)


def test_bad_calls():
    with pytest.raises(ValueError, match="early stopping watches validation_loss, and there are no validation data"):
        trained(patience=3)
    with pytest.raises(TypeError, match=r"data must be a Dataset, a tensor, or a pair of tensors .*, got list"):
        trained([1, 2])
    with pytest.raises(ValueError, match="the pair has no parameters to train"):
        Trainer(progress=False).fit(function_pair(), pictures(4))


def test_objective_options():
    assert make_objective("renyi", num_particles=5, alpha=0.5).alpha == 0.5
    with pytest.raises(ValueError, match=r"objective 'elbo': .*alpha"):
        make_objective("elbo", alpha=0.5)


# -- particles --------------------------------------------------------------------------------------------------------


class UnrollModel(LinearModel):
    """Flattens particles away."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z.reshape(-1, 2) @ self.loadings.T + self.offset
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)


@pytest.mark.parametrize("objective", ["elbo", "renyi"])
def test_particles_that_do_not_vectorise_are_looped_over(objective):
    def unrolled():
        return VAE(UnrollModel(5, 2), LinearGuide(5, 2))

    _, history = trained(objective=objective, num_particles=3, make=unrolled, lr=0.02, epochs=5)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_particles_that_vectorise_make_one_call():
    calls = []

    class Model(LinearModel):
        def forward(self, x):
            calls.append(1)
            super().forward(x)

    vae = VAE(Model(5, 2), LinearGuide(5, 2))
    watcher = Watcher("on_start", lambda progress: calls.clear())
    trainer = Trainer(num_particles=7, epochs=1, batch_size=20, progress=False, callbacks=[watcher])
    trainer.fit(vae, rows())
    assert len(calls) == 2


def test_particles_of_programs_without_plates():
    def model(x):
        loc = pyro.param("loc", torch.zeros(5))
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 5), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + loc, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    x = rows(200) + 3
    found = {}
    for objective in ("elbo", "renyi"):
        vae = VAE(model, guide)
        Trainer(objective=objective, num_particles=4, lr=0.05, epochs=40, batch_size=50, progress=False).fit(vae, x)
        found[objective] = vae.param_sites["loc"].detach()
    # The offset is best for the ELBO where it is the mean of x - E[z], and for the evidence where it is that of x.
    torch.testing.assert_close(found["elbo"], x.mean(0) / 2, rtol=0, atol=0.2)
    assert (found["renyi"] > found["elbo"] + 0.1).all()


def test_nothing_is_printed_without_a_progress_bar(capfd):
    trained(num_particles=3)
    assert capfd.readouterr() == ("", "")


def test_one_trainer_for_pairs_of_different_depth():
    """An objective remembers how deep plates go, so each training gets its own."""

    def model(x):
        loc = pyro.param("loc", torch.zeros(5))
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("columns", 5, dim=-1):
                pyro.sample("x", dist.Normal(z + loc, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), 1.0))

    trainer = Trainer(num_particles=3, epochs=1, batch_size=20, progress=False)
    trainer.fit(linear_pair(), rows())
    trainer.fit(VAE(model, guide), rows())


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
    assert "validation=" in text


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


# -- trouble ----------------------------------------------------------------------------------------------------------


class Fragile(LinearModel):
    """A model that can be told to go wrong."""

    broken = False

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ self.loadings.T + self.offset + (torch.nan if self.broken else 0.0)
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)


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


def test_non_finite_loss_in_the_first_epoch_leaves_the_first_weights(tmp_path):
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
    assert same_weights(load_tensors(run.weights_path)[0], before)


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
    validation[3] = torch.inf
    with (
        pytest.warns(UserWarning, match="inf|NaN"),
        pytest.raises(NonFiniteLossError, match=r"the validation loss is .* in epoch 1"),
    ):
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
