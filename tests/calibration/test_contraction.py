import numpy as np
import onnx
import pytest

from onnx_subprune.calibration.contraction import Contraction, Kind
from onnx_subprune.calibration.unfold import output_positions, rows, unfold, unrows

from .cases import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_unfolded_input_times_the_matrix_is_the_operator(case: Case) -> None:
    x, w, b = case.data()
    y, contraction = case.run(x, w, b), case.contraction
    product = unfold(contraction, x).astype(np.float64) @ contraction.to_matrix(w)
    if b is not None:
        product += contraction.bias_scale * b.reshape(contraction.groups, 1, -1)
    found = rows(contraction, y)
    assert product.shape == found.shape
    np.testing.assert_allclose(found, product, atol=2e-5)
    np.testing.assert_array_equal(unrows(contraction, found, y.shape), y)
    assert contraction.macs(x.shape, y.shape) > 0
