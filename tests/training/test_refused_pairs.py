"""Pairs that minibatches or particles would teach something else than is meant, and what a training leaves behind."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import LinearGuide, LinearModel, linear_pair, same_weights, weights_of
from pyro.infer import JitTrace_ELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch import nn
from training_runs import Watcher, rows, seeded

from pyrovae import VAE
from pyrovae.infer import NVIL
from pyrovae.storage import CheckpointError
from pyrovae.training import NonFiniteLossError, Trainer


def normal_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample(
            "x", dist.Normal(z.sum(-1, keepdim=True) + pyro.param("loc", torch.zeros(5)), 1.0).to_event(1), obs=x
        )


def own_rows(x):
    loc = pyro.param("by_row", torch.zeros(len(x), 2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def one_loc(x):
    """Has a parameter of as many entries as a batch has rows, and is no guide by row."""
    loc = pyro.param("shared", torch.zeros(20, 2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc.mean(0), 1.0).to_event(1))


def table(x, index):
    loc = pyro.param("table", torch.zeros(40, 2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc[index], 1.0).to_event(1))


def with_index(x, index):
    normal_model(x)


BY_ROW = {
    "AutoNormal": (lambda: AutoNormal(normal_model), "latent 'z'"),
    "AutoDiagonalNormal": (lambda: AutoDiagonalNormal(normal_model), "latent 'z'"),
    "param": (lambda: own_rows, "parameter 'by_row'"),
}


@pytest.mark.parametrize("guide", BY_ROW)
def test_values_by_row_need_a_batch_of_all_rows(guide):
    make, what = BY_ROW[guide]
    message = (
        f"{what} has a value for each of the 20 rows of a batch, .* cannot learn from minibatches; .*batch_size=40"
    )
    with pytest.raises(ValueError, match=message):
        Trainer(epochs=1, batch_size=20, progress=False).fit(VAE(normal_model, make()), rows())
    with pytest.raises(ValueError, match="says nothing of validation rows; leave them out"):
        Trainer(epochs=1, batch_size=20, progress=False).fit(VAE(normal_model, make()), (rows(20), rows(20)))
    history = Trainer(epochs=20, lr=0.1, progress=False).fit(VAE(normal_model, make()), rows())
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


@pytest.mark.parametrize(("model", "guide"), [(normal_model, one_loc), (with_index, table)], ids=["shared", "index"])
def test_tables_and_shared_parameters_are_no_values_by_row(model, guide):
    Trainer(epochs=1, batch_size=20, progress=False).fit(VAE(model, guide), rows())


def test_drop_last():
    sizes = []
    trainer = Trainer(epochs=2, batch_size=16, drop_last=True, objective="mean-field", progress=False)
    trainer.callbacks = [Watcher("on_batch", lambda progress: sizes.append(progress.batch))]
    history = trainer.fit(linear_pair(), rows())
    assert sizes == [1, 2, 1, 2]
    assert math.isfinite(history.rows[0]["loss"])
    with pytest.raises(ValueError, match="drop_last leaves nothing of 40 rows in batches of 64"):
        Trainer(epochs=1, batch_size=64, drop_last=True, progress=False).fit(linear_pair(), rows())


def test_drop_last_counts_the_rows_that_were_used():
    """One batch of 32 rows of 40, whose loss per datum is the one before its step."""
    vae = seeded()
    trainer = Trainer(TraceMeanField_ELBO(), optimizer="sgd", lr=1e-30, epochs=1, batch_size=32, progress=False)
    trainer.drop_last = True
    loss = trainer.fit(vae, rows()[:1].expand(40, 5)).rows[0]["loss"]
    expected = TraceMeanField_ELBO(2000).loss(vae.model, vae.guide, rows()[:1])
    assert loss == pytest.approx(expected, rel=0.1)


class Normed(LinearGuide):
    """A guide with batch normalisation."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        super().forward(self.norm(x))


class NormedModel(LinearModel):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ self.loadings.T
            loc = self.norm(loc.reshape(-1, 5)).reshape(loc.shape)
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)


def test_batch_norm_of_one_row_is_refused():
    def normed():
        return VAE(LinearModel(5, 2), Normed(5, 2))

    with pytest.raises(ValueError, match=r"no statistics for the BatchNorm layer 'owners.guide.norm'; .* 33 rows, or"):
        Trainer(epochs=1, batch_size=16, progress=False).fit(normed(), rows(33))
    Trainer(epochs=1, batch_size=16, drop_last=True, progress=False).fit(normed(), rows(33))
    Trainer(epochs=1, batch_size=16, progress=False).fit(normed(), rows(34))


