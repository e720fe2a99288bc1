"""The Trainer: what it minimises on which rows, and how it runs particles."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import LinearGuide, LinearModel, library_pair, linear_pair, pictures, tutorial_pair
from pyro.infer import TraceMeanField_ELBO
from training_runs import Watcher, rows, seeded, trained

from pyrovae import VAE
from pyrovae.data.dataset import Rows, transform_x
from pyrovae.rng import begin
from pyrovae.training import Trainer, TrainingData

# -- what is minimised ------------------------------------------------------------------------------------------------


def test_a_step_is_that_of_the_mean_gradient():
    """Plain gradient descent by hand on one batch: the weights move by lr times the gradient of the mean loss."""
    x, vae, twin = rows(16), seeded(), seeded()
    kl = TraceMeanField_ELBO()
    trainer = Trainer(objective=kl, optimizer="sgd", lr=0.1, epochs=1, batch_size=16, progress=False, seed=5)
    trainer.fit(vae, x)
    begin(5)
    loss = kl.differentiable_loss(twin.model, twin.guide, x) / 16
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
    data = TrainingData(Rows(torch.arange(10.0)[:, None].expand(10, 5)))

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
    data = TrainingData(train=Rows(rows(), y=labels), validation=None, transform=None)
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
    data = TrainingData(
        train=Rows(x, mask=x.isfinite()),
        validation=Rows(x[:4], mask=x[:4].isfinite()),
        transform=None,
    )
    vae, history = trained(data, make=library_pair)
    assert all(p.isfinite().all() for p in vae.parameters())
    assert all(math.isfinite(row["validation_loss"]) for row in history.rows)
    with pytest.raises(TypeError, match=r"missing entries \(mask\), and TutorialVAE.model takes no argument 'mask'"):
        trained(data, make=tutorial_pair)


def test_transform_is_new_for_every_training_batch_and_none_for_validation():
    calls = []

    def noisy(rows):
        calls.append(len(rows))
        return rows.replace(x=rows.x.bernoulli())

    grey = torch.full((20, 1, 8, 8), 0.5)
    data = TrainingData(Rows(grey), None, noisy)
    trained(data, make=library_pair, epochs=2, batch_size=10)
    assert calls[-4:] == [10, 10, 10, 10]
    # Validation data are taken as they are: grey ones are refused by the Bernoulli's check of its support.
    data = TrainingData(data.train, Rows(grey), noisy)
    watcher = Watcher("on_batch", lambda progress: pyro.enable_validation(True))
    with pytest.raises(ValueError, match="Bernoulli is a distribution of 0 and 1"):
        trained(data, make=library_pair, callbacks=[watcher])


def test_transform_may_change_type_and_shape():
    bytes_ = torch.randint(256, (20, 64), dtype=torch.uint8)
    data = TrainingData(Rows(bytes_), None, transform_x(lambda x: (x / 255).round().reshape(-1, 1, 8, 8)))
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
