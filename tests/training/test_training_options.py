"""Options of the Trainer: optimizers, learning rates, KL weights, validation and what is refused."""

import math

import pyro
import pytest
import torch
from pairs import function_pair, library_pair, pictures, same_weights, weights_of
from pyro.infer import Trace_ELBO
from training_runs import rows, seeded, trained

from pyrovae.infer.objectives import make_objective
from pyrovae.training import OPTIMIZERS, Trainer
from pyrovae.training.schedules import WarmUp


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
        ({"kl_weight": "slow"}, "unknown schedule 'slow'"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"batch_size": -1}, "batch_size must be positive, got -1"),
        ({"lr": 0.0}, "lr must be positive, a number or GROUP=RATE for the groups model, guide, objective, got 0.0"),
        ({"num_particles": 0}, "num_particles must be positive, got 0"),
        ({"patience": 0}, "patience must be positive, got 0"),
        ({"gradient_clip": -1.0}, "gradient_clip must be positive, got -1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(**options)


def test_monitor_is_a_column_of_the_metrics():
    with pytest.raises(ValueError, match=r"which are loss, lr, kl_weight, seconds for .*, got 'x'"):
        trained(monitor="x")
    with pytest.raises(
        ValueError, match=r"which are loss, validation_loss, lr, kl_weight, seconds for .*, got 'error'"
    ):
        trained((rows(), rows(8)), monitor="error")
    _, history = trained((rows(), rows(8)), monitor="loss")
    losses = [row["loss"] for row in history.rows]
    assert history.best_epoch == 1 + losses.index(min(losses))


def test_bad_calls():
    with pytest.raises(ValueError, match="early stopping watches validation_loss, and there are no validation data"):
        trained(patience=3)
    with pytest.raises(TypeError, match=r"data must be a Dataset, a tensor, .*, a dict of tensors .*, got list"):
        trained([1, 2])
    with pytest.raises(ValueError, match="the pair has no parameters to train"):
        Trainer(progress=False).fit(function_pair(), pictures(4))


def test_objective_options():
    assert make_objective("renyi", num_particles=5, alpha=0.5).alpha == 0.5
    with pytest.raises(ValueError, match=r"objective 'elbo': .*alpha"):
        make_objective("elbo", alpha=0.5)
