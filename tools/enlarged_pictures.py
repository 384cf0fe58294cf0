"""Patches of photographs at half their size beside the whole ones: what the super-resolution model of ``models/`` is trained and judged on.

The photographs are those of scikit-image that are in the public domain or under CC0; the coffee cup is for the test alone.

    pip install scikit-image pillow
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

TRAINED = ("astronaut", "chelsea", "rocket", "immunohistochemistry", "retina", "hubble_deep_field", "camera", "brick")
TRAINED += ("grass", "gravel", "moon")
TESTED = "coffee"
SMALL, LARGE = 32, 64
PATCHES = 6000


@dataclass(frozen=True)
class Pairs:
    """Pictures (N, 3, height, width) uint8, and the same at twice the size."""

    small: Picture
    large: Picture


def halved(picture: Picture) -> Picture:
    """Return a picture (height, width, 3) of even sides at half its size (bicubic, without aliases)."""
    from PIL import Image  # noqa: PLC0415 - only where pictures are read

    height, width = picture.shape[:2]
    half = Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    return np.asarray(half, np.uint8)


def pairs_of(pictures: Iterable[Picture]) -> Pairs:
    """Return pictures of equal, even sides (height, width, 3) beside their halves."""
    large = np.stack([*pictures])
    small = np.stack([halved(picture) for picture in large])
    return Pairs(np.ascontiguousarray(small.transpose(0, 3, 1, 2)), np.ascontiguousarray(large.transpose(0, 3, 1, 2)))


def read_photo(name: str) -> Picture:
    """Read one of scikit-image's photographs as (height, width, 3), a grey one with three equal channels."""
    from skimage import data  # noqa: PLC0415 - as above

    picture = np.asarray(getattr(data, name)(), np.uint8)
    return picture[..., :3] if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)


def patches_of(photos: list[Picture], count: int, rng: np.random.Generator) -> Iterator[Picture]:
    """Cut `count` patches from random places, as many from each photograph."""
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (rng.integers(0, side - LARGE + 1) for side in photo.shape[:2])
        yield photo[top : top + LARGE, left : left + LARGE]


def tiles_of(photo: Picture) -> Iterator[Picture]:
    """Cut a photograph into patches beside each other."""
    height, width = photo.shape[:2]
    for top in range(0, height - LARGE + 1, LARGE):
        for left in range(0, width - LARGE + 1, LARGE):
            yield photo[top : top + LARGE, left : left + LARGE]


def sample_pairs() -> tuple[Pairs, Pairs]:
    """Return patches for the training and for the test."""
    photos = [read_photo(name) for name in TRAINED]
    trained = pairs_of(patches_of(photos, PATCHES, np.random.default_rng(0)))
    return trained, pairs_of(tiles_of(read_photo(TESTED)))


def folder_pairs(folder: Path) -> Pairs:
    """Return the JPEG and PNG files of a folder (equal sides) beside their halves, in the order of their names."""
    from PIL import Image  # noqa: PLC0415 - as above

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    pictures = (np.asarray(Image.open(path).convert("RGB"), np.uint8) for path in paths)
    return pairs_of(picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2] for picture in pictures)
