"""Optimizers and schedules in the forms in which users of torch and Pyro have them, and resuming each."""

from collections import Counter

import pyro
import pytest
import torch
from pairs import linear_pair, same_weights, weights_of
from pyro.infer import SVI, TraceMeanField_ELBO
from torch.optim import lr_scheduler
from training_runs import rows, seeded, trained

from pyrovae.infer import NVIL
from pyrovae.rng import begin
from pyrovae.training import Trainer
from pyrovae.training.json_values import as_json, from_json


def by_name(name):
    return {"lr": 0.1, "betas": (0.8, 0.9)} if "loadings" in name else {"lr": 1e-3}


def by_module_and_name(module, name):
    return {"lr": 0.01 if name == "noise" else 0.02}


def pyro_schedule():
    options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.5}
    return pyro.optim.ExponentialLR(options)


PYRO = {
    "Adam": lambda: pyro.optim.Adam({"lr": 0.02, "betas": (0.9, 0.99)}),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.99, "clip_norm": 0.05}),
    "by name": lambda: pyro.optim.Adam(by_name),
    "by module and name": lambda: pyro.optim.ClippedAdam(by_module_and_name),
    "clip_args": lambda: pyro.optim.SGD({"lr": 0.1}, {"clip_norm": 0.05}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({"eta": 0.1}),
    "DCTAdam": lambda: pyro.optim.DCTAdam({"lr": 0.01}),
}


@pytest.mark.parametrize("optimizer", PYRO)
def test_pyro_optimizers_take_the_steps_of_svi(optimizer, store):
    """SVI on the mean loss of all rows, at the same draws."""
    vae, twin = seeded(), seeded()
    objective = TraceMeanField_ELBO()
    trainer = Trainer(objective, optimizer=PYRO[optimizer](), epochs=4, batch_size=40, seed=5, progress=False)
    trainer.fit(vae, rows())
    begin(5)
    with pyro.get_param_store().scope():
        scaled = [pyro.poutine.scale(program, scale=1 / 40) for program in (twin.model, twin.guide)]
        svi = SVI(*scaled, PYRO[optimizer](), objective)
        for _ in range(4):
            svi.step(rows())
    start = weights_of(seeded())
    # The weights are those of the best epoch, which is the last one here.
    for name, value in weights_of(vae).items():
        torch.testing.assert_close(value, weights_of(twin)[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, start[name])


def test_arguments_by_name_see_the_names_that_pyro_gives():
    seen = []

    def arguments(name):
        seen.append(name)
        return {"lr": 0.01}

    Trainer(optimizer=pyro.optim.Adam(arguments), epochs=1, progress=False).fit(linear_pair(), rows())
    theirs = []
    pair = linear_pair()
    with pyro.get_param_store().scope():
        optimizer = pyro.optim.Adam(lambda name: theirs.append(name) or {"lr": 0.01})
        SVI(pair.model, pair.guide, optimizer, TraceMeanField_ELBO()).step(rows())
    assert sorted(seen) == sorted(theirs)


OPTIMIZERS = {
    **{f"pyro.optim {name}": {"optimizer": make} for name, make in PYRO.items()},
    "RMSprop": {"optimizer": lambda: torch.optim.RMSprop, "lr": 0.01, "optimizer_options": {"momentum": 0.5}},
    "Adagrad": {"optimizer": lambda: torch.optim.Adagrad, "lr": {"model": 0.1}},
    "NAdam": {"optimizer": lambda: torch.optim.NAdam, "lr": 0.01},
    "Rprop": {"optimizer": lambda: torch.optim.Rprop, "lr": 0.01},
    "Adafactor": {"optimizer": lambda: torch.optim.Adafactor, "lr": 0.01},
    "function": {"optimizer": lambda: lambda groups: torch.optim.ASGD(groups, lr=0.01)},
    "pyro schedule": {"lr_schedule": pyro_schedule},
    "pyro schedule as the optimizer": {"optimizer": pyro_schedule},
    "pyro plateau": {
        "optimizer": lambda: pyro.optim.ReduceLROnPlateau(
            {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "patience": 0}
        )
    },
    "MultiStepLR": {
        "lr_schedule": lambda: lr_scheduler.MultiStepLR,
        "lr_schedule_options": {"milestones": [1, 3], "gamma": 0.5},
    },
    "OneCycleLR": {
        "lr_schedule": lambda: lr_scheduler.OneCycleLR,
        "lr_schedule_options": {"max_lr": 0.1, "total_steps": 5},
    },
    "CyclicLR": {
        "lr_schedule": lambda: lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=2, cycle_momentum=False)
    },
    "LambdaLR": {"lr_schedule": lambda: lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)},
    "SequentialLR": {
        "lr_schedule": lambda: (
            lambda optimizer: lr_scheduler.SequentialLR(
                optimizer, [lr_scheduler.ConstantLR(optimizer, 0.1, 2), lr_scheduler.ExponentialLR(optimizer, 0.5)], [2]
            )
        )
    },
    "ReduceLROnPlateau": {
        "lr_schedule": lambda: lr_scheduler.ReduceLROnPlateau,
        "lr_schedule_options": {"patience": 0},
    },
}


