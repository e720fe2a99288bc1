"""Every estimator against the exact gradient of what it claims to climb."""

import pytest
import torch
from enumeration import Case, Values, bound_gradients, gradients, renyi_bound, wake_sleep_gradients
from estimators import comparisons, draws_of_gradient, z_scores
from pairs import plain_module_pair
from pyro.infer import ELBO, RenyiELBO
from tiny_pairs import CASES, GAUSSIAN, THREE_BITS

from pyrovae.infer import IWAE, NVIL, VIMCO, functional

DRAWS = 40_000
"""Draws of K particles for each datum; benchmarks/gradients.py takes more."""


def assert_close(scores: Values) -> None:
    """Assert that mean gradients are within four standard errors of the exact ones, entry by entry."""
    for name, score in scores.items():
        assert (score <= 4).all(), f"{name} is {score.max():.1f} standard errors away"


def check(objective: ELBO, case: Case, exact: Values) -> None:
    assert_close(z_scores(draws_of_gradient(objective, case, draws=DRAWS), exact))


@pytest.mark.parametrize("comparison", [*comparisons()], ids=lambda comparison: comparison.name)
def test_mean_gradient_is_the_exact_one(comparison):
    assert_close(comparison.z_scores(DRAWS))


@pytest.mark.parametrize("count", [1, 3])
def test_normalised_signal_keeps_the_direction_of_the_guide(count):
    """The weights are far apart, so the signal's deviation exceeds 1 and the guide's step is shortened."""
    spread = {**THREE_BITS.values, "weight": 6 * THREE_BITS.values["weight"]}
    case = THREE_BITS._replace(values=spread)
    objective, exact = NVIL(count, baseline="running-mean"), bound_gradients(case, count)
    draws_of_gradient(objective, case, draws=500, calls=50)  # the running deviation settles
    draws = draws_of_gradient(objective, case, draws=100_000, calls=1)
    scale = float(objective.module.scale)
    assert scale > 1.2
    for name, draw in draws.items():
        expected = exact[name] if name in case.model_names else exact[name] / scale
        # All draws share one scale, which moves a little after the call that used it.
        error = 4 * draw.std(0) / len(draw) ** 0.5 + 0.02 * expected.abs()
        assert ((draw.mean(0) - expected).abs() < error).all(), name


def test_doubly_reparameterised_gradient_of_particles_that_are_looped_over():
    exact = bound_gradients(CASES["hierarchical"], 2)
    check(IWAE(2, gradient="dreg", vectorize_particles=False), CASES["hierarchical"], exact)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
@pytest.mark.parametrize("count", [1, 4])
def test_path_gradients_vanish_at_the_exact_posterior(gradient, count):
    weight, offset = GAUSSIAN.values["weight"], GAUSSIAN.values["offset"]
    precision = 1 + weight**2
    values = {
        **GAUSSIAN.values,
        "slope": weight / precision,
        "level": (GAUSSIAN.values["prior"] - weight * offset) / precision,
        "log_scale": -precision.log() / 2,
    }
    exact = GAUSSIAN._replace(values=values)
    draws = draws_of_gradient(IWAE(count, gradient=gradient), exact, draws=1000, calls=1)
    standard = draws_of_gradient(IWAE(count), exact, draws=1000, calls=1)
    for name in ("slope", "level", "log_scale"):
        assert draws[name].abs().max() < 1e-12
        assert standard[name].std() > 0.1


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
@pytest.mark.parametrize("pair", ["three-bits", "bit-first", "normal-first"])
def test_path_gradients_refuse_discrete_sites(pair, gradient):
    model, guide = CASES[pair].programs(4)
    name = "z" if pair == "three-bits" else "b"
    with pytest.raises(ValueError, match=f"site '{name}' has no reparameterised draws.*use gradient='standard'"):
        IWAE(2, gradient=gradient).loss_and_grads(model, guide, CASES[pair].data(4))


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_path_gradients_of_plain_modules(gradient):
    """No param site shows their parameters, and yet the derivative of log q by them is left out."""
    vae, x = plain_module_pair(), torch.rand(6, 1, 8, 8).round()
    IWAE(3, gradient=gradient).loss_and_grads(vae.model, vae.guide, x)
    # The standard gradient of a guide of fixed scale: the path of log p only, as that of log q cancels.
    gradients = [parameter.grad.clone() for parameter in vae.parameters()]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(parameter.requires_grad for parameter in vae.parameters())
    mean = {}
    for kind in ("standard", gradient):
        vae.zero_grad()
        for _ in range(20):
            IWAE(1, gradient=kind).loss_and_grads(vae.model, vae.guide, x.repeat(500, 1, 1, 1))
        mean[kind] = vae.guide.encoder.bias.grad / 1e4
    torch.testing.assert_close(mean[gradient], mean["standard"], rtol=0.03, atol=0.03)


