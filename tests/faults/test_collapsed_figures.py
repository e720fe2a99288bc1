"""Figures of latents that hardly differ are drawn, and say so; nothing crashes the process."""

import logging

import numpy as np
import pytest
import torch

from pyrovae import data
from pyrovae.pairs import find_pair
from pyrovae.plotting import latent_scatter, run_figures
from pyrovae.plotting.latents import in_plane

ROWS = 60
NOISE = np.random.RandomState(0).standard_normal((ROWS, 8))
FEW = np.repeat(np.eye(8)[:3], 20, axis=0)
POINTS = {
    "constant": np.ones((ROWS, 8)),
    "zero": np.zeros((ROWS, 8)),
    "rounding": 1 + 1e-9 * NOISE,
    "nearly": 1e-5 * NOISE,
    "one-direction": np.outer(NOISE[:, 0], np.ones(8)),
    "three-places": FEW,
    "many-alike": np.concatenate([np.zeros((50, 8)), NOISE[:10]]),
    "huge": 1e30 * NOISE,
    "wide": np.random.RandomState(1).standard_normal((ROWS, 300)),
    "few": NOISE[:2],
    "one": NOISE[:1],
}


@pytest.mark.parametrize("method", ["auto", "tsne", "pca"])
@pytest.mark.parametrize("name", POINTS)
def test_every_spread_is_drawn(name, method, caplog):
    points, names = in_plane(POINTS[name], method, 0)
    assert points.shape == (len(POINTS[name]), 2)
    assert np.isfinite(points).all()
    assert "nan" not in names["xlabel"]
    collapsed = name in ("constant", "zero", "rounding", "nearly")
    assert ("the posterior has collapsed" in caplog.text) == collapsed
    assert ("collapsed" in names["title"]) == collapsed


def test_points_that_are_no_numbers():
    points = torch.from_numpy(NOISE.copy())
    points[7, 2] = torch.nan
    with pytest.raises(ValueError, match="the latents of 1 of 60 rows are not finite, the first of row 7"):
        latent_scatter(points)


@pytest.mark.parametrize("latent_dim", [1, 2, 6])
def test_a_collapsed_run_is_drawn(latent_dim, caplog):
    digits = data.load("digits", binarize="static")
    vae = find_pair("gaussian").build(digits, hidden=(8,), latent_dim=latent_dim, layer="plain")
    with torch.no_grad():
        for parameter in vae.guide.parameters():
            parameter.zero_()
    with caplog.at_level(logging.WARNING):
        figures = run_figures(vae, digits, [])
    assert {"latent_scatter", "samples", "reconstructions"} <= figures.keys()
    assert "the posterior has collapsed" in caplog.text