def trainer_of(case, **options):
    made = {name: value() if callable(value) else value for name, value in OPTIMIZERS[case].items()}
    return Trainer(batch_size=16, progress=False, **made, **options)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # SequentialLR's own call
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_resumed_to_the_last_bit(case, tmp_path):
    """A training of four epochs beside one of two epochs that goes on to four."""
    whole, part = seeded(), seeded()
    history = trainer_of(case, epochs=4).fit(whole, (rows(), rows(8)))
    trainer_of(case, epochs=2).fit(part, (rows(), rows(8)), run=tmp_path)
    again = seeded(seed=9)
    resumed = trainer_of(case, epochs=4).fit(again, (rows(), rows(8)), run=tmp_path, resume=True)

    def plain(history):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]

    assert plain(resumed) == plain(history)
    assert same_weights(weights_of(whole), weights_of(again))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr_schedule": lr_scheduler.ExponentialLR, "lr_schedule_options": {"gamma": 0.1}}, [1e-3, 1e-4, 1e-5]),
        ({"lr_schedule": lambda o: lr_scheduler.StepLR(o, 2)}, [1e-3, 1e-3, 1e-4]),
        ({"lr_schedule": pyro_schedule()}, [0.05, 0.025, 0.0125]),
        ({"optimizer": torch.optim.RMSprop, "lr": 0.3}, [0.3] * 3),
        ({"optimizer": torch.optim.RMSprop, "lr": 0.3, "lr_schedule": "step"}, [0.3, 0.03, 0.003]),
        ({"optimizer": pyro.optim.SGD({"lr": 0.2}), "lr_schedule": "step"}, [0.2, 0.02, 0.002]),
    ],
    ids=["class", "function", "pyro", "rate", "rate and name", "pyro and name"],
)
def test_rates(options, expected):
    _, history = trained(**options)
    assert [row["lr"] for row in history.rows] == pytest.approx(expected)


def test_rates_by_parameter_are_columns():
    _, history = trained(optimizer=pyro.optim.Adam(by_name), num_particles=2, objective="elbo")
    assert {name for name in history.rows[0] if name.startswith("lr")} == {"lr_model_1", "lr_model_2", "lr_guide"}
    assert Trainer(NVIL(2, baseline="input"), optimizer=PYRO["ClippedAdam"](), epochs=1, progress=False).fit(
        linear_pair(), rows()
    )


