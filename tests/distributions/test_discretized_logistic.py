"""The discretised logistic in both tails, at tiny and huge scales, against mpmath."""

import itertools

import mpmath
import pytest
import torch

from pyrovae import testing
from pyrovae.distributions import DiscretizedLogistic
from pyrovae.testing import checks

LOCATIONS = [-3.0, 0.0, 1e-4, 0.3, 0.4999, 1.0, 2.0]
SCALES = [1e-6, 1e-3, 1e-2, 1.0, 1e6]


def truth(loc, scale, level, num_bins):
    """Log of the mass between two edges, by integrating the density's closed form on the side where it is small."""
    loc, scale = mpmath.mpf(loc) * (num_bins - 1), mpmath.mpf(scale) * (num_bins - 1)
    upper, lower = (level + 0.5 - loc) / scale, (level - 0.5 - loc) / scale
    if lower > 0:  # mirror, so that both terms are small
        upper, lower, level = -lower, -upper, num_bins - 1 - level
    above = mpmath.mpf(1) if level == num_bins - 1 else 1 / (1 + mpmath.exp(-upper))
    below = mpmath.mpf(0) if level == 0 else 1 / (1 + mpmath.exp(-lower))
    return mpmath.log(above - below)


@pytest.mark.parametrize("num_bins", [2, 16, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_against_mpmath(dtype, tolerance, num_bins):
    last = num_bins - 1
    for loc, scale in itertools.product(LOCATIONS, SCALES):
        near = min(max(round(loc * last), 0), last)
        levels = sorted({0, 1, max(near - 1, 0), near, min(near + 1, last), last - 1, last})
        loc_, scale_ = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (loc, scale))
        p = DiscretizedLogistic(loc_, scale_, num_bins)
        score = p.log_prob(torch.tensor(levels, dtype=dtype) / last)
        with mpmath.workdps(60):
            masses = [float(truth(loc_.item(), scale_.item(), k, num_bins)) for k in levels]
        expected = torch.tensor(masses, dtype=torch.double)
        # 60 digits do not hold what is left of one where a tail starts 1e5 scales away: zero mass on that side.
        known = expected.isfinite()
        error = ((score.double() - expected).abs() / expected.abs().clamp(min=1))[known]
        assert error.max() < tolerance, (loc, scale, levels, score, expected)
        assert score.isfinite().all()
        assert all(slope.isfinite() for slope in torch.autograd.grad(score.sum(), [loc_, scale_]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_extreme_scales_stay_finite(dtype, scale):
    loc = torch.tensor([-0.3, 0.5, 1.2], dtype=dtype, requires_grad=True)
    width = torch.tensor(scale, dtype=dtype, requires_grad=True)
    p = DiscretizedLogistic(loc, width)
    score = p.log_prob(p.enumerate_support())
    assert score.isfinite().all()
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(score.sum(), [loc, width]))
    assert p.mean.isfinite().all()
    if scale > 1:  # half of the mass in each end
        torch.testing.assert_close(p.mean, torch.full_like(p.mean, 0.5))


def test_bytes_in_float32():
    torch.manual_seed(0)
    pixels = torch.arange(256).float() / 255
    p = DiscretizedLogistic(torch.rand(256), torch.rand(256) * 0.1 + 1e-3)
    assert p.support.check(pixels).all()
    assert p.log_prob(pixels.double().float()).isfinite().all()
    double = DiscretizedLogistic(p.loc.double(), p.scale.double())
    checks._compare("log_prob", p, p.log_prob(pixels), double.log_prob(torch.arange(256).double() / 255), 1e-5)
    checks._compare("mean", p, p.mean, double.mean, 1e-5)
    checks._compare("variance", p, p.variance, double.variance, 1e-6)
    assert (p.variance >= 0).all()


def test_mode_is_the_most_probable_level():
    loc = torch.linspace(-0.5, 1.5, 41).double().reshape(-1, 1)
    scale = torch.tensor([1e-3, 0.02, 0.2, 3.0]).double()
    for num_bins in (2, 3, 16, 256):
        p = DiscretizedLogistic(loc, scale, num_bins)
        best = p.log_prob(p.enumerate_support()).amax(0)
        torch.testing.assert_close(p.log_prob(p.mode), best)


def test_moments_have_gradients():
    def moments(loc, scale):
        p = DiscretizedLogistic(loc, scale, 16)
        return torch.stack([p.mean, p.variance])

    testing.check_gradient(moments, torch.tensor([-0.1, 0.47]).double(), torch.tensor([0.2, 0.05]).double())


def test_errors():
    with pytest.raises(ValueError, match="num_bins must be an integer of at least 2, got 1"):
        DiscretizedLogistic(torch.tensor(0.0), torch.tensor(1.0), 1)
    with pytest.raises(ValueError, match="num_bins"):
        DiscretizedLogistic(torch.tensor(0.0), torch.tensor(1.0), 2.5)
    assert "num_bins=4" in repr(DiscretizedLogistic(torch.tensor(0.0), torch.tensor(1.0), 4).support)
