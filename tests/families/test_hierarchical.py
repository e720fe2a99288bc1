"""Layers of Gaussian latents on pictures: every tool, net and objective, and the options that are refused."""

import math

import pyro
import pytest
import torch
from pairs import SHAPE, pictures, same_weights, weights_of
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.distributions import kl_divergence

from pyrovae import VAE, metrics
from pyrovae.data import Dataset, Rows
from pyrovae.distributions import DependentNormal
from pyrovae.guides import HierarchicalGaussian
from pyrovae.infer import IWAE
from pyrovae.nn import GaussianLayer
from pyrovae.pairs import find_pair
from pyrovae.storage import load_weights, save_weights
from pyrovae.training import Trainer


def dataset(num=24) -> Dataset:
    x = pictures(num)
    return Dataset("some", Rows(x), Rows(x[:8]), Rows(x[:8]), "binary")


SMALL = {"latent_dims": (4, 3), "hidden": (12,), "hidden_between": (8, 8)}
VARIANTS = {
    "plain": {},
    "gated": {"layer": "gated", "skip": True},
    "residual": {"layer": "residual", "activation": "relu", "prior": "mixture", "num_components": 5},
    "conv": {"net": "conv", "channels": (3, 4), "activation": "relu"},
    "vamp": {"prior": "vamp", "num_components": 5, "skip": True},
    "three layers": {"latent_dims": (5, 4, 3), "prior": "vamp", "num_components": 5},
    "one layer": {"latent_dims": (4,), "hidden_between": (100, 100), "prior": "vamp", "num_components": 5},
    "no hidden layers between": {"hidden_between": ()},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def build(variant="plain", **options) -> VAE:
    return find_pair("hierarchical").build(dataset(), **{**SMALL, **VARIANTS[variant], **options})


# -- on pictures ------------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "trace": Trace_ELBO,
    "mean-field": TraceMeanField_ELBO,
    "graph": TraceGraph_ELBO,
    "renyi": lambda: RenyiELBO(num_particles=3, vectorize_particles=True),
    "stl": lambda: IWAE(3, "stl"),
    "dreg": lambda: IWAE(3, "dreg"),
}


@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
@variants
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_in_stock_pyro(objective, variant):
    vae, x = build(variant), pictures(12)
    before = weights_of(vae)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), OBJECTIVES[objective]())
    losses = [svi.step(x) for _ in range(12)]
    assert sum(losses[-4:]) < sum(losses[:4])
    assert [name for name, value in vae.named_parameters() if torch.equal(value, before[name])] == []


@variants
def test_tools(variant):
    vae, x = build(variant), pictures(6)
    dims = VARIANTS[variant].get("latent_dims", SMALL["latent_dims"])
    names = [f"z{i + 1}" for i in range(len(dims))] if len(dims) > 1 else ["z"]
    assert sorted(vae.sites.latent) == names  # without data
    posterior = vae.posterior(x)
    assert {name: (q.batch_shape, q.event_shape) for name, q in posterior.items()} == {
        name: ((6,), (size,)) for name, size in zip(names, dims, strict=True)
    }
    assert vae.sites.latent == tuple(names)
    latents = {name: q.sample() for name, q in posterior.items()}
    assert vae.decode(latents).event_shape == SHAPE
    assert vae.decode({names[-1]: latents[names[-1]]}).mean.shape == (6, *SHAPE)
    assert vae.sample(3).shape == (3, *SHAPE)
    assert vae.reconstruct(x).shape == (6, *SHAPE)
    assert vae.log_likelihood(x, 7, chunk_size=10).shape == (6,)
    assert metrics.latent_means(vae, x).shape == (6, sum(dims))
    forward = vae(x)
    assert forward.nll.isfinite().all()
    assert forward.kl.shape == (6,)
    mask = torch.rand(x.shape) < 0.5
    assert vae.log_likelihood(torch.where(mask, x, math.nan), 3, mask=mask).isfinite().all()
    assert vae.vectorizes(x)


@pytest.mark.parametrize("variant", ["conv", "vamp", "three layers"])
def test_saved_weights(variant, tmp_path):
    first, second = build(variant).eval(), build(variant).eval()
    x = pictures(4)
    save_weights(first, tmp_path / "model.safetensors")
    values = []
    for vae in (first, second):
        torch.manual_seed(0)
        values.append(vae.log_likelihood(x, 5))
    load_weights(second, tmp_path / "model.safetensors")
    torch.manual_seed(0)
    assert torch.equal(second.log_likelihood(x, 5), values[0])
    assert not torch.equal(values[1], values[0])


