"""Errors of imputed tables against values worked out by hand."""

import numpy as np
import pytest

from pyrovae.metrics.imputation import column_errors, hivae_error, interval_coverage, mse, vaem_rmse

NAN = np.nan
KINDS = ("real", "categorical", "ordinal", "count")
LEVELS = (1, 3, 4, 1)
TRUTH = np.array(
    [
        [0.0, 0.0, 1.0, 10.0],
        [4.0, 1.0, 4.0, 30.0],
        [8.0, 2.0, 2.0, NAN],
        [2.0, 1.0, 3.0, 20.0],
    ]
)
FILLED = np.array(
    [
        [3.0, 0.0, 3.0, 10.0],
        [4.0, 2.0, 4.0, 30.0],
        [4.0, 1.0, 1.0, NAN],
        [2.0, 1.0, 3.0, 20.0],
    ]
)
HIDDEN = np.array(
    [
        [True, True, True, False],
        [False, True, True, False],
        [True, True, True, True],
        [False, True, True, False],
    ]
)
REAL = np.sqrt((3.0**2 + 4.0**2) / 2) / 8.0  # two entries hidden, range 0 to 8
NOMINAL = 2 / 4
ORDINAL = (2 + 0 + 1 + 0) / 4 / 4


def test_column_errors():
    found = column_errors(TRUTH, FILLED, HIDDEN, KINDS, LEVELS)
    np.testing.assert_allclose([error.value for error in found], [REAL, NOMINAL, ORDINAL, NAN])
    units = ["RMSE / range", "error rate", "mean level difference / levels", "RMSE / range"]
    assert [error.unit for error in found] == units


def test_column_errors_with_ranges_of_the_whole_table():
    found = column_errors(TRUTH, FILLED, HIDDEN, KINDS, LEVELS, ranges=[16.0, NAN, NAN, 1.0])
    np.testing.assert_allclose([error.value for error in found], [np.sqrt(12.5) / 16, NOMINAL, ORDINAL, NAN])
    with pytest.raises(ValueError, match=r"ranges has shape \(2,\), and there are 4 columns"):
        column_errors(TRUTH, FILLED, HIDDEN, KINDS, LEVELS, ranges=[16.0, 1.0])


def test_hivae_error():
    """The column whose only hidden entry has no known truth does not count."""
    found = hivae_error(TRUTH, FILLED, HIDDEN, KINDS, LEVELS)
    np.testing.assert_allclose(found, [(REAL + NOMINAL + ORDINAL) / 3, REAL, (NOMINAL + ORDINAL) / 2])


def test_vaem_rmse():
    """The factor 1/D stands outside of the root; ordinal levels count as right or wrong."""
    found = vaem_rmse(TRUTH, FILLED, HIDDEN, KINDS)
    numeric, wrong = 12.5 / 64, 0.5
    np.testing.assert_allclose(found, [np.sqrt(numeric + wrong + wrong) / 3, np.sqrt(numeric), wrong])


def test_vaem_rmse_with_ranges_of_the_whole_table():
    found = vaem_rmse(TRUTH, FILLED, HIDDEN, KINDS, ranges=[16.0, NAN, NAN, 1.0])
    assert found.numeric == pytest.approx(np.sqrt(12.5) / 16)
    assert found.rmse == pytest.approx(np.sqrt(12.5 / 256 + 1.0) / 3)


def test_parts_without_columns_are_nan():
    only = [[1.0], [2.0]]
    assert np.isnan(hivae_error(only, only, [[True], [True]], ["real"], [1]).levels)
    assert np.isnan(vaem_rmse(only, only, [[True], [True]], ["binary"]).numeric)


def test_a_constant_column_keeps_its_error_visible():
    constant = np.ones((3, 1))
    assert hivae_error(constant, constant + 2, np.ones((3, 1), bool), ["positive"], [1]).average == 2.0


def test_mse_and_coverage():
    hidden = np.array([[True, False], [True, True]])
    truth, filled = np.array([[1.0, 5.0], [2.0, NAN]]), np.array([[2.0, 0.0], [5.0, 0.0]])
    assert mse(truth, filled, hidden) == (1 + 9) / 2
    assert interval_coverage(filled - 1.5, filled + 1.5, truth, hidden) == 0.5
    assert interval_coverage(truth, truth, truth, hidden & ~np.isnan(truth)) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filled": FILLED[:2]}, r"must be one shape \[N, D\], got \(4, 4\), \(2, 4\)"),
        ({"hidden": HIDDEN.astype(float)}, "hidden must hold bools.*float64"),
        ({"hidden": np.zeros_like(HIDDEN)}, "no entry is asked for"),
        ({"filled": np.where(TRUTH == 8.0, NAN, FILLED)}, "column 0 was not filled: 1 of the entries"),
        ({"kinds": KINDS[:2]}, "2 kinds for 4 columns"),
        ({"kinds": ("real", "cat", "ordinal", "count")}, "unknown kind 'cat'; known are real, positive"),
        ({"num_levels": [1, 3]}, r"num_levels has shape \(2,\), and there are 4 columns"),
    ],
)
def test_bad_arguments(changes, message):
    given = {"truth": TRUTH, "filled": FILLED, "hidden": HIDDEN, "kinds": KINDS, "num_levels": LEVELS} | changes
    with pytest.raises(ValueError, match=message):
        hivae_error(**given)


def test_bad_ranges():
    with pytest.raises(ValueError, match=r"ranges has shape \(2,\)"):
        vaem_rmse(TRUTH, FILLED, HIDDEN, KINDS, ranges=[1.0, 1.0])
