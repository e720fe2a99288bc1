"""Natural exponential families on wide grids, conjugate updates, round trips and unconstrained inputs."""

import itertools

import mpmath
import pyro
import pytest
import torch
from natural_truth import TRUTHS, negative_binomial
from torch.distributions import biject_to, kl_divergence, transform_to
from torch.distributions import constraints as torch_constraints
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import distributions as dist
from pyrovae import testing
from pyrovae.testing import checks

DTYPES = [(torch.float32, 1e-4, 1e-5), (torch.float64, 1e-8, 1e-10)]
SMALL_TO_LARGE = [1e-3, 0.3, 7.0, 1e3, 1e5]
NORMALS = [(loc / scale**2, -0.5 / scale**2) for loc in (-1e3, 0.0, 3.0) for scale in (1e-2, 1.0, 50.0)]

# Natural parameters and values, every value against every parameter.
GRIDS = {
    "NaturalNormal": ([(a, b) for a, b in NORMALS if abs(a) * (-2 * b) ** -0.5 <= 1e3], [-1e3, -0.2, 0.0, 3.1, 1e3]),
    "NaturalLogNormal": (
        [(0.0, -0.5), (30.0, -5.0), (-1e3, -50.0), (1e-2, -1e-3), (-1.0, -5e-7)],
        [1e-30, 1e-4, 1.0, 20.0, 1e30],
    ),
    "NaturalExponential": ([(-1e-5,), (-0.3,), (-1e4,)], [0.0, 1e-30, 1e-3, 2.0, 1e5]),
    "NaturalGamma": ([*itertools.product(SMALL_TO_LARGE, (-1e3, -1.0, -1e-3))], [1e-30, 1e-4, 1.0, 99.0, 1e5]),
    "NaturalBeta": ([*itertools.product(SMALL_TO_LARGE, repeat=2)], [1e-30, 1e-5, 0.3, 0.5, 1 - 6e-8]),
    "NaturalDirichlet": (
        [*itertools.product((1e-3, 1.0, 40.0), (0.5, 1e5), (2.0, 1e4))],
        [(0.25, 0.25, 0.5), (2.0**-20, 0.5, 0.5 - 2.0**-20)],
    ),
    "NaturalBernoulli": ([(-300.0,), (-40.0,), (0.0,), (17.0,), (300.0,)], [0.0, 1.0]),
    "NaturalCategorical": ([(0.0, 0.0, 0.0), (300.0, -300.0, 1.0), (20.0, 19.0, -50.0)], [0, 1, 2, 3]),
    "NaturalPoisson": ([(-30.0,), (-2.0,), (0.0,), (6.0,), (9.0,)], [0.0, 1.0, 12.0, 8103.0, 9e4]),
    "NaturalGeometric": ([(-50.0,), (-1.0,), (-1e-3,)], [0.0, 1.0, 30.0, 5e4]),
    "NaturalNegativeBinomial": ([(-50.0,), (-1.0,), (-1e-2,)], [0.0, 1.0, 30.0, 5e4]),
}
NAMES = list(GRIDS)
CONJUGATE = ["NaturalBernoulli", "NaturalCategorical", "NaturalPoisson", "NaturalExponential", "NaturalGeometric"]


def build(name, natural, **kwargs):
    extra = {"total_count": 3.5} if name == "NaturalNegativeBinomial" else {}
    return getattr(dist, name)(natural, **extra, **kwargs)


def parameters(name, dtype=torch.double):
    return torch.tensor(GRIDS[name][0], dtype=dtype)


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(40):
        yield


def close(actual, truth, tolerance):
    truth = torch.tensor([float(value) for value in truth], dtype=torch.double)
    error = (actual.flatten().double() - truth).abs() / truth.abs().clamp(min=1)
    assert (error <= tolerance).all(), f"error {error.max()}: {actual.flatten()[error.argmax()]} of {error.argmax()}"


