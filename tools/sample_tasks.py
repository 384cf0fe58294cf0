"""What the models of ``models/`` are trained to do: where the data come from, how they are varied, what is lost. Needs PyTorch.

apt-get install dataset-fashion-mnist espeak-ng bible-kjv
pip install scikit-image pillow
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from tools import spoken_words
from tools.enlarged_pictures import SMALL, sample_pairs
from tools.measures import ACCURACY, PERPLEXITY, PSNR, Measure
from tools.text_models import CONTEXT, read_bible
from tools.vision_models import SIDE

Samples = npt.NDArray[np.generic]

MEAN, STD = np.float32(0.2860), np.float32(0.3530)
TRAINED_RECORDINGS, TESTED_RECORDINGS = 8000, 2000
TESTED_WINDOW = 16


@dataclass(frozen=True)
class Split:
    """The samples of one half of the data, and what each is or what should come out (N first)."""

    images: Samples
    labels: Samples


Vary = Callable[[Samples, Samples, int, np.random.Generator], tuple[Samples, Samples]]


@dataclass(frozen=True)
class Task:
    """What is learnt: how it is read (training, test), how the models take it, how much of it is kept, and what is good.

    `shape` is that of one input of the model, `free` are those of its axes that may have any length. `vary` is given samples, labels, the recipe's
    `shift` and a generator.
    """

    name: str
    read: Callable[[Path], tuple[Split, Split]]
    preprocess: Callable[[Samples], Samples]
    vary: Vary
    shape: tuple[int, ...]
    loss: Callable[[Tensor, Tensor, float], Tensor]
    measure: Measure = ACCURACY
    kept: tuple[int, int] = (512, 2000)
    free: tuple[int, ...] = ()
    output: str = "logits"
    integers: bool = False


def load_split(folder: Path, prefix: str) -> Split:
    """Read one split from the data set's gzipped IDX files (headers of 16 and 8 bytes)."""
    images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return Split(
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIDE, SIDE),
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64),
    )


def normalized(images: Samples) -> Samples:
    """Return the images as the models take them: (x / 255 - 0.2860) / 0.3530 of shape (N, 1, 28, 28)."""
    return ((images.astype(np.float32) / np.float32(255) - MEAN) / STD)[:, None]


def read_fashion(folder: Path) -> tuple[Split, Split]:
    """Read the images of clothes."""
    return load_split(folder, "train"), load_split(folder, "t10k")


def read_words(_: Path) -> tuple[Split, Split]:
    """Let espeak-ng speak, by voices of the training and by others."""
    recordings = (
        spoken_words.record(spoken_words.TRAINED, TRAINED_RECORDINGS, 0),
        spoken_words.record(spoken_words.TESTED, TESTED_RECORDINGS, 1),
    )
    trained, tested = (Split(found.spectrograms, found.labels) for found in recordings)
    return trained, tested


def read_text(_: Path) -> tuple[Split, Split]:
    """Cut the Bible into windows, in an order of their own; each sixteenth of them is for the test. Labels are the bytes that follow."""
    text = read_bible()
    windows = text[: len(text) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    tested = np.arange(len(windows)) % TESTED_WINDOW == 0
    halves = (windows[~tested], windows[tested])
    trained, test = (Split(half[:, :-1], half[:, 1:]) for half in halves)
    return trained, test


def read_pictures(_: Path) -> tuple[Split, Split]:
    """Cut patches from the photographs of scikit-image; one that is not trained on is for the test."""
    trained, test = (Split(found.small, found.large) for found in sample_pairs())
    return trained, test


def moved(mirrored: bool) -> Vary:
    """Return what moves each image by up to ``shift`` pixels both ways; ``mirrored`` ones are mirrored with a chance of one half."""

    def augment(images: Samples, labels: Samples, shift: int, rng: np.random.Generator) -> tuple[Samples, Samples]:
        n, height, width = images.shape
        padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
        rows = rng.integers(0, 2 * shift + 1, (n, 1)) + np.arange(height)
        columns = rng.integers(0, 2 * shift + 1, (n, 1)) + np.arange(width)
        if mirrored:
            columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
        return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]], labels

    return augment


def turned(small: Samples, large: Samples, _: int, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Mirror and turn a batch of patches and what they are to become."""
    turns, mirrored = rng.integers(0, 4), rng.random() < 0.5
    pairs = (np.rot90(x[..., ::-1] if mirrored else x, turns, (2, 3)) for x in (small, large))
    return next(pairs), next(pairs)


def same(inputs: Samples, labels: Samples, _: int, __: np.random.Generator) -> tuple[Samples, Samples]:
    """Change nothing."""
    return inputs, labels


def classified(outputs: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the cross entropy of logits (N, classes)."""
    return F.cross_entropy(outputs, labels, label_smoothing=smoothing)


FASHION = Task("fashion", read_fashion, normalized, moved(mirrored=True), (1, SIDE, SIDE), classified)
SPOKEN = Task(
    "words",
    read_words,
    lambda spectrograms: spectrograms[:, None],
    moved(mirrored=False),
    (1, spoken_words.FRAMES, spoken_words.BANDS),
    classified,
)
TEXT = Task(
    "text",
    read_text,
    lambda tokens: tokens,
    same,
    (CONTEXT,),
    lambda outputs, labels, smoothing: classified(outputs.flatten(0, 1), labels.flatten(), smoothing),
    PERPLEXITY,
    kept=(512, 500),
    free=(1,),
    integers=True,
)
PICTURES = Task(
    "superres",
    read_pictures,
    lambda patches: patches,
    turned,
    (3, SMALL, SMALL),
    lambda outputs, labels, _: F.l1_loss(outputs, labels.float()),
    PSNR,
    kept=(256, 64),
    free=(2, 3),
    output="output",
)
TASKS = (FASHION, SPOKEN, TEXT, PICTURES)