def test_torch_class_is_called_with_rate_and_options():
    seen = {}

    class Mine(torch.optim.SGD):
        def __init__(self, params, **options):
            seen.update(options)
            super().__init__(params, **options)

    trained(optimizer=Mine, lr=0.25, optimizer_options={"momentum": 0.5})
    assert seen == {"lr": 0.25, "momentum": 0.5}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": torch.optim.LBFGS}, ValueError, "LBFGS runs the loss several times in a step"),
        ({"optimizer": torch.optim.Adam([torch.zeros(1)])}, TypeError, "got Adam; give the class, torch.optim.Adam$"),
        ({"optimizer": dict}, TypeError, "optimizer must be a name, a torch optimizer class, .* got type"),
        ({"optimizer": 3}, TypeError, "optimizer must be a name, .* got int"),
        ({"optimizer": pyro.optim.Adam({}), "lr": 0.1}, ValueError, "lr is for .* into the arguments of pyro.optim"),
        (
            {"optimizer": lambda p: None, "lr": 0.1},
            ValueError,
            "lr is for .* into the function that makes the optimizer",
        ),
        (
            {"optimizer": lambda p: None, "optimizer_options": {"eps": 1}},
            ValueError,
            "optimizer_options are for an opt",
        ),
        ({"lr_schedule": 3}, TypeError, "lr_schedule must be a name, .* got int"),
        ({"lr_schedule": "step", "lr_schedule_options": {"gamma": 1}}, ValueError, "lr_schedule_options are for a sch"),
        (
            {"lr_schedule": pyro_schedule(), "optimizer": "sgd"},
            ValueError,
            "has its own optimizer; leave out optimizer=",
        ),
        (
            {"lr_schedule": "step", "optimizer": pyro_schedule()},
            ValueError,
            "has its own schedule; leave out lr_schedule=",
        ),
    ],
)
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message) as caught:
        Trainer(**options)
    assert "\n" not in str(caught.value)


def loaded():
    optimizer = pyro.optim.Adam({"lr": 0.1})
    optimizer.set_state({"loc": {}})
    return optimizer


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"optimizer": torch.optim.RMSprop, "optimizer_options": {"beta": 1}},
            ValueError,
            "optimizer RMSprop: .*'beta'",
        ),
        ({"optimizer": pyro.optim.Adam({"rate": 1})}, ValueError, "the optimizer of pyro.optim: .*'rate'"),
        (
            {"optimizer": pyro.optim.Adam(lambda name: None)},
            ValueError,
            "must give a dict for parameter '.*', got None",
        ),
        ({"optimizer": pyro.optim.Adam}, ValueError, "the function that makes the optimizer: optim_args must be"),
        ({"optimizer": lambda p: None}, TypeError, "the optimizer function must give a torch optimizer, got NoneType"),
        ({"optimizer": lambda p: pyro.optim.Adam({})}, TypeError, r"got PyroOptim; call it, pyro.optim.Adam\("),
        ({"optimizer": loaded()}, ValueError, "holds a state that was loaded into it"),
        (
            {"lr_schedule": lr_scheduler.ExponentialLR},
            ValueError,
            r"lr_schedule ExponentialLR \(its arguments go into lr_schedule_options=\): .*'gamma'",
        ),
        ({"lr_schedule": lambda optimizer: optimizer.param_groups}, TypeError, "must give a torch scheduler, got list"),
        (
            {"lr_schedule": lambda o: lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)], lr=1), 1)},
            ValueError,
            "must make its scheduler of the optimizer that it is given",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(options, error, message, tmp_path):
    with pytest.raises(error, match=message) as caught:
        Trainer(**options, progress=False, epochs=1).fit(linear_pair(), rows(), run=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_state_that_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    class Strange(lr_scheduler.ConstantLR):
        def state_dict(self):
            return {**super().state_dict(), "mine": {1, 2}}

    trainer = Trainer(lr_schedule=Strange, progress=False, epochs=1)
    trainer.fit(linear_pair(), rows())
    with pytest.raises(
        ValueError, match="the schedule of the learning rate keeps a set, which a run folder cannot hold"
    ):
        trainer.fit(linear_pair(), rows(), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_come_back():
    value = {"a": (1, [2.5, None]), 3: Counter({4: 2}), "t": torch.tensor([0.1]), "inf": float("inf")}
    back = from_json(as_json(value, "it"))
    assert torch.equal(back.pop("t"), value.pop("t"))
    assert back == value
    assert isinstance(back[3], Counter)
