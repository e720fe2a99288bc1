"""The factor analyser against the conditional distributions of a normal table, and what it does for draws."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from pyrovae.estimators import VAEImputer
from pyrovae.estimators.factors import FactorModel
from pyrovae.likelihoods.tables import ColumnFamilies

LOADINGS = np.array([[0.9, 0.1], [0.8, -0.3], [0.5, 0.7], [-0.4, 0.8], [0.2, -0.9]])
COVARIANCE = LOADINGS @ LOADINGS.T + np.diag(1 - np.square(LOADINGS).sum(1))
"""Of five standard normal columns with two common factors."""
NORMAL = ColumnFamilies(("normal",) * 5, (0,) * 5)


def rows(count, seed, hidden=0.2):
    generator = np.random.default_rng(seed)
    full = generator.multivariate_normal(np.zeros(5), COVARIANCE, size=count)
    return full, np.where(generator.uniform(size=full.shape) < hidden, np.nan, full)


@pytest.fixture(scope="module")
def normal():
    return FactorModel.fit(rows(4000, 0)[1], NORMAL, random_state=0)


def conditional(missing, values):
    """Mean and covariance of some columns given the others, by the formula of the normal distribution."""
    seen = np.setdiff1d(np.arange(5), missing)
    gain = COVARIANCE[np.ix_(missing, seen)] @ np.linalg.inv(COVARIANCE[np.ix_(seen, seen)])
    return gain @ values[seen], COVARIANCE[np.ix_(missing, missing)] - gain @ COVARIANCE[np.ix_(seen, missing)]


@pytest.mark.parametrize("missing", [[0], [0, 1], [2, 3, 4], [0, 1, 2, 3, 4]])
def test_conditional_distribution(normal, missing):
    values = np.array([1.0, -0.5, 0.8, -1.2, 0.4])
    mean, covariance = conditional(np.array(missing), values)
    asked = values.copy()
    asked[missing] = np.nan
    np.testing.assert_allclose(normal.predict(asked[None])[0, missing], mean, atol=0.12)
    deviations = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(normal.deviations(asked[None])[0, missing], deviations, atol=0.06)
    mask = ~np.isnan(asked)[None]
    numbers = np.random.default_rng(0).standard_normal((20000, 1, normal.num_factors + 5))
    drawn = norm.ppf(normal.uniform(mask, numbers)[:, 0, missing])
    np.testing.assert_allclose(np.corrcoef(drawn.T), covariance / np.outer(deviations, deviations), atol=0.07)


def test_numbers_are_uniform(normal):
    mask = np.array([[True, False, False, True, False], [False] * 5])
    numbers = np.random.default_rng(0).standard_normal((5000, 2, normal.num_factors + 5))
    found = normal.uniform(mask, numbers)
    for row, column in ((0, 1), (0, 4), (1, 0), (1, 3)):
        assert kstest(found[:, row, column], "uniform").pvalue > 1e-3


def test_levels_against_their_shares():
    """Two levels and three levels that say where a number lies: probabilities are near the shares in bins."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=6000)
    two = (latent + 0.7 * generator.normal(size=6000) > 0).astype(float)
    three = np.digitize(latent + 0.7 * generator.normal(size=6000), [-0.6, 0.6]).astype(float)
    columns = ColumnFamilies(("normal", "bernoulli", "categorical"), (0, 2, 3))
    model = FactorModel.fit(np.stack([latent, two, three], 1), columns, random_state=0)
    assert model.known.tolist() == [True, True, True]
    near = np.abs(latent - 0.5) < 0.15
    found = model.predict(np.array([[0.5, np.nan, np.nan]]))[0]
    np.testing.assert_allclose(found[1:3], [1 - two[near].mean(), two[near].mean()], atol=0.15)
    np.testing.assert_allclose(found[3:], [(three[near] == level).mean() for level in range(3)], atol=0.2)
    assert found[1:3].sum() == pytest.approx(1)
    assert found[3:].sum() == pytest.approx(1)


