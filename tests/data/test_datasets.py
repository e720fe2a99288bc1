"""Data sets: shapes, ranges, splits, options and what is refused."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_checks import INFO, assert_equal

from pyrovae.data import (
    Dataset,
    Rows,
    available,
    dequantize,
    load,
    rescale_symmetric,
)
from pyrovae.data.registry import register

EMBEDDED = ("digits", "linear-gaussian")
ON_DISK = ("mnist", "mnist-rotated", "fashion-mnist", "binarized-mnist", "frey-faces", "cifar10-subset")


@pytest.fixture
def real_data():
    folder = os.environ.get("PYROVAE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("$PYROVAE_DATA does not name a folder with the data sets")
    return folder


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
        load("binarized-mnist", validation=5, download=False)
    with pytest.raises(ValueError, match="binarized-mnist is 'binary'"):
        load("binarized-mnist", binarize="static", download=False)


def test_digits_are_split_by_class():
    dataset = load("digits", validation=100, seed=5)
    assert [len(split.x) for split in dataset.splits().values()] == [1400, 100, 297]
    for split in dataset.splits().values():
        shares = split.y.bincount() / len(split.y)
        assert (shares - 0.1).abs().max() < 0.012
    assert torch.equal(dataset.test.x, load("digits", seed=5).test.x)
    assert torch.equal((dataset.train.x * 16).round() / 16, dataset.train.x)


def test_splits_of_idx_files(small_root):
    dataset = load("mnist", validation=10)
    assert [len(split.x) for split in dataset.splits().values()] == [30, 10, 12]
    assert dataset.validation.y.tolist() == list(range(10))
    with pytest.raises(ValueError, match="below the 40 training rows"):
        load("mnist")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "imagenet"},
            "no data set, file or folder 'imagenet'; known are adult, .*svhn",
        ),
        ({"name": "digits", "binarize": "twice"}, "'static' or 'dynamic', not 'twice'"),
        ({"name": "digits", "binarize": "static", "dequantize": True}, "binarize and dequantize exclude"),
        ({"name": "digits", "binarize": "static", "scale": "symmetric"}, "binarize and scale='symmetric' exclude"),
        ({"name": "digits", "scale": "log"}, "scale must be 'unit' or 'symmetric', not 'log'"),
        ({"name": "digits", "dequantize": True}, "dequantize needs values of kind '8-bit', but digits is 'unit'"),
        ({"name": "linear-gaussian", "binarize": "static"}, "linear-gaussian is 'real'"),
        ({"name": "linear-gaussian", "scale": "symmetric"}, "scale='symmetric' needs .* linear-gaussian is 'real'"),
        ({"name": "linear-gaussian", "validation": 6000}, "below the 6000 training rows"),
        ({"name": "digits", "validation": 0}, "at least 1, not 0"),
        ({"name": "digits", "validation": 1500}, "below the 1500 training rows"),
        ({"name": "digits", "validation": 2.5}, "at least 1, not 2.5"),
        ({"name": "digits", "seed": -1}, "seed must be an integer"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError, match=message):
        load(**options)


@pytest.mark.parametrize("options", [{"binarize": "dynamic"}, {"pca": 5, "scale": "symmetric"}], ids=str)
def test_options_make_the_set_again(options):
    dataset = load("digits", validation=50, labels=0.5, seed=7, **options)
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


def test_dataset_checks_its_tensors():
    rows = Rows(torch.zeros(4, 3))
    for broken, message in (
        (Rows(torch.zeros(4, 2)), r"a row of test.x has shape \(2,\), of train.x \(3,\)"),
        (Rows(torch.zeros(4, 3), y=torch.zeros(5).long()), r"one label for each of the 4 rows.*\(5,\)"),
        (Rows(torch.zeros(4, 3), mask=torch.ones(4).bool()), r"test.mask has shape \(4,\), test.x \(4, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Dataset("mine", rows, rows, broken, kind="real")
    with pytest.raises(ValueError, match=r"kind must be one of 'binary', .*not 'integer'"):
        Dataset("mine", rows, rows, rows, kind="integer")
    dataset = Dataset("mine", rows, rows, Rows(rows.x, mask=rows.x == 0), kind="real").to("cpu")
    assert dataset.num_classes is None
    assert dataset.test.mask.all()
    unknown = Rows(torch.zeros(2, 3), y=torch.tensor([-1, -1]))
    assert Dataset("mine", unknown, unknown, unknown, kind="real").num_classes is None
    with pytest.raises(ValueError, match="mine is 'real'"):
        rescale_symmetric(dataset)
    with pytest.raises(ValueError, match="mine is 'real'"):
        dequantize(dataset)


def test_to_moves_every_tensor():
    moved = load("digits").to("meta")
    assert {tensor.device.type for split in moved.splits().values() for tensor in (split.x, split.y)} == {"meta"}
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
