"""VAE over every kind of pair: what its methods return, what they leave alone and what they refuse."""

import copy
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import (
    PAIRS,
    SHAPE,
    TutorialVAE,
    data_for,
    function_pair,
    library_pair,
    linear_pair,
    param_pair,
    pictures,
    plain_module_pair,
    same_weights,
    tutorial_pair,
    weights_of,
)
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE
from pyrovae.checkpoint import load_weights, save_weights
from pyrovae.training import Trainer

every_pair = pytest.mark.parametrize("kind", PAIRS)


@every_pair
@pytest.mark.usefixtures("store")
def test_every_method_of_every_pair(kind):
    """The shapes and the sites of each method, with the parameter store untouched throughout (fixture `store`)."""
    x = data_for(kind, 6)
    vae = PAIRS[kind]()
    (latent,) = vae.prepare(x).sites.latent
    assert vae.posterior(x)[latent].batch_shape == (6,)
    assert vae.encode(x).event_shape == (2,)
    assert vae.decode(torch.zeros(4, 2)).batch_shape == (4,)
    assert vae.decode({latent: torch.zeros(4, 2)}).event_shape.numel() == 64
    for output in ("draw", "mean", "mode"):
        assert vae.sample(5, output).shape == (5, *x.shape[1:])
    assert vae.reconstruct(x).shape == x.shape
    assert vae.log_likelihood(x, num_samples=7).shape == (6,)
    reconstruction, nll, kl = vae(x)
    assert (reconstruction.shape, nll.shape, kl.shape) == (x.shape, (6,), (6,))


def test_sites_of_the_tutorial_program_are_found_by_role():
    vae = tutorial_pair().prepare(pictures(3))
    assert vae.sites.observed == "obs"
    assert vae.sites.latent == ("latent",)


def test_tutorial_program_takes_flat_data_as_well():
    vae, x = tutorial_pair(), pictures(5).flatten(1)
    assert vae.reconstruct(x).shape == vae.sample(5).shape == (5, 64)


def test_draws_are_data_and_means_are_probabilities():
    vae = tutorial_pair().prepare(pictures(3))
    assert set(vae.sample(10, "draw").unique().tolist()) == {0.0, 1.0}
    assert set(vae.sample(10, "mode").unique().tolist()) <= {0.0, 1.0}
    mean = vae.sample(10, "mean")
    assert ((mean > 0) & (mean < 1)).all()


def test_reconstruction_is_the_mean_at_the_mean():
    vae, x = tutorial_pair(), pictures(4)
    net = vae.model.__self__
    expected = net.decoder(net.encoder(x.flatten(1)).chunk(2, -1)[0]).sigmoid()
    torch.testing.assert_close(vae.reconstruct(x).flatten(1), expected)


def test_forward_against_closed_forms():
    vae, x = linear_pair().to(torch.float64), torch.randn(6, 5, dtype=torch.float64)
    model, guide = vae.model, vae.guide
    reconstruction, nll, kl = vae(x)
    with torch.no_grad():
        noise, scale, mean = model.noise, guide.scale, guide.mean(x)
        squared = (x - reconstruction).square().sum(-1)
        torch.testing.assert_close(nll, squared / (2 * noise**2) + 2.5 * (2 * math.pi * noise**2).log())
        per_coordinate = (scale**2 + mean**2 - 1) / 2 - scale.log()
        torch.testing.assert_close(kl, per_coordinate.sum(-1))


def test_forward_draws_the_kl_that_torch_does_not_know():
    """With a mixture prior there is no closed form: the draw's log q - log p, right on average."""
    vae, x = library_pair(prior="mixture"), pictures(1).expand(4000, *SHAPE)
    kl = vae(x).kl.detach()
    q, p = vae.encode(x[:1]), vae.model.prior()
    z = q.sample((100_000,))
    expected = (q.log_prob(z) - p.log_prob(z)).mean()
    assert (kl.mean() - expected).abs() < 5 * kl.std() / 4000**0.5 + 0.02


