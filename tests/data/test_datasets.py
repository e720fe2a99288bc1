"""Data sets: shapes, ranges, splits, determinism, binarisation and dequantisation."""

import gzip
import hashlib
import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import torch
from scipy.integrate import quad
from scipy.stats import norm

from pyrovae.data import (
    Dataset,
    LinearGaussian,
    Split,
    available,
    dequantize,
    load,
    principal_components,
    rescale_symmetric,
)
from pyrovae.data.images import rotate
from pyrovae.data.registry import register

EMBEDDED = ("digits", "linear-gaussian")
ON_DISK = ("mnist", "mnist-rotated", "fashion-mnist", "binarized-mnist", "frey-faces", "cifar10-subset")
INFO = {info.name: info for info in available()}


@pytest.fixture
def real_data():
    folder = os.environ.get("PYROVAE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("$PYROVAE_DATA does not name a folder with the data sets")
    return folder


@pytest.fixture
def small_root(tmp_path, monkeypatch):
    """A root with 40 + 12 images in the format of MNIST, in which every byte value occurs, and nothing else."""
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path))
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    rng = np.random.default_rng(3)
    for prefix, size in (("train", 40), ("t10k", 12)):
        images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path = tmp_path / "mnist" / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    return tmp_path


def assert_equal(first, second):
    for name, split in first.splits().items():
        other = second.splits()[name]
        assert torch.equal(split.x, other.x), name
        assert (split.y is None) == (other.y is None)
        if split.y is not None:
            assert torch.equal(split.y, other.y), name


