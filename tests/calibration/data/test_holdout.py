"""Samples that are held out: how many, which, and that they are the same however the data came."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_subprune.calibration.dask.shipment import Shipment
from onnx_subprune.calibration.data.holdout import count_of, split, spread
from onnx_subprune.calibration.data.mapped import mapping_of
from onnx_subprune.calibration.data.samples import Calibration, chunk_size
from onnx_subprune.calibration.shifts import shifted
from onnx_subprune.errors import OptionError


@pytest.mark.parametrize(
    ("samples", "count"),
    [(1, 0), (7, 0), (8, 2), (32, 8), (63, 15), (64, 16), (128, 16), (256, 32), (512, 64), (4096, 512), (10**6, 512)],
)
def test_an_eighth_is_held_out_at_least_16_of_64_a_quarter_of_fewer_and_never_more_than_512(samples, count):
    assert count_of(samples) == count


def test_the_user_says_how_many_or_which_share():
    assert [count_of(100, value) for value in (0, 0.0, 1, 30, 30.0, 0.25, 0.001, 99)] == [0, 0, 1, 30, 30, 25, 1, 99]


@pytest.mark.parametrize("value", [-1, 100, 1000, 1.5, -0.1, 0.999, float("nan"), float("inf")])
def test_what_leaves_nothing_or_is_no_number_is_refused(value):
    with pytest.raises(OptionError, match="--holdout"):
        count_of(100, value)


@given(samples=st.integers(1, 600), count=st.integers(0, 64))
def test_one_is_drawn_from_each_of_equal_runs(samples, count):
    places = spread(samples, min(count, samples))
    assert len(places) == len(np.unique(places)) == min(count, samples)
    edges = np.arange(len(places) + 1) * samples // max(len(places), 1)
    assert all(low <= place < high for low, place, high in zip(edges, places, edges[1:], strict=False))


@given(samples=st.integers(1, 300), fixed=st.none() | st.integers(1, 20), holdout=st.none() | st.floats(0.01, 0.5))
def test_fitted_and_held_out_samples_are_all_and_share_none(samples, fixed, holdout):
    samples = samples // (fixed or 1) * (fixed or 1)
    data = Calibration(arrays={"x": np.arange(samples)}, chunk=chunk_size(samples, fixed), fixed=fixed)
    if not samples:
        return
    try:
        used, held = split(data, holdout)
    except OptionError:
        assert holdout is not None
        return
    assert np.array_equal(np.sort(np.concatenate([used, held])), np.arange(samples))
    assert len(used)
    assert len(held) % (fixed or 1) == 0
    if holdout is None:
        assert 4 * len(held) <= samples
    for part in (used, held):
        assert [int(value) for chunk in data.at(part).chunks() for value in chunk["x"]] == part.tolist()


@pytest.fixture(params=["in memory", "mapped"])
def images(request, tmp_path):
    """40 images whose every element tells its sample."""
    array = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None, None], (40, 1, 3, 4)).copy()
    if request.param == "in memory":
        return array
    np.save(tmp_path / "x.npy", array)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def test_some_samples_are_a_view_that_is_taken_cut_shipped_and_moved_like_the_data_themselves(images):
    places = np.array([0, 1, 5, 6, 7, 12, 20, 21, 22, 23, 39])
    some = Calibration(arrays={"x": images}, chunk=4).at(places)
    same = Calibration(arrays={"x": np.asarray(images)[places]}, chunk=some.chunk)
    assert (mapping_of(some.arrays["x"]) is None) == (mapping_of(images) is None)  # nothing was copied
    assert some.sha256() == same.sha256()
    for of in (
        lambda data: data,
        lambda data: data.take(7),
        lambda data: data.rest(7),
        lambda data: data.part(1, 3),
        lambda data: data.about(5),
        lambda data: data.at(np.array([2, 3, 9])),
        lambda data: Shipment.of(data).open(),
        lambda data: Shipment.of(data.part(1, 4)).open(),
        lambda data: shifted(data, ("x",)),
    ):
        ours, theirs = of(some), of(same)
        assert (ours.samples, ours.chunk) == (theirs.samples, theirs.chunk)
        assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(ours.chunks(), theirs.chunks(), strict=True))


def test_a_shipment_holds_no_more_than_what_lies_between_its_first_sample_and_its_last():
    whole = Calibration(arrays={"x": np.zeros((40, 8))}, chunk=4).at(np.arange(0, 40, 2))
    assert len(Shipment.of(whole.part(1, 2)).arrays["x"]) < 40 // 2