def test_forward_draws_the_kl_between_layers_that_the_guide_draws_in_the_other_order():
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1) under the exact posterior: the bound is the evidence N(x; 0, 3)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0))
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)

    def upward(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(2 * x / 3, (2 / 3) ** 0.5))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.5**0.5))

    def downward(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x / 3, (2 / 3) ** 0.5))
            pyro.sample("z1", dist.Normal((x + z2) / 2, 0.5**0.5))

    x = torch.full((20_000,), 1.5)
    exact = float(dist.Normal(0.0, 3**0.5).log_prob(x[0]))
    for guide in (upward, downward):
        forward = VAE(model, guide)(x)
        bound = -forward.nll - forward.kl
        assert abs(float(bound.mean()) - exact) < 4 * float(bound.std()) / 20_000**0.5
    # In the same order the closed forms hold, and their sum varies with the draw of z2 alone.
    assert float(forward.kl.detach().std()) < 0.3


def test_forward_with_a_plate_of_pixels_outside_the_rows():
    """Rows stand in dimension -1, pixels in -2: summing must not mix them."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            with pyro.plate("pixels", x.shape[1], dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.mean(1), 1e-6))

    x = torch.arange(16.0).reshape(4, 4)  # as many pixels as rows
    expected = -dist.Normal(x.mean(1, keepdim=True), 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(VAE(model, guide)(x).nll, expected, rtol=1e-4, atol=1e-3)


# -- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_of_every_kind_of_program_are_collected():
    expected = {
        "library": 2 * (64 * 16 + 16) + 16 * 4 + 4 + 2 * 16 + 16 - 16 + 64 - 16 + 16,
        "functions": 0,
        "param-functions": 64 * 2 + 2 + 2 * 64 + 64 + 1 + 2,
        "tutorial": 64 * 16 + 16 + 16 * 4 + 4 + 2 * 16 + 16 + 16 * 64 + 64,
        "plain-modules": 2 * 64 + 64 + 64 * 2 + 2,
    }
    expected["library"] = expected["tutorial"]
    found = {}
    for kind in expected:
        vae = PAIRS[kind]().prepare(data_for(kind, 3))
        found[kind] = sum(p.numel() for p in vae.parameters())
    assert found == expected


def test_shared_module_is_registered_once():
    vae = tutorial_pair()
    names = [name for name, _ in vae.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == 8


def test_constrained_parameter_is_kept_unconstrained():
    vae = param_pair().prepare(pictures(2))
    assert vae.param_sites["noise"].item() == pytest.approx(math.log(0.7))
    with torch.no_grad():
        vae.param_sites["scale"].fill_(math.log(0.25))
    torch.testing.assert_close(vae.encode(pictures(2)).base_dist.scale, torch.full((2, 2), 0.25))


def test_module_known_to_the_program_only_is_collected():
    nets = [nn.Linear(64, 2)]  # a list hides it from the look at the function's variables

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat_interleave(32, -1), 1.0).to_event(1), obs=x)

    def guide(x):
        net = pyro.module("net", nets[0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    vae = VAE(model, guide, example=torch.zeros(2, 64))
    assert {id(p) for p in vae.parameters()} == {id(p) for p in nets[0].parameters()}


def test_parameters_made_at_the_first_call_are_collected():
    """Pyro itself cannot register a lazy module, so a plain function uses it."""
    net = nn.LazyLinear(2)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x.flatten(1)), 1.0).to_event(1))

    vae = VAE(function_pair().model, guide)
    before = weights_of(vae.prepare(pictures(8)))
    Trainer(epochs=1, progress=False).fit(vae, pictures(8))
    after = weights_of(vae)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert len(before) == 2


def test_parameters_of_a_pair_that_also_runs_without_data():
    """`sample` before any data finds the model's parameters, the first data find the guide's as well."""

    def model(x=None, *, size=None):
        loc = pyro.param("loc", lambda: torch.randn(3))
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z + loc, 1.0).to_event(1), obs=x)

    def guide(x):
        offset = pyro.param("offset", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + offset, 1.0).to_event(1))

    vae = VAE(model, guide)
    assert vae.sample(4).shape == (4, 3)
    loc = vae.param_sites["loc"].detach().clone()
    vae.prepare(torch.zeros(2, 3))
    assert set(vae.param_sites) == {"loc", "offset"}
    assert torch.equal(vae.param_sites["loc"], loc)


def test_two_different_parameters_of_one_name_are_refused():
    class Part(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"both have a parameter 'net\$\$\$\w+', and they are different tensors"):
        VAE(Part(), Part())


def test_two_different_modules_registered_under_one_name_are_refused():
    first, second = nn.Linear(64, 2), nn.Linear(64, 2)

    def model(x):
        pyro.module("net", first)
        function_pair().model(x)

    def guide(x):
        pyro.module("net", second)
        function_pair().guide(x)

    with pytest.raises(ValueError, match="different tensors; Pyro's parameter store would keep one of the two"):
        VAE(model, guide, example=pictures(2))


def test_one_parameter_may_serve_model_and_guide():
    def model(x):
        scale = pyro.param("scale", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, scale))

    assert len(list(VAE(model, guide, example=torch.zeros(3)).parameters())) == 1


# -- what is left alone -----------------------------------------------------------------------------------------------


@every_pair
@pytest.mark.usefixtures("store")
def test_training_leaves_the_parameter_store(kind):
    vae, x = PAIRS[kind](), data_for(kind, 16)
    if kind == "functions":
        with pytest.raises(ValueError, match="no parameters to train"):
            Trainer(epochs=1, progress=False).fit(vae, x)
    else:
        Trainer(epochs=1, batch_size=8, progress=False).fit(vae, x)


@pytest.mark.usefixtures("store")
def test_parameter_store_survives_an_error():
    def guide(x):
        pyro.param("loc", torch.zeros(2))
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        VAE(function_pair().model, guide).encode(pictures(2))


@every_pair
def test_preparation_uses_none_of_the_callers_random_numbers(kind):
    vae, x = PAIRS[kind](), data_for(kind, 3)
    before = torch.get_rng_state()
    vae.prepare(x)
    vae.vectorizes(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_trial_runs_leave_running_statistics():
    class Model(TutorialVAE):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 4))

    net = Model()
    vae = VAE(net.model, net.guide).prepare(pictures(4))
    vae.vectorizes(pictures(4))
    assert int(net.encoder[0].num_batches_tracked) == 0
    assert net.encoder[0].training


@pytest.mark.parametrize("kind", ["param-functions", "tutorial", "library"])
def test_two_pairs_trained_in_turn_are_as_if_alone(kind):
    x = data_for(kind, 32)
    trainer = Trainer(epochs=1, batch_size=8, progress=False)

    def fresh(seed):
        torch.manual_seed(seed)
        return PAIRS[kind]()

    alone = [fresh(1), fresh(2)]
    for vae in alone:
        trainer.fit(vae, x)
        trainer.fit(vae, x)
    together = [fresh(1), fresh(2)]
    for vae in together * 2:
        trainer.fit(vae, x)
    for first, second in zip(alone, together, strict=True):
        assert same_weights(weights_of(first), weights_of(second))
    assert not same_weights(weights_of(together[0]), weights_of(together[1]))


# -- copies, types, files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["library-conv", "pyro-modules", "tutorial", "plain-modules"])
def test_deep_copy_is_independent_and_complete(kind):
    x = data_for(kind, 8)
    vae = PAIRS[kind]().prepare(x)
    twin, before = copy.deepcopy(vae), weights_of(vae)
    Trainer(epochs=1, progress=False).fit(twin, x)
    assert same_weights(weights_of(vae), before)
    assert all(not torch.equal(before[name], value) for name, value in weights_of(twin).items())


def test_deep_copy_of_functions_with_params_is_independent():
    def guide(x):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    vae = VAE(function_pair().model, guide, example=pictures(2))
    twin = copy.deepcopy(vae)
    with torch.no_grad():
        twin.param_sites["loc"].fill_(5.0)
    assert vae.encode(pictures(1)).mean.tolist() == [[0.0, 0.0]]
    assert twin.encode(pictures(1)).mean.tolist() == [[5.0, 5.0]]


def test_deep_copy_of_functions_with_modules_is_refused():
    with pytest.raises(TypeError, match=r"model is a function that works with modules of its own"):
        copy.deepcopy(param_pair())


@every_pair
def test_double_precision(kind):
    x = data_for(kind, 4)
    vae = PAIRS[kind]().prepare(x).to(torch.float64)
    for value in (vae.sample(3, "mean"), vae.reconstruct(x.double()), vae.log_likelihood(x.double(), 5)):
        assert value.dtype == torch.float64
        assert value.isfinite().all()


@every_pair
def test_weights_survive_a_file(kind, tmp_path):
    x = data_for(kind, 8)
    vae, other = PAIRS[kind]().prepare(x), PAIRS[kind]().prepare(x)
    save_weights(vae, tmp_path / "weights.safetensors", note="mine")
    assert load_weights(other, tmp_path / "weights.safetensors")["note"] == "mine"
    assert same_weights(weights_of(vae), weights_of(other))
    torch.manual_seed(0)
    first = vae.log_likelihood(x, 5)
    torch.manual_seed(0)
    assert torch.equal(first, other.log_likelihood(x, 5))


def test_state_dict_of_a_function_pair():
    x = pictures(4)
    vae, other = param_pair().prepare(x), param_pair().prepare(x)
    with torch.no_grad():
        vae.param_sites["scale"].fill_(-1.0)
    other.load_state_dict(vae.state_dict())
    torch.testing.assert_close(other.encode(x).base_dist.scale, torch.full((4, 2), math.exp(-1)))


# -- arguments --------------------------------------------------------------------------------------------------------


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


# -- further programs -------------------------------------------------------------------------------------------------


def test_two_latent_layers():
    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z1, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x / 2, 1.0).to_event(1))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.7).to_event(1))

    x = torch.randn(4, 2)
    vae = VAE(model, guide, example=x)
    assert list(vae.encode(x)) == ["z1", "z2"]
    assert vae.decode({"z1": torch.full((3, 2), 9.0)}).mean.tolist() == [[9.0, 9.0]] * 3
    with pytest.raises(ValueError, match=r"latent sites \('z1', 'z2'\); give a dictionary by site"):
        vae.decode(torch.zeros(3, 2))
    # The means are passed on: z2's is that of z1's mean, and the reconstruction is z1's mean.
    torch.testing.assert_close(vae.reconstruct(x), x / 2)


def test_reconstruction_with_a_posterior_that_has_no_mean():
    def guide(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(len(x), 2), 1.0)
            pyro.sample("z", dist.TransformedDistribution(base, [dist.transforms.SigmoidTransform()]).to_event(1))

    vae = VAE(function_pair().model, guide)
    value = vae.reconstruct(pictures(3))
    assert ((value > 0) & (value < 1)).all()


def test_partial_programs():
    def model(x, *, decoder):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x.flatten(1))

    decoder = nn.Linear(2, 64)
    vae = VAE(functools.partial(model, decoder=decoder), function_pair().guide, example=pictures(2))
    assert {id(p) for p in vae.parameters()} == {id(p) for p in decoder.parameters()}


def test_masks_with_nan_under_them_give_finite_gradients_and_ignore_what_is_hidden():
    x, mask = pictures(6), torch.rand(6, *SHAPE) < 0.6
    for likelihood in ("bernoulli", "normal-predicted", "discretized-logistic"):
        vae = library_pair(likelihood=likelihood)
        hidden = torch.where(mask, x, torch.nan)
        torch.manual_seed(0)
        _, nll, kl = vae(hidden, mask=mask)
        (nll + kl).sum().backward()
        assert all(p.grad.isfinite().all() for p in vae.parameters())
        torch.manual_seed(0)
        other = vae(torch.where(mask, x, 1.0), mask=mask)
        torch.testing.assert_close(nll, other.nll)
        assert vae.log_likelihood(hidden, 5, mask=mask).isfinite().all()


def test_a_row_without_observations_costs_nothing():
    vae, x = library_pair(), pictures(2)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[1] = False
    nll = vae(x, mask=mask).nll
    assert nll[0] > 1
    assert nll[1] == 0


def test_the_library_pair_tells_grey_values_from_binary_ones():
    vae = library_pair()
    with pytest.raises(ValueError, match="Expected value"):
        vae(torch.full((2, *SHAPE), 0.5)).nll.sum()


def test_gradients_reach_every_parameter_of_a_plain_module_pair():
    """Stock objectives would differentiate nothing here, for want of a param site; the Trainer sees to one."""
    vae = plain_module_pair()
    before = weights_of(vae)
    Trainer(epochs=1, batch_size=4, progress=False).fit(vae, pictures(8))
    assert all(not torch.equal(before[name], value) for name, value in weights_of(vae).items())
