"""Binarisation, dequantisation, the symmetric scale, and data with a known evidence."""

import numpy as np
import pytest
import torch
from dataset_checks import assert_equal
from scipy.integrate import quad
from scipy.stats import norm

from pyrovae.data import LinearGaussian, load


def test_static_binarisation_is_a_bernoulli_draw_fixed_by_the_seed():
    grey = load("digits")
    dataset = load("digits", binarize="static")
    assert dataset.kind == "binary"
    assert dataset.transform is None
    assert_equal(dataset, load("digits", binarize="static"))
    assert not torch.equal(dataset.train.x, load("digits", binarize="static", seed=1).train.x)
    for name, split in dataset.splits().items():
        means = grey.splits()[name].x
        assert split.x.unique().tolist() == [0, 1]
        assert torch.equal(split.x[(means == 0) | (means == 1)], means[(means == 0) | (means == 1)])
        standard_error = (means * (1 - means)).sum().sqrt()
        assert (split.x.sum() - means.sum()).abs() < 4 * standard_error


def test_dynamic_binarisation_in_expectation():
    grey = load("digits")
    dataset = load("digits", binarize="dynamic")
    assert dataset.kind == "binary"
    assert torch.equal(dataset.train.x, grey.train.x)
    static = load("digits", binarize="static")
    assert torch.equal(dataset.validation.x, static.validation.x)
    assert torch.equal(dataset.test.x, static.test.x)
    rows = dataset.train.take(slice(20))
    batch = rows.x
    torch.manual_seed(0)
    draws = torch.stack([dataset.transform(rows).x for _ in range(2000)])
    assert draws.unique().tolist() == [0, 1]
    standard_error = (batch * (1 - batch) / len(draws)).sqrt()
    assert ((draws.mean(0) - batch).abs() <= 5 * standard_error + 1e-6).all()
    assert not torch.equal(draws[0], draws[1])
    torch.manual_seed(0)
    assert torch.equal(dataset.transform(rows).x, draws[0])


def test_dequantisation_fills_the_intervals(small_root):
    plain = load("mnist", validation=10)
    dataset = load("mnist", validation=10, dequantize=True)
    assert (dataset.kind, plain.kind) == ("unit", "8-bit")
    assert torch.equal(dataset.train.x, plain.train.x)
    assert_equal(dataset, load("mnist", validation=10, dequantize=True))
    for noisy, exact in (
        (dataset.validation.x, plain.validation.x),
        (dataset.test.x, plain.test.x),
        (dataset.seen("train").x, plain.train.x),
    ):
        position = noisy.double() * 256 - (exact.double() * 255).round()
        assert position.min() >= -1e-5
        assert position.max() <= 1 + 1e-5
        assert position.mean() == pytest.approx(0.5, abs=0.02)
        assert position.var() == pytest.approx(1 / 12, abs=0.005)


@pytest.mark.parametrize("noise", [False, True])
def test_symmetric_scale(small_root, noise):
    unit = load("mnist", validation=10, dequantize=noise)
    dataset = load("mnist", validation=10, dequantize=noise, scale="symmetric")
    assert dataset.kind == "symmetric"
    for name, split in dataset.splits().items():
        torch.testing.assert_close(split.x, unit.splits()[name].x * 2 - 1)
    if noise:
        torch.manual_seed(1)
        drawn = dataset.seen("train").x
        torch.manual_seed(1)
        torch.testing.assert_close(drawn, unit.seen("train").x * 2 - 1)
    else:
        assert dataset.transform is None


def test_evidence_against_quadrature():
    loading = torch.tensor([[1.2], [-0.7]], dtype=torch.float64)
    model = LinearGaussian(loading, torch.tensor([0.3, -1.0], dtype=torch.float64), scale=0.6)
    for x in ([0.0, 0.0], [2.0, -3.0]):

        def joint(z, x=x):
            means = (1.2 * z + 0.3, -0.7 * z - 1.0)
            return norm.pdf(z) * np.prod([norm.pdf(value, mean, 0.6) for value, mean in zip(x, means, strict=True)])

        exact = np.log(quad(joint, -8, 8, epsabs=1e-14)[0])
        assert float(model(torch.tensor(x).double())) == pytest.approx(exact, abs=1e-8)


def test_linear_gaussian_rows_come_from_the_model():
    dataset = load("linear-gaussian", seed=2)
    model = dataset.evidence
    assert model.loading.shape == (10, 3)
    values = model(dataset.test.x)
    assert values.shape == (1000,)
    assert values.dtype == torch.float32
    covariance = model.loading @ model.loading.T + model.scale**2 * torch.eye(10, dtype=torch.float64)
    negative_entropy = -0.5 * torch.logdet(2 * torch.pi * torch.e * covariance)
    # The variance of log p(x) under p is D/2.
    assert abs(values.mean() - negative_entropy) < 4 * (10 / 2 / 1000) ** 0.5
    assert values.var() == pytest.approx(5, rel=0.25)
    longer = load("linear-gaussian", seed=2, validation=10)
    assert torch.equal(longer.test.x, dataset.test.x)
    assert len(longer.train.x) == 5990
