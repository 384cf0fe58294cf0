"""Labels of samples."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.sources import listed, load
from onnx_subprune.errors import ArgumentTypeError, DataError, shown


def read_labels(labels: str | os.PathLike[str] | ArrayLike) -> NDArray[np.int64]:
    """Return labels, those in `y.npy` or `x.npz:key`, or as they are, (samples,) int64; DataError if they are not one integer a sample."""
    if not isinstance(labels, (str, os.PathLike)):
        return _labels("labels", np.asarray(given_labels(labels)))
    source = os.fspath(labels)
    named = re.fullmatch(r"(.+\.npz):(.+)", source)
    path, key = (named[1], named[2]) if named and not Path(source).exists() else (source, "")
    if Path(path).suffix not in (".npz", ".npy"):
        raise DataError(f"{source}: labels are y.npy or x.npz:KEY")
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; labels are y.npy or x.npz:KEY")
    loaded = load(Path(path))
    if isinstance(loaded, Mapping):
        if key not in loaded:
            raise DataError(f"{source}: the file has {listed(loaded)}; name one as {path}:KEY")
        loaded = loaded[key]
    return _labels(source, loaded)


def given_labels(labels: str | os.PathLike[str] | ArrayLike) -> str | os.PathLike[str] | ArrayLike:
    """Return `labels`; ArgumentTypeError if they cannot be labels."""
    if not (isinstance(labels, (str, os.PathLike, Sequence)) or hasattr(labels, "__array__")) or isinstance(
        labels, type | bytes
    ):
        raise ArgumentTypeError(
            f"labels is {shown(labels)}: give 'y.npy', 'x.npz:KEY', or one integer a sample, an array or a list"
        )
    return labels


def _labels(where: str, labels: Array) -> NDArray[np.int64]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise DataError(f"{where}: labels must be one integer a sample, not {labels.dtype} of shape {labels.shape}")
    return labels.astype(np.int64)