def test_which_columns_are_known():
    families = ("normal", "log-normal", "poisson", "ordered", "categorical", "categorical", "categorical")
    columns, generator = ColumnFamilies(families, (0, 0, 0, 4, 3, 200, 4)), np.random.default_rng(0)
    values = np.stack([generator.integers(1, 4, 100) % max(2, levels or 9) for levels in columns.num_levels], 1)
    values = values.astype(float)
    values[:, 0] = np.nan
    model = FactorModel.fit(values, columns, ordered=[False] * 6 + [True], random_state=0)
    assert model.known.tolist() == [False, False, False, False, True, False, False]
    assert set(model.owner) == {1, 2, 3, 4, 6}, "a column without values, and one of many levels, have no feature"
    assert np.isfinite(model.predict(values)).all()


@pytest.mark.parametrize("count", [1, 2])
def test_tiny(count):
    """One column, and two rows, leave nothing to learn: numbers are independent."""
    columns = ColumnFamilies(("normal",) * count, (0,) * count)
    model = FactorModel.fit(np.array([[0.0, 1.0], [1.0, 3.0]])[:, :count], columns, random_state=0)
    numbers = np.random.default_rng(0).standard_normal((4, 3, model.num_factors + count))
    found = model.uniform(np.zeros((3, count), bool), numbers)
    assert found.shape == (4, 3, count)
    assert np.isfinite(model.predict(np.full((3, count), np.nan))).all()
    if not model.num_factors:
        np.testing.assert_allclose(found, norm.cdf(numbers))


def test_rows_do_not_depend_on_other_rows(normal):
    holes = rows(50, 1)[1]
    some = normal.predict(holes)[7:9]
    np.testing.assert_allclose(normal.predict(holes[7:9]), some, rtol=0, atol=1e-12)


def test_round_trip(normal, tmp_path):
    normal.save(tmp_path / "factors.npz")
    again = FactorModel.load(tmp_path / "factors.npz")
    holes = rows(20, 1)[1]
    np.testing.assert_array_equal(again.predict(holes), normal.predict(holes))
    np.testing.assert_array_equal(again.deviations(holes), normal.deviations(holes))
    for name, damage in {"noise": -1.0, "owner": 9, "level": 4}.items():
        with np.load(tmp_path / "factors.npz") as stored:
            arrays = {key: stored[key].copy() for key in stored.files}
        arrays[name][0] = damage
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(ValueError, match=r"wrong\.npz is damaged: .*save the model again"):
            FactorModel.load(tmp_path / "wrong.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "factors.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cut\.npz is damaged: .*save the model again"):
        FactorModel.load(tmp_path / "cut.npz")


@pytest.fixture(scope="module")
def imputed():
    """The complete table, the table with holes, and an imputer of it."""
    full, holes = rows(500, 3, hidden=0.3)
    return full, holes, VAEImputer(8, hidden=(64,), epochs=40, random_state=0).fit(holes)


def test_draws_keep_the_relations(imputed):
    """Correlations and regression slopes of drawn tables are near those of the complete table."""
    full, holes, imputer = imputed
    draws = imputer.impute_draws(holes, 20)
    found = np.mean([np.corrcoef(draw.T) for draw in draws], 0)
    np.testing.assert_allclose(found, np.corrcoef(full.T), atol=0.09)

    def slopes(table):
        return np.linalg.lstsq(table[:, 1:] - table[:, 1:].mean(0), table[:, 0] - table[:, 0].mean(), rcond=None)[0]

    np.testing.assert_allclose(np.mean([slopes(draw) for draw in draws], 0), slopes(full), atol=0.12)


def test_single_entries_stay_calibrated(imputed):
    full, holes, imputer = imputed
    missing = np.isnan(holes)
    low, high = imputer.intervals(holes, 0.9)
    assert ((low <= full) & (full <= high))[missing].mean() == pytest.approx(0.9, abs=0.05)
    draws = np.stack(imputer.impute_draws(holes, 100))
    inside = (np.quantile(draws, 0.05, axis=0) <= full) & (full <= np.quantile(draws, 0.95, axis=0))
    assert inside[missing].mean() == pytest.approx(0.88, abs=0.05), "quantiles of 100 draws are a little narrower"


def test_draws_of_a_row_depend_on_no_other_row(imputed):
    _, holes, imputer = imputed
    draws = imputer.impute_draws(holes, 3)
    alone = imputer.impute_draws(holes[[5]], 3)
    for all_rows, one in zip(draws, alone, strict=True):
        np.testing.assert_allclose(one[0], all_rows[5], rtol=1e-9)
