"""Every pair trains in five lines of stock Pyro."""

import pyro
import pytest
import torch
from pairs import LIKELIHOODS, library_pair, param_pair, pictures, tutorial_pair, user_linear_pair
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

OBJECTIVES = {
    "trace": Trace_ELBO,
    "mean-field": TraceMeanField_ELBO,
    "graph": TraceGraph_ELBO,
    "renyi": lambda: RenyiELBO(num_particles=5, vectorize_particles=True),
}


def train_by_svi(vae, objective, x, steps=25):
    """The mean loss of the first and the last five steps; the first one compares weights too."""
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), objective)
    losses = [svi.step(x) for _ in range(steps)]
    still = [name for name, p in vae.named_parameters() if torch.equal(p, before[name])]
    return sum(losses[:5]) / 5, sum(losses[-5:]) / 5, still


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("prior", ["standard-normal", "mixture", "vamp"])
@pytest.mark.parametrize("net", ["dense", "conv"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_library_pair(objective, net, prior, likelihood):
    vae = library_pair(net, prior, likelihood)
    first, last, still = train_by_svi(vae, OBJECTIVES[objective](), pictures(12), steps=15)
    assert last < first
    assert still == []


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("make", [tutorial_pair, user_linear_pair, param_pair])
def test_users_pair(objective, make):
    x = pictures(16).flatten(1) if make is user_linear_pair else pictures(16)
    vae = make()
    if make is param_pair:
        pyro.clear_param_store()
        with vae.prepare(x).scope():  # so that stock Pyro finds the parameters that the VAE took
            first, last, still = train_by_svi(vae, OBJECTIVES[objective](), x)
    else:
        first, last, still = train_by_svi(vae, OBJECTIVES[objective](), x)
    assert last < first
    assert still == []
