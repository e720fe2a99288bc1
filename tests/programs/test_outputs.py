"""What forward, reconstruct, decode and sample give back: all data sites, real rows, the site's own shape."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from pyrovae import VAE
from pyrovae.infer import IWAE, make_objective
from pyrovae.metrics import latent_means
from pyrovae.training import Trainer

# -- several data sites -----------------------------------------------------------------------------------------------


def two_sites(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(z, 1.0), obs=x[:, 0])
        pyro.sample("b", dist.Normal(-z, 1.0), obs=x[:, 1])


def exact_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x[:, 0] - x[:, 1]) / 3, 3**-0.5))


@pytest.mark.parametrize("observed", [None, "a", "b"])
def test_all_observed_sites_count_and_one_may_be_shown(observed):
    x = torch.randn(4, 2)
    vae = VAE(two_sites, exact_guide, observed=observed)
    exact = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, -1.0], [-1.0, 2.0]])).log_prob(x)
    torch.testing.assert_close(vae.log_likelihood(x, 5), exact)
    forward = vae(x.repeat(3000, 1))
    bound = -(forward.nll + forward.kl).reshape(3000, 4).mean(0)
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.1)
    mean = (x[:, 0] - x[:, 1]) / 3
    found = {"reconstruct": vae.reconstruct(x), "sample": vae.sample(7), "decode": vae.decode(mean)}
    if observed is None:
        assert found["reconstruct"].keys() == found["sample"].keys() == found["decode"].keys() == {"a", "b"}
        assert forward.reconstruction.keys() == {"a", "b"}
        torch.testing.assert_close(found["reconstruct"]["b"], -mean)
        torch.testing.assert_close(found["decode"]["a"].mean, mean)
        assert found["sample"]["a"].shape == (7,)
    else:
        torch.testing.assert_close(found["reconstruct"], mean if observed == "a" else -mean)
        torch.testing.assert_close(found["decode"].mean, mean if observed == "a" else -mean)
        assert found["sample"].shape == (7,)


def test_one_site_that_feeds_another():
    """Draws go through; what the second looks like given latents alone needs rows."""

    def chain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            a = pyro.sample("a", dist.Normal(z + 10, 1.0), obs=x[:, 0])
            pyro.sample("b", dist.Normal(2 * a, 1e-3), obs=x[:, 1])

    x = torch.randn(4, 2)
    vae = VAE(chain, exact_guide, example=x)
    drawn = vae.sample(5)
    torch.testing.assert_close(drawn["b"], 2 * drawn["a"], rtol=0, atol=0.02)
    torch.testing.assert_close(vae.reconstruct(x)["b"], 2 * x[:, 0])
    with pytest.raises(ValueError, match="looks at its data beyond obs=, so it needs rows"):
        vae.decode(torch.zeros(4))
    torch.testing.assert_close(vae.decode(torch.zeros(4), data=x)["b"].mean, 2 * x[:, 0])
    with pytest.raises(ValueError, match="data= must hold a row for each of the 3 that are asked for, got 4"):
        vae.sample(3, data=x)


def test_sites_may_differ_from_batch_to_batch():
    def steps(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for t in range(x.shape[1]):
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(1) / (1 + x.shape[1]), (1 + x.shape[1]) ** -0.5))

    vae = VAE(steps, guide)
    for length in (3, 2, 4):
        x = torch.randn(3, length)
        exact = dist.MultivariateNormal(torch.zeros(length), torch.eye(length) + 1).log_prob(x)
        torch.testing.assert_close(vae.log_likelihood(x, 4), exact)
        assert list(vae.reconstruct(x)) == list(vae(x).reconstruction) == [f"x_{t}" for t in range(length)]
        assert vae(x).nll.shape == (3,)


# -- models that look at x --------------------------------------------------------------------------------------------


def library_size(x):
    with pyro.plate("cells", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        total = x.sum(-1, keepdim=True)
        pyro.sample("x", dist.Poisson(total * z.softmax(-1) + 1e-6).to_event(1), obs=x)


def topics(x):
    with pyro.plate("d", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Multinomial(int(x.sum(-1).max()), logits=z), obs=x)


def log_guide(x):
    with pyro.plate("cells", len(x)):
        pyro.sample("z", dist.Normal((x + 1e-3).log(), 1e-6).to_event(1))


@pytest.mark.parametrize("model", [library_size, topics])
def test_models_that_look_at_their_data(model):
    x = torch.tensor([[10.0, 20.0, 5.0], [3.0, 30.0, 2.0]])
    vae = VAE(model, log_guide)
    torch.testing.assert_close(vae.reconstruct(x), x, rtol=0, atol=0.05)
    torch.testing.assert_close(vae(x).reconstruction, x, rtol=0, atol=0.05)
    for call in (lambda: vae.sample(2), lambda: vae.decode(torch.zeros(2, 3))):
        with pytest.raises(ValueError, match="looks at its data beyond obs=, so it needs rows to look at: give data=x"):
            call()
    torch.testing.assert_close(vae.sample(2, data=x).sum(-1), x.sum(-1), rtol=0, atol=25)
    torch.testing.assert_close(vae.decode(torch.zeros(2, 3), data=x).mean.sum(-1), x.sum(-1), rtol=0, atol=0.01)


def test_integers_are_told_apart_too():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(z.exp() * (1 + x)), obs=x)

    def plain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([0, 3, 5])
    with pytest.raises(ValueError, match="looks at its data"):
        VAE(model, guide, example=x).decode(torch.zeros(3))
    vae = VAE(plain, guide, example=x)
    assert vae.sample(4).shape == (4,)
    torch.testing.assert_close(vae.decode(torch.zeros(3)).mean, torch.ones(3))


# -- shapes -----------------------------------------------------------------------------------------------------------


def channels_last(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        loc = torch.tensor([0.0, 0.5, 1.0]).expand(*z.shape, 4, 4, 3)
        pyro.sample("x", dist.Normal(loc, 0.01).to_event(3), obs=x.permute(0, 2, 3, 1))


def flat_channels_last(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        loc = torch.tensor([0.0, 0.5, 1.0]).expand(*z.shape, 4, 4, 3).flatten(-3)
        pyro.sample("x", dist.Normal(loc, 0.01).to_event(1), obs=x.permute(0, 2, 3, 1).flatten(1))


def picture_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.flatten(1).mean(1), 1.0))


@pytest.mark.parametrize("example", [torch.rand(20, 3, 4, 4), torch.zeros(20, 3, 4, 4)], ids=["random", "zeros"])
@pytest.mark.parametrize("model", [channels_last, flat_channels_last])
def test_another_layout_of_the_data_is_kept(model, example):
    """Also where the first data look the same in every layout."""
    vae, x = VAE(model, picture_guide, example=example), torch.rand(20, 3, 4, 4)
    for value in (vae.sample(50), vae.reconstruct(x), vae(x).reconstruction):
        assert value.shape[1:] == ((4, 4, 3) if model is channels_last else (48,))
        means = value.reshape(len(value), 16, 3).mean((0, 1))
        torch.testing.assert_close(means, torch.tensor([0.0, 0.5, 1.0]), rtol=0, atol=0.01)


@pytest.mark.parametrize("example", [torch.rand(20, 3, 4, 4), torch.zeros(20, 3, 4, 4)], ids=["random", "zeros"])
@pytest.mark.parametrize("way", ["view", "copy"])
def test_data_that_are_only_flattened_get_their_shape(example, way):
    def model(x):
        flat = x.flatten(1) if way == "view" else x.flatten(1) + 0.0
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(16).expand(*z.shape, 48)
            pyro.sample("x", dist.Normal(loc, 0.01).to_event(1), obs=flat)

    vae = VAE(model, picture_guide, example=example)
    value = vae.sample(50)
    assert value.shape == (50, 3, 4, 4)
    torch.testing.assert_close(value.mean((0, 2, 3)), torch.tensor([0.0, 0.5, 1.0]), rtol=0, atol=0.01)


def test_another_unit_of_the_data_is_kept():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, 4), 1.0).to_event(1), obs=x.flatten(1).log())

    x = torch.rand(6, 2, 2) + 1
    assert VAE(model, picture_guide, example=x).sample(3).shape == (3, 4)


def test_scalar_rows():
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    x = torch.randn(9) + 3
    vae = VAE(model, guide)
    Trainer(epochs=100, lr=0.1, progress=False).fit(vae, x)
    assert vae.reconstruct(x).shape == vae(x).reconstruction.shape == (9,)
    assert vae.sample(4).shape == vae.sample(4, "mean").shape == (4,)
    assert latent_means(vae, x).shape == (9, 1)
    assert vae.log_likelihood(x, 5).shape == (9,)
    assert vae.decode(torch.zeros(3)).batch_shape == (3,)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (lambda z: dist.Cauchy(z, 1.0), "Cauchy"),
        (lambda z: dist.Categorical(logits=torch.stack([z, -z], -1)), "Categorical"),
        (lambda z: dist.Cauchy(z.unsqueeze(-1), 1.0).to_event(1), "Cauchy"),
    ],
)
def test_a_mean_that_does_not_exist(fn, name):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", fn(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    event = fn(torch.zeros(3)).event_shape
    x = torch.zeros(3, *event)
    vae = VAE(model, guide, example=x)
    for call in (lambda: vae(x), lambda: vae.reconstruct(x), lambda: vae.sample(2, "mean")):
        with pytest.raises(NotImplementedError, match=f"the {name} distribution of site 'x' has no mean; take draws"):
            call()
    assert vae.sample(2).shape == (2, *event)
    assert math.isfinite(float(vae.bound_terms(x)[1].sum()))


# -- sequences --------------------------------------------------------------------------------------------------------


def walk(x, lengths):
    """A random walk under noise, the steps beyond the length of a row masked out."""
    with pyro.plate("rows", len(x)):
        previous = torch.zeros(len(x))
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=lengths > t):
                previous = pyro.sample(f"z_{t}", dist.Normal(previous, 1.0))
                pyro.sample(f"x_{t}", dist.Normal(previous, 1.0), obs=x[:, t])


def walk_guide(x, lengths):
    with pyro.plate("rows", len(x)):
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=lengths > t):
                pyro.sample(f"z_{t}", dist.Normal(0.6 * x[:, t], 0.8))


def test_sequences_of_several_lengths():
    def pair(program, lengths):
        return lambda x: program(x, lengths)

    x, lengths = torch.randn(4, 3), torch.tensor([3, 1, 2, 3])
    vae = VAE(pair(walk, lengths), pair(walk_guide, lengths))
    steps = torch.arange(3.0) + 1
    covariance = torch.minimum(steps, steps.unsqueeze(1)) + torch.eye(3)
    for longest in (2, 3, 1):
        seen = lengths.clamp(max=longest)
        exact = [
            dist.MultivariateNormal(torch.zeros(n), covariance[:n, :n]).log_prob(row[:n])
            for row, n in zip(x, seen.tolist(), strict=True)
        ]
        batch = x[:, :longest]
        value = vae.log_likelihood(batch, 5000)
        torch.testing.assert_close(value, torch.stack(exact), rtol=0, atol=0.15)
        names = [f"z_{t}" for t in range(longest)]
        assert list(vae.posterior(batch)) == names
        assert list(vae.reconstruct(batch)) == [f"x_{t}" for t in range(longest)] or longest == 1
        assert latent_means(vae, batch).shape == (4, longest)
        forward = vae(batch.repeat(1, 1))
        assert forward.kl.shape == (4,)
        losses = []
        for objective in (Trace_ELBO(), IWAE(1)):
            pyro.set_rng_seed(0)
            losses.append(objective.loss(vae.model, vae.guide, batch))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("both", [True, False])
def test_a_mask_of_one_program_masks_its_density_alone(both):
    seen = torch.tensor([True, False, True])

    def model(x):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=seen):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen.clone() if both else torch.tensor(True)):
            pyro.sample("z", dist.Normal(x, 0.5))

    x = torch.randn(3)
    repeats = [VAE(model, guide)(x) for _ in range(3000)]
    kl = torch.stack([forward.kl for forward in repeats]).mean(0)
    exact = torch.distributions.kl_divergence(dist.Normal(x, 0.5), dist.Normal(0.0, 1.0))
    entropy = dist.Normal(x, 0.5).entropy()
    torch.testing.assert_close(kl, torch.where(seen, exact, 0.0 if both else -entropy), rtol=0, atol=0.06)


@pytest.mark.parametrize("example", [torch.rand(6, 3, 4, 4), torch.zeros(6, 3, 4, 4)], ids=["random", "zeros"])
def test_dreams_are_handed_over_in_the_order_of_the_data(example):
    for model in (channels_last, flat_channels_last):
        with pytest.raises(ValueError, match=r"site 'x' .*data in another layout or unit"):
            make_objective("wake-sleep").loss(model, picture_guide, example)
    assert math.isfinite(make_objective("wake-wake", num_particles=2).loss(channels_last, picture_guide, example))


def test_dreams_of_a_plate_left_of_the_rows():
    """The guide sees each dream as data: a cross-entropy that is lowest for the exact posterior."""

    def model(x):
        with pyro.plate("rows", len(x)), pyro.plate("time", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("rows", len(x)), pyro.plate("time", 3, dim=-2):
            pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))

    x = torch.randn(3000, 3)
    loss = make_objective("wake-sleep").losses(model, guide, x).guide / 3000
    assert loss == pytest.approx(3 * float(dist.Normal(0.0, 0.5**0.5).entropy()), abs=0.1)
