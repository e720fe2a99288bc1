"""Registered pairs of discrete latents: where they start, their options, and what is refused."""

import math

import pytest
import torch
from discrete_pairs import (
    PIXELS,
    belief_network,
    binary,
    categorical_vae,
    exact_categorical_joint,
    exact_joint,
    tiny_dataset,
)

from pyrovae.guides import AmortizedCategorical, BernoulliLayers
from pyrovae.infer import VIMCO
from pyrovae.likelihoods import BernoulliLikelihood, NormalLikelihood
from pyrovae.models import CategoricalVAE, SigmoidBeliefNetwork
from pyrovae.nn import DenseEncoder
from pyrovae.nn.variables import RelaxedBits, RelaxedOneHot
from pyrovae.pairs import exact, find_pair


def test_sbn_starts_at_the_mean_of_the_data():
    dataset = tiny_dataset()
    vae = find_pair("sbn").build(dataset, sizes=(5, 3))
    mean = dataset.train.x.mean(0)
    assert torch.equal(vae.guide.encoder.centre, mean)
    bias = vae.model.decoder.net.layers[-1].bias.sigmoid().reshape(mean.shape)
    torch.testing.assert_close(bias, mean.clamp(0.01, 0.99))
    real = find_pair("sbn").build(tiny_dataset("real"), sizes=(5,))
    assert isinstance(real.model.likelihood, NormalLikelihood)
    assert math.isfinite(VIMCO(3).loss(real.model, real.guide, tiny_dataset("real").train.x))


@pytest.mark.parametrize("learn_prior", [False, True])
def test_categorical_prior(learn_prior):
    vae = find_pair("categorical").build(tiny_dataset(), num_variables=2, num_classes=3, learn_prior=learn_prior)
    assert ("owners.model.prior_logits" in dict(vae.named_parameters())) is learn_prior
    assert vae.model.prior_logits.shape == (2, 3)


def test_options_of_variables_reach_model_and_guide_separately():
    vae = find_pair("sbn").build(tiny_dataset(), sizes=(3, 2), draws="straight-through", temperature=0.4)
    variables = vae.model.variable, vae.guide.layer_variable
    assert variables[0] is not variables[1]
    for variable in variables:
        assert float(variable.temperature) == pytest.approx(0.4)
        assert variable.straight_through


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SigmoidBeliefNetwork((), BernoulliLikelihood((4,))), r"at least one positive number, got \(\)"),
        (lambda: BernoulliLayers((4,), (3, 0)), r"at least one positive number, got \(3, 0\)"),
        (lambda: BernoulliLayers((4,), (3,), centre=torch.zeros(5)), r"shape of a datum \(4,\), got \(5,\)"),
        (lambda: CategoricalVAE(0, 3, None, None), "at least 1 variable of 2 classes, got 0 of 3"),
        (lambda: CategoricalVAE(2, 1, None, None), "at least 1 variable of 2 classes, got 2 of 1"),
        (lambda: AmortizedCategorical(DenseEncoder((4,), (3,)), 2, 1), "at least 1 variable of 2 classes, got 2 of 1"),
        (lambda: RelaxedBits(0.0), "temperature must be positive, got 0.0"),
        (lambda: RelaxedOneHot(-1.0), "temperature must be positive, got -1.0"),
        (
            lambda: find_pair("sbn").build(tiny_dataset(), draws="soft"),
            "draws must be one of exact, relaxed, straight-through, got 'soft'",
        ),
        (lambda: SigmoidBeliefNetwork((3,), BernoulliLikelihood((4,)))(), "either data x or the number of rows"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_latents_of_several_layers_are_given_by_site():
    vae = belief_network((3, 2))
    with pytest.raises(ValueError, match="give a dictionary by site"):
        vae.decode(torch.zeros(2, 3))


@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_exact_pair_of_a_relaxed_one(make):
    relaxed = make(variable=RelaxedBits if make is belief_network else RelaxedOneHot)
    there, x = exact(relaxed), binary(PIXELS)[::3]
    joint = exact_joint(there, x)[0] if make is belief_network else exact_categorical_joint(there, x)[0]
    found = there.log_likelihood(x, 20_000, return_details=True)
    assert ((found.value - joint.logsumexp(0)).abs() < 4 * found.standard_error + 1e-4).all()
    assert dict(relaxed.named_parameters()).keys() == dict(there.named_parameters()).keys()
    assert any("temperature" in name for name, _ in relaxed.named_buffers())  # the given one stays relaxed
