"""Work on some samples at a time gives what work on all of them gives, and is not done where samples are not apart."""

import numpy as np
import pytest

from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.runtime.piecewise import PIECE, piecewise

LARGE = (16, 8, 64, 64)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    found = [generator.standard_normal(LARGE).astype(np.float32) for _ in range(2)]
    assert found[0].nbytes > PIECE
    return found


def test_it_returns_what_work_on_all_samples_returns(images):
    calls = []

    def work(one, other):
        calls.append(len(one))
        return one.take([1, 3, 5], axis=1) - other.take([0, 2, 4], axis=1)

    assert np.array_equal(piecewise(work, *images), work(*images))
    assert len(calls) > 3
    assert sum(calls) == 2 * len(images[0])


@pytest.mark.parametrize("shape", [(1, 8, 64, 64), (8, 64, 64), ()])
def test_what_has_no_samples_of_its_own_is_worked_on_whole(images, shape):
    other = np.ones(shape, np.float32)
    assert np.array_equal(piecewise(np.subtract, images[0], other), images[0] - other)


def test_threads_make_no_difference(images):
    assert np.array_equal(piecewise(np.subtract, *images, threads=2), images[0] - images[1])


def test_nothing_is_copied_where_nothing_is_computed(images):
    assert piecewise(lambda one: one, images[0]) is images[0]


@pytest.mark.parametrize("flat", [(0.0, np.inf), (-3.0, np.inf), (0.0, 6.0), (-np.inf, 1.0)])
def test_values_where_the_activation_is_flat_are_those_of_the_pruned_model(images, flat):
    original, current = (5.0 * image for image in images)
    original[0, 0, 0, :4] = [-np.inf, np.inf, -0.0, 0.0]
    low, high = flat
    aim = Aim(tensor="sum", scale=np.ones(8), shift=np.zeros(8), other=None, flat=flat)
    wanted = np.where(original >= high, np.maximum(current, high), original)
    wanted = np.where(original <= low, np.minimum(current, low), wanted)
    assert np.array_equal(aim.seen(original, current), wanted.astype(np.float32))
