"""Checks that every row of the table of distributions passes."""

import numpy as np
import pyro
import pytest
import torch
from cases import CASES, Case
from torch.distributions import constraints, kl_divergence, transform_to
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import distributions as dist
from pyrovae import testing

DTYPES = [torch.float32, torch.float64]


def rows(condition=lambda case: True):
    return [pytest.param(case, id=case.name) for case in CASES if condition(case)]


def resolved(case: Case) -> bool:
    return not case.has_mass_at_ends


def has(case: Case, name: str) -> bool:
    try:
        value = getattr(case.build(validate_args=False), name)
        if name in ("cdf", "icdf"):
            value(torch.tensor(0.5).double())
        elif name == "entropy":
            value()
    except (NotImplementedError, AttributeError):
        return False
    return not (name == "mean" and bool(value.isnan().all()))


def close(actual, expected, tolerance):
    """Error relative to max(1, |expected|), NaN in neither."""
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    error = np.where(actual == expected, 0.0, np.abs(actual - expected) / np.maximum(1.0, np.abs(expected)))
    assert (error <= tolerance).all(), f"error {error.max()}: {actual} against {expected}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", rows())
def test_shapes_and_support(case, dtype):
    p = case.build(dtype)
    draws = p.sample((5, 2))
    assert draws.shape == (5, 2, *p.batch_shape, *p.event_shape)
    assert p.support.check(draws).all()
    assert p.log_prob(draws).shape == (5, 2, *p.batch_shape)
    assert p.log_prob(draws).dtype == dtype
    assert p.log_prob(case.values(p, dtype)).isfinite().all()
    assert p.sample().shape == p.batch_shape + p.event_shape
    assert p.has_rsample == hasattr(type(p), "rsample") or not p.has_rsample


