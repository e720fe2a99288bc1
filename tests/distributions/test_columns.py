"""Distributions of table columns against those of each column alone, enumeration, and scipy."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as dist

from pyrovae.distributions import (
    NaturalBernoulli,
    NaturalGamma,
    NaturalLogNormal,
    NaturalNormal,
    NaturalPoisson,
    OrderedLogits,
)
from pyrovae.distributions.columns import ColumnGroup, Columns
from pyrovae.distributions.levels import Levels
from pyrovae.distributions.quantiles import quantile
from pyrovae.infer.imputation import Mixture
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood, level_probs

FAMILIES = ("normal", "categorical", "gamma", "bernoulli", "ordered", "student-t", "poisson", "categorical")
FAMILIES += ("log-normal", "negative-binomial", "normal", "ordered", "categorical")
SIZES = (0, 3, 0, 2, 4, 0, 0, 5, 0, 0, 0, 3, 2)
COLUMNS = ColumnFamilies(FAMILIES, SIZES)
DISCRETE = ("bernoulli", "poisson", "negative-binomial", "categorical", "ordered")
PARAMETERIZATIONS = ["natural", "canonical"]


def table(parameterization="natural"):
    return TableLikelihood(COLUMNS, parameterization=parameterization).double().requires_grad_(False)


def raw_of(likelihood, *shape, scale=0.7):
    return scale * torch.randn(*shape, *likelihood.raw_shape, dtype=torch.double)


def values(*shape):
    """Values of the support of every column."""
    columns = []
    for family, levels in zip(FAMILIES, SIZES, strict=True):
        if levels:
            columns.append(torch.randint(levels, shape).double())
        elif family in ("poisson", "negative-binomial"):
            columns.append(torch.randint(6, shape).double())
        else:
            drawn = torch.randn(*shape, dtype=torch.double)
            columns.append(drawn.exp() if family in ("gamma", "log-normal") else drawn)
    return torch.stack(columns, -1)


def alone(fn, column):
    """The distribution of one column, in torch's own parameters or as probabilities of its levels."""
    group = next(group for group in fn.groups if column in group.columns)
    place = group.columns.tolist().index(column)
    part = group.fn
    if isinstance(part, Levels):
        return dist.Categorical(logits=part.natural[..., place, : SIZES[column]])
    if isinstance(part, OrderedLogits):
        return dist.Categorical(probs=part.log_probs.exp()[..., place, : SIZES[column]])
    if isinstance(part, NaturalBernoulli):
        return dist.Bernoulli(part.mean[..., place])
    twins = {NaturalNormal: dist.Normal, NaturalLogNormal: dist.LogNormal, NaturalGamma: dist.Gamma}
    if type(part) in twins:
        return twins[type(part)](**{name: value[..., place] for name, value in part.to_canonical().items()})
    if isinstance(part, NaturalPoisson):
        return dist.Poisson(part.mean[..., place])
    return type(part)(**{name: getattr(part, name)[..., place] for name in canonical_names(part)})


