"""Structure from motion: landmarks that are hidden are found, and 3-D shapes up to what no view can tell."""

import functools

import pytest
import scipy.spatial
import torch

from pyrovae import data
from pyrovae.data import landmarks
from pyrovae.data.patterns import random_mask
from pyrovae.data.preprocessing import seeded_generator
from pyrovae.metrics import missing_errors, procrustes_error
from pyrovae.nn import ShapeProjector
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer


@functools.cache
def trained():
    torch.manual_seed(0)
    dataset = data.load("landmarks")
    vae = find_pair("landmarks").build(dataset)
    options = {**find_pair("landmarks").training, "epochs": 25, "batch_size": 100, "progress": False}
    Trainer(**options).fit(vae, dataset)
    return vae, dataset, landmarks.landmark_views(0)["test"]


class TestData:
    def test_views_are_projections_of_the_shapes(self):
        views = landmarks.landmark_views(0)["test"]
        assert torch.equal(views.x, data.load("landmarks").test.x)
        whole = torch.cat([views.shapes, torch.ones_like(views.shapes[..., :1])], -1) @ views.projections
        assert torch.equal(whole[..., 2], torch.ones(1000, 24))
        assert float((views.x - whole[..., :2]).std()) == pytest.approx(0.01, rel=0.05)

    def test_shapes_deform_by_their_modes(self):
        world = landmarks.LandmarkShapes.random(seeded_generator(0, stream=0))
        shapes = landmarks.landmark_views(0)["train"].shapes
        assert shapes.mean(0).sub(world.mean).abs().max() < 0.02
        values = torch.linalg.svdvals((shapes - world.mean).flatten(1))
        assert float(values[3] / values[0]) < 1e-5
        assert float(world.mean.square().sum(1).mean()) == pytest.approx(1)

    def test_rotations(self):
        found = landmarks.rotations(torch.rand(20, 3))
        assert torch.allclose(found @ found.transpose(1, 2), torch.eye(3).expand(20, 3, 3), atol=1e-6)
        assert torch.allclose(torch.linalg.det(found), torch.ones(20))

    def test_seeds_and_splits(self):
        first, again = data.load("landmarks", validation=100), data.load("landmarks")
        assert torch.equal(first.test.x, again.test.x)
        assert [len(first.train), len(first.validation)] == [4400, 100]
        assert not torch.equal(data.load("landmarks", seed=1).test.x, again.test.x)
        with pytest.raises(ValueError, match="validation must be below the 4500 training rows"):
            data.load("landmarks", validation=4500)


class TestProcrustes:
    def test_against_scipy(self):
        first, second = torch.randn(6, 9, 3), torch.randn(6, 9, 3)
        expected = [
            scipy.spatial.procrustes(b.numpy(), a.numpy())[2] ** 0.5 for a, b in zip(first, second, strict=True)
        ]
        assert procrustes_error(first, second).tolist() == pytest.approx(expected)

    def test_what_no_view_can_tell(self):
        truth = torch.randn(4, 9, 3)
        turned = truth @ landmarks.rotations(torch.rand(4, 3)) * torch.tensor([1.0, 1.0, -1.0]) * 2.5 + 3
        assert procrustes_error(turned, truth).max() < 1e-3
        assert torch.equal(procrustes_error(torch.zeros(4, 9, 3), truth), torch.ones(4).double())

    def test_refused(self):
        with pytest.raises(ValueError, match=r"must both be \[N, L, D\]"):
            procrustes_error(torch.zeros(4, 9, 3), torch.zeros(4, 8, 3))
        with pytest.raises(ValueError, match="all one"):
            procrustes_error(torch.ones(4, 9, 3), torch.ones(4, 9, 3))


