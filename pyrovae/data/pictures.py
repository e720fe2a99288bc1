"""Reading a folder of PNG and JPEG pictures; its sub-folders are the classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from pyrovae.data.array_files import SPLITS
from pyrovae.data.download import DataError
from pyrovae.data.stored import Stored, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

_ENDINGS = (".png", ".jpg", ".jpeg")
_GREY = ("1", "L", "LA")


def read_folder(folder: Path, image_size: int | None = None) -> dict[str, Stored]:
    """Read the pictures of a folder and of all folders below it, sorted by their paths.

    Sub-folders are classes. Pictures beside them have no known label (-1). Sub-folders that are called `train`,
    `validation` (or `valid`, `val`) and `test`, one of them at least `train`, are splits with classes of their own.
    Pictures are grey if all of them are, otherwise red, green and blue. Transparency is left out.

    Parameters
    ----------
    folder : Path
        The folder.
    image_size : int, optional
        Crop every picture to the largest square in its middle, and scale that to so many pixels a side. None takes
        pictures as they are; they must be of one size then.

    Returns
    -------
    dict of str to Stored
        The splits that the folder has, by name; pictures without a split are "train".

    Raises
    ------
    DataError
        If there are no pictures, one is damaged, or they are of several sizes.
    """
    if image_size is not None and (isinstance(image_size, bool) or image_size < 1):
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    parts = {SPLITS[entry.name]: entry for entry in _subfolders(folder) if entry.name in SPLITS}
    others = [entry for entry in _subfolders(folder) if entry.name not in SPLITS]
    if "train" not in parts or others:
        parts = {"train": folder}
    found = {split: _pictures_in(part) for split, part in parts.items()}
    modes: dict[Path, str] = {}
    for split, paths in found.items():
        if not paths:
            raise DataError(f"{parts[split]} holds no PNG or JPEG pictures (files that end in {', '.join(_ENDINGS)})")
        modes |= _modes(paths, image_size)
    mode = "L" if all(mode in _GREY for mode in modes.values()) else "RGB"
    shown = tqdm(total=len(modes), desc="reading pictures", unit="picture", delay=2, leave=False, disable=None)
    with shown as bar:
        return {split: _read(parts[split], paths, mode, image_size, bar) for split, paths in found.items()}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _pictures_in(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _open(path: Path) -> Image:
    from PIL import Image as images  # not above: only folders of pictures need it

    return images.open(path, formats=("PNG", "JPEG"))


def _modes(paths: Sequence[Path], image_size: int | None) -> dict[Path, str]:
    """The mode of each picture, from its head.

    Raises
    ------
    DataError
        If one cannot be read, has more than 8 bits, or another size than the first.
    """
    modes, size = {}, None
    for path in paths:
        try:
            with _open(path) as picture:
                modes[path], found = picture.mode, picture.size
        except Exception as error:  # a damaged picture raises whatever its parser trips over
            raise DataError(f"{path} is damaged, or no PNG or JPEG picture ({first_line(error)})") from None
        if modes[path].startswith(("I", "F")):
            raise DataError(f"{path} has more than 8 bits for a pixel; save it with 8")
        size = size or found
        if image_size is None and found != size:
            raise DataError(
                f"{path} is {found[0]}x{found[1]} pixels, {paths[0]} is {size[0]}x{size[1]}; make them of one size, "
                "or give --image-size"
            )
    return modes


def _read(folder: Path, paths: Sequence[Path], mode: str, image_size: int | None, bar: tqdm) -> Stored:
    from PIL import ImageOps

    pictures = []
    for path in paths:
        try:
            with _open(path) as opened:
                picture = opened.convert(mode)
                if image_size is not None:
                    picture = ImageOps.fit(picture, (image_size, image_size))
                pixels = np.asarray(picture, np.uint8)
        except Exception as error:
            raise DataError(f"{path} is damaged ({first_line(error)})") from None
        pictures.append(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))
        bar.update()
    places = [path.relative_to(folder).parts for path in paths]
    words = [place[0] if len(place) > 1 else "" for place in places]
    classes = tuple(sorted(set(words) - {""}))
    y = None
    if classes:
        numbers = {word: number for number, word in enumerate(classes)} | {"": -1}
        y = np.array([numbers[word] for word in words], np.int64)
    return Stored(str(folder), np.ascontiguousarray(np.stack(pictures)), y, classes=classes or None, pixels=True)
