"""What every objective keeps to: values by datum, scales, masks, weights; training by stock Pyro."""

import math

import pyro
import pytest
import torch
from objective_pairs import (
    APPLIES,
    GENERAL,
    PAIRS,
    PIXELS,
    FixedNoise,
    K,
    belief_network,
    bounds,
    data,
    every,
    gradients,
    make,
    mixed,
)
from pyro import poutine
from pyro.infer import SVI
from torch import nn

from pyrovae.infer import (
    IWAE,
    NVIL,
    KLWeightMessenger,
    ReweightedWakeSleep,
    WakeSleep,
    make_objective,
    objective_names,
)
from pyrovae.likelihoods import BernoulliLikelihood

# -- values by datum --------------------------------------------------------------------------------------------------


@every
def test_values_and_gradients_do_not_depend_on_the_batch(pair, objective):
    """Rows, shuffled, or one row at a time; dreams, which are of no datum, are compared in value alone."""
    pair, rows = PAIRS[pair](), torch.arange(8)
    x, made = data(), make(objective)
    whole, gradient = bounds(made, pair, x, rows), gradients(pair)
    order = torch.randperm(8)
    for parts in ([rows[:3], rows[3:]], [order], rows.split(1)):
        found = torch.cat([bounds(made, pair, x[part], part) for part in parts])
        torch.testing.assert_close(found, whole[torch.cat(list(parts))], rtol=0, atol=1e-6)
        for name, value in gradients(pair).items():
            if objective not in ("rws", "wake-sleep"):
                torch.testing.assert_close(value, gradient[name], rtol=0, atol=1e-6)


@every
def test_rows_hidden_by_a_mask_count_for_nothing(pair, objective):
    model, guide = pair = PAIRS[pair]()
    x, rows, made = data(), torch.arange(8), make(objective)
    whole, gradient = bounds(made, pair, x, rows), gradients(pair)
    shown = torch.arange(11) < 8
    padded = tuple(poutine.mask(program, mask=shown) for program in (model, guide))
    found = bounds(made, padded, torch.cat([x, data(3)]), torch.arange(11))
    torch.testing.assert_close(found[:8], whole, rtol=0, atol=1e-6)
    assert (found[8:] == 0).all()
    if objective not in ("rws", "wake-sleep"):
        for name, value in gradients(pair).items():
            torch.testing.assert_close(value, gradient[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("pair", "objective"), [case for case in APPLIES if case[0] != "mixed"])
def test_missing_entries_are_as_if_they_did_not_exist(pair, objective):
    """What is under a mask does not matter, NaN included, and the bound is that of a model without those pixels."""
    model, guide = pair = PAIRS[pair]()
    x, rows, made = data(), torch.arange(8), make(objective)
    mask = torch.ones(8, PIXELS, dtype=torch.bool)
    mask[:, 4:] = False
    found = bounds(made, pair, torch.where(mask, x, math.nan), rows, mask=mask)
    assert all(value.isfinite().all() for value in gradients(pair).values())
    torch.testing.assert_close(found, bounds(made, pair, 1 - torch.where(mask, 1 - x, 0.0), rows, mask=mask))
    gradients(pair)
    few = BernoulliLikelihood((4,))
    last = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)][-1]
    last.weight, last.bias = nn.Parameter(last.weight[:4].detach()), nn.Parameter(last.bias[:4].detach())
    model.likelihood, model.decoder.raw_shape = few, few.raw_shape

    def padded(x, **given):
        return guide(torch.cat([x, torch.zeros(len(x), 2).to(x)], 1))

    torch.testing.assert_close(found, bounds(make(objective), (model, padded), x[:, :4], rows), rtol=0, atol=1e-6)


def test_dreams_have_the_masks_of_the_batch():
    """A pixel that no row shows tells the guide nothing, in dreams neither."""
    model, guide = belief_network()
    mask = torch.arange(PIXELS).expand(8, PIXELS) < 4
    WakeSleep(1).loss_and_grads(model, guide, torch.where(mask, data(), math.nan), mask=mask)
    gradient = guide.upward[0].layers[0].weight.grad
    assert (gradient[:, :4] != 0).all()
    assert (gradient[:, 4:] == 0).all()


