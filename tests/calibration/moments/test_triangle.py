"""The strips of a product with its transpose are the whole of it."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.triangle import STRIP, size_of, square, triangle


@pytest.mark.parametrize("columns", [1, STRIP - 1, STRIP, STRIP + 1, 3 * STRIP - 7])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_strips_hold_the_product_and_little_more_than_half_of_it(groups, columns):
    b = np.random.default_rng(columns).standard_normal((groups, columns, 40)).astype(np.float32)
    parts = triangle(b)
    assert parts.shape == (groups, size_of(columns))
    assert size_of(columns) <= columns * (columns + STRIP) / 2
    whole = square(parts.astype(np.float64), columns)
    np.testing.assert_array_equal(whole, whole.transpose(0, 2, 1))
    wide = b.astype(np.float64)
    np.testing.assert_allclose(whole, wide @ wide.transpose(0, 2, 1), rtol=1e-5, atol=1e-4)
