"""Rubin's rules: numbers computed by hand, and intervals that hold the truth as often as they say."""

import numpy as np
import pandas as pd
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


def test_entries_with_labels_are_matched_by_them():
    """`value_counts` orders its entries by their number, which differs between draws."""
    counts = ({"never": 52, "former": 48}, {"former": 52, "never": 48}, {"never": 51, "former": 49})
    estimates = [pd.Series(one) / 100 for one in counts]
    variances = [one * (1 - one) / 100 for one in estimates]
    found = pool(estimates, variances, num_rows=100)
    for place, name in enumerate(("never", "former")):
        alone = pool([one[name] for one in estimates], [one[name] for one in variances], num_rows=100)
        for pooled, expected in zip(found, alone, strict=True):
            assert pooled[place] == pytest.approx(expected)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [10.0, 20.0]})
    frames = [frame, frame.iloc[::-1, ::-1]]
    np.testing.assert_allclose(pool(frames, frames).estimate, [[1.0, 10.0], [2.0, 20.0]])


def test_labels_that_look_like_a_mask():
    estimates = [pd.Series([1.0, 2.0], [False, True]), pd.Series([1.5, 2.5], [False, True])]
    np.testing.assert_allclose(pool(estimates, [[0.1, 0.2]] * 2).estimate, [1.25, 2.25])
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [10.0, 20.0]})
    numbers = frame.to_numpy()
    np.testing.assert_allclose(pool(frame, frame[["b", "a"]]).standard_error, pool(numbers, numbers).standard_error)


@pytest.mark.parametrize(
    ("estimates", "variances", "options", "message"),
    [
        ([pd.Series({"a": 1.0}), pd.Series({"b": 1.0})], [[1.0], [1.0]], {}, "must have the labels of the first"),
        (
            [pd.Series({"a": 1.0, "b": 2.0}), pd.Series({"b": 2.0, "a": 1.0})],
            [[1.0, 2.0], [2.0, 1.0]],
            {},
            "variances must have labels, as other tables have them in another order",
        ),
        (pd.Series([1.0, 2.0], ["t0", "t1"]), pd.Series([1.0, 2.0], ["t1", "t0"]), {}, "name the tables otherwise"),
        ([[pd.Series({"a": 1.0})], [1.0]], [[1.0], [1.0]], {}, "estimates must be real numbers"),
        (np.ma.masked_array([1.0, 2.0], mask=[0, 1]), [1.0, 1.0], {}, "estimates have entries that a mask hides"),
        ([1.0, 2.0], np.ma.masked_array([1.0, 2.0], mask=[0, 1]), {}, "variances have entries that a mask hides"),
        ([1.0, 2.0 + 1j], [1.0, 1.0], {}, "estimates must be real numbers"),
        ([1.0, 2.0], [1.0, 1.0], {"num_rows": "30"}, "num_rows must be at least 2, got '30'"),
    ],
)
def test_values_that_cannot_be_pooled(estimates, variances, options, message):
    with pytest.raises(ValueError, match=message):
        pool(estimates, variances, **options)