@every
def test_kl_weight_weighs_prior_and_posterior(pair, objective):
    model, guide = PAIRS[pair]()
    x, rows = data(), torch.arange(8)
    made = make(objective)
    with KLWeightMessenger(0.3):
        found = bounds(made, (model, guide), x, rows)
    trace = poutine.trace(pyro.plate("particles", K, dim=-2)(FixedNoise(rows)(guide))).get_trace(x)
    joint = poutine.trace(pyro.plate("particles", K, dim=-2)(poutine.replay(model, trace=trace))).get_trace(x)
    for each in (trace, joint):
        each.compute_log_prob()
    divergence = sum(
        joint.nodes[name]["log_prob"] - trace.nodes[name]["log_prob"]
        for name in ("z", "z1", "z2", "b")
        if name in joint
    )
    log_weight = (joint.nodes["x"]["log_prob"] + 0.3 * divergence).detach()
    order = 0.5 if objective == "renyi" else 1.0
    torch.testing.assert_close(found, (order * log_weight).exp().mean(0).log() / order)


@pytest.mark.parametrize("objective", GENERAL)
def test_subsampling_scales_losses_and_gradients(objective):
    """By 40 / 8, outside of the logarithm of the mean weight."""
    x, results = data(), []
    for size in (None, 40):
        torch.manual_seed(1)
        pair = mixed(size)
        loss = make(objective).loss_and_grads(*pair, x)
        results.append((loss, gradients(pair)))
    (loss, gradient), (scaled_loss, scaled_gradient) = results
    assert scaled_loss == pytest.approx(5 * loss)
    for name, value in gradient.items():
        assert value.abs().sum() > 0
        torch.testing.assert_close(scaled_gradient[name], 5 * value)


@every
def test_looped_particles_are_as_good_as_vectorised_ones(pair, objective):
    """The same bound on average: particles that share draws, or sums in place of means, would show."""
    pair, x = PAIRS[pair](), data(2).repeat(2000, 1)
    for program in pair:
        for parameter in program.parameters():
            parameter.data *= 3  # weights far enough apart for the number of particles to matter
    together, looped = (make(objective, vectorize_particles=way).loss(*pair, x) / 4000 for way in (True, False))
    assert together == pytest.approx(looped, abs=0.05)


# -- stock Pyro -------------------------------------------------------------------------------------------------------


@every
def test_training_with_svi(pair, objective):
    """The loss falls, and every parameter of model and guide moves."""
    model, guide = PAIRS[pair]()
    x, made = data(1).repeat(30, 1), make(objective)
    before = [parameter.detach().clone() for program in (model, guide) for parameter in program.parameters()]
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), made)
    losses = [svi.step(x) for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    for old, new in zip(before, [*model.parameters(), *guide.parameters()], strict=True):
        assert not torch.equal(old, new)
    assert svi.evaluate_loss(x) < losses[0]


def test_baseline_learns_with_svi():
    """Its net comes to tell the data apart whose bounds differ, and so explains the signal."""
    x = torch.cat([torch.zeros(20, PIXELS), torch.ones(20, PIXELS)]).double()
    model, guide = belief_network()
    with torch.no_grad():
        model.decoder.net.layers[-1].bias.fill_(3.0)
    made = NVIL(1, baseline="input", decay=0.5)
    svi = SVI(model, guide, pyro.optim.Adam(lambda name: {"lr": 0.05 if "baseline" in name else 1e-6}), made)
    for _ in range(150):
        svi.step(x)
    value = made.module(x).detach()
    signal = made.bound(made._pair(model, guide, (x,), {})).detach()
    assert signal[20:].mean() - signal[:20].mean() > 10
    for half in (slice(20), slice(20, 40)):
        assert float(value[half].mean()) == pytest.approx(float(signal[half].mean()), abs=1.0)


def test_losses_of_wake_sleep():
    """The model's is that of the importance-weighted bound; the guide's are cross-entropies."""
    model, guide = belief_network()
    x = data(2).repeat(1000, 1)
    losses = ReweightedWakeSleep(5).losses(model, guide, x)
    assert losses.model == pytest.approx(IWAE(5).loss(model, guide, x), rel=0.02)
    parts = [ReweightedWakeSleep(5, wake_phi=w, sleep_phi=1 - w).losses(model, guide, x).guide for w in (0.0, 1.0)]
    assert losses.guide == pytest.approx(sum(parts) / 2, rel=0.02)


def test_every_name_makes_an_objective():
    for name in objective_names():
        made = make_objective(name, num_particles=3)
        assert made.num_particles == 3
        assert type(make_objective(name.replace("-", "_"), num_particles=3)) is type(made)
