"""Pictures turned, read in the format of SVHN and brought to principal components."""

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import torch
from dataset_checks import INFO, assert_equal

from pyrovae.data import Dataset, Rows, load, principal_components
from pyrovae.data.images import rotate


def test_turning_pictures():
    picture = torch.rand(3, 2, 9, 9)
    quarter = rotate(picture, torch.full((3,), torch.pi / 2))
    torch.testing.assert_close(quarter, torch.rot90(picture, 1, (2, 3)), rtol=0, atol=1e-5)
    angle = torch.tensor([0.3, 2.0, -1.1])
    turned = rotate(picture, angle)
    inner = (torch.arange(9) - 4).square() + (torch.arange(9) - 4).square()[:, None] < 4**2
    for one, found, radians in zip(picture, turned, angle, strict=True):
        degrees = float(torch.rad2deg(radians))
        expected = scipy.ndimage.rotate(one.numpy(), degrees, axes=(2, 1), reshape=False, order=1)
        torch.testing.assert_close(found[:, inner], torch.from_numpy(expected)[:, inner], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"square to be turned, got \(1, 1, 2, 3\)"):
        rotate(torch.zeros(1, 1, 2, 3), torch.zeros(1))


def test_rotated_mnist_is_every_picture_upright_and_turned(small_root):
    plain = load("mnist", validation=5)
    dataset = load("mnist-rotated", validation=10)
    other = load("mnist_rotated", validation=10, seed=1)
    assert [len(split.x) for split in dataset.splits().values()] == [70, 10, 24]
    assert_equal(dataset, load("mnist-rotated", validation=10))
    inner = (torch.arange(28) - 13.5).square() + (torch.arange(28) - 13.5).square()[:, None] < 13**2
    for name, split in dataset.splits().items():
        upright, turned = split.x[::2], split.x[1::2]
        assert torch.equal(upright, plain.splits()[name].x)
        assert torch.equal(split.y[::2], plain.splits()[name].y)
        assert torch.equal(split.y[1::2], plain.splits()[name].y)
        assert torch.equal(upright, other.splits()[name].x[::2])
        assert not torch.equal(turned, other.splits()[name].x[1::2])
        assert_turned(upright[0, 0], turned[0, 0], inner)
        torch.testing.assert_close(turned * 255, (turned * 255).round(), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="validation of mnist-rotated must be even, upright and turned, not 7"):
        load("mnist-rotated", validation=7)
    assert "not the published" in INFO["mnist-rotated"].summary


def assert_turned(picture, turned, inner):
    """Whether one of many angles makes the one picture nearly the other, and the next ones do not."""
    angles = torch.linspace(0, 2 * torch.pi, 2001)[:-1]
    candidates = rotate(picture.expand(2000, 1, 28, 28), angles)[:, 0, inner]
    error = (candidates - turned[inner]).square().mean(1).sqrt()
    assert error.min() < 0.01
    assert error.median() > 0.1


@pytest.fixture
def svhn_root(tmp_path):
    """A root with 20 + 20 images in the format of SVHN, and those images."""
    (tmp_path / "svhn").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    labels = np.array([[10], [1], [2], [3], [9]] * 4, dtype=np.uint8)
    for name in ("train", "test"):
        scipy.io.savemat(tmp_path / "svhn" / f"{name}_32x32.mat", {"X": images, "y": labels}, do_compression=True)
    return tmp_path, images


def test_a_file_that_is_not_the_published_one_is_told(svhn_root, caplog):
    """A damaged .mat may be read as something else, so its checksum is looked at wherever it lies."""
    load("svhn", root=svhn_root[0], validation=5, download=False)
    assert "train_32x32.mat is not the published file (its checksum differs)" in caplog.text


def test_principal_components_of_svhn(svhn_root):
    root, _ = svhn_root
    options = {"root": root, "validation": 5, "download": False}
    plain, dataset = load("svhn", **options), load("svhn", pca=14, **options)
    assert (dataset.kind, tuple(dataset.shape)) == ("real", (14,))
    assert_equal(dataset, load("svhn", pca=14, **options))
    assert torch.equal(dataset.test.y, plain.test.y)
    # All there is of 15 training rows fits into 14 components, and the first test rows are the same pictures.
    rows = plain.train.x.flatten(1).double()
    gram = (rows - rows.mean(0)) @ (rows - rows.mean(0)).T
    torch.testing.assert_close(dataset.train.x.double() @ dataset.train.x.double().T, gram, rtol=0, atol=1e-2)
    torch.testing.assert_close(dataset.test.x[:15], dataset.train.x, rtol=0, atol=1e-3)
    assert dataset.options["pca"] == 14
    with pytest.raises(ValueError, match="pca of svhn must be a whole number from 1 to 15, not 16"):
        load("svhn", pca=16, **options)


def test_principal_components_against_the_singular_values():
    """Of the training rows only, in decreasing order, also where the rows are far from zero."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(60, 6)) * [3, 2, 1, 0.3, 0.1, 0.03] @ rng.normal(size=(6, 6)) + 100).astype(np.float32)
    x = torch.from_numpy(rows)
    dataset = principal_components(Dataset("some", Rows(x[:40]), Rows(x[40:50]), Rows(x[50:]), "real"), 4)
    train = rows[:40].astype(np.float64)
    centred = train - train.mean(0)
    values, directions = np.linalg.svd(centred)[1:]
    np.testing.assert_allclose(dataset.train.x.double().square().sum(0).sqrt().numpy(), values[:4], rtol=1e-3)
    expected = (rows[50:] - train.mean(0)) @ directions[:4].T
    np.testing.assert_allclose(dataset.test.x.abs().numpy(), np.abs(expected), rtol=0, atol=2e-3)
    assert dataset.test.x.dtype == torch.float32


def test_principal_components_refused():
    for options, message in (
        ({"pca": 0}, "from 1 to 64, not 0"),
        ({"pca": 65}, "from 1 to 64, not 65"),
        ({"pca": True}, "not True"),
        ({"pca": 2, "binarize": "dynamic"}, "excludes binarize='dynamic' and dequantize"),
    ):
        with pytest.raises(ValueError, match=message):
            load("digits", **options)
    rows = Rows(torch.randn(5, 3), mask=torch.ones(5, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mine has missing entries"):
        principal_components(Dataset("mine", rows, rows, rows, "real"), 2)
    assert load("linear-gaussian", pca=3).evidence is None


def test_svhn_format(svhn_root):
    root, images = svhn_root
    dataset = load("svhn", root=root, validation=5, download=False)
    assert [len(split.x) for split in dataset.splits().values()] == [15, 5, 20]
    assert dataset.shape == (3, 32, 32)
    assert dataset.validation.y.tolist() == [0, 1, 2, 3, 9]
    assert dataset.test.x[7, 2, 11, 30] * 255 == pytest.approx(int(images[11, 30, 2, 7]))
