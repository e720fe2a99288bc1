"""Masks: their rates, what they depend on, and the transforms that hide entries in training."""

import numpy as np
import pytest
import torch

from pyrovae.data.hiding import HideAtRandom, HideLikeOtherRows
from pyrovae.data.missing import grouped, mar, mcar, mnar_logistic, mnar_self_masking
from pyrovae.data.rows import Rows

ROWS, COLUMNS = 4000, 10
RATES = (0.0, 0.1, 0.5, 0.9, 1.0)


def table(missing=0.0):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((ROWS, 3)) @ rng.standard_normal((3, COLUMNS)) + rng.standard_normal((ROWS, COLUMNS))
    x = np.exp(x) * np.arange(1, COLUMNS + 1)  # skewed, and on several scales
    x[rng.random(x.shape) < missing] = np.nan
    return x


def assert_rate(hidden, rate):
    """The share is the rate within five standard errors of independent entries."""
    error = 5 * np.sqrt(rate * (1 - rate) / hidden.size)
    assert abs(hidden.mean() - rate) <= error


def explained(x, hidden):
    """The share of the variance of a column of the mask that the ranks of the columns explain linearly."""
    ranks = x.argsort(axis=0).argsort(axis=0) / len(x)
    design = np.column_stack([ranks, np.ones(len(x))])
    left = hidden - design @ np.linalg.lstsq(design, hidden, rcond=None)[0]
    return 1 - left.var() / hidden.var()


@pytest.mark.parametrize("rate", RATES)
def test_rate_of_mcar(rate):
    observed = mcar((ROWS, COLUMNS), rate, 0)
    assert observed.dtype == bool
    assert_rate(~observed, rate)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("rate", RATES)
def test_rate_of_mar(rate, missing):
    x = table(missing)
    there = ~np.isnan(x)
    observed = mar(x, rate, 0, share_observed=0.3)
    untouched = (observed == there).all(axis=0)
    assert untouched.sum() == (COLUMNS if rate == 0 else 3)
    losing = np.ones(COLUMNS, bool) if rate == 0 else ~untouched
    for column in np.flatnonzero(losing):
        assert_rate(~observed[there[:, column], column], rate)
    assert not (observed & ~there).any()


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("rate", RATES)
def test_rate_of_mnar_logistic(rate, missing):
    x = table(missing)
    there = ~np.isnan(x)
    observed = mnar_logistic(x, rate, 0)
    for column in range(COLUMNS):
        assert_rate(~observed[there[:, column], column], rate)
    assert not (observed & ~there).any()


def test_what_masks_depend_on():
    x = table()
    at_random = mcar(x.shape, 0.5, 0)
    assert all(explained(x, ~column) < 0.01 for column in at_random.T)
    given_others = mar(x, 0.5, 0)
    stays = given_others.all(axis=0)
    assert all(explained(x[:, stays], ~column) > 0.1 for column in given_others[:, ~stays].T)
    not_at_random = mnar_logistic(x, 0.5, 0)
    assert all(explained(x, ~column) > 0.1 for column in not_at_random.T)


def test_mar_depends_on_nothing_that_is_hidden():
    """Other values in the columns that lose entries do not move the mask."""
    x = table()
    observed = mar(x, 0.4, 3)
    stays = observed.all(axis=0)
    changed = np.where(stays, x, np.random.default_rng(2).standard_normal(x.shape))
    np.testing.assert_array_equal(mar(changed, 0.4, 3), observed)


def test_a_constant_column_decides_nothing():
    x = np.ones((ROWS, 4))
    assert_rate(~mnar_logistic(x, 0.3, 0), 0.3)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_self_masking_by_quantile(quantile):
    x = table()
    observed = mnar_self_masking(x, [1, 4], above=quantile)
    assert observed[:, [0, 2, 3]].all()
    for column in (1, 4):
        assert observed[:, column].mean() == pytest.approx(quantile, abs=1 / ROWS)
        assert x[observed[:, column], column].max() < x[~observed[:, column], column].min()


def test_self_masking_by_mean():
    x = np.array([[0.0, 1.0], [2.0, np.nan], [4.0, 3.0], [np.nan, 2.0]])
    expected = [[True, True], [True, False], [False, False], [False, True]]
    np.testing.assert_array_equal(mnar_self_masking(x, range(2)), expected)