def canonical_names(part):
    return [name for name in part.arg_constraints if name != "probs"]


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_log_prob_is_that_of_each_column(parameterization):
    likelihood = table(parameterization)
    fn, x = likelihood.elementwise(raw_of(likelihood, 7, 4)), values(7, 4)
    assert fn.batch_shape == (7, 4, len(FAMILIES))
    scored = fn.log_prob(x)
    for column in range(len(FAMILIES)):
        torch.testing.assert_close(
            scored[..., column], alone(fn, column).log_prob(x[..., column]), msg=FAMILIES[column]
        )
    joint = likelihood(raw := raw_of(likelihood, 4))
    assert joint.event_shape == (len(FAMILIES),)
    torch.testing.assert_close(joint.log_prob(x[0]), likelihood.elementwise(raw).log_prob(x[0]).sum(-1))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_probabilities_of_levels_sum_to_one(parameterization):
    """Each level of each column, scored one after the other."""
    likelihood = table(parameterization)
    fn = likelihood.elementwise(raw_of(likelihood, 5))
    for column, levels in enumerate(SIZES):
        if levels:
            x = values(5).expand(levels, 5, -1).clone()
            x[..., column] = torch.arange(levels).unsqueeze(-1)
            total = fn.log_prob(x)[..., column].exp().sum(0)
            torch.testing.assert_close(total, torch.ones_like(total), msg=f"column {column}")


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_floor_of_the_scale(parameterization):
    """However far the decoder goes, the standard deviation stays above the floor."""
    likelihood = TableLikelihood(ColumnFamilies(("normal", "log-normal"), (0, 0)), parameterization=parameterization)
    raw = torch.tensor([[1.0, -60.0, 0.5, -60.0]])
    normal, log_normal = (group.fn for group in likelihood.elementwise(raw).groups)
    assert normal.variance.sqrt() == pytest.approx(0.02, rel=1e-5)
    assert log_normal.mean > log_normal.mode
    at = likelihood.elementwise(raw).log_prob(likelihood.point(likelihood(raw), "median"))
    assert at[0, 0] == pytest.approx(-np.log(0.02 * (2 * np.pi) ** 0.5), rel=1e-4)


def test_expand():
    likelihood = table()
    fn, x = likelihood.elementwise(raw_of(likelihood, 4)), values(3, 4)
    wide = fn.expand((3, 4, len(FAMILIES)))
    assert wide.batch_shape == (3, 4, len(FAMILIES))
    torch.testing.assert_close(wide.log_prob(x), fn.log_prob(x))
    torch.testing.assert_close(wide.mean, fn.mean.expand(3, -1, -1))
    assert wide.sample((2,)).shape == (2, 3, 4, len(FAMILIES))


def test_columns_in_two_groups_or_none():
    normal = dist.Normal(torch.zeros(2), 1.0)
    for columns in ([1, 2], [3, 4]):
        groups = [ColumnGroup(torch.tensor([0, 1]), normal), ColumnGroup(torch.tensor(columns), normal)]
        with pytest.raises(ValueError, match="each column is in exactly one group"):
            Columns.checked(groups)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("how", ["sample", "quantile"])
def test_draws_follow_the_distribution(parameterization, how):
    """Frequencies by chi-squared, numbers by Kolmogorov-Smirnov; also draws by quantiles of uniform numbers."""
    likelihood, size = table(parameterization), 4000
    fn = likelihood.elementwise(raw_of(likelihood))
    if how == "sample":
        drawn = fn.sample((size,))
    else:
        uniform = torch.rand(size, len(FAMILIES), dtype=torch.double)
        drawn = fn.joined(lambda part, columns: quantile(part, uniform[:, columns]))
    for column, family in enumerate(FAMILIES):
        twin = alone(fn, column)
        if family in DISCRETE:
            largest = SIZES[column] or int(drawn[:, column].max()) + 1
            probs = twin.log_prob(torch.arange(largest, dtype=torch.double)).exp().numpy()
            counts = np.bincount(drawn[:, column].long().numpy(), minlength=largest)
            assert counts.sum() == size
            probs = np.append(probs, max(1 - probs.sum(), 0.0))
            counts = np.append(counts, 0)
            rare = probs * size < 5
            expected, found = [*(probs[~rare] * size), probs[rare].sum() * size], [*counts[~rare], counts[rare].sum()]
            statistic = sum((f - e) ** 2 / e for f, e in zip(found, expected, strict=True) if e > 1e-6)
            assert stats.chi2.sf(statistic, max(len(found) - 1, 1)) > 1e-4, (column, family)
        else:
            cdf = (
                stats.t(twin.df, twin.loc, twin.scale).cdf
                if family == "student-t"
                else lambda x, t=twin: torch_cdf(t, x)
            )
            assert stats.kstest(drawn[:, column].numpy(), cdf).pvalue > 1e-4, (column, family)


def torch_cdf(twin, x):
    return twin.cdf(torch.as_tensor(x)).numpy()


