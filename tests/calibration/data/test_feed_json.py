"""Polygraphy's saved inputs: written here as its encoder writes them; with the library where it is installed."""

import base64
import io
import json

import numpy as np
import pytest

from onnx_subprune.calibration.data.feed_json import read_feed_json
from onnx_subprune.errors import DataError

RNG = np.random.default_rng(0)
FEEDS = [
    {"x": RNG.standard_normal((2, 3)).astype(np.float32), "size": np.array(7, np.int64)},
    {"x": RNG.standard_normal((1, 3)).astype(np.float32), "size": np.array(5, np.int64)},
]


def coded(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return {"array": base64.b64encode(file.getvalue()).decode(), "polygraphy_class": "ndarray"}


def same(found):
    assert [list(feed) for feed in found] == [list(feed) for feed in FEEDS]
    for feed, other in zip(found, FEEDS, strict=True):
        for name, array in other.items():
            np.testing.assert_array_equal(feed[name], array)
            assert feed[name].dtype == array.dtype


def test_feeds_come_back_as_they_were(tmp_path):
    (tmp_path / "inputs.json").write_text(json.dumps([{n: coded(a) for n, a in feed.items()} for feed in FEEDS]))
    same(read_feed_json(tmp_path / "inputs.json"))


def test_what_polygraphy_saves_is_read(tmp_path):
    library = pytest.importorskip("polygraphy.json")
    library.save_json(FEEDS, str(tmp_path / "inputs.json"))
    same(read_feed_json(tmp_path / "inputs.json"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 10**5, "cannot be read as JSON"),
        ('{"x": 1}', "no list of feeds"),
        ('[{"x": 1}]', "no array"),
        ('[{"x": {"tensor": "aa"}}]', "no array"),
        ('[{"x": {"array": "no base64!"}}]', "no base64"),
        ('[{"x": {"array": "aGVsbG8="}}]', "no base64 text of an .npy file"),
    ],
)
def test_another_form_is_one_line(tmp_path, text, word):
    path = tmp_path / "inputs.json"
    path.write_text(text)
    with pytest.raises(DataError, match=word) as found:
        read_feed_json(path)
    assert "\n" not in str(found.value)