def assert_as_described(dataset):
    info = INFO[dataset.name]
    assert dataset.kind == info.kind
    assert tuple(dataset.shape) == info.shape
    assert tuple(len(split.x) for split in dataset.splits().values()) == info.sizes
    for split in dataset.splits().values():
        assert split.x.dtype == torch.float32
        assert split.x.is_contiguous()
        assert split.mask is None
        if split.y is not None:
            assert split.y.dtype == torch.int64
            assert split.y.unique().tolist() == list(range(10))
        if dataset.kind != "real":
            assert split.x.min() >= 0
            assert split.x.max() <= 1
        if dataset.kind == "8-bit":
            torch.testing.assert_close(split.x * 255, (split.x * 255).round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded(name):
    dataset = load(name)
    assert_as_described(dataset)
    assert_equal(dataset, load(name.replace("-", "_")))
    assert not torch.equal(dataset.train.x, load(name, seed=1).train.x)


@pytest.mark.parametrize("name", ON_DISK)
def test_on_disk(name, real_data):
    dataset = load(name, download=False)
    assert_as_described(dataset)
    assert dataset.num_classes == (10 if "mnist" in name and "binarized" not in name else None)
    if name in ("frey-faces", "cifar10-subset"):
        assert_equal(dataset, load(name, download=False))
        other = load(name, seed=1, download=False)
        assert not torch.equal(dataset.test.x, other.test.x)
        assert sum(split.x.double().sum() for split in dataset.splits().values()) == pytest.approx(
            float(sum(split.x.double().sum() for split in other.splits().values()))
        )


def test_frey_images_stand_upright(real_data):
    images = np.load(Path(real_data) / "frey_faces" / "freyfaces.npz", allow_pickle=False)["images"]
    rows = {image.tobytes() for image in images}
    dataset = load("frey-faces", download=False)
    loaded = (torch.cat([split.x for split in dataset.splits().values()]) * 255).round().to(torch.uint8).numpy()
    assert loaded.shape == (1965, 1, 28, 20)
    assert {image[0].tobytes() for image in loaded} == rows


def test_cifar_channels(real_data):
    images = np.load(Path(real_data) / "cifar10" / "cifar10_subset.npz", allow_pickle=False)["images"]
    loaded = torch.cat([split.x for split in load("cifar10-subset", download=False).splits().values()])
    means = images.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(loaded.double().mean((0, 2, 3)).numpy(), means, rtol=1e-6)


def test_mnist_is_read_quickly_and_in_order(real_data):
    start = time.process_time()
    dataset = load("mnist", download=False)
    assert time.process_time() - start < 6  # about 0.5 s; the margin is for slow machines
    assert dataset.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.validation.y.bincount().tolist() == [991, 1064, 990, 1030, 983, 915, 967, 1090, 1009, 961]
    assert dataset.test.y[:5].tolist() == [7, 2, 1, 0, 4]


def test_binarized_mnist_is_the_published_one(real_data):
    dataset = load("binarized_mnist", download=False)
    # The published files are text: digits separated by blanks, a row a line. These are the heads of their SHA-1 sums.
    for split, published in ((dataset.validation, "13418487"), (dataset.test, "ca70bd77")):
        text = np.full((len(split.x), 784, 2), ord(" "), dtype=np.uint8)
        text[:, :, 0] = split.x.flatten(1).numpy() + ord("0")
        text[:, -1, 1] = ord("\n")
        assert hashlib.sha1(text.tobytes(), usedforsecurity=False).hexdigest().startswith(published)
    with pytest.raises(ValueError, match="splits of binarized-mnist are given"):
        load("binarized-mnist", validation_size=5, download=False)
    with pytest.raises(ValueError, match="binarized-mnist is 'binary'"):
        load("binarized-mnist", binarize="static", download=False)


def test_digits_are_split_by_class():
    dataset = load("digits", validation_size=100, seed=5)
    assert [len(split.x) for split in dataset.splits().values()] == [1400, 100, 297]
    for split in dataset.splits().values():
        shares = split.y.bincount() / len(split.y)
        assert (shares - 0.1).abs().max() < 0.012
    assert torch.equal(dataset.test.x, load("digits", seed=5).test.x)
    assert torch.equal((dataset.train.x * 16).round() / 16, dataset.train.x)


def test_splits_of_idx_files(small_root):
    dataset = load("mnist", validation_size=10)
    assert [len(split.x) for split in dataset.splits().values()] == [30, 10, 12]
    assert dataset.validation.y.tolist() == list(range(10))
    with pytest.raises(ValueError, match="below the 40 training rows"):
        load("mnist")


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
    plain = load("mnist", validation_size=5)
    dataset = load("mnist-rotated", validation_size=10)
    other = load("mnist_rotated", validation_size=10, seed=1)
    assert [len(split.x) for split in dataset.splits().values()] == [70, 10, 24]
    assert_equal(dataset, load("mnist-rotated", validation_size=10))
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
    with pytest.raises(ValueError, match="validation_size of mnist-rotated must be even, upright and turned, not 7"):
        load("mnist-rotated", validation_size=7)
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


def test_principal_components_of_svhn(svhn_root):
    root, _ = svhn_root
    options = {"root": root, "validation_size": 5, "download": False}
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
    dataset = principal_components(Dataset("some", Split(x[:40]), Split(x[40:50]), Split(x[50:]), "real"), 4)
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
    rows = Split(torch.randn(5, 3), mask=torch.ones(5, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mine has missing entries"):
        principal_components(Dataset("mine", rows, rows, rows, "real"), 2)
    assert load("linear-gaussian", pca=3).evidence is None


def test_svhn_format(svhn_root):
    root, images = svhn_root
    dataset = load("svhn", root=root, validation_size=5, download=False)
    assert [len(split.x) for split in dataset.splits().values()] == [15, 5, 20]
    assert dataset.shape == (3, 32, 32)
    assert dataset.validation.y.tolist() == [0, 1, 2, 3, 9]
    assert dataset.test.x[7, 2, 11, 30] * 255 == pytest.approx(int(images[11, 30, 2, 7]))


def test_static_binarisation_is_a_bernoulli_draw_fixed_by_the_seed():
    grey = load("digits")
    dataset = load("digits", binarize="static")
    assert dataset.kind == "binary"
    assert dataset.transform is None
    assert_equal(dataset, load("digits", binarize="static"))
    assert not torch.equal(dataset.train.x, load("digits", binarize="static", seed=1).train.x)
    for name, split in dataset.splits().items():
        means = grey.splits()[name].x
        assert split.x.unique().tolist() == [0, 1]
        assert torch.equal(split.x[(means == 0) | (means == 1)], means[(means == 0) | (means == 1)])
        standard_error = (means * (1 - means)).sum().sqrt()
        assert (split.x.sum() - means.sum()).abs() < 4 * standard_error


def test_dynamic_binarisation_in_expectation():
    grey = load("digits")
    dataset = load("digits", binarize="dynamic")
    assert dataset.kind == "binary"
    assert torch.equal(dataset.train.x, grey.train.x)
    static = load("digits", binarize="static")
    assert torch.equal(dataset.validation.x, static.validation.x)
    assert torch.equal(dataset.test.x, static.test.x)
    batch = dataset.train.x[:20]
    torch.manual_seed(0)
    draws = torch.stack([dataset.transform(batch) for _ in range(2000)])
    assert draws.unique().tolist() == [0, 1]
    standard_error = (batch * (1 - batch) / len(draws)).sqrt()
    assert ((draws.mean(0) - batch).abs() <= 5 * standard_error + 1e-6).all()
    assert not torch.equal(draws[0], draws[1])
    torch.manual_seed(0)
    assert torch.equal(dataset.transform(batch), draws[0])


def test_dequantisation_fills_the_intervals(small_root):
    plain = load("mnist", validation_size=10)
    dataset = load("mnist", validation_size=10, dequantize=True)
    assert (dataset.kind, plain.kind) == ("unit", "8-bit")
    assert torch.equal(dataset.train.x, plain.train.x)
    assert_equal(dataset, load("mnist", validation_size=10, dequantize=True))
    for noisy, exact in (
        (dataset.validation.x, plain.validation.x),
        (dataset.test.x, plain.test.x),
        (dataset.transform(dataset.train.x), plain.train.x),
    ):
        position = noisy.double() * 256 - (exact.double() * 255).round()
        assert position.min() >= -1e-5
        assert position.max() <= 1 + 1e-5
        assert position.mean() == pytest.approx(0.5, abs=0.02)
        assert position.var() == pytest.approx(1 / 12, abs=0.005)


@pytest.mark.parametrize("noise", [False, True])
def test_symmetric_scale(small_root, noise):
    unit = load("mnist", validation_size=10, dequantize=noise)
    dataset = load("mnist", validation_size=10, dequantize=noise, scale="symmetric")
    assert dataset.kind == "symmetric"
    for name, split in dataset.splits().items():
        torch.testing.assert_close(split.x, unit.splits()[name].x * 2 - 1)
    if noise:
        torch.manual_seed(1)
        drawn = dataset.transform(dataset.train.x)
        torch.manual_seed(1)
        torch.testing.assert_close(drawn, unit.transform(unit.train.x) * 2 - 1)
    else:
        assert dataset.transform is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "imagenet"}, "no data set 'imagenet'; known are binarized-mnist, .*svhn"),
        ({"name": "digits", "binarize": "twice"}, "'static' or 'dynamic', not 'twice'"),
        ({"name": "digits", "binarize": "static", "dequantize": True}, "binarize and dequantize exclude"),
        ({"name": "digits", "binarize": "static", "scale": "symmetric"}, "binarize and scale='symmetric' exclude"),
        ({"name": "digits", "scale": "log"}, "scale must be 'unit' or 'symmetric', not 'log'"),
        ({"name": "digits", "dequantize": True}, "dequantize needs values of kind '8-bit', but digits is 'unit'"),
        ({"name": "linear-gaussian", "binarize": "static"}, "linear-gaussian is 'real'"),
        ({"name": "linear-gaussian", "scale": "symmetric"}, "scale='symmetric' needs .* linear-gaussian is 'real'"),
        ({"name": "linear-gaussian", "validation_size": 6000}, "below the 6000 training rows"),
        ({"name": "digits", "validation_size": 0}, "at least 1, not 0"),
        ({"name": "digits", "validation_size": 1500}, "below the 1500 training rows"),
        ({"name": "digits", "validation_size": 2.5}, "at least 1, not 2.5"),
        ({"name": "digits", "seed": -1}, "seed must be an integer"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError, match=message):
        load(**options)


@pytest.mark.parametrize("options", [{"binarize": "dynamic"}, {"pca": 5, "scale": "symmetric"}], ids=str)
def test_options_make_the_set_again(options):
    dataset = load("digits", validation_size=50, labels=0.5, seed=7, **options)
    again = load(**json.loads(json.dumps(dataset.options)))
    assert_equal(dataset, again)
    assert again.options == dataset.options


@pytest.mark.parametrize("options", [{}, {"binarize": "static"}, {"binarize": "dynamic"}])
def test_loading_leaves_global_random_numbers_alone(options):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load("digits", **options)
    load("linear-gaussian")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_evidence_against_quadrature():
    loading = torch.tensor([[1.2], [-0.7]], dtype=torch.float64)
    model = LinearGaussian(loading, torch.tensor([0.3, -1.0], dtype=torch.float64), scale=0.6)
    for x in ([0.0, 0.0], [2.0, -3.0]):

        def joint(z, x=x):
            means = (1.2 * z + 0.3, -0.7 * z - 1.0)
            return norm.pdf(z) * np.prod([norm.pdf(value, mean, 0.6) for value, mean in zip(x, means, strict=True)])

        exact = np.log(quad(joint, -8, 8, epsabs=1e-14)[0])
        assert float(model(torch.tensor(x).double())) == pytest.approx(exact, abs=1e-8)


def test_linear_gaussian_rows_come_from_the_model():
    dataset = load("linear-gaussian", seed=2)
    model = dataset.evidence
    assert model.loading.shape == (10, 3)
    values = model(dataset.test.x)
    assert values.shape == (1000,)
    assert values.dtype == torch.float32
    covariance = model.loading @ model.loading.T + model.scale**2 * torch.eye(10, dtype=torch.float64)
    negative_entropy = -0.5 * torch.logdet(2 * torch.pi * torch.e * covariance)
    # The variance of log p(x) under p is D/2.
    assert abs(values.mean() - negative_entropy) < 4 * (10 / 2 / 1000) ** 0.5
    assert values.var() == pytest.approx(5, rel=0.25)
    longer = load("linear-gaussian", seed=2, validation_size=10)
    assert torch.equal(longer.test.x, dataset.test.x)
    assert len(longer.train.x) == 5990


def test_dataset_checks_its_tensors():
    rows = Split(torch.zeros(4, 3))
    for broken, message in (
        (Split(torch.zeros(4, 2)), r"a row of test.x has shape \(2,\), of train.x \(3,\)"),
        (Split(torch.zeros(4, 3), y=torch.zeros(5).long()), r"one label for each of the 4 rows.*\(5,\)"),
        (Split(torch.zeros(4, 3), mask=torch.ones(4).bool()), r"test.mask has shape \(4,\), test.x \(4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Dataset("mine", rows, rows, broken, kind="real")
    with pytest.raises(ValueError, match=r"kind must be one of 'binary', .*not 'integer'"):
        Dataset("mine", rows, rows, rows, kind="integer")
    dataset = Dataset("mine", rows, rows, Split(rows.x, mask=rows.x == 0), kind="real").to("cpu")
    assert dataset.num_classes is None
    assert dataset.test.mask.all()
    unknown = Split(torch.zeros(2, 3), y=torch.tensor([-1, -1]))
    assert Dataset("mine", unknown, unknown, unknown, kind="real").num_classes is None
    with pytest.raises(ValueError, match="mine is 'real'"):
        rescale_symmetric(dataset)
    with pytest.raises(ValueError, match="mine is 'real'"):
        dequantize(dataset)


def test_to_moves_every_tensor():
    moved = load("digits").to("meta")
    assert {tensor.device.type for split in moved.splits().values() for tensor in split[:2]} == {"meta"}
    assert moved.options == load("digits").options


def test_available_says_where(small_root):
    locations = {info.name: info.location for info in available()}
    assert locations["digits"] == "embedded"
    assert locations["mnist"] == str(small_root / "mnist")
    assert locations["svhn"] == "to be downloaded"
    assert locations["frey-faces"].startswith("not here: freyfaces.npz wanted in frey_faces/")


def test_names_are_taken_once():
    with pytest.raises(ValueError, match="'mnist' already"):
        register("mnist", summary="", shape=(1,), sizes=(1, 1, 1), kind="real", source="")(lambda *_: None)