def test_wake_phi_is_biased_and_less_so_with_more_particles():
    """What wake-phi aims at is the gradient of -KL(p(z|x) || q(z|x)); the test's own definitions show the bias."""

    def posterior(values, x):
        atoms = THREE_BITS.atoms(values, x)
        joint = atoms.log_likelihood + atoms.log_prior
        return joint.exp().sum().log(), (joint.detach().softmax(0) * atoms.log_q).sum()

    aim = gradients(THREE_BITS, posterior)["level"]
    bias = [(wake_sleep_gradients(THREE_BITS, k, 1.0, 0.0)["level"] - aim).norm() for k in (1, 2, 5)]
    assert bias[0] > 1.5 * bias[1] > 1.5 * bias[2]


# -- the tests would notice -------------------------------------------------------------------------------------------


class NoControlVariate(VIMCO):
    """VIMCO with its signal upside down."""

    def bound(self, pair):
        weights = pair.log_weights()
        signal = functional.vimco_signal(weights.log_weight.detach())
        return functional.log_mean_exp(weights.log_weight) - functional.score_term(signal, weights.log_score)


class NoScore(IWAE):
    """The mistake of leaving the score out."""

    def bound(self, pair):
        return functional.iwae(pair.log_weights().log_weight)


class TwiceHooked(IWAE):
    """The wrong coefficients: plain instead of squared weights on the path."""

    def bound(self, pair):
        self.gradient = "stl"
        return super().bound(pair)


@pytest.mark.parametrize(
    ("objective", "case"),
    [
        (NoControlVariate(3), THREE_BITS),
        (NoScore(3), THREE_BITS),
        (TwiceHooked(3, gradient="dreg"), GAUSSIAN),
        (RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, max_plate_nesting=1), THREE_BITS),
    ],
    ids=["sign", "no score", "weights", "pyro"],
)
def test_wrong_gradients_are_noticed(objective, case):
    with pytest.raises(AssertionError, match="standard errors away"):
        check(objective, case, bound_gradients(case, 3))


def test_pyro_gives_guides_of_discrete_latents_no_gradient():
    """Why there is an `IWAE` here: the guide of a discrete pair does not move under Pyro's bound of order 0."""
    objective = RenyiELBO(alpha=0, num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    draws = draws_of_gradient(objective, THREE_BITS, draws=1000, calls=1)
    assert all((draws[name].mean(0).abs() < 1e-12).all() for name in ("level", "slope"))


# -- the oracle itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", CASES)
def test_oracle_agrees_with_finite_differences_and_with_the_evidence(pair):
    """Its masses sum to 1, and its bound rises to the evidence with the number of particles."""
    case = CASES[pair]
    atoms = case.atoms(case.values, case.x[0])
    assert float(atoms.mass.sum()) == pytest.approx(1.0)
    evidence = float((atoms.mass * atoms.log_weight().exp()).sum().log())
    bounds = [float(renyi_bound(atoms, count)) for count in (1, 2)]
    assert bounds[0] < bounds[1] < evidence
    name = sorted(case.values)[0]
    step = torch.zeros_like(case.values[name]).flatten()
    step[0] = 1e-5
    step = step.reshape(case.values[name].shape)

    def mean_bound(values):
        return sum(renyi_bound(case.atoms(values, x), 2) for x in case.x) / 2

    up, down = (mean_bound({**case.values, name: case.values[name] + sign * step}) for sign in (1, -1))
    slope, exact = float((up - down) / 2e-5), float(bound_gradients(case, 2)[name].flatten()[0])
    if pair.startswith("straight-through"):
        # By definition its gradient is not that of the bound it evaluates.
        assert abs(slope - exact) > 0.02
    else:
        assert slope == pytest.approx(exact, abs=1e-7)