PARTS = {
    "normal": dist.Normal(torch.tensor([0.3, -4.0]).double(), torch.tensor([1.0, 0.02]).double()),
    "natural normal": NaturalNormal.from_canonical(torch.tensor([0.3, -4.0]).double(), 0.5),
    "log-normal": NaturalLogNormal.from_canonical(torch.tensor([0.3, -4.0]).double(), 0.5),
    "gamma": dist.Gamma(torch.tensor([0.3, 40.0]).double(), torch.tensor([1.0, 7.0]).double()),
    "natural gamma": NaturalGamma.from_canonical(torch.tensor([0.3, 40.0]).double(), torch.tensor([1.0, 7.0]).double()),
    "student-t": dist.StudentT(torch.tensor([3.5, 9.0]).double(), torch.tensor([1.0, 7.0]).double(), 0.2),
    "poisson": dist.Poisson(torch.tensor([0.3, 40.0]).double()),
    "natural poisson": NaturalPoisson(torch.tensor([[-1.0], [4.0]]).double()),
    "negative binomial": dist.NegativeBinomial(torch.tensor([0.3, 40.0]).double(), torch.tensor([0.9, 0.2]).double()),
    "bernoulli": dist.Bernoulli(torch.tensor([0.3, 0.99]).double()),
    "natural bernoulli": NaturalBernoulli(torch.tensor([[0.3], [-5.0]]).double()),
    "levels": Levels(torch.randn(2, 6).double(), torch.tensor([6, 3])),
    "ordered": OrderedLogits(torch.tensor([0.3, -2.0]).double(), torch.tensor([-1.0, 0.0, 2.5]).double()),
}


def scipy_cdf(part, value):
    """The distribution function, by scipy or by summing up levels."""
    probs = level_probs(part)
    if probs is not None:
        total = probs.cumsum(-1)
        below = torch.cat([torch.zeros_like(total[..., :1]), total], -1)
        below = below.expand(*value.shape, -1)
        return below.gather(-1, value.long().unsqueeze(-1) + 1).squeeze(-1).numpy()
    mean = part.mean.numpy()
    if isinstance(part, dist.Poisson | NaturalPoisson):
        return stats.poisson.cdf(value, mean)
    if isinstance(part, dist.NegativeBinomial):
        return stats.nbinom.cdf(value, part.total_count, 1 - part.probs)
    if isinstance(part, dist.Gamma | NaturalGamma):
        rate = mean / part.variance.numpy()
        return stats.gamma.cdf(value, mean * rate, scale=1 / rate)
    if isinstance(part, dist.StudentT):
        return stats.t.cdf(value, part.df, part.loc, part.scale)
    if isinstance(part, NaturalLogNormal):
        spread = np.log1p(part.variance.numpy() / mean**2)
        return stats.lognorm.cdf(value, spread**0.5, scale=mean * np.exp(-spread / 2))
    return stats.norm.cdf(value, mean, part.variance.sqrt().numpy())


@pytest.mark.parametrize("name", PARTS)
def test_quantile_is_the_smallest_value_that_reaches_the_level(name):
    part = PARTS[name]
    level = torch.linspace(0.001, 0.999, 37, dtype=torch.double).unsqueeze(-1)
    found = quantile(part, level)
    assert found.shape == (37, 2)
    assert bool((found.diff(dim=0) >= 0).all())
    reached = scipy_cdf(part, found)
    if level_probs(part) is None and not isinstance(part, dist.Poisson | NaturalPoisson | dist.NegativeBinomial):
        np.testing.assert_allclose(reached, level.expand(37, 2), rtol=1e-6)
        return
    assert (reached >= level.numpy() - 1e-12).all()
    before = np.where(found > 0, scipy_cdf(part, (found - 1).clamp(min=0)), 0.0)
    assert (before < level.numpy() + 1e-12).all()


def test_quantile_of_a_negative_binomial_with_nearly_certain_trials():
    """In float32 the probability of failure rounds to 0, its logit does not."""
    part = dist.NegativeBinomial(torch.tensor([2.0]), logits=torch.tensor([18.0]))
    assert quantile(part, torch.tensor(0.5)).item() == pytest.approx(1.678347 * np.exp(18), rel=1e-3)


