"""Rubin's rules: numbers computed by hand, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from pyrovae.estimators.pooling import pool


def test_by_hand():
    """Q = 1, 2, 3 and U = 1/2: B = 1, T = 1/2 + 4/3 = 11/6, lambda = 8/11, 1/nu = 64/242 + 13/30."""
    pooled = pool([1, 2, 3], [0.5, 0.5, 0.5], num_rows=11)
    assert pooled.estimate == 2
    assert pooled.standard_error == pytest.approx((11 / 6) ** 0.5)
    assert pooled.degrees_of_freedom == pytest.approx(1.4330832, rel=1e-6)
    assert pooled.missing_information == pytest.approx(8 / 11 + 3 / 11 * 2 / 4.4330832, rel=1e-6)


def test_large_table_by_hand():
    """B = 2, T = 3 + 3, lambda = 1/2, nu = 4; the table of t gives 2.776445 for 4 degrees of freedom and 95 %."""
    pooled = pool([0.0, 2.0], [3.0, 3.0])
    assert pooled.degrees_of_freedom == pytest.approx(4)
    assert pooled.missing_information == pytest.approx(0.5 + 0.5 * 2 / 7)
    low, high = pooled.interval()
    assert (low, high) == pytest.approx((1 - 2.776445 * 6**0.5, 1 + 2.776445 * 6**0.5), rel=1e-6)


def test_nothing_missing():
    """Equal estimates: the standard error and the degrees of freedom of the complete table."""
    large, small = pool([5.0] * 3, [4.0] * 3), pool([5.0] * 3, [4.0] * 3, num_rows=10)
    assert large.standard_error == small.standard_error == 2
    assert large.degrees_of_freedom == np.inf
    assert large.missing_information == 0
    assert large.interval(0.95) == pytest.approx((5 - 2 * 1.959964, 5 + 2 * 1.959964))
    assert small.degrees_of_freedom == pytest.approx(9 * 10 / 12)


def test_arrays_are_pooled_entry_by_entry():
    generator = np.random.default_rng(0)
    estimates, variances = generator.normal(size=(5, 2, 3)), generator.uniform(1, 2, size=(5, 2, 3))
    pooled = pool(estimates, variances, num_rows=40)
    for place in np.ndindex(2, 3):
        alone = pool(estimates[:, *place], variances[:, *place], num_rows=40)
        np.testing.assert_allclose([field[place] for field in pooled], alone)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_intervals_hold_the_truth(coverage):
    """The mean of 30 normal numbers, of which 12 are drawn from their posterior predictive distribution."""
    generator, observed, missing, tables, repeats = np.random.default_rng(1), 18, 12, 5, 20000
    seen = generator.normal(size=(repeats, observed))
    shape = (tables, repeats)
    scale = np.sqrt((observed - 1) * seen.var(1, ddof=1) / generator.chisquare(observed - 1, shape))
    loc = seen.mean(1) + scale * generator.normal(size=shape) / observed**0.5
    drawn = loc[..., None] + scale[..., None] * generator.normal(size=(*shape, missing))
    rows = np.concatenate([np.broadcast_to(seen, (tables, *seen.shape)), drawn], -1)
    low, high = pool(rows.mean(-1), rows.var(-1, ddof=1) / 30, num_rows=30).interval(coverage)
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(coverage, abs=0.015)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0]), "M at least 2, got"),
        ((1.0, 1.0), "M at least 2, got"),
        (([1.0, 2.0], [1.0]), r"got \(2,\) and \(1,\)"),
        (([1.0, np.nan], [1.0, 1.0]), "estimates must be finite"),
        (([1.0, 2.0], [1.0, 0.0]), "variances must be positive numbers, the least is 0.0"),
        (([1.0, 2.0], [1.0, 1.0], 1), "num_rows must be at least 2, got 1"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pool(*arguments)


def test_coverage_refused():
    with pytest.raises(ValueError, match=r"coverage must be between 0 and 1, got 1\.5"):
        pool([1.0, 2.0], [1.0, 1.0]).interval(1.5)


def test_endless_rows_are_a_large_table():
    assert pool([1.0, 2.0], [1.0, 3.0], num_rows=float("inf")) == pool([1.0, 2.0], [1.0, 3.0])
