"""What a layer aims at where the activation behind it is flat."""

import numpy as np
import pytest

from onnx_subprune.calibration.streaming.target import Aim


@pytest.mark.parametrize("flat", [(0.0, np.inf), (-3.0, np.inf), (0.0, 6.0), (-np.inf, 1.0)])
def test_values_where_the_activation_is_flat_are_those_of_the_pruned_model(flat):
    generator = np.random.default_rng(0)
    original, current = (5.0 * generator.standard_normal((2, 8, 6, 6)).astype(np.float32) for _ in range(2))
    original[0, 0, 0, :4] = [-np.inf, np.inf, -0.0, 0.0]
    low, high = flat
    aim = Aim(tensor="sum", scale=np.ones(8), shift=np.zeros(8), other=None, flat=flat)
    wanted = np.where(original >= high, np.maximum(current, high), original)
    wanted = np.where(original <= low, np.minimum(current, low), wanted)
    assert np.array_equal(aim.seen(original, current), wanted.astype(np.float32))
