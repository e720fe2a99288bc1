"""Every estimator against the exact gradient of what it claims to climb."""

import pytest
import torch
from enumeration import CASES, GAUSSIAN, THREE_BITS, Case, Values, bound_gradients, gradients, renyi_bound, sleep, wake
from pairs import plain_module_pair
from pyro.infer import ELBO, RenyiELBO, Trace_ELBO
from torch import nn

from pyrovae.infer import IWAE, NVIL, VIMCO, KLWeightMessenger, Renyi, ReweightedWakeSleep, WakeSleep, functional

DRAWS = 200_000
"""Draws of the latents' particles for each comparison."""


def draws_of_gradient(objective: ELBO, case: Case, beta: float = 1.0, draws: int = DRAWS, calls: int = 10) -> Values:
    """Single-draw gradients of the bound, averaged over the two data of the case: `[draws, ...]` by parameter."""
    rows = draws // calls
    model, guide = case.programs(rows)
    x = case.data(rows)
    parts = {name: [] for name in case.values}
    for _ in range(calls):
        with KLWeightMessenger(beta):
            objective.loss_and_grads(model, guide, x)
        for program in (model, guide):
            for name, parameter in program.named_parameters():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else -parameter.grad
                parts[name].append(gradient.unflatten(0, (-1, len(case.x))).mean(1))
                parameter.grad = None
    return {name: torch.cat(part) for name, part in parts.items()}


def check(objective: ELBO, case: Case, exact: Values, beta: float = 1.0) -> None:
    """Assert that the mean gradient is within four standard errors of the exact one, entry by entry."""
    for name, draws in draws_of_gradient(objective, case, beta).items():
        error = draws.std(0) / len(draws) ** 0.5
        distance = (draws.mean(0) - exact[name]).abs()
        assert (distance <= 4 * error + 1e-9).all(), (
            f"{name} is {(distance / error).max():.1f} standard errors away: {draws.mean(0)}, exact {exact[name]}"
        )


# -- single bounds ----------------------------------------------------------------------------------------------------


def own_net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 1), nn.Tanh()).double()


UNBIASED = {
    "iwae": lambda k: IWAE(k),
    "vimco-geometric": lambda k: VIMCO(k),
    "vimco-arithmetic": lambda k: VIMCO(k, control_variate="arithmetic"),
    "nvil": lambda k: NVIL(k, normalize=False),
}


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("pair", ["three-bits", "two-layers"])
@pytest.mark.parametrize("objective", UNBIASED)
def test_multi_sample_bound_of_discrete_latents(objective, pair, count):
    check(UNBIASED[objective](count), CASES[pair], bound_gradients(CASES[pair], count))


@pytest.mark.parametrize("baseline", [lambda: "none", lambda: "input", own_net], ids=["none", "input", "module"])
def test_other_baselines_of_nvil(baseline):
    objective = NVIL(3, baseline=baseline(), normalize=False)
    check(objective, THREE_BITS, bound_gradients(THREE_BITS, 3))


@pytest.mark.parametrize("pair", ["three-bits", "two-layers"])
@pytest.mark.parametrize(
    "objective", [Trace_ELBO(), IWAE(1), NVIL(1, normalize=False)], ids=["Trace_ELBO", "IWAE", "NVIL"]
)
def test_elbo_of_discrete_latents(objective, pair):
    check(objective, CASES[pair], bound_gradients(CASES[pair], 1))


@pytest.mark.parametrize(
    ("pair", "alpha"),
    [*(("three-bits", alpha) for alpha in (0.0, 0.5, 1.0, 2.0)), ("bit-first", 0.5), ("gaussian", 0.5)],
)
def test_renyi(pair, alpha):
    check(Renyi(alpha, 2), CASES[pair], bound_gradients(CASES[pair], 2, alpha))


