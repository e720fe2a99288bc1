"""The plate over the data is found by its frame, wherever it stands; what is in no plate is refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO

from pyrovae import VAE
from pyrovae.infer import IWAE, log_weights, make_objective
from pyrovae.metrics import latent_means
from pyrovae.training import Trainer


def series(left, steps=3):
    """Independent time steps under an exact guide; the plate of the steps left or right of the rows."""
    rows, time = (-1, -2) if left else (-2, -1)

    def place(x):
        return x.T if left else x

    def model(x):
        with pyro.plate("rows", len(x), dim=rows), pyro.plate("time", steps, dim=time):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=place(x))

    def guide(x):
        with pyro.plate("rows", len(x), dim=rows), pyro.plate("time", steps, dim=time):
            pyro.sample("z", dist.Normal(place(x) / 2, 0.5**0.5))

    return model, guide


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("rows", [5, 3, 1])
@pytest.mark.parametrize("vectorize", [True, False])
def test_plate_of_time_steps_as_large_as_the_batch_or_not(left, rows, vectorize):
    x = torch.randn(rows, 3)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum(1)
    weights = log_weights(*series(left), 4, x, vectorize=vectorize, return_draws=True)
    torch.testing.assert_close(weights.log_weight, exact.expand(4, rows))
    assert weights.draws["z"].shape == (4, rows, 3)
    assert (weights.draws["z"].mean(0) - x / 2).abs().max() < 2.0


@pytest.mark.parametrize("left", [True, False])
def test_every_method_with_a_second_plate(left):
    x = torch.randn(5, 3)
    vae = VAE(*series(left))
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).sum(1)
    for rows in (5, 3):  # a batch as long as the series must not be mixed up
        torch.testing.assert_close(vae.log_likelihood(x[:rows], 10), exact[:rows])
        torch.testing.assert_close(latent_means(vae, x[:rows]), x[:rows] / 2)
        torch.testing.assert_close(vae.reconstruct(x[:rows]), x[:rows] / 2)
        nll, kl = vae(x[:rows])[1:]
        assert nll.shape == kl.shape == (rows,)
    assert vae.sample(7).shape == (7, 3)
    assert vae.sites.plates == {"rows"}
    z = torch.randn(4, 3)
    decoded = vae.decode(z.T if left else z).mean
    torch.testing.assert_close(decoded.T if left else decoded, z)


def test_a_latent_that_the_guide_draws_once_for_all_rows_raises_as_in_stock_pyro():
    def guide(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    model, _ = series(left=False)
    for call in (VAE(model, guide).log_likelihood, lambda x, k: log_weights(model, guide, k, x)):
        with pytest.raises(ValueError, match="Model and guide shapes disagree at site 'z'"):
            call(torch.randn(4, 3), 5)


def test_nested_plates_of_one_size_and_a_global_step_latent():
    """A latent of each time step, shared by the rows, is global even where there are as many steps as rows."""

    def model(x):
        with pyro.plate("time", 3, dim=-1):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(x), dim=-2):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    def guide(x):
        with pyro.plate("time", 3, dim=-1):
            w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0))
            with pyro.plate("rows", len(x), dim=-2):
                pyro.sample("z", dist.Normal((x - w) / 2, 0.5**0.5))

    for rows in (3, 4):
        x = torch.randn(rows, 3)
        vae = VAE(model, guide)
        assert vae.prepare(x).sites.shared == ("w",)
        with pytest.raises(ValueError, match=r"latent site 'w' lies outside the plate over the data.*condition="):
            vae.log_likelihood(x, 4)
        w = torch.randn(3)
        exact = dist.Normal(w, 2**0.5).log_prob(x).sum(1)
        torch.testing.assert_close(vae.log_likelihood(x, 4, condition={"w": w}), exact)


def test_global_plate_that_agrees_by_chance():
    def model(x):
        with pyro.plate("comp", 8):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w.sum(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("comp", 8):
            pyro.sample("w", dist.Normal(torch.zeros(8), 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    for rows in (8, 7, 1):
        for call in (VAE(model, guide).log_likelihood, lambda x, k: log_weights(model, guide, k, x)):
            with pytest.raises(ValueError, match="latent site 'w' lies outside the plate over the data"):
                call(torch.zeros(rows), 10)


def test_plates_that_nothing_tells_apart_are_refused():
    def program(x):
        with pyro.plate("a", 4, dim=-1), pyro.plate("b", 4, dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(4, 4), 1.0))
            if x is not None:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("a", 4, dim=-1), pyro.plate("b", 4, dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(4, 4), 1.0))

    with pytest.raises(ValueError, match=r"the plates \['a', 'b'\] all have the size 4.*len\(x\)"):
        log_weights(program, guide, 2, torch.zeros(4, 4))


def test_two_plates_over_the_rows_around_one_site_are_refused():
    def model(x):
        with pyro.plate("i", len(x), dim=-1), pyro.plate("j", len(x), dim=-2):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(len(x), len(x)))

    def guide(x):
        with pyro.plate("i", len(x), dim=-1), pyro.plate("j", len(x), dim=-2):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), len(x)), 1.0))

    with pytest.raises(ValueError, match="stands in two plates over the rows of the data"):
        log_weights(model, guide, 2, torch.zeros(4))


def test_guide_and_model_may_name_the_plate_differently():
    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.randn(4)
    torch.testing.assert_close(VAE(model, guide).log_likelihood(x, 3), dist.Normal(0.0, 2**0.5).log_prob(x))


def forgotten(x):
    b = pyro.param("b", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + b, 1.0), obs=x)


def plain_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: Trainer(epochs=1, progress=False).fit(VAE(forgotten, plain_guide), x),
        lambda x: VAE(forgotten, plain_guide).log_likelihood(x, 4),
        lambda x: log_weights(forgotten, plain_guide, 4, x),
        lambda x: IWAE(3).loss(forgotten, plain_guide, x),
        lambda x: make_objective("rws").loss_and_grads(forgotten, plain_guide, x),
        lambda x: SVI(forgotten, plain_guide, pyro.optim.Adam({}), Trace_ELBO()).step(x),
    ],
    ids=["trainer", "log_likelihood", "log_weights", "iwae", "rws", "stock"],
)
def test_forgotten_to_event_raises_as_in_stock_pyro(call):
    with pytest.raises(ValueError, match='at site "x", invalid log_prob shape'):
        call(torch.randn(8, 1))


def test_rows_of_a_program_without_plates():
    def model(x, extra=()):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand([len(x), 2]).to_event(1 - len(extra)), obs=x)

    def guide(x, extra=()):
        pyro.sample("z", dist.Normal(x.sum(-1) / 3, 3**-0.5))

    x = torch.randn(5, 2)
    exact = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(x)
    torch.testing.assert_close(log_weights(model, guide, 3, x).log_weight, exact.expand(3, 5))
    with pytest.raises(ValueError, match=r"site 'x' has the batch shape \(5, 2\) in a program without a plate"):
        log_weights(model, guide, 3, x, extra=(1,))


def test_looking_draws_no_numbers_and_leaves_the_store():
    x, before = torch.randn(4, 1), torch.get_rng_state()

    def model(x):
        pyro.param("fresh", torch.ones(()))
        plain = pyro.plate("data", len(x))
        with plain:
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    objective = IWAE(2, vectorize_particles=True)
    before = torch.get_rng_state()
    pair = objective._pair(model, plain_guide, (x,), {})
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store())
    assert pair.scorer.layout.plates == {"data"}


def test_sequential_plates_are_refused_by_log_weights():
    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i])

    def guide(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(x[i] / 2, 0.7))

    with pytest.raises(ValueError, match="the plate 'data' over the data is sequential"):
        log_weights(model, guide, 1, torch.zeros(3))
    trace = poutine.trace(model).get_trace(torch.zeros(3))
    assert "x2" in trace


def test_one_row_in_plates_of_two_dimensions_is_refused():
    def other(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.unsqueeze(-1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(ValueError, match="site 'z' has its rows in dimension -2 in the model and in -1 in the guide"):
        IWAE(2).loss(other, guide, torch.ones(1))