class TestProjector:
    def test_orthographic_cameras_turn_scale_and_shift(self):
        projector, z = ShapeProjector(7, 2, 5), torch.randn(3, 4, 7)
        found = projector.projections(z)
        axes = found[..., :3, :2]
        gram = axes.transpose(-1, -2) @ axes
        assert torch.allclose(gram, gram[..., :1, :1] * torch.eye(2), atol=1e-5)
        assert torch.equal(found[..., 2], torch.tensor([0.0, 0, 0, 1]).expand(3, 4, 4))
        homogeneous = torch.cat([projector.shapes(z), torch.ones(3, 4, 7, 1)], -1)
        assert torch.allclose((homogeneous @ found)[..., :2], projector(z), atol=1e-6)

    def test_perspective_cameras_divide_by_a_positive_depth(self):
        torch.manual_seed(1)
        projector, z = ShapeProjector(7, 2, 5, camera="perspective"), 3 * torch.randn(50, 7)
        homogeneous = torch.cat([projector.shapes(z), torch.ones(50, 7, 1)], -1) @ projector.projections(z)
        depth = torch.nn.functional.softplus(homogeneous[..., 2:] + 0.5413) + 1e-2
        assert torch.allclose(homogeneous[..., :2] / depth, projector(z), atol=1e-6)
        assert projector(z).isfinite().all()

    def test_parts_of_the_latent(self):
        projector, z = ShapeProjector(7, 2, 5), torch.randn(3, 7)
        other = torch.cat([z[:, :2], torch.randn(3, 5)], 1)
        assert torch.equal(projector.shapes(z), projector.shapes(other))
        assert not torch.equal(projector.projections(z), projector.projections(other))

    @pytest.mark.parametrize("sizes", [(0, 2, 5), (7, 0, 5), (7, 2, 0)])
    def test_refused(self, sizes):
        with pytest.raises(ValueError, match="must be at least 1"):
            ShapeProjector(*sizes)
        with pytest.raises(ValueError, match="camera must be one of orthographic, perspective, got 'pinhole'"):
            ShapeProjector(7, 2, 5, camera="pinhole")


class TestTrained:
    def test_shapes_up_to_what_no_view_can_tell(self):
        """The true mean shape is at 0.20, and the landmarks as they are seen at 0.52."""
        vae, dataset, views = trained()
        found = vae.model.shapes(vae.encode(dataset.test.x).mean).detach()
        flat = torch.cat([views.x, torch.zeros_like(views.x[..., :1])], -1)
        assert procrustes_error(flat, views.shapes).mean() > 0.5
        assert procrustes_error(found, views.shapes).mean() < 0.08

    def test_hidden_landmarks_are_found(self):
        vae, dataset, views = trained()
        rows = dataset.test.take(slice(100))
        mask = random_mask((24, 2), 100, 0.4, "points", torch.Generator().manual_seed(0))
        assert torch.equal(mask[..., 0], mask[..., 1])
        (found,) = missing_errors(vae, rows, {0.4: mask}, train=dataset.train, refine=200, num_samples=20)
        assert found.error_missing < 0.03 * found.error_of_mean
        assert found.error_observed < 3 * 0.03**2
        fitted = vae.fit_posterior(rows.x, mask, steps=50, progress=False)
        shapes = vae.model.shapes(fitted.encode(rows.x, mask=mask).mean).detach()
        assert procrustes_error(shapes, views.shapes[:100]).mean() < 0.1

    def test_shapes_are_recorded(self):
        vae, dataset, _ = trained()
        trace = vae._traces(dataset.test.x[:3], {}).model
        assert torch.equal(trace.nodes["shape"]["value"], vae.model.shapes(trace.nodes["z"]["value"]))


class TestPair:
    def test_parameters_of_each_row(self):
        dataset = data.load("landmarks")
        vae = find_pair("landmarks").build(dataset, guide="per-datum", hidden=(8,), camera="perspective")
        options = {"epochs": 1, "batch_size": 500, "objective": "mean-field", "progress": False}
        history = Trainer(**options).fit(vae, dataset)
        assert history.rows[0]["loss"] == pytest.approx(history.rows[0]["loss"])
        assert vae.guide.num_data == 4000

    def test_other_data_are_refused(self):
        with pytest.raises(ValueError, match=r"data of shape \(L, 2\), and a datum of digits is \(1, 8, 8\)"):
            find_pair("landmarks").build(data.load("digits"))
