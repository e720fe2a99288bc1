"""Densities of rows: what a row gets depends on no other row, and errors of rows do not add up."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae.estimators import VAEImputer, VAETransformer
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


def test_a_narrow_guide_does_not_hide_the_density():
    """One latent, so that quadrature tells the truth; the guide of a training with a small weight is too narrow."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(150, 1))
    table = latent @ np.array([[1.0, -0.5, 0.8]]) + 0.4 * generator.normal(size=(150, 3))
    options = {"hidden": (16,), "epochs": 60, "kl_weight": 0.02, "trees": False, "num_nets": 1, "random_state": 0}
    model = VAEImputer(1, **options).fit(table).model_
    x, mask = (part[:20] for part in model.encoded(pd.DataFrame(table, columns=["x0", "x1", "x2"])))
    grid = torch.linspace(-8, 8, 8001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        raw = model.vae.model.decoder(grid)
        rows = torch.stack([model.vae.model.likelihood(raw).log_prob(row) for row in x], 1)
    exact = (rows + torch.distributions.Normal(0, 1).log_prob(grid)).logsumexp(0) + np.log(16 / 8000)
    exact -= torch.as_tensor(model.codec.log_scale(x.numpy())).sum(-1)
    found = model.log_prob(x, mask, Sampling(4000, seed=1))
    np.testing.assert_allclose(found, exact.numpy(), atol=0.1)