@pytest.mark.parametrize("case", rows(resolved))
def test_normalisation(case):
    testing.check_normalisation(case.build(), case.tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", rows(resolved))
def test_draws_follow_log_prob(case, dtype):
    p = case.build(dtype)
    if dtype == torch.double or p.support.is_discrete:
        testing.check_goodness_of_fit(p)
    else:  # float32 draws against the float64 density of the same parameters
        double = case.build_from({name: value.double() for name, value in case.tensors(dtype).items()})
        double.sample = lambda shape=(): p.sample(shape).double()
        testing.check_goodness_of_fit(double, seed=1)


@pytest.mark.parametrize("case", rows(lambda case: has(case, "mean")))
def test_moments(case):
    testing.check_moments(case.build())


@pytest.mark.parametrize("case", rows(lambda case: resolved(case) and has(case, "mean")))
def test_moments_by_quadrature(case):
    p = case.build()
    for index in range(max(p.event_shape.numel(), 1)):
        select = (lambda x: x) if not p.event_shape else (lambda x, i=index: x[..., i])
        mean = testing.integrate(p, select).value
        variance = testing.integrate(p, lambda x, m=mean, s=select: (s(x) - m).square()).value
        stated = (p.mean, p.variance) if not p.event_shape else (p.mean[..., index], p.variance[..., index])
        close(stated[0], mean, case.tolerance)
        close(stated[1], variance, case.tolerance)


@pytest.mark.parametrize("case", rows(lambda case: resolved(case) and has(case, "entropy")))
def test_entropy(case):
    testing.check_entropy(case.build(), case.tolerance)


@pytest.mark.parametrize("case", rows(lambda case: has(case, "mode")))
def test_no_draw_is_likelier_than_the_mode(case):
    p = case.build(validate_args=False)
    draws = p.log_prob(p.sample((200,)))
    best = p.log_prob(p.mode)
    assert (draws <= best + 1e-9)[best.isfinite().expand(draws.shape)].all()


@pytest.mark.parametrize("case", rows(lambda case: resolved(case) and has(case, "cdf")))
def test_cdf(case):
    testing.check_cdf(case.build())


@pytest.mark.parametrize("case", rows(lambda case: has(case, "icdf")))
def test_icdf_inverts_cdf(case):
    p = case.build()
    levels = torch.linspace(0.01, 0.99, 33).double().reshape(-1, *[1] * len(p.batch_shape))
    values = p.icdf(levels)
    if p.support.is_discrete:  # the smallest value whose cdf reaches the level
        assert (p.cdf(values) >= levels - 1e-12).all()
        below = p.cdf(values) - p.log_prob(values).exp()
        assert (below < levels + 1e-12).all()
    else:
        close(p.cdf(values), levels.expand(values.shape), 1e-10)


@pytest.mark.parametrize("case", rows())
def test_gradient_of_log_prob(case):
    names, inputs = zip(*case.tensors().items(), strict=True)
    values = case.values(case.build())

    def score(*params):
        return case.build_from(dict(zip(names, params, strict=True))).log_prob(values)

    testing.check_gradient(score, *inputs, tolerance=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", rows(lambda case: case.build().has_rsample))
def test_rsample_has_finite_gradients(case, dtype):
    params = {name: value.requires_grad_() for name, value in case.tensors(dtype).items()}
    draws = case.build_from(params).rsample((1000,))
    for gradient in torch.autograd.grad(draws.sum(), list(params.values())):
        assert gradient.isfinite().all()
        assert (gradient != 0).any()


@pytest.mark.parametrize("case", rows())
def test_expand(case):
    p = case.build()
    wide = p.expand((2, 3, *p.batch_shape))
    assert type(wide) is type(p)
    assert wide.batch_shape == (2, 3, *p.batch_shape)
    values = case.values(p)
    close(wide.log_prob(values[0]), p.log_prob(values[0]).expand(wide.batch_shape), 0.0)
    assert wide.sample().shape == wide.batch_shape + wide.event_shape
    if has(case, "entropy"):
        assert wide.entropy().shape == wide.batch_shape
    assert wide._validate_args == p._validate_args


@pytest.mark.parametrize("case", rows())
def test_bad_parameters(case):
    for bad in case.bad_params:
        params = {name: torch.tensor(bad.get(name, value)).double() for name, value in case.params.items()}
        with pytest.raises(ValueError, match=rf"{case.cls.__name__}.*{next(iter(bad))}"):
            case.build_from(params, validate_args=True)


@pytest.mark.parametrize("case", rows(lambda case: has(case, "cdf") and case.bad_values))
def test_cdf_checks_its_values(case):
    p = case.build(validate_args=True)
    if type(p) in (dist.OrderedLogits, dist.DiscretizedLogistic):  # their steps are defined between levels too
        p.cdf(torch.tensor(-0.5).double())
        return
    for bad in case.bad_values:
        with pytest.raises(ValueError, match=rf"{type(p).__name__}.*value"):
            p.cdf(torch.tensor(bad).double().expand(p.batch_shape))


@pytest.mark.parametrize("case", rows())
def test_bad_values(case):
    p = case.build(validate_args=True)
    for bad in case.bad_values:
        value = torch.tensor(bad)
        value = value.double() if value.is_floating_point() else value
        with pytest.raises(ValueError, match=rf"{type(p).__name__}.*value"):
            p.log_prob(value.expand(p.batch_shape + p.event_shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
@pytest.mark.parametrize("case", rows(lambda case: case.twin is not None))
def test_scipy_twin(case, dtype, tolerance):
    p, twin = case.build(dtype), case.scipy(dtype)
    values = case.values(p, dtype)
    x = values.double().numpy()
    close(p.log_prob(values), (twin.logpmf if p.support.is_discrete else twin.logpdf)(x), tolerance)
    close(p.mean, twin.mean(), tolerance)
    close(p.variance, twin.var(), tolerance)
    if case.twin_entropy and has(case, "entropy"):
        close(p.entropy(), twin.entropy(), tolerance)
    if has(case, "cdf"):
        close(p.cdf(values), twin.cdf(x), tolerance)
    if has(case, "icdf"):
        levels = torch.tensor([0.01, 0.4, 0.97], dtype=dtype).reshape(-1, *[1] * len(p.batch_shape))
        close(p.icdf(levels), twin.ppf(levels.double().numpy()), tolerance)


@pytest.mark.parametrize("case", rows())
def test_stays_on_the_device_of_its_parameters(case):
    """On the meta device an operation with a tensor of another device raises."""
    names, inputs = zip(*case.tensors().items(), strict=True)
    outputs, (values, *_) = outputs_of(case)
    draw, _ = draw_of(case)
    inputs = [value.to("meta") for value in inputs]
    p = case.build_from(dict(zip(names, inputs, strict=True)), validate_args=False)
    seen = [*outputs(values.to("meta"), *inputs), draw(*inputs)]
    if p.has_enumerate_support:
        seen.append(p.enumerate_support())
    try:
        seen.append(kl_divergence(p, p))
    except NotImplementedError:
        assert not isinstance(p, dist.NaturalExponentialFamily)
    assert {value.device.type for value in seen} == {"meta"}


@pytest.fixture
def empty_compiler():
    """The compiler counts one function compiled for many cases as too many recompilations."""
    torch.compiler.reset()


def outputs_of(case):
    """Everything that a distribution computes from values and parameters, as a function of tensors."""
    names, inputs = zip(*case.tensors().items(), strict=True)
    known = [name for name in ("entropy", "mean", "variance", "mode", "cdf") if has(case, name)]

    def outputs(values, *params):
        p = case.build_from(dict(zip(names, params, strict=True)), validate_args=False)
        calls = {"entropy": lambda: p.entropy(), "cdf": lambda: p.cdf(values)}
        return [p.log_prob(values)] + [calls[name]() if name in calls else getattr(p, name) for name in known]

    return outputs, (case.values(case.build()), *inputs)


def draw_of(case):
    names, inputs = zip(*case.tensors().items(), strict=True)

    def draw(*params):
        p = case.build_from(dict(zip(names, params, strict=True)), validate_args=False)
        return p.rsample() if p.has_rsample else p.sample()

    return draw, inputs


@pytest.mark.usefixtures("empty_compiler")
@pytest.mark.parametrize("case", rows())
def test_traces_maps_and_compiles(case):
    outputs, inputs = outputs_of(case)
    expected = outputs(*inputs)
    traced = make_fx(outputs)(*inputs)(*inputs)
    mapped = torch.vmap(outputs)(*(torch.stack([value] * 2) for value in inputs))
    compiled = torch.compile(outputs, fullgraph=True, backend="eager")(*inputs)
    for want, *others, rows_seen in zip(expected, traced, compiled, mapped, strict=True):
        for seen in (*others, rows_seen[0], rows_seen[1]):
            torch.testing.assert_close(seen, want, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.usefixtures("empty_compiler")
@pytest.mark.parametrize("case", rows())
def test_draws_map_trace_and_compile(case):
    draw, inputs = draw_of(case)
    mapped = torch.vmap(draw, randomness="different")(*(torch.stack([value] * 3) for value in inputs))
    p = case.build()
    assert mapped.shape == (3, *p.batch_shape, *p.event_shape)
    assert p.support.check(mapped).all()
    for run in (make_fx(draw)(*inputs), torch.compile(draw, fullgraph=True, backend="eager")):
        draws = torch.stack([run(*inputs) for _ in range(20)])
        assert p.support.check(draws).all()
        assert (draws != draws[0]).any()  # noise stays random in the graph
        if p.has_rsample:
            assert (draws[0] != draws[1]).all()
    if p.has_rsample:
        slopes = torch.func.grad(lambda *params: draw(*params).sum())(*inputs)
        assert slopes.isfinite().all()


@pytest.mark.filterwarnings("ignore")  # the compiler's own imports warn of deprecations
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_code_keeps_small_numbers(dtype):
    """torch compiles expm1 on the CPU to exp - 1, which loses every number below 1e-7; nothing here may use it."""
    tiny = torch.logspace(-18, -1, 18, dtype=dtype)

    def outputs(tiny):
        small = -tiny.unsqueeze(-1)
        geometric = dist.NaturalGeometric(small, validate_args=False)
        binomial = dist.NaturalNegativeBinomial(small, 2.5, validate_args=False)
        exponential = dist.NaturalExponential(torch.full_like(small, -2.0), validate_args=False)
        narrow = dist.NaturalLogNormal.from_canonical(0.0, tiny, validate_args=False)
        rare = dist.NaturalPoisson(tiny.log().unsqueeze(-1), validate_args=False)
        wide = dist.DiscretizedLogistic(0.0, 1 / tiny, validate_args=False)
        counts = geometric.mean, geometric.variance, binomial.mean, binomial.log_prob(torch.ones_like(tiny))
        others = exponential.cdf(tiny), narrow.variance, rare.entropy(), wide.log_prob(torch.ones_like(tiny) / 255)
        return *counts, *others, geometric.entropy(), geometric.cdf(torch.ones_like(tiny))

    seen, expected = torch.compile(outputs, fullgraph=True)(tiny), outputs(tiny)
    for one, other in zip(seen, expected, strict=True):
        assert other.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    torch.testing.assert_close(expected[4], 2 * tiny, rtol=0.1, atol=0)
    torch.testing.assert_close(expected[0] * tiny, torch.ones_like(tiny), rtol=0.1, atol=0)


# In Pyro programs


@pytest.mark.parametrize("case", rows())
def test_under_svi(case):
    """Site in a plate, prior and guide of the same class: the loss is the KL where one is registered, else finite."""
    prior = case.build()
    size = prior.batch_shape[-1] if prior.batch_shape else 4

    def nudged(name, value):
        # Fractions inside a StickBreaking are not its own parameters.
        own = constraints.positive if (value > 0).all() else constraints.real
        constraint = prior.arg_constraints.get(name, own)
        transform = transform_to(constraint)
        return transform(transform.inv(value) + 0.1), constraint

    initial = {name: nudged(name, value) for name, value in case.tensors().items()}

    def model():
        with pyro.plate("data", size):
            pyro.sample("x", prior)

    def guide():
        parameters = {
            name: pyro.param(name, start.clone(), constraint) for name, (start, constraint) in initial.items()
        }
        with pyro.plate("data", size):
            pyro.sample("x", case.build_from(parameters))

    losses = [pyro.infer.Trace_ELBO(num_particles=2)]
    if prior.has_rsample:
        losses.append(pyro.infer.TraceMeanField_ELBO())
    for loss in losses:
        pyro.clear_param_store()
        before = loss.loss(model, guide)
        unconstrained = [value.detach().clone() for _, value in pyro.get_param_store().named_parameters()]
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss)
        assert np.isfinite([before, svi.step(), svi.step()]).all()
        after = [value for _, value in pyro.get_param_store().named_parameters()]
        assert all(value.isfinite().all() for value in after)
        assert any((one != other).any() for one, other in zip(after, unconstrained, strict=True))
    try:
        divergence = kl_divergence(case.build_from({name: start[0] for name, start in initial.items()}), prior)
    except NotImplementedError:
        return
    if prior.has_rsample:
        close(before, divergence.sum(), 1e-9)
    else:  # no reparameterised draw, so Trace_ELBO sampled
        assert (divergence > 0).all()


@pytest.mark.parametrize("case", rows(lambda case: case.build().has_enumerate_support))
def test_enumerated_by_pyro(case):
    """TraceEnum_ELBO sums over the site: with no observation the evidence is one."""
    p = case.build()
    assert p.enumerate_support().shape[1:] == p.batch_shape
    close(p.log_prob(p.enumerate_support()).logsumexp(0), torch.zeros(p.batch_shape), 1e-9)

    @pyro.infer.config_enumerate
    def model():
        with pyro.plate("data", p.batch_shape[-1]):
            x = pyro.sample("x", p)
            pyro.sample("y", pyro.distributions.Normal(x.double(), 1.0), obs=torch.zeros(p.batch_shape).double())

    bound = -pyro.infer.TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    values = p.enumerate_support()
    joint = p.log_prob(values) + torch.distributions.Normal(values.double(), 1.0).log_prob(torch.zeros(()).double())
    close(bound, joint.logsumexp(0).sum(), 1e-9)
