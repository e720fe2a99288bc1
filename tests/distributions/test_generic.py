"""Checks that every row of the table of distributions passes."""

import numpy as np
import pytest
import torch
from cases import CASES, Case
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae import testing

DTYPES = [torch.float32, torch.float64]


def rows(condition=lambda case: True):
    return [pytest.param(case, id=case.name) for case in CASES if condition(case)]


def resolved(case: Case) -> bool:
    return not case.has_mass_at_ends


def has(case: Case, name: str) -> bool:
    try:
        value = getattr(case.build(), name)
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


@pytest.mark.parametrize("case", rows())
def test_bad_values(case):
    p = case.build(validate_args=True)
    for bad in case.bad_values:
        value = torch.tensor(bad)
        value = value.double() if value.is_floating_point() else value
        with pytest.raises(ValueError, match=rf"{case.cls.__name__}.*value"):
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
def test_traces_and_maps(case):
    names, inputs = zip(*case.tensors().items(), strict=True)
    values, has_entropy = case.values(case.build()), has(case, "entropy")

    def outputs(values, *params):
        p = case.build_from(dict(zip(names, params, strict=True)), validate_args=False)
        return [p.log_prob(values)] + ([p.entropy()] if has_entropy else [])

    expected = outputs(values, *inputs)
    traced = make_fx(outputs)(values, *inputs)(values, *inputs)
    mapped = torch.vmap(outputs)(torch.stack([values] * 2), *(torch.stack([value] * 2) for value in inputs))
    for want, seen, rows_seen in zip(expected, traced, mapped, strict=True):
        close(seen, want, 1e-12)
        close(rows_seen, torch.stack([want] * 2), 1e-12)


@pytest.mark.parametrize("case", rows())
def test_draws_map_and_trace(case):
    names, inputs = zip(*case.tensors().items(), strict=True)

    def draw(*params):
        p = case.build_from(dict(zip(names, params, strict=True)), validate_args=False)
        return p.rsample() if p.has_rsample else p.sample()

    mapped = torch.vmap(draw, randomness="different")(*(torch.stack([value] * 3) for value in inputs))
    p = case.build()
    assert mapped.shape == (3, *p.batch_shape, *p.event_shape)
    assert p.support.check(mapped).all()
    graph = make_fx(draw)(*inputs)
    draws = torch.stack([graph(*inputs) for _ in range(20)])
    assert p.support.check(draws).all()
    if p.has_rsample:
        assert (draws[0] != draws[1]).all()  # noise stays random in the graph
        slopes = torch.func.grad(lambda *params: draw(*params).sum())(*inputs)
        assert slopes.isfinite().all()