def test_skip_lets_the_top_reach_the_data():
    for skip in (False, True):
        vae = build(skip=skip)
        z1 = torch.randn(1, 4).expand(2, 4)
        first, second = vae.decode({"z1": z1, "z2": torch.randn(2, 3)}).mean
        assert torch.allclose(first, second) is not skip
        assert vae.model.decoder.net.in_features == (7 if skip else 4)


def test_kl_weight():
    """At weight 0 nothing holds the guide to the model's layers; at 1 they are learned."""
    free, bound = build(), build()
    trainer = {"epochs": 3, "batch_size": 8, "lr": 0.01, "progress": False}
    before = weights_of(free)
    Trainer(kl_weight=0.0, **trainer).fit(free, dataset())
    Trainer(kl_weight=1.0, **trainer).fit(bound, dataset())
    layers = {name: value for name, value in weights_of(free).items() if "downward" in name}
    assert len(layers) == 6
    assert same_weights(layers, {name: before[name] for name in layers})
    with torch.no_grad():
        assert float(free(pictures(8)).kl.mean()) > float(bound(pictures(8)).kl.mean())


@pytest.mark.parametrize("options", [{}, {"layer": "residual", "activation": "relu"}, {"layer": "gated"}], ids=str)
def test_deep_stacks_start_calmly(options):
    """The divergence starts at a few tenths of a nat a unit, and the pixels are near even odds."""
    data = dataset()
    deep = find_pair("hierarchical").build(data, latent_dims=(20,) * 6, **options)
    x = data.train.x
    with torch.no_grad():
        assert float(deep(x).kl.mean()) < 0.3 * 120
        assert float(deep(x).nll.mean()) < 1.3 * 64 * math.log(2)
    for name, q in deep.posterior(x).items():
        assert (q.base_dist.scale - 1).abs().max() < 0.2, name
        assert q.mean.abs().max() < 3, name


def test_default_nets_are_those_of_burda_et_al():
    vae = find_pair("hierarchical").build(dataset())
    shapes = [tuple(module.weight.shape) for module in vae.guide.modules() if isinstance(module, nn.Linear)]
    assert shapes == [(200, 64), (200, 200), (200, 200), (100, 100), (100, 100), (100, 100)]
    assert sum(isinstance(module, nn.Tanh) for module in vae.modules()) == 8
    downward = [tuple(m.weight.shape) for m in vae.model.downward.modules() if isinstance(m, nn.Linear)]
    assert downward == [(100, 50), (100, 100), (200, 100)]


def test_pseudo_inputs_are_values_of_the_layer_below_the_top():
    vae = build("three layers")
    assert vae.model.prior.pseudo_inputs.shape == (5, 4)
    assert vae.model.prior().event_shape == (3,)
    assert not any("prior.posterior" in name for name, _ in vae.named_parameters())


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dims": ()}, r"latent_dims must hold at least one positive number, got \(\)"),
        ({"latent_dims": (3, 0)}, r"latent_dims must hold at least one positive number, got \(3, 0\)"),
        ({"prior": "vamp", "num_components": 0}, "num_components must be at least 1, got 0"),
        ({"hidden": ()}, "at least one hidden layer"),
        ({"net": "conv", "channels": (3,)}, "two numbers of channels"),
        ({"activation": "tahn"}, "unknown activation 'tahn'"),
    ],
    ids=str,
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_refused_layers():
    with pytest.raises(ValueError, match="at least one layer"):
        HierarchicalGaussian(nn.Identity(), [])

    class Laplace(nn.Module):
        def forward(self, x):
            return pyro.distributions.Laplace(x, 1.0).to_event(1)

    guide = HierarchicalGaussian(nn.Identity(), [Laplace(), GaussianLayer(3, (), 2)])
    with pytest.raises(TypeError, match=r"must return a diagonal Gaussian .*, got Independent"):
        guide(torch.zeros(2, 3))


def test_dependent_normal_refuses_closed_forms():
    p, q = DependentNormal(0.0, 1.0), pyro.distributions.Normal(0.0, 1.0)
    for first, second in (
        (p, q),
        (p, p),
        (p.expand((3,)), q),
        (p.expand((3,)).to_event(1), q.expand((3,)).to_event(1)),
    ):
        with pytest.raises(NotImplementedError, match="estimated from that draw"):
            kl_divergence(first, second)
    assert float(kl_divergence(q, q)) == 0
