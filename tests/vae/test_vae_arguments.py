"""What VAE refuses: ambiguous or unknown sites, latents outside the plate, arguments that no program takes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import function_pair, library_pair, pictures, tutorial_pair

from pyrovae import VAE


def _labelled(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("left", dist.Normal(z, 1.0), obs=x[:, 0])
        pyro.sample("right", dist.Normal(z, 1.0), obs=x[:, 1])


def _normal_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.reshape(len(x), -1).mean(-1), 1.0))


def test_several_data_sites_and_one_that_is_chosen():
    x = torch.zeros(3, 2)
    both = VAE(_labelled, _normal_guide, example=x)
    assert both.sites.all_observed == ("left", "right")
    assert both.sample(4).keys() == both.reconstruct(x).keys() == both(x).reconstruction.keys() == {"left", "right"}
    vae = VAE(_labelled, _normal_guide, observed="right", example=x)
    assert vae.sites.observed == "right"
    # Both observations still count in the log-likelihood.
    covariance = torch.eye(2) + torch.ones(2, 2)
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), covariance).log_prob(x)
    torch.testing.assert_close(vae.log_likelihood(x, 20_000), exact, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observed": "pixels"}, r"observed='pixels' is no site of the model; its sites are \['left', 'right', 'z'\]"),
        ({"observed": "left", "latent": ("w",)}, r"latent='w' is no site of the guide; its sites are \['z'\]"),
    ],
)
def test_unknown_sites_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VAE(_labelled, _normal_guide, example=torch.zeros(3, 2), **options)


def test_model_that_observes_nothing_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="the model observes nothing"):
        VAE(model, _normal_guide, example=torch.zeros(3))


def test_guide_without_sites_is_refused():
    with pytest.raises(ValueError, match="the guide has no sample site"):
        VAE(function_pair().model, lambda x: None, example=pictures(2))


def test_latent_missing_from_the_guide_is_named():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    with pytest.raises(ValueError, match="latent site 'w' of the model is missing from the guide"):
        VAE(model, _normal_guide).log_likelihood(torch.zeros(3), 2)


def _global_model(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, scale), obs=x)


def _global_guide(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.1))
    with pyro.plate("data", len(x)):
        variance = scale**2 / (1 + scale**2)  # exact, given the scale
        pyro.sample("z", dist.Normal(x * variance / scale**2, variance.sqrt()))


@pytest.mark.parametrize("num_samples", [1, 20])
def test_latent_outside_the_plate_needs_a_value(num_samples):
    vae = VAE(_global_model, _global_guide)
    with pytest.raises(ValueError, match=r"latent site 'scale' lies outside the plate over the data.*condition="):
        vae.log_likelihood(torch.zeros(3), num_samples)


@pytest.mark.parametrize("num_samples", [1, 20])
def test_fixed_global_latent_reaches_model_and_guide(num_samples):
    """The guide is exact once it gets the value, so every log weight is the evidence."""
    vae, x, scale = VAE(_global_model, _global_guide), torch.randn(5), torch.tensor(1.7)
    estimate = vae.log_likelihood(x, num_samples, condition={"scale": scale})
    torch.testing.assert_close(estimate, dist.Normal(0.0, (1 + scale**2).sqrt()).log_prob(x))


def test_no_data_seen_yet():
    for call in (lambda vae: vae.sample(3), lambda vae: vae.decode(torch.zeros(3, 2)), lambda vae: vae.sites):
        with pytest.raises(RuntimeError, match=r"TutorialVAE.model needs data to run.*VAE\(..., example=x\)"):
            call(tutorial_pair())


def test_keyword_arguments_of_a_program_are_no_sign_that_it_runs_without_data():
    def model(x, **options):
        function_pair().model(x)

    with pytest.raises(RuntimeError, match="needs data to run"):
        VAE(model, function_pair().guide).sample(2)


@pytest.mark.parametrize("method", ["posterior", "encode", "reconstruct", "log_likelihood", "forward", "prepare"])
def test_argument_that_the_pair_does_not_take(method):
    x = pictures(3)
    with pytest.raises(TypeError, match=r"mask= was given, but function_pair.<locals>.model takes no argument 'mask'"):
        getattr(function_pair(), method)(x, mask=torch.ones_like(x, dtype=torch.bool))


def test_argument_that_the_guide_does_not_take():
    def model(x, y=None):
        function_pair().model(x)

    with pytest.raises(TypeError, match=r"y= was given, but .*guide takes no argument 'y'"):
        VAE(model, function_pair().guide).log_likelihood(pictures(3), y=torch.zeros(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae, x: vae.log_likelihood(x, 0), "num_samples must be at least 1, got 0"),
        (lambda vae, x: vae.log_likelihood(x, 5, chunk_size=0), "chunk_size must be at least 1, got 0"),
        (lambda vae, x: vae.sample(2, "median"), "output must be one of draw, mean, mode, got 'median'"),
        (lambda vae, x: vae.sample(0), "num_samples must be at least 1, got 0"),
        (lambda vae, x: vae.decode({"w": x}), r"decode got the latents \['w'\]; this pair has \('z',\)"),
        (lambda vae, x: vae.decode({}), r"decode got the latents \[\]"),
        (lambda vae, x: vae.encode(x[:0]), r"x must hold at least one row, got shape \(0, 1, 8, 8\)"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(library_pair(), pictures(2))


def test_programs_must_be_callable():
    with pytest.raises(TypeError, match="guide must be callable, got int"):
        VAE(lambda x: None, 3)
