"""Shards look at the chunks that the whole would look at."""

import pytest

from onnx_subprune.calibration.streaming.request import Share


@pytest.mark.parametrize("one_half", [False, True])
@pytest.mark.parametrize(("step", "probe"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("every", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("total", [1, 2, 3, 8, 17])
def test_shards_look_at_the_chunks_of_the_whole(total, every, step, probe, one_half):
    share = Share(every=every, step=step, probe=probe, one_half=one_half, beside=True)
    whole = share.chunks(0, total, total)
    assert whole
    assert whole[0] == 0
    for cut in range(total + 1):
        parts = [(0, cut), (cut, total - cut)]
        assert [first + chunk for first, count in parts for chunk in share.chunks(first, count, total)] == whole


@pytest.mark.parametrize("total", [2, 3, 8, 17])
@pytest.mark.parametrize("every", [1, 2, 3, 8, 40])
def test_a_fit_looks_at_both_halves(total, every):
    chosen = Share(every=every, step=False, probe=False, one_half=False, beside=True).chunks(0, total, total)
    assert {chunk % 2 for chunk in chosen} == {0, 1}
