"""The fast mixture of diagonal Gaussians against torch's own."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyrovae.distributions.gaussian_mixture import DiagonalGaussianMixture


def parameters(components=7, size=3, spread=2.0, dtype=torch.float64):
    logits = torch.randn(components, dtype=dtype)
    loc = spread * torch.randn(components, size, dtype=dtype)
    return logits, loc, torch.rand(components, size, dtype=dtype) + 0.2


def torch_mixture(logits, loc, scale):
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, scale), 1))


@pytest.mark.parametrize(("components", "size"), [(1, 1), (7, 3), (500, 40)])
@pytest.mark.parametrize("shape", [(), (6,), (2, 5)], ids=str)
def test_density_in_double_precision(components, size, shape):
    values = parameters(components, size)
    z = 5 * torch.randn(*shape, size, dtype=torch.float64)
    actual = DiagonalGaussianMixture(*values).log_prob(z)
    assert actual.shape == shape
    torch.testing.assert_close(actual, torch_mixture(*values).log_prob(z), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_density_in_single_precision_is_within_the_stated_bound(offset):
    """About 1e-6 times the largest squared standardised distance to the common centre, wherever that is."""
    logits, loc, scale = parameters(50, 10)
    loc = (loc + offset).float().double()
    z = loc[:20] + torch.randn(20, 10).double()
    z = z.float().double()
    exact = torch_mixture(logits, loc, scale.float().double()).log_prob(z)
    mixture = DiagonalGaussianMixture(logits.float(), loc.float(), scale.float())
    centre = loc.mean(0)
    points = torch.cat([z, loc])[:, None]
    largest = ((points - centre) / scale).square().sum(-1).max()
    error = (mixture.log_prob(z.float()).double() - exact).abs().max()
    assert error < 4e-6 * largest


def test_gradients():
    values = [value.requires_grad_() for value in parameters(3, 2)]
    z = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *v: DiagonalGaussianMixture(*v[:3], validate_args=False).log_prob(v[3]), (*values, z)
    )


def test_draws():
    """Shapes, and per coordinate the mean and variance of torch's mixture, to five standard errors."""
    mixture, exact = DiagonalGaussianMixture(*(v := parameters())), torch_mixture(*v)
    assert mixture.sample().shape == (3,)
    assert mixture.expand([4]).sample((2,)).shape == (2, 4, 3)
    z = mixture.sample((100_000,))
    error = 5 * (exact.variance / 100_000).sqrt()
    assert ((z.mean(0) - exact.mean).abs() < error).all()
    fourth = (z - exact.mean).pow(4).mean(0)
    assert ((z.var(0) - exact.variance).abs() < 5 * ((fourth - exact.variance**2) / 100_000).sqrt()).all()
    # The density is that of the draws: E[1/p] over the draws in a box is the box's volume.
    inside = ((z - exact.mean).abs() < 1).all(-1)
    inverse = torch.where(inside, (-mixture.log_prob(z)).exp(), 0.0)
    assert abs(inverse.mean() - 8) < 5 * inverse.std() / 100_000**0.5


def test_moments():
    values = parameters()
    mixture, exact = DiagonalGaussianMixture(*values).expand([2]), torch_mixture(*values)
    torch.testing.assert_close(mixture.mean, exact.mean.expand(2, 3))
    torch.testing.assert_close(mixture.variance, exact.variance.expand(2, 3))


def test_variance_far_from_zero():
    logits, loc, scale = parameters(dtype=torch.float32)
    near, far = DiagonalGaussianMixture(logits, loc, scale), DiagonalGaussianMixture(logits, loc + 1e4, scale)
    torch.testing.assert_close(far.variance, near.variance, rtol=1e-2, atol=0)


def test_expand():
    mixture = DiagonalGaussianMixture(*parameters())
    expanded = mixture.expand(torch.Size([2])).expand([5, 2])
    assert type(expanded) is DiagonalGaussianMixture
    assert (expanded.batch_shape, expanded.event_shape) == ((5, 2), (3,))
    z = torch.randn(3).double()
    torch.testing.assert_close(expanded.log_prob(z), mixture.log_prob(z).expand(5, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": -torch.ones(7, 3)}, "scale"),
        ({"loc": torch.full((7, 3), torch.nan)}, "loc"),
        ({"logits": torch.zeros(6)}, r"expected logits \[K\], loc \[K, D\] .* got \(6,\), \(7, 3\) and \(7, 3\)"),
        ({"loc": torch.zeros(2, 7, 3)}, r"got \(7,\), \(2, 7, 3\) and"),
    ],
)
def test_bad_parameters(change, message):
    values = dict(zip(("logits", "loc", "scale"), parameters(dtype=torch.float32), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        DiagonalGaussianMixture(**values)


def test_bad_values():
    mixture = DiagonalGaussianMixture(*parameters())
    with pytest.raises(ValueError, match=r"DiagonalGaussianMixture: value .* worst is nan at index"):
        mixture.log_prob(torch.full((3,), torch.nan).double())
