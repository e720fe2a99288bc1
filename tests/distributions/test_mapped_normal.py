"""A normal seen through a map, with atoms: against quadrature, draws and SciPy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from pyrovae.distributions.mapped_normal import MappedNormal, mapped_scores

VALUES = torch.tensor([[-2.0, 0.0, 1.0, 30.0], [0.0, 1e-3, 5.0, 5.1]], dtype=torch.float64)
SCORES = torch.tensor([[-2.5, -0.3, 0.4, 2.8], [-3.0, 0.0, 1.0, 3.0]], dtype=torch.float64)
LOC = torch.tensor([[0.3, -0.2], [2.0, -1.5]], dtype=torch.float64)
SCALE = torch.tensor([[1.0, 0.3], [0.05, 2.0]], dtype=torch.float64)
ATOMS = torch.tensor([[0.0, 4.0], [-1.0, 2.5]], dtype=torch.float64)
LOGITS = torch.tensor([[[0.0, 1.0, -1.0], [1.0, 0.2, 0.5]], [[-2.0, 0.0, 3.0], [4.0, 0.0, 0.0]]], dtype=torch.float64)


@pytest.fixture(params=["plain", "atoms"])
def fn(request):
    atoms = (ATOMS, LOGITS) if request.param == "atoms" else ()
    return MappedNormal(LOC, SCALE, VALUES, SCORES, *atoms)


def _integral(fn, of, row, column):
    """The expectation of a function: by quadrature between the knots, and a sum over the atoms."""

    def density(x):
        point = torch.zeros(2, 2, dtype=torch.float64)
        point[row, column] = x + 1e-4 * (fn.atoms is not None and bool((abs(x - ATOMS[column]) < 1e-4).any()))
        return float(fn.log_prob(point)[row, column].exp()) * of(x)

    z = LOC[row, column] + SCALE[row, column] * torch.linspace(-12, 12, 49, dtype=torch.float64)
    ends = mapped_scores(z.unsqueeze(-1).expand(-1, 2), SCORES, VALUES)[0][:, column]
    cuts = np.unique(np.concatenate([ends.numpy(), VALUES[column].numpy()]))
    cuts = cuts[(cuts >= float(ends[0])) & (cuts <= float(ends[-1]))]
    total = sum(quad(density, low, high, limit=200)[0] for low, high in pairwise(cuts))
    if fn.atoms is not None:
        probs = LOGITS[row, column].softmax(-1)
        total += sum(float(p) * of(float(a)) for p, a in zip(probs[1:], ATOMS[column], strict=True))
    return total


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
def test_moments_by_quadrature(fn, row, column):
    assert _integral(fn, lambda x: 1.0, row, column) == pytest.approx(1, abs=1e-6)
    mean = _integral(fn, lambda x: x, row, column)
    assert float(fn.mean[row, column]) == pytest.approx(mean, abs=1e-5)
    square = _integral(fn, lambda x: (x - mean) ** 2, row, column)
    assert float(fn.variance[row, column]) == pytest.approx(square, rel=1e-4)


def test_quantiles_and_probabilities_are_inverse(fn):
    level = torch.linspace(0.001, 0.999, 997, dtype=torch.float64)[:, None, None].expand(-1, 2, 2)
    x = fn.icdf(level)
    assert (x.diff(dim=0) >= 0).all()
    assert (fn.cdf(x) >= level - 1e-6).all()
    assert (fn.cdf(x - 1e-6 * (1 + x.abs())) <= level + 1e-3).all(), "it is the smallest such value"
    if fn.atoms is None:
        torch.testing.assert_close(fn.cdf(x), level, atol=1e-6, rtol=0)


def test_draws(fn):
    torch.manual_seed(0)
    draws = fn.sample((20000,))
    error = (fn.variance / 20000).sqrt()
    assert ((draws.mean(0) - fn.mean).abs() < 4.5 * error).all()
    if fn.atoms is None:
        uniform = fn.cdf(draws).reshape(20000, 4).T.numpy()
        assert min(stats.kstest(each, "uniform").pvalue for each in uniform) > 1e-3
    else:
        shares = (draws.unsqueeze(-1) == ATOMS).double().mean(0)
        torch.testing.assert_close(shares, LOGITS.softmax(-1)[..., 1:], atol=0.015, rtol=0)


def test_mode_is_where_the_density_is_highest():
    fn = MappedNormal(LOC, SCALE, VALUES, SCORES)
    grid = torch.cat([torch.linspace(-6, 40, 200001, dtype=torch.float64), VALUES.flatten() - 1e-9])
    heights = fn.log_prob(grid[:, None, None].expand(-1, 2, 2))
    at_mode = torch.maximum(fn.log_prob(fn.mode), fn.log_prob(fn.mode - 1e-9))
    assert (at_mode >= heights.max(0).values - 1e-6).all()


def test_scores_by_hand():
    z, slope = mapped_scores(torch.tensor([[-4.0, 5.05], [0.5, -1.0]], dtype=torch.float64), VALUES, SCORES)
    torch.testing.assert_close(z, torch.tensor([[-4.7, 2.0], [0.05, -3003.0]], dtype=torch.float64))
    torch.testing.assert_close(slope, torch.tensor([[1.1, 20.0], [0.7, 3000.0]], dtype=torch.float64))


def test_expanded_and_in_single_precision(fn):
    x = torch.randn(3, 2, 2, dtype=torch.float64)
    wide = fn.expand((3, 2, 2))
    torch.testing.assert_close(wide.log_prob(x), fn.log_prob(x))
    torch.testing.assert_close(wide.mean, fn.mean.expand(3, 2, 2))
    atoms = () if fn.atoms is None else (ATOMS.float(), LOGITS.float())
    single = MappedNormal(LOC.float(), SCALE.float(), VALUES.float(), SCORES.float(), *atoms)
    torch.testing.assert_close(single.mean.double(), fn.mean, rtol=1e-3, atol=1e-4)


def test_atoms_without_logits_are_refused():
    with pytest.raises(ValueError, match="atoms need logits"):
        MappedNormal(LOC, SCALE, VALUES, SCORES, ATOMS)
