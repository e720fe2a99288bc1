"""Figures with a value in closed form, where a slip once gave another one without a word."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch.distributions import constraints

from pyrovae import VAE, metrics
from pyrovae.data import Rows
from pyrovae.infer import IWAE, VIMCO, ReweightedWakeSleep
from pyrovae.layout import OutsidePlateError
from pyrovae.training import Trainer


def shifted(x):
    """p(x) is Normal(b, 2**0.5)."""
    b = pyro.param("b", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + b, 1.0), obs=x)


def slope(x):
    m, t = pyro.param("m", torch.tensor(0.0)), pyro.param("t", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x * m, t))


def evidence(x, b=0.0):
    return dist.Normal(b, 2**0.5).log_prob(x)


@pytest.mark.parametrize("seed", [0, 1])
def test_data_of_the_same_seed_are_not_the_draws_of_a_training(seed):
    torch.manual_seed(seed)
    x = torch.randn(500)
    vae = VAE(shifted, slope)
    history = Trainer(epochs=200, lr=0.02, batch_size=500, seed=seed, progress=False).fit(vae, x, x)
    best = history.rows[history.best_epoch - 1]
    exact = -evidence(x, vae.param_sites["b"].item()).mean().item()
    first = 0.5 * (math.log(2 * math.pi) + x.square().mean().item() + 1)  # where the guide is the prior
    assert history.rows[0]["loss"] == pytest.approx(first, abs=0.2)
    assert best["validation_loss"] == pytest.approx(exact, abs=0.03)
    assert history.best_epoch > 20


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_counts_are_completed_by_means(dtype):
    def model(x, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            likelihood = dist.Poisson(z.unsqueeze(-1).expand(*z.shape, 2))
            pyro.sample("x", likelihood.mask(mask).to_event(1), obs=x)

    def guide(x, mask):  # exact for the first column
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(2.0 + x[:, 0], 2.0))

    x, mask = torch.tensor([[4, 0], [9, 0], [0, 0]], dtype=dtype), torch.tensor([[True, False]] * 3)
    found = VAE(model, guide).impute(x, mask, num_samples=4000)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 1], torch.tensor([3.0, 5.5, 1.0]), atol=0.15, rtol=0)
    torch.testing.assert_close(found[:, 0], x[:, 0].float())
    if dtype == torch.int64:
        with pytest.raises(ValueError, match=r"float32 cannot hold, .*; give x.double\(\)"):
            VAE(model, guide).impute(x + 2**24 + 1, mask)


def test_probabilities_complete_booleans():
    def model(x, mask):
        with pyro.plate("data", len(x)):
            p = pyro.sample("z", dist.Beta(1.0, 9.0))
            likelihood = dist.Bernoulli(p.unsqueeze(-1).expand(*p.shape, 2))
            pyro.sample("x", likelihood.mask(mask).to_event(1), obs=x.float())

    def guide(x, mask):
        first = x[:, 0].float()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(1.0 + first, 10.0 - first))

    x, mask = torch.tensor([[False, False], [True, False]]), torch.tensor([[True, False]] * 2)
    found = VAE(model, guide).impute(x, mask, num_samples=4000)[:, 1]
    torch.testing.assert_close(found, torch.tensor([1 / 11, 2 / 11]), atol=0.01, rtol=0)


def narrow(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 0.01))
        pyro.sample("x", dist.Normal(z, 0.01), obs=x)


def test_a_guide_that_draws_all_rows_at_once_has_no_bound_of_a_datum():
    x = torch.randn(6) * 0.01
    guide = AutoDiagonalNormal(narrow)
    guide(x)
    vae = VAE(narrow, guide)
    for figure in (vae.bound_terms, vae.forward):
        with pytest.raises(OutsidePlateError, match="_AutoDiagonalNormal_latent' lies outside the plate"):
            figure(x)
    with pytest.raises(ValueError, match="it has no importance weights"):
        vae.log_likelihood(x)
    own = AutoNormal(narrow)
    own(x)
    own.locs.z.data.copy_(x / 2)
    own.scales.z = torch.full((6,), 0.01 * 0.5**0.5)
    exact = dist.Normal(0.0, 0.01 * 2**0.5).log_prob(x)
    torch.testing.assert_close(-sum(VAE(narrow, own).bound_terms(x)[1:]), exact)


@pytest.mark.parametrize("objective", [IWAE(200), VIMCO(200), ReweightedWakeSleep(200)], ids=["iwae", "vimco", "wake"])
def test_a_tensor_that_scales_all_sites_is_a_number(objective):
    x = torch.randn(4, generator=torch.Generator().manual_seed(1))
    losses = {}
    for scale in (2.5, torch.tensor(2.5)):

        def model(x, scale=scale):
            with poutine.scale(scale=scale), pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, scale=scale):
            with poutine.scale(scale=scale), pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2 + 0.7, 1.0))

        pyro.set_rng_seed(0)
        losses[isinstance(scale, float)] = objective.loss(model, guide, x)
    assert losses[False] == pytest.approx(losses[True], rel=1e-6)
    assert losses[False] == pytest.approx(-2.5 * evidence(x).sum().item(), rel=0.05)


def test_a_guide_that_knows_its_rows_answers_for_these_alone():
    torch.manual_seed(1)
    x = torch.randn(600)
    with pyro.get_param_store().scope():
        guide = AutoNormal(shifted)
        guide(x)
        guide.locs.z.data.copy_(x / 2)
        guide.scales.z = torch.full((600,), 0.5**0.5)
        vae = VAE(shifted, guide)
        torch.testing.assert_close(vae.log_likelihood(x, 20), evidence(x), atol=1e-4, rtol=0)  # more rows than at once
        torch.testing.assert_close(-sum(vae.bound_terms(x)[1:]), evidence(x), atol=1e-4, rtol=0)
        for figure in (vae.bound_terms, vae.forward, vae.reconstruct, vae.encode):
            for some in (x[:1], x[:3]):
                with pytest.raises(ValueError, match=f"holds 600 rows, and {len(some)} are asked for"):
                    figure(some)
        with pytest.raises(ValueError, match=r"values of shape \(3,\), and its distribution is of shape \(50, 600\)"):
            vae.log_likelihood(x[:3], 50)
        assert metrics.evaluate(vae, Rows(x), num_samples=20, batch_size=600).num_rows == 600


def test_one_sample_has_no_standard_error():
    x = torch.randn(4)
    vae = VAE(shifted, slope)
    details = vae.log_likelihood(x, 1, return_details=True)
    assert details.standard_error.isnan().all()
    assert vae.log_likelihood(x, 2, return_details=True).standard_error.isfinite().all()
    found = metrics.evaluate(vae, Rows(x), num_samples=1)
    assert math.isnan(found.sampling_error)


def test_a_tensor_that_scales_all_sites_is_a_number_in_compiled_steps():
    x = torch.randn(64, generator=torch.Generator().manual_seed(1))
    losses = []
    for scale in (2.5, torch.tensor(2.5)):

        def model(x, scale=scale):
            b = pyro.param("b", torch.tensor(0.0))
            with poutine.scale(scale=scale), pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(b, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, scale=scale):
            with poutine.scale(scale=scale), pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2 + 0.7, 1.0))

        pyro.clear_param_store()
        trainer = Trainer("iwae", num_particles=5, epochs=3, batch_size=16, compile="recorded", progress=False)
        losses.append(trainer.fit(VAE(model, guide), x).rows[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_point_given_a_latent_of_all_data_has_a_bound():
    """The draw of the guide alone is one of `w`, which the bound takes as given."""

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    of_all = AutoDiagonalNormal(poutine.block(model, hide=["z"]))

    def guide(x):
        w = of_all(x)["w"]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta((x + w) / 2))

    assert VAE(model, guide).bound_terms(torch.randn(5))[1].shape == (5,)


def test_error_of_bits_where_rows_have_other_numbers_of_entries():
    """Each observed entry costs one bit in every row, so that the figure has no error."""

    def model(x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(torch.full_like(x, 0.5)).mask(mask).to_event(1), obs=x)

    def guide(x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    mask = torch.arange(10) < torch.tensor([1, 10] * 4)[:, None]
    found = metrics.evaluate(VAE(model, guide), Rows(torch.ones(8, 10), mask=mask), num_samples=3, kind="binary")
    assert found.bits_per_dimension == pytest.approx(1.0)
    assert found.standard_errors["bits_per_dimension"] == pytest.approx(0.0, abs=1e-6)


def test_values_that_a_latent_cannot_have_are_not_decoded():
    def model(x=None, size=None):
        with pyro.plate("data", size if x is None else len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Beta(2.0, 2.0))
            pyro.sample("x", dist.Normal(z + y, 1.0), obs=x)

    def guide(x=None, size=None):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(torch.ones(len(x), 3)))
            pyro.sample("z", dist.Beta(2.0 + 0 * x, 2.0))

    vae = VAE(model, guide, example=torch.randn(4))
    half = torch.full((2,), 0.5)
    assert vae.decode({"y": torch.tensor([2, 0]), "z": half}).mean.tolist() == [2.5, 0.5]
    for latents, message in (
        ({"y": torch.tensor([9, 1]), "z": half}, "the latent 'y' cannot be 9"),
        ({"y": torch.tensor([-1, 1]), "z": half}, "the latent 'y' cannot be -1"),
        ({"y": torch.tensor([2, 1]), "z": 6 * half}, "the latent 'z' cannot be 3"),
    ):
        with pytest.raises(ValueError, match=message):
            vae.decode(latents)
    with pytest.raises(ValueError, match=r"condition=\{'w': ...\} is no latent of the model, which has \['y', 'z'\]"):
        vae.sample(3, condition={"w": torch.tensor(1.0)})


def test_what_a_program_raises_is_one_line():
    """Pyro writes the shapes of all sites below it."""
    vae = VAE(shifted, slope, example=torch.randn(4))
    for call in (
        lambda: vae.sample(3, condition={"z": torch.zeros(2)}),
        lambda: vae.encode(torch.randn(4, 2)),
    ):
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call()
        assert "\n" not in str(caught.value)
