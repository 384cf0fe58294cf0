"""Feeds in a JSON file: the form in which Polygraphy saves the inputs of runs (`polygraphy run --save-inputs`).

A list of dictionaries from input name to array; an array is the base64 text of an .npy file under the key "array".
"""

import base64
import binascii
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.errors import DataError


def read_feed_json(path: Path) -> list[Mapping[str, Array]]:
    """Return the feeds of a file, one for each run. Raises DataError where it has another form."""
    try:
        feeds = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())[:160]}") from error
    if not isinstance(feeds, list) or not all(isinstance(feed, dict) for feed in feeds):
        raise DataError(f"{path}: no list of feeds by input name, as `polygraphy run --save-inputs` writes it")
    return [
        {name: _array(f"{path}, run {run}, {name}", value) for name, value in feed.items()}
        for run, feed in enumerate(feeds)
    ]


def _array(where: str, value: object) -> Array:
    text = value.get("array") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: no array; a tensor of PyTorch has to be saved as one of NumPy")
    try:
        return np.asarray(np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False))
    except (binascii.Error, ValueError, OSError, EOFError, MemoryError, TypeError, SyntaxError) as error:
        raise DataError(f"{where}: no base64 text of an .npy file of numbers") from error