def test_batch_norm_of_several_particles():
    """An encoder that is run once for all particles has the statistics of one; everything else is refused."""
    found = []
    for num_particles in (1, 5):
        vae = seeded(lambda: VAE(LinearModel(5, 2), Normed(5, 2)))
        Trainer("iwae", num_particles, epochs=1, batch_size=40, progress=False).fit(vae, rows())
        found.append(vae.guide.norm)
    assert torch.equal(found[0].running_mean, found[1].running_mean)
    assert torch.equal(found[0].running_var, found[1].running_var)
    assert found[0].num_batches_tracked == found[1].num_batches_tracked == 1
    looped = (TraceMeanField_ELBO(5), VAE(LinearModel(5, 2), Normed(5, 2)))
    together = ("iwae", VAE(NormedModel(5, 2), LinearGuide(5, 2)))
    for objective, vae in (looped, together):
        before = weights_of(vae)
        with pytest.raises(ValueError, match=r"BatchNorm layer .* statistics from \d+ particles of each row and not"):
            Trainer(objective, epochs=1, progress=False).fit(vae, rows())
        assert same_weights(before, weights_of(vae))


# -- run folders ------------------------------------------------------------------------------------------------------


def test_run_as_a_path_and_folders_that_are_taken(tmp_path):
    options = {"epochs": 2, "progress": False}
    vae = linear_pair()
    Trainer(**options).fit(vae, rows(), run=str(tmp_path / "run"))
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"already holds a training; go on with it \(resume=True\), replace it"):
        Trainer(**options).fit(linear_pair(), rows(), run=tmp_path / "run")
    with pytest.raises(ValueError, match="choose one of them"):
        Trainer(**options).fit(linear_pair(), rows(), run=tmp_path / "run", resume=True, overwrite=True)
    with pytest.raises(ValueError, match="monitor must be a column"):  # a check that fails before anything is written
        Trainer(**options, monitor="no").fit(linear_pair(), rows(), run=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
    history = Trainer(**options | {"epochs": 3}).fit(vae, rows(), run=tmp_path / "run", resume=True)
    assert len(history.rows) == 3
    Trainer(**options | {"epochs": 1}).fit(seeded(seed=8), rows(), run=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 2
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != weights


def test_nothing_is_written_by_a_training_that_cannot_begin(tmp_path):
    vae = VAE(LinearModel(5, 2), Normed(5, 2))
    with pytest.raises(ValueError, match="BatchNorm"):
        Trainer(epochs=1, batch_size=16, progress=False).fit(vae, rows(33), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- what is left behind ----------------------------------------------------------------------------------------------


def deep_pair():
    """A pair whose plate over the rows stands in dimension -2."""

    def model(x):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("columns", 3, dim=-1):
                pyro.sample("x", dist.Normal(z + loc, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), 1.0))

    return VAE(model, guide)


OBJECTIVES = {
    "Trace_ELBO": lambda: Trace_ELBO(3, vectorize_particles=True),
    "JitTrace_ELBO": lambda: JitTrace_ELBO(ignore_jit_warnings=True),
    "NVIL": lambda: NVIL(3, baseline="input"),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("order", [1, -1])
def test_one_objective_for_several_pairs(objective, order):
    """Each pair learns what it learns under an objective of its own."""
    cases = [(linear_pair, rows()), (deep_pair, rows()[:, :3])][::order]
    shared = OBJECTIVES[objective]()
    for make, x in cases:
        found = []
        for used in (shared, OBJECTIVES[objective]()):
            vae = seeded(make)
            history = Trainer(used, epochs=2, batch_size=20, progress=False).fit(vae, x)
            found.append((weights_of(vae), history.rows[-1]["loss"]))
        if objective == "NVIL":  # whose nets start at random
            assert found[0][1] == pytest.approx(found[1][1], rel=0.2)
        else:
            assert same_weights(found[0][0], found[1][0])


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_smaller_rate_goes_on_after_a_loss_that_is_no_number():
    """As a training of its own from the same weights: no gradient is left."""
    vae = seeded()
    with pytest.raises(NonFiniteLossError):
        Trainer(optimizer="sgd", lr=1e20, epochs=3, batch_size=16, progress=False).fit(vae, rows())
    assert all(parameter.grad is None for parameter in vae.parameters())
    twin = seeded()
    twin.load_state_dict(vae.state_dict())
    for pair in (vae, twin):
        Trainer(optimizer="sgd", lr=1e-3, epochs=2, batch_size=16, progress=False).fit(pair, rows())
    assert same_weights(weights_of(vae), weights_of(twin))