def test_levels_against_categorical():
    sizes = torch.tensor([2, 5, 3])
    logits = torch.randn(4, 3, 5)
    fn = Levels(logits, sizes)
    for column, size in enumerate(sizes.tolist()):
        twin = dist.Categorical(logits=logits[:, column, :size])
        for level in range(size):
            x = torch.zeros(4, 3).index_fill(-1, torch.tensor([column]), level)
            torch.testing.assert_close(fn.log_prob(x)[:, column], twin.log_prob(torch.full((4,), level)))
        torch.testing.assert_close(fn.probs[:, column, :size], twin.probs)
        assert bool((fn.probs[:, column, size:] == 0).all())
        assert fn.mode[:, column].tolist() == twin.probs.argmax(-1).tolist()
        moments = [(twin.probs * torch.arange(size) ** power).sum(-1) for power in (1, 2)]
        torch.testing.assert_close(fn.mean[:, column], moments[0])
        torch.testing.assert_close(fn.variance[:, column], moments[1] - moments[0] ** 2, atol=1e-5, rtol=1e-5)
    wide = fn.expand((2, 4, 3))
    assert bool((wide.sample((50,)) < sizes).all())
    assert wide.log_prob(torch.zeros(2, 4, 3)).shape == (2, 4, 3)
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(torch.full((4, 3), 2.0))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_missing_entries(parameterization):
    """NaN where the mask is False: the score is that of the others, and gradients are numbers."""
    likelihood = table(parameterization)
    raw = raw_of(likelihood, 6).requires_grad_()
    x, mask = values(6), torch.rand(6, len(FAMILIES)) < 0.5
    mask[0] = False
    filled = likelihood.fill(torch.where(mask, x, torch.nan), mask)
    scored = likelihood(raw, mask).log_prob(filled)
    torch.testing.assert_close(scored, (likelihood.elementwise(raw).log_prob(x) * mask).sum(-1))
    assert scored[0] == 0
    (slope,) = torch.autograd.grad(scored.sum(), raw)
    assert bool(slope.isfinite().all())
    assert bool((slope[0] == 0).all())


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_extreme_raw_parameters(parameterization):
    """In float32, as far as a decoder goes: scores and gradients are numbers."""
    likelihood = TableLikelihood(COLUMNS, parameterization=parameterization)
    raw = (raw_of(likelihood, 200).float().sign() * 60 * torch.rand(200, *likelihood.raw_shape)).requires_grad_()
    scored = likelihood(raw, torch.ones(200, len(FAMILIES), dtype=torch.bool)).log_prob(values(200).float())
    (slope,) = torch.autograd.grad(scored.sum(), raw)
    assert bool(scored.isfinite().all())
    assert bool(slope.isfinite().all())


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_points(parameterization):
    likelihood = table(parameterization)
    raw = raw_of(likelihood, 5)
    fn = likelihood.elementwise(raw)
    mean, median, mode = (likelihood.point(likelihood(raw), kind) for kind in ("mean", "median", "mode"))
    for column, family in enumerate(FAMILIES):
        twin = alone(fn, column)
        if SIZES[column]:
            probs = twin.probs if isinstance(twin, dist.Categorical) else torch.stack([1 - twin.probs, twin.probs], -1)
            assert mean[:, column].tolist() == mode[:, column].tolist() == probs.argmax(-1).tolist()
            expected = [int(np.searchsorted(np.cumsum(row), 0.5)) for row in probs.numpy()]
        else:
            torch.testing.assert_close(mean[:, column], twin.mean)
            grid = torch.linspace(-8, 12, 40001, dtype=torch.double).unsqueeze(-1)
            if family in ("poisson", "negative-binomial"):
                grid = torch.arange(60).double().unsqueeze(-1)
            elif family in ("gamma", "log-normal"):
                grid = torch.linspace(1e-6, 20, 40001, dtype=torch.double).unsqueeze(-1)
            best = grid[twin.log_prob(grid).argmax(0), 0]
            inside = best > 1e-3 if family == "gamma" else torch.ones(5, dtype=torch.bool)
            torch.testing.assert_close(mode[inside, column], best[inside], atol=1e-3, rtol=1e-3, msg=family)
            expected = quantile(twin, torch.tensor(0.5).double())
        torch.testing.assert_close(median[:, column], torch.as_tensor(expected).double(), msg=family)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_points_of_levels_that_are_alike(parameterization):
    """An untrained decoder gives zeros, at which torch has NaN for the mode of a bool."""
    likelihood = TableLikelihood(
        ColumnFamilies(("bernoulli", "categorical"), (2, 3)), parameterization=parameterization
    )
    for kind in ("mean", "median", "mode"):
        found = likelihood.point(likelihood(torch.zeros(1, 4)), kind)
        assert found.tolist() == [[0.0, 1.0 if kind == "median" else 0.0]]