@pytest.mark.parametrize("rate", RATES)
def test_groups_vanish_together(rate):
    observed = grouped(["a", "b", "a", None, "c"], ROWS, rate, 0)
    np.testing.assert_array_equal(observed[:, 0], observed[:, 2])
    assert observed[:, 3].all()
    assert_rate(~observed[:, [0, 1, 4]], rate)
    if rate == 0.5:
        assert (observed[:, 0] != observed[:, 1]).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: mcar((50, 4), 0.5, seed),
        lambda seed: mar(table()[:50], 0.5, seed),
        lambda seed: mnar_logistic(table()[:50], 0.5, seed),
        lambda seed: grouped([0, 1, 1], 50, 0.5, seed),
    ],
    ids=["mcar", "mar", "mnar", "grouped"],
)
def test_masks_are_repeatable(make):
    np.testing.assert_array_equal(make(3), make(np.random.default_rng(3)))
    assert (make(3) != make(4)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcar((3, 2), 1.5), "rate must be from 0 to 1, got 1.5"),
        (lambda: mar(np.zeros((3, 1)), 0.5), "one column needs another one"),
        (lambda: mar(np.zeros((3, 2)), 0.5, share_observed=1.0), "share_observed must be between 0 and 1"),
        (lambda: mnar_logistic(np.zeros(3), 0.5), r"rows and columns, got the shape \(3,\)"),
        (lambda: mnar_self_masking(np.zeros((3, 2)), [0], above="median"), "'mean' or a quantile"),
        (lambda: HideAtRandom((0.5, 0.2)), r"rate must be a range within 0 and 1, got \(0.5, 0.2\)"),
        (lambda: HideLikeOtherRows(random_rate=(0.0, 2.0)), "random_rate must be a range"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def batch(rate=0.4, size=2000):
    return Rows(torch.randn(size, 6), mask=torch.rand(size, 6) >= rate, more={"c": torch.ones(size, 1)})


@pytest.mark.parametrize("hide", [HideAtRandom(), HideLikeOtherRows()])
def test_hiding_leaves_the_rest(hide):
    rows = batch()
    hidden = hide(rows)
    seen = hidden.more["seen"]
    assert seen.dtype == torch.bool
    assert seen.shape == rows.x.shape
    assert not (seen & ~rows.mask).any()
    assert hidden.x is rows.x
    assert hidden.mask is rows.mask
    assert list(hidden.more) == ["c", "seen"]
    assert list(rows.more) == ["c"]


@pytest.mark.parametrize("low", [0.0, 0.5])
def test_rates_of_rows_are_uniform(low):
    seen = HideAtRandom((low, 1.0))(Rows(torch.zeros(4000, 400))).more["seen"]
    share = 1 - seen.float().mean(1)
    assert share.mean() == pytest.approx((low + 1) / 2, abs=0.02)
    assert share.std() == pytest.approx((1 - low) / 12**0.5, abs=0.02)


def test_copied_masks_are_those_of_other_rows():
    """In a batch where each row lacks one column of its own, a row of copy masking lacks exactly two."""
    rows = Rows(torch.zeros(6, 6), mask=~torch.eye(6, dtype=torch.bool))
    seen = HideLikeOtherRows(random_share=0.0)(rows).more["seen"]
    assert ((~seen).sum(1) == 2).all()


def test_some_rows_are_hidden_at_random():
    """Copied masks hide column 0 or nothing, so another hidden column tells that a row was hidden at random."""
    mask = torch.ones(4000, 20, dtype=torch.bool)
    mask[::2, 0] = False
    seen = HideLikeOtherRows(random_rate=(0.9, 0.9), random_share=0.25)(Rows(torch.zeros(4000, 20), mask=mask))
    assert (~seen.more["seen"][:, 1:]).any(1).float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    "rows",
    [
        Rows(torch.zeros(2000, 50)),
        Rows(torch.zeros(2000, 50), mask=torch.rand(2000, 50) >= 0.001),
        Rows(torch.zeros(1, 5000), mask=torch.rand(1, 5000) >= 0.5),
    ],
    ids=["complete", "nearly complete", "one row"],
)
def test_hidden_at_random_where_there_is_nothing_to_copy(rows):
    seen = HideLikeOtherRows(random_rate=(0.5, 0.5), random_share=0.0)(rows).more["seen"]
    mask = torch.ones_like(seen) if rows.mask is None else rows.mask
    assert seen[mask].float().mean() == pytest.approx(0.5, abs=0.05)
