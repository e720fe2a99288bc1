"""Image data sets. Images are ``[N, channels, height, width]``, float32 in [0, 1]."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrovae.data.dataset import Rows
from pyrovae.data.download import DataError
from pyrovae.data.files import DataFile, Files, Images, parse_idx, parse_mat, parse_npz
from pyrovae.data.preprocessing import seeded_generator
from pyrovae.data.registry import Splits, register

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_ROTATED_TRAIN = 35_000
_ROTATED_AT_ONCE = 5_000
_SVHN_URL = "http://ufldl.stanford.edu/housenumbers"


def _idx_files(url: str, *digests: str) -> tuple[DataFile, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(
        DataFile(f"{name}-ubyte.gz", url=f"{url}/{name}-ubyte.gz", digest=f"sha256:{digest}")
        for name, digest in zip(names, digests, strict=True)
    )


_MNIST_FILES = _idx_files(
    _MNIST_URL,
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)


@register(
    "mnist",
    summary="handwritten digits, grey values",
    shape=(1, 28, 28),
    sizes=(50_000, 10_000, 10_000),
    kind="8-bit",
    source="MNIST database (LeCun, Cortes, Burges), CC BY-SA 3.0",
    subfolder="mnist",
    files=_MNIST_FILES,
)
@register(
    "fashion-mnist",
    summary="pictures of clothing, grey values",
    shape=(1, 28, 28),
    sizes=(50_000, 10_000, 10_000),
    kind="8-bit",
    source="Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), MIT",
    subfolder="fashion_mnist",
    files=_idx_files(
        _FASHION_URL,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
def idx_images(files: Files, validation_size: int, seed: int) -> Splits:
    """Read images and labels from the four files of MNIST. The last training rows are the validation rows.

    Parameters
    ----------
    files : Files
        The files of the set.
    validation_size : int
        Number of validation rows.
    seed : int
        Not used.

    Returns
    -------
    Splits
        Images ``[N, 1, 28, 28]`` in [0, 1] and int64 labels.

    Raises
    ------
    DataError
        A file is damaged, or images and labels differ in number.
    ValueError
        `validation_size` leaves no training rows.
    """

    def read(prefix: str) -> Rows:
        images = files.read(f"{prefix}-images-idx3-ubyte.gz", partial(parse_idx, shape=(None, 28, 28)))
        labels = files.read(f"{prefix}-labels-idx1-ubyte.gz", partial(parse_idx, shape=(None,)))
        return _labelled(files, images[:, None], labels)

    return Splits(*_hold_out_last(read("train"), validation_size), read("t10k"))


@register(
    "mnist-rotated",
    summary="MNIST, every picture upright and turned by a random angle; made here, not the published rotated set",
    shape=(1, 28, 28),
    sizes=(70_000, 10_000, 20_000),
    kind="8-bit",
    source="MNIST database (LeCun, Cortes, Burges), CC BY-SA 3.0, rotated with the seed",
    subfolder="mnist",
    files=_MNIST_FILES,
)
def mnist_rotated(files: Files, validation_size: int, seed: int) -> Splits:
    """Give every picture of MNIST twice: upright, and turned by an angle drawn evenly from the full circle.

    Parameters
    ----------
    files : Files
        The four files of MNIST.
    validation_size : int
        Number of validation rows, even.
    seed : int
        Seed of the angles.

    Returns
    -------
    Splits
        Images ``[N, 1, 28, 28]`` in multiples of 1/255 and int64 labels. Each turned picture follows its upright one.

    Raises
    ------
    DataError
        A file is damaged.
    ValueError
        `validation_size` is odd, or leaves no training rows.

    Notes
    -----
    The splits have the sizes of "MNIST+rot" of Nalisnick and Smyth, and no digit is in two of them. Training has the
    first 35 000 training pictures of MNIST, validation the last ones, and test all test pictures. The rotated half of
    Nalisnick and Smyth is the file of Larochelle et al. (2007). These pictures are not that file, so results differ
    from published ones.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders".
    """
    if validation_size % 2:
        raise ValueError(f"validation of mnist-rotated must be even, upright and turned, not {validation_size}")
    train, validation, test = idx_images(files, validation_size // 2, seed)[:3]
    kept = (train.take(slice(_ROTATED_TRAIN)), validation, test)
    train, validation, test = (
        _with_rotated(split, seeded_generator(seed, stream)) for stream, split in enumerate(kept)
    )
    return Splits(train, validation, test)


@register(
    "svhn",
    summary="house numbers from photographs, cropped digits in colour",
    shape=(3, 32, 32),
    sizes=(65_000, 8_257, 26_032),
    kind="8-bit",
    source="Street View House Numbers (Netzer et al. 2011), non-commercial use",
    subfolder="svhn",
    files=(
        DataFile("train_32x32.mat", url=f"{_SVHN_URL}/train_32x32.mat", digest="md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
        DataFile("test_32x32.mat", url=f"{_SVHN_URL}/test_32x32.mat", digest="md5:eb5a983be6a315427106f1b164d9cef3"),
    ),
)
def svhn(files: Files, validation_size: int, seed: int) -> Splits:
    """Read the cropped house numbers. The last training rows are the validation rows.

    Parameters
    ----------
    files : Files
        The files of the set.
    validation_size : int
        Number of validation rows.
    seed : int
        Not used.

    Returns
    -------
    Splits
        Images ``[N, 3, 32, 32]`` in [0, 1] and int64 labels.

    Raises
    ------
    DataError
        A file is damaged, or images and labels differ in number.
    ValueError
        `validation_size` leaves no training rows.

    Notes
    -----
    The default size leaves 65 000 training rows, as in Nalisnick and Smyth (2017).
    """
    parse = partial(parse_mat, shapes={"X": (32, 32, 3, None), "y": (None, 1)})

    def read(name: str) -> Rows:
        stored = files.read(name, parse)
        # The digit zero is stored as 10.
        return _labelled(files, stored["X"].transpose(3, 2, 0, 1), stored["y"][:, 0] % 10)

    return Splits(*_hold_out_last(read("train_32x32.mat"), validation_size), read("test_32x32.mat"))


@register(
    "binarized-mnist",
    summary="handwritten digits, the fixed binarisation of the density-estimation literature",
    shape=(1, 28, 28),
    sizes=(50_000, 10_000, 10_000),
    kind="binary",
    source="Larochelle and Murray (2011), from MNIST (CC BY-SA 3.0); no licence of its own stated",
    subfolder="binarized_mnist",
    files=(DataFile("binarized_mnist.npz", "arrays train, valid and test of 0 and 1, uint8 (N, 784)"),),
    fixed_splits=True,
)
def binarized_mnist(files: Files, validation_size: int, seed: int) -> Splits:
    """Read the three splits as they are published. There are no labels.

    Parameters
    ----------
    files : Files
        The file of the set.
    validation_size : int
        Not used, because the splits are fixed.
    seed : int
        Not used.

    Returns
    -------
    Splits
        Images ``[N, 1, 28, 28]`` of 0 and 1.

    Raises
    ------
    DataError
        The file is damaged or has other values than 0 and 1.
    """

    def parse(content: bytes) -> dict[str, Images]:
        arrays = parse_npz(content, dict.fromkeys(("train", "valid", "test"), (None, 784)))
        for name, array in arrays.items():
            if array.max(initial=0) > 1:
                raise ValueError(f"{name} has values other than 0 and 1")
        return arrays

    arrays = files.read("binarized_mnist.npz", parse)
    train, validation, test = (Rows(_to_float(arrays[name]).view(-1, 1, 28, 28)) for name in ("train", "valid", "test"))
    return Splits(train, validation, test)


@register(
    "frey-faces",
    summary="frames of a video of one face, grey values",
    shape=(1, 28, 20),
    sizes=(1565, 200, 200),
    kind="8-bit",
    source="Frey Face (S. Roweis, B. Frey), no licence stated, research use",
    subfolder="frey_faces",
    files=(DataFile("freyfaces.npz", "array images, uint8 (N, 28, 20)"),),
)
def frey_faces(files: Files, validation_size: int, seed: int) -> Splits:
    """Split the frames at random, 200 for test and by default 200 for validation, as Tomczak and Welling (2018) do.

    Parameters
    ----------
    files : Files
        The files of the set.
    validation_size : int
        Number of validation rows.
    seed : int
        Seed of random splits.

    Returns
    -------
    Splits
        Images ``[N, 1, 28, 20]`` in [0, 1], without labels.

    Raises
    ------
    DataError
        The file is damaged.
    ValueError
        `validation_size` leaves no training rows.
    """
    images = files.read("freyfaces.npz", partial(parse_npz, shapes={"images": (None, 28, 20)}))["images"]
    return _split_at_random(_from_bytes(images[:, None]), None, validation_size, 200, seed)


@register(
    "cifar10-subset",
    summary="4000 small colour photographs of CIFAR-10, without labels",
    shape=(3, 32, 32),
    sizes=(3200, 400, 400),
    kind="8-bit",
    source="CIFAR-10 (Krizhevsky 2009), no licence stated, research use",
    subfolder="cifar10",
    files=(DataFile("cifar10_subset.npz", "array images, uint8 (N, 32, 32, 3)"),),
)
def cifar10_subset(files: Files, validation_size: int, seed: int) -> Splits:
    """Split the images at random, 400 of them for test.

    Parameters
    ----------
    files : Files
        The files of the set.
    validation_size : int
        Number of validation rows.
    seed : int
        Seed of random splits.

    Returns
    -------
    Splits
        Images ``[N, 3, 32, 32]`` in [0, 1], without labels.

    Raises
    ------
    DataError
        The file is damaged.
    ValueError
        `validation_size` leaves no training rows.
    """
    images = files.read("cifar10_subset.npz", partial(parse_npz, shapes={"images": (None, 32, 32, 3)}))["images"]
    return _split_at_random(_from_bytes(images.transpose(0, 3, 1, 2)), None, validation_size, 400, seed)


@register(
    "digits",
    summary="small handwritten digits in 17 grey values",
    shape=(1, 8, 8),
    sizes=(1200, 300, 297),
    kind="unit",
    source="UCI optical digits (Alpaydin, Kaynak), as scikit-learn brings them, CC BY 4.0",
)
def digits(files: Files, validation_size: int, seed: int) -> Splits:
    """Scale the digits of scikit-learn from 0..16 to [0, 1] and split them at random, with equal shares of the classes.

    Parameters
    ----------
    files : Files
        Not used, because scikit-learn brings the data.
    validation_size : int
        Number of validation rows.
    seed : int
        Seed of the split.

    Returns
    -------
    Splits
        Images ``[N, 1, 8, 8]`` in [0, 1] and int64 labels, 297 rows for test.

    Raises
    ------
    ValueError
        `validation_size` leaves no training rows.
    """
    from sklearn.datasets import load_digits  # not above: importing pyrovae.data must not import scikit-learn

    images, labels = load_digits(return_X_y=True)
    x = _to_float(images / 16).view(-1, 1, 8, 8)
    return _split_at_random(x, torch.from_numpy(labels.astype(np.int64)), validation_size, 297, seed)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn square pictures counter-clockwise about their middle.

    Parameters
    ----------
    x : Tensor, shape ``[N, C, H, W]``
        The pictures, with equal height and width.
    angle : Tensor, shape ``[N]``
        Angles in radians.

    Returns
    -------
    Tensor
        The turned pictures, same shape. Places from outside the picture are 0.

    Raises
    ------
    ValueError
        The pictures are not square.

    Notes
    -----
    The values are interpolated linearly between the four pixels around a place.

    Examples
    --------
    >>> rotate(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([math.pi / 2])).round().squeeze()
    tensor([[1., 3.],
            [0., 2.]])
    """
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"pictures must be square to be turned, got {tuple(x.shape)}")
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # From a place in the turned picture to its place in the other one; the second coordinate points downwards.
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False)