def test_unknown_point():
    likelihood = table()
    fn = likelihood(raw_of(likelihood, 1))
    with pytest.raises(ValueError, match="a point estimate is one of mean, median, mode, got 'best'"):
        likelihood.point(fn, "best")


def brute_force_point(mixture, row, column, ordered):
    """By a loop over the draws of the latent."""
    parts = [mixture.likelihood.elementwise(mixture.raw[k, row]) for k in range(len(mixture.weights))]
    weights = mixture.weights[:, row].tolist()
    if not SIZES[column]:
        return sum(w * alone(part, column).mean.item() for w, part in zip(weights, parts, strict=True))
    total = np.zeros(SIZES[column])
    for weight, part in zip(weights, parts, strict=True):
        for level in range(SIZES[column]):
            total[level] += weight * alone(part, column).log_prob(torch.tensor(level).double()).exp().item()
    return np.searchsorted(np.cumsum(total), 0.5) if ordered else total.argmax()


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_points_of_mixtures(parameterization):
    likelihood = table(parameterization)
    mixture = Mixture(likelihood, raw_of(likelihood, 6, 3), torch.randn(6, 3).double().softmax(0))
    ordered = torch.tensor([family == "ordered" for family in FAMILIES])
    found = mixture.points(ordered)
    for row in range(3):
        for column in range(len(FAMILIES)):
            expected = brute_force_point(mixture, row, column, ordered[column])
            assert found[row, column].item() == pytest.approx(expected), (column, FAMILIES[column])


@pytest.mark.parametrize("shared", [True, False])
def test_draws_of_mixtures(shared):
    """A loop over draws and rows: the first number chooses the component, the others the quantiles."""
    likelihood = table()
    mixture = Mixture(likelihood, raw_of(likelihood, 4, 3), torch.randn(4, 3).double().softmax(0))
    uniform = torch.rand(*((10,) if shared else (10, 3)), 1 + len(FAMILIES)).double()
    found = mixture.draws(uniform)
    assert found.shape == (10, 3, len(FAMILIES))
    for draw in range(10):
        for row in range(3):
            numbers = uniform[draw] if shared else uniform[draw, row]
            chosen = int(np.searchsorted(mixture.weights[:, row].cumsum(0).numpy(), numbers[0].item()))
            fn = likelihood.elementwise(mixture.raw[chosen, row])
            expected = fn.joined(lambda part, columns, at=numbers: quantile(part, at[1 + columns]))
            torch.testing.assert_close(found[draw, row], expected)


def test_draws_of_mixtures_have_their_mean():
    """Over many draws, the mean of the mixture; every draw of a level is one that the column has."""
    likelihood = table("canonical")
    mixture = Mixture(likelihood, raw_of(likelihood, 5, 2), torch.randn(5, 2).double().softmax(0))
    drawn = mixture.draws(torch.rand(20000, 2, 1 + len(FAMILIES)).double())
    means = (mixture.weights.unsqueeze(-1) * likelihood.elementwise(mixture.raw).mean).sum(0)
    error = drawn.std(0) / 20000**0.5
    assert bool(((drawn.mean(0) - means).abs() < 5 * error).all())
    sizes = torch.tensor(SIZES)
    assert bool((drawn[..., sizes > 0] < sizes[sizes > 0]).all())
