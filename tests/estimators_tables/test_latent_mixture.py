"""Mixtures of normals over latents: draws, files, and files that are damaged."""

import numpy as np
import pytest

from pyrovae.estimators.latent_mixture import LatentMixture


def test_latent_mixture(tmp_path):
    """Two far clusters: draws have their shares, means and covariances, and come back from a file."""
    generator = np.random.default_rng(0)
    near = generator.multivariate_normal([-5, 0], [[1, 0.8], [0.8, 1]], 600)
    latents = np.concatenate([near, generator.normal(5, 0.5, (400, 2))])
    mixture = LatentMixture.fit(latents, np.random.RandomState(0))
    drawn = mixture.sample(20000, np.random.RandomState(1))
    left = drawn[:, 0] < 0
    assert left.mean() == pytest.approx(0.6, abs=0.02)
    np.testing.assert_allclose(drawn[left].mean(0), [-5, 0], atol=0.1)
    np.testing.assert_allclose(np.cov(drawn[left].T), [[1, 0.8], [0.8, 1]], atol=0.1)
    np.testing.assert_allclose(drawn[~left].std(0), [0.5, 0.5], atol=0.05)
    mixture.save(tmp_path / "latents.npz")
    again = LatentMixture.load(tmp_path / "latents.npz")
    np.testing.assert_array_equal(again.sample(20000, np.random.RandomState(1)), drawn)


@pytest.mark.parametrize("rows", [2, 60])
def test_latent_mixture_of_few(rows):
    latents = np.random.default_rng(0).normal(size=(rows, 3))
    mixture = LatentMixture.fit(latents, np.random.RandomState(0))
    assert np.isfinite(mixture.sample(5, np.random.RandomState(0))).all()


GOOD = {"weights": np.ones(1), "means": np.zeros((1, 2)), "factors": np.eye(2)[None]}
DAMAGED = {
    "another shape": {**GOOD, "means": np.zeros((2, 2))},
    "no matrix": {**GOOD, "factors": np.ones((1, 2))},
    "one number": {**GOOD, "means": np.array(1.0)},
    "weights of two dimensions": {**GOOD, "weights": np.ones((1, 1))},
    "no component": {"weights": np.ones(0), "means": np.zeros((0, 2)), "factors": np.zeros((0, 2, 2))},
    "negative weight": {**GOOD, "weights": -np.ones(1)},
    "no number": {**GOOD, "means": np.full((1, 2), np.nan)},
    "objects": {**GOOD, "means": np.array([[{}]])},
    "an array less": {"weights": np.ones(1)},
}


@pytest.mark.parametrize("arrays", DAMAGED.values(), ids=DAMAGED)
def test_latent_mixture_damaged(arrays, tmp_path):
    np.savez(tmp_path / "latents.npz", **arrays)
    with pytest.raises(ValueError, match=r"latents\.npz is damaged: .*save the model again") as refused:
        LatentMixture.load(tmp_path / "latents.npz")
    assert "\n" not in str(refused.value)


def test_latent_mixture_cut_short(tmp_path):
    path = tmp_path / "latents.npz"
    LatentMixture(**GOOD).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        LatentMixture.load(path)


@pytest.mark.parametrize("clusters", [1, 3])
def test_number_of_components(clusters):
    """Held-out rows choose as many components as there are clusters, or hardly more."""
    generator = np.random.default_rng(0)
    centres = 10 * generator.normal(size=(clusters, 4))
    rows = np.repeat(centres, 240 // clusters, axis=0) + generator.normal(size=(240, 4))
    draws = rows + 0.1 * generator.normal(size=(5, 240, 4))
    mixture = LatentMixture.fit(draws, np.random.RandomState(0))
    assert clusters <= len(mixture.weights) <= clusters + 1