@pytest.mark.parametrize("pair", ["bit-first", "normal-first"])
@pytest.mark.parametrize("objective", [*UNBIASED, "elbo"])
def test_mixed_latents(objective, pair):
    count = 1 if objective == "elbo" else 2
    made = Trace_ELBO() if objective == "elbo" else UNBIASED[objective](count)
    check(made, CASES[pair], bound_gradients(CASES[pair], count))


@pytest.mark.parametrize(("objective", "beta"), [*((name, 0.5) for name in (*UNBIASED, "renyi")), ("iwae", 0.0)])
def test_kl_weight_enters_each_log_weight_and_not_the_score(objective, beta):
    made, alpha = (Renyi(0.5, 2), 0.5) if objective == "renyi" else (UNBIASED[objective](2), 0.0)
    check(made, THREE_BITS, bound_gradients(THREE_BITS, 2, alpha, beta), beta)


@pytest.mark.parametrize("count", [1, 3])
def test_normalised_signal_keeps_the_direction_of_the_guide(count):
    """The weights are far apart, so the signal's deviation exceeds 1 and the guide's step is shortened."""
    spread = {**THREE_BITS.values, "weight": 6 * THREE_BITS.values["weight"]}
    case = THREE_BITS._replace(values=spread)
    objective, exact = NVIL(count, baseline="running-mean"), bound_gradients(case, count)
    draws_of_gradient(objective, case, draws=1000, calls=50)  # the running deviation settles
    draws = draws_of_gradient(objective, case, calls=1)
    scale = float(objective.module.scale)
    assert scale > 1.2
    for name, draw in draws.items():
        expected = exact[name] if name in case.model_names else exact[name] / scale
        # All draws share one scale, which moves a little after the call that used it.
        error = 4 * draw.std(0) / len(draw) ** 0.5 + 0.02 * expected.abs()
        assert ((draw.mean(0) - expected).abs() < error).all(), name


# -- reparameterised draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
@pytest.mark.parametrize(
    ("pair", "count"), [("gaussian", 1), ("gaussian", 3), ("hierarchical", 1), ("hierarchical", 2)]
)
def test_reparameterised_gradient(pair, count, gradient):
    check(IWAE(count, gradient=gradient), CASES[pair], bound_gradients(CASES[pair], count))


@pytest.mark.parametrize("pair", ["gaussian", "hierarchical"])
def test_sticking_the_landing_is_unbiased_for_one_particle(pair):
    check(IWAE(1, gradient="stl"), CASES[pair], bound_gradients(CASES[pair], 1))


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_reparameterised_gradient_with_kl_weight(gradient, beta):
    check(IWAE(2, gradient=gradient), GAUSSIAN, bound_gradients(GAUSSIAN, 2, beta=beta), beta)


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


# -- wake and sleep ---------------------------------------------------------------------------------------------------


def wake_sleep_gradients(case: Case, count: int, wake_phi: float, sleep_phi: float, defensive: float = 0.0) -> Values:
    def objective(values, x):
        theta, phi = wake(case.atoms(values, x), count, defensive)
        return theta, wake_phi * phi + sleep_phi * sleep(case, values)

    return gradients(case, objective)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("pair", ["three-bits", "two-layers"])
@pytest.mark.parametrize(("wake_phi", "sleep_phi", "defensive"), [(1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (1.0, 0.0, 0.3)])
def test_reweighted_wake_sleep(pair, count, wake_phi, sleep_phi, defensive):
    objective = ReweightedWakeSleep(count, wake_phi=wake_phi, sleep_phi=sleep_phi, defensive=defensive)
    check(objective, CASES[pair], wake_sleep_gradients(CASES[pair], count, wake_phi, sleep_phi, defensive))


@pytest.mark.parametrize("pair", ["three-bits", "two-layers"])
@pytest.mark.parametrize("count", [1, 3])
def test_wake_sleep(pair, count):
    check(WakeSleep(count), CASES[pair], wake_sleep_gradients(CASES[pair], count, 0.0, 1.0))


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
    assert float((up - down) / 2e-5) == pytest.approx(float(bound_gradients(case, 2)[name].flatten()[0]), abs=1e-7)
