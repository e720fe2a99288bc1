"""Densities of rows: what a row gets depends on no other row, and errors of rows do not add up."""

import numpy as np
import pytest

from pyrovae.estimators import VAETransformer
from pyrovae.estimators.prediction import Sampling


@pytest.fixture(scope="module")
def fitted():
    table = np.random.default_rng(0).normal(size=(400, 3))
    return table, VAETransformer(2, hidden=(8,), epochs=3, random_state=0).fit(table)


def test_a_density_depends_on_no_other_row(fitted):
    table, model = fitted
    scores = model.score_samples(table, 20)
    np.testing.assert_allclose(model.score_samples(table[[7]], 20)[0], scores[7], rtol=1e-10)
    np.testing.assert_allclose(model.score_samples(table[::-1], 20)[::-1], scores, rtol=1e-10)
    np.testing.assert_array_equal(*model.score_samples(table[[3, 3]], 20))


def test_errors_of_rows_are_independent(fitted):
    """Estimates by two draws differ between seeds; the mean over rows differs by the root of their number less."""
    table, model = fitted
    x, mask = model.model_.encoded(table)
    found = [model.model_.log_prob(x, mask, Sampling(2, seed=seed)) for seed in range(12)]
    rows, means = np.var(found, axis=0, ddof=1).mean(), np.var(np.mean(found, 1), ddof=1)
    assert rows > 1e-4
    assert means < 4 * rows / len(table)