def _with_rotated(split: Rows, generator: torch.Generator) -> Rows:
    """Every row, followed by the same row turned by a random angle and rounded to 8-bit values again."""
    angles = 2 * math.pi * torch.rand(len(split.x), generator=generator)
    x = torch.empty(len(split.x), 2, *split.x.shape[1:])
    x[:, 0] = split.x
    for start in range(0, len(split.x), _ROTATED_AT_ONCE):
        part = slice(start, start + _ROTATED_AT_ONCE)
        x[part, 1] = rotate(split.x[part], angles[part]).clamp_(0, 1).mul_(255).round_().div_(255)
    return Rows(x.flatten(0, 1), None if split.y is None else split.y.repeat_interleave(2))


def _from_bytes(images: Images) -> Tensor:
    return _to_float(images).div_(255)


def _to_float(values: np.ndarray) -> Tensor:
    # `astype` alone would keep the memory order of transposed arrays, and their rows could not be viewed flat.
    return torch.from_numpy(values.astype(np.float32, order="C"))


def _labelled(files: Files, images: Images, labels: Images) -> Rows:
    if len(images) != len(labels):
        raise DataError(f"{files.folder} holds {len(images)} images with {len(labels)} labels: replace its files")
    return Rows(_from_bytes(images), torch.from_numpy(labels.astype(np.int64)))


def _check_room(num_rows: int, validation_size: int) -> None:
    if validation_size >= num_rows:
        raise ValueError(f"validation must be below the {num_rows} training rows, not {validation_size}")


def _hold_out_last(rows: Rows, validation_size: int) -> tuple[Rows, Rows]:
    _check_room(len(rows.x), validation_size)
    cut = len(rows.x) - validation_size
    return rows.take(slice(cut)), rows.take(slice(cut, None))


def _split_at_random(x: Tensor, y: Tensor | None, validation_size: int, test_size: int, seed: int) -> Splits:
    from sklearn.model_selection import train_test_split  # not above, see digits

    def divide(rows: np.ndarray, size: int) -> list[np.ndarray]:
        return train_test_split(rows, test_size=size, random_state=seed, stratify=None if y is None else y[rows])

    # The test rows are set aside first, so that they do not depend on the number of validation rows.
    learning, test = divide(np.arange(len(x)), test_size)
    _check_room(len(learning), validation_size)
    train, validation = divide(learning, validation_size)
    first, second, third = (Rows(x[rows], None if y is None else y[rows]) for rows in (train, validation, test))
    return Splits(first, second, third)