@pytest.mark.parametrize(("dtype", "tolerance", "_"), DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_log_prob_on_a_wide_grid(name, dtype, tolerance, _):
    natural = parameters(name, dtype)
    values = torch.tensor(GRIDS[name][1], dtype=torch.long if name == "NaturalCategorical" else dtype)
    p = build(name, natural.unsqueeze(1))
    actual = p.log_prob(values)
    truth = [TRUTHS[name].log_prob(eta, x) for eta in natural.tolist() for x in values.tolist()]
    close(actual, truth, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance", "_"), DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_entropy_on_a_wide_grid(name, dtype, tolerance, _):
    natural = parameters(name, dtype)
    close(build(name, natural).entropy(), [TRUTHS[name].entropy(eta) for eta in natural.tolist()], tolerance)


@pytest.mark.parametrize(("dtype", "tolerance", "_"), DTYPES)
@pytest.mark.parametrize("name", [name for name in NAMES if TRUTHS[name].moments])
def test_mean_and_variance_on_a_wide_grid(name, dtype, tolerance, _):
    natural = parameters(name, dtype)
    p, largest = build(name, natural), torch.finfo(dtype).max
    truth = [TRUTHS[name].moments(eta) for eta in natural.tolist()]
    for seen, column in zip((p.mean, p.variance), zip(*truth, strict=True), strict=True):
        exact = [value if value < largest else mpmath.inf for event in column for value in event]
        held = torch.tensor([value != mpmath.inf for value in exact])  # the log-normal overflows
        assert (seen.flatten()[~held] == torch.inf).all()
        close(seen.flatten()[held], [value for value in exact if value != mpmath.inf], tolerance)


@pytest.mark.parametrize("count", [1e-2, 0.7, 1.0, 1.001, 300.0])
def test_entropy_of_negative_binomials(count):
    p = dist.NaturalNegativeBinomial(torch.tensor([[-3.0], [-0.05]]).double(), count)
    close(p.entropy(), [negative_binomial(count).entropy(eta) for eta in p.natural.tolist()], 1e-8)


@pytest.mark.parametrize(("dtype", "tolerance", "_"), DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_kl_on_a_wide_grid(name, dtype, tolerance, _):
    natural = parameters(name, dtype)
    divergence = kl_divergence(build(name, natural.unsqueeze(1)), build(name, natural))
    truth = [TRUTHS[name].kl(p, q) for p in natural.tolist() for q in natural.tolist()]
    close(divergence, truth, tolerance)
    assert (divergence >= -tolerance).all()


@pytest.mark.parametrize("name", ["NaturalNormal", "NaturalGamma", "NaturalBeta", "NaturalPoisson", "NaturalGeometric"])
def test_kl_by_quadrature(name):
    p = {"NaturalNormal": (1.0, -0.3), "NaturalGamma": (2.0, -3.0), "NaturalBeta": (2.0, 3.0)}.get(name, (-0.5,))
    q = {"NaturalNormal": (0.0, -0.5), "NaturalGamma": (0.7, -1.0), "NaturalBeta": (0.4, 9.0)}.get(name, (-1.5,))
    testing.check_kl(build(name, torch.tensor(p).double()), build(name, torch.tensor(q).double()), 1e-8)


def test_kl_between_families_is_not_invented():
    normal, gamma = dist.NaturalNormal(torch.tensor([0.0, -1.0])), dist.NaturalGamma(torch.tensor([1.0, -1.0]))
    with pytest.raises(NotImplementedError, match="NaturalNormal to NaturalGamma"):
        kl_divergence(normal, gamma)
    natural = torch.tensor([-1.0])
    with pytest.raises(NotImplementedError, match="NaturalNegativeBinomial"):
        kl_divergence(dist.NaturalNegativeBinomial(natural, 2.0), dist.NaturalNegativeBinomial(natural, 3.0))


@pytest.mark.parametrize(("dtype", "_", "tolerance"), DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_through_canonical_parameters(name, dtype, _, tolerance):
    natural = parameters(name, dtype)
    canonical = build(name, natural).to_canonical()
    back = getattr(dist, name).from_canonical(**canonical).natural
    close(back, natural.flatten().tolist(), tolerance)
    twin = getattr(torch.distributions, name.removeprefix("Natural"))
    if name not in ("NaturalGeometric", "NaturalBernoulli"):  # torch turns their logits into probabilities of 0 and 1
        twin(**canonical, validate_args=True)


def test_canonical_probabilities():
    probs = torch.tensor(0.2).double()
    for cls in (dist.NaturalBernoulli, dist.NaturalGeometric):
        twin = getattr(torch.distributions, cls.__name__.removeprefix("Natural"))(probs)
        checks._compare("mean", cls, cls.from_canonical(probs=probs).mean, twin.mean, 1e-12)
        with pytest.raises(ValueError, match="exactly one of probs and logits"):
            cls.from_canonical()
    with pytest.raises(ValueError, match="exactly one of probs and logits"):
        dist.NaturalCategorical.from_canonical(probs=probs, logits=probs)


@pytest.mark.parametrize("name", NAMES)
def test_mean_parameters_and_covariance_are_moments_of_the_statistics(name):
    natural = {
        "NaturalNormal": [1.0, -0.3],
        "NaturalLogNormal": [1.0, -0.8],
        "NaturalGamma": [2.5, -0.7],
        "NaturalBeta": [1.5, 4.0],
        "NaturalDirichlet": [1.5, 4.0, 2.0],
        "NaturalCategorical": [0.3, -1.0],
    }.get(name, [-0.4])
    p = build(name, torch.tensor(natural).double())
    mean = p.mean_parameters
    for i in range(len(natural)):
        entry = testing.integrate(p, lambda x, i=i: p.sufficient_statistics(x)[..., i]).value
        torch.testing.assert_close(mean[i], entry, rtol=1e-7, atol=1e-7)
        for j in range(len(natural)):
            product = testing.integrate(
                p, lambda x, i=i, j=j: (p.sufficient_statistics(x) - mean)[..., [i, j]].prod(-1)
            ).value
            torch.testing.assert_close(p.statistics_covariance[i, j], product, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(p.statistics_variance, p.statistics_covariance.diagonal())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_any_net_output_gives_finite_values_and_gradients(name, dtype):
    size = len(GRIDS[name][0][0])
    levels = torch.tensor([-1e4, -200.0, -20.0, -15.0, -1.0, 0.0, 3.0, 20.1, 1e4], dtype=dtype)
    raw = torch.cartesian_prod(*[levels] * size).reshape(-1, size).requires_grad_()
    natural = getattr(dist, name).constrain(raw)
    p = build(name, natural, validate_args=True)
    for value in GRIDS[name][1]:
        value = torch.tensor(value, dtype=torch.long if name == "NaturalCategorical" else dtype)
        if name in ("NaturalNormal", "NaturalLogNormal"):
            value = value.clamp(1e-3, 1e3)
        score = p.log_prob(value.expand(p.batch_shape + p.event_shape))
        assert score.isfinite().all()
        (gradient,) = torch.autograd.grad(score.sum(), raw, retain_graph=True)
        assert gradient.isfinite().all()
    # Smooth: no jump of value or slope where a branch is left, at -15 and 20.
    fine = torch.linspace(-25.0, 25.0, 20001, dtype=torch.double)
    mapped = getattr(dist, name).constrain(fine.unsqueeze(-1).expand(-1, size))
    assert mapped.diff(n=2, dim=0).abs().max() < 1e-5


@pytest.mark.parametrize("name", [*CONJUGATE, "NaturalNegativeBinomial", "NaturalNormal", "NaturalLogNormal"])
def test_conjugate_update_is_bayes_rule(name):
    """Posterior minus prior minus likelihood, in logs, is the same number for every parameter value."""
    torch.manual_seed(0)
    prior = {
        "NaturalPoisson": dist.NaturalGamma(torch.tensor([2.0, -1.5]).double()),
        "NaturalExponential": dist.NaturalGamma(torch.tensor([2.0, -1.5]).double()),
        "NaturalCategorical": dist.NaturalDirichlet(torch.tensor([1.0, 2.0, 0.5]).double()),
        "NaturalNormal": dist.NaturalNormal(torch.tensor([0.3, -0.2]).double()),
        "NaturalLogNormal": dist.NaturalNormal(torch.tensor([0.3, -0.2]).double()),
    }.get(name, dist.NaturalBeta(torch.tensor([2.0, 3.0]).double()))
    theta = prior.sample((6,)).unsqueeze(1)
    extra, cls = {}, getattr(dist, name)
    if name == "NaturalNegativeBinomial":
        extra = {"total_count": 3.5}
        likelihood = cls.from_canonical(**extra, probs=1 - theta)
    elif name in ("NaturalNormal", "NaturalLogNormal"):
        extra = {"scale": 0.7}
        likelihood = cls.from_canonical(loc=theta, scale=torch.tensor(0.7, dtype=torch.double))
    elif name in ("NaturalPoisson", "NaturalExponential"):
        likelihood = cls.from_canonical(rate=theta)
    else:
        likelihood = cls.from_canonical(probs=theta)
    data = likelihood.expand((6, 5)).sample()[0]
    statistics = likelihood.sufficient_statistics(data).double().sum(0)
    posterior = cls.posterior(prior, statistics, 5, **extra)
    theta = theta.squeeze(1)
    rest = posterior.log_prob(theta) - prior.log_prob(theta) - likelihood.log_prob(data).sum(-1)
    assert rest.max() - rest.min() < 1e-9
    with pytest.raises(TypeError, match=f"{name}.posterior needs a"):
        cls.posterior(dist.NaturalBernoulli(torch.zeros(1)), statistics, 5, **extra)


def test_conjugate_update_of_a_batch():
    prior = dist.NaturalGamma(torch.tensor([2.0, -1.5]).double())
    counts = torch.tensor([3.0, 10.0]).double()
    posterior = dist.NaturalPoisson.posterior(prior, torch.tensor([[4.0], [25.0]]).double(), counts)
    assert posterior.natural.tolist() == [[6.0, -4.5], [27.0, -11.5]]
    posterior = dist.NaturalBernoulli.posterior(dist.NaturalBeta(torch.ones(2)), torch.tensor([1.0]), counts.float())
    assert posterior.natural.tolist() == [[2.0, 3.0], [2.0, 10.0]]


def test_posterior_keeps_type_and_checks_of_the_prior():
    prior = dist.NaturalGamma(torch.tensor([2.0, -1.5]).double(), validate_args=False)
    counts = torch.tensor([3, 4])
    posterior = dist.NaturalPoisson.posterior(prior, counts.sum(-1, keepdim=True), 2.5)
    assert posterior.natural.dtype == torch.double
    assert posterior.natural.tolist() == [9.0, -4.0]
    assert not posterior._validate_args
    assert dist.NaturalPoisson.posterior(dist.NaturalGamma(prior.natural), counts[:1], 1)._validate_args


def test_numbers_beside_tensors_are_not_rounded():
    one = torch.tensor(1.0).double()
    assert dist.NaturalGamma.from_canonical(0.1, one).natural.tolist() == [0.1, -1.0]
    assert dist.NaturalBeta.from_canonical(one, 0.1).natural.tolist() == [1.0, 0.1]
    assert dist.NaturalNormal.from_canonical(0.1, one).natural.tolist() == [0.1, -0.5]
    assert dist.NaturalGamma.from_canonical(2, torch.tensor(3)).natural.tolist() == [2.0, -3.0]
    with pytest.raises(ValueError, match="NaturalGamma"):
        dist.NaturalGamma.from_canonical(-1.0, one)
    assert not dist.NaturalGamma.from_canonical(-1.0, one, validate_args=False)._validate_args


def test_gamma_cdf_is_differentiable_in_the_value_only():
    """As documented: an error for the parameters, not a wrong number."""
    natural = torch.tensor([2.0, -1.5]).double()
    testing.check_gradient(dist.NaturalGamma(natural).cdf, torch.tensor([0.1, 0.7, 3.0]).double())
    natural.requires_grad_()
    with pytest.raises(NotImplementedError, match="igamma"):
        torch.autograd.grad(dist.NaturalGamma(natural).cdf(torch.tensor(0.7).double()), natural)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_concentrations_never_draw_an_end_point(dtype):
    torch.manual_seed(0)
    natural = torch.tensor([[1e-3, 1e-3], [1e-2, 5.0], [5.0, 1e-2]], dtype=dtype, requires_grad=True)
    beta = dist.NaturalBeta(natural).rsample((20_000,))
    assert ((beta > 0) & (beta < 1)).all()
    gamma = dist.NaturalGamma(natural * torch.tensor([1.0, -1.0], dtype=dtype)).rsample((20_000,))
    assert (gamma > 0).all()
    dirichlet = dist.NaturalDirichlet(natural).rsample((20_000,))
    assert (dirichlet > 0).all()
    assert ((dirichlet.sum(-1) - 1).abs() < 1e-6).all()
    for draws, family in ((beta, dist.NaturalBeta), (dirichlet, dist.NaturalDirichlet)):
        score = family(natural).log_prob(draws)
        assert score.isfinite().all()
        assert torch.autograd.grad(score.sum(), natural, retain_graph=True)[0].isfinite().all()


@pytest.mark.parametrize("name", ["NaturalGamma", "NaturalBeta", "NaturalDirichlet"])
def test_implicit_gradient_of_draws(name):
    """d E[x] / d natural through draws against the derivative of the mean."""
    torch.manual_seed(0)
    natural = torch.tensor([2.0, -1.5] if name == "NaturalGamma" else [0.4, 1.5]).double()

    def sampled(eta):
        draws = build(name, eta.expand(200_000, 2), validate_args=False).rsample()
        return (draws if draws.dim() == 1 else draws[..., 0]).mean()

    def exact(eta):
        mean = build(name, eta, validate_args=False).mean
        return mean if mean.dim() == 0 else mean[0]

    seen, truth = torch.func.grad(sampled)(natural), torch.func.grad(exact)(natural)
    torch.testing.assert_close(seen, truth, rtol=0.03, atol=0.01)


def test_messages():
    with pytest.raises(ValueError, match=r"natural must be \[\.\.\., 2\], got shape \(3,\)"):
        dist.NaturalNormal(torch.zeros(3))
    with pytest.raises(ValueError, match="must be a floating-point tensor"):
        dist.NaturalBernoulli(torch.ones(1, dtype=torch.long))
    with pytest.raises(ValueError, match="must be a floating-point tensor"):
        dist.NaturalBernoulli(1.0)
    with pytest.raises(ValueError, match="total_count must be positive, got 0"):
        dist.NaturalNegativeBinomial(torch.tensor([-1.0]), 0)
    with pytest.raises(ValueError, match="LessThan"):
        dist.NaturalNormal(torch.tensor([0.0, 1.0]), validate_args=True)


def test_natural_domain_has_a_bijection():
    domain = dist.NaturalGamma.arg_constraints["natural"]
    for registry in (biject_to, transform_to):
        natural = registry(domain)(torch.tensor([[0.3, -2.0], [-9.0, 4.0]]))
        assert domain.check(natural).all()
    assert "LessThan(upper_bound=0.0)" in repr(domain)


def test_support_depends_on_the_number_of_categories():
    p = dist.NaturalCategorical(torch.zeros(4, 2))
    assert p.enumerate_support().tolist() == [[0] * 4, [1] * 4, [2] * 4]
    assert p.enumerate_support(expand=False).shape == (3, 1)
    assert torch_constraints.is_dependent(dist.NaturalCategorical.support)
    assert p.probs.sum(-1).tolist() == pytest.approx([1.0] * 4)
    assert dist.NaturalBernoulli(torch.zeros(4, 1)).enumerate_support(expand=False).shape == (2, 1)


def test_in_a_pyro_model():
    """With the exact posterior as guide every draw of Pyro's ELBO is the evidence."""
    data = torch.tensor([3.0, 5.0, 4.0, 1.0]).double()
    prior = dist.NaturalGamma(torch.tensor([2.0, -1.0]).double())
    posterior = dist.NaturalPoisson.posterior(prior, data.sum(-1, keepdim=True), len(data))

    def likelihood(rate):
        return dist.NaturalPoisson.from_canonical(rate=rate)

    def model():
        rate = pyro.sample("rate", prior)
        with pyro.plate("data", len(data)):
            pyro.sample("x", likelihood(rate), obs=data)

    evidence = testing.integrate(prior, lambda rate: likelihood(rate.unsqueeze(-1)).log_prob(data).sum(-1).exp())
    for _ in range(3):
        bound = -pyro.infer.Trace_ELBO().loss(model, lambda: pyro.sample("rate", posterior))
        assert bound == pytest.approx(float(evidence.value.log()), abs=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, from inside torch.compile
def test_compiles():
    natural = torch.tensor([[2.0, -1.0], [0.3, -4.0]])

    def bound(eta, x):
        p = dist.NaturalGamma(eta, validate_args=False)
        q = dist.NaturalGamma(eta.detach() * 1.5, validate_args=False)
        return (p.log_prob(x) + kl_divergence(p, q) + p.entropy()).sum()

    x = torch.tensor([0.5, 2.0])
    step = torch.func.grad_and_value(bound)
    compiled = torch.compile(make_fx(step)(natural, x))
    for seen, expected in zip(compiled(natural, x), step(natural, x), strict=True):
        torch.testing.assert_close(seen, expected)
