import numpy as np
import onnx
import pytest

from onnx_subprune.calibration.moments.unfold import blocks, rows, unfold
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.contractions.product import LeftProduct
from onnx_subprune.graph.contractions.reading import kernel_at
from tests.calibration.moments.cases import CASES, Case, Float32


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
    axis = contraction.output_axis % y.ndim
    turned = np.moveaxis(y, axis, 0)
    np.testing.assert_array_equal(found.transpose(0, 2, 1).reshape(turned.shape), turned)
    assert contraction.macs(x.shape, y.shape) > 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_matrix_turns_back_into_the_weight(case: Case) -> None:
    _, w, _ = case.data()
    contraction = case.contraction
    matrix = contraction.to_matrix(w)
    assert matrix.shape[1] % contraction.taps == 0
    np.testing.assert_array_equal(contraction.from_matrix(matrix, w.dtype, w.shape), w)


def test_operators_that_do_not_contract_are_refused() -> None:
    with pytest.raises(ValueError, match="Add"):
        kernel_at(onnx.helper.make_node("Add", ["x", "w"], ["y"]), (3, 4))
    with pytest.raises(ValueError, match="alpha"):
        kernel_at(onnx.helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.0), (3, 4))
    with pytest.raises(ValueError, match="MatMul"):
        kernel_at(onnx.helper.make_node("MatMul", ["x", "w"], ["y"]), (2, 3, 4))


def test_only_operators_with_a_bias_slot_name_one() -> None:
    assert Case("Conv", (1, 1, 3), (1, 1, 3)).contraction.bias_slot == 2
    assert Case("MatMul", (1, 2), (2, 3)).contraction.bias_slot is None
    assert isinstance(Case("MatMul", (2, 3), (4, 2), slot=0).contraction, LeftProduct)


def test_multiply_accumulates_count_weights_times_positions() -> None:
    assert (
        Case("Conv", (2, 6, 6, 5), (4, 3, 3, 3), {"group": 2}).contraction.macs((2, 6, 6, 5), (2, 4, 4, 3))
        == 2 * 12 * 4 * 27
    )
    assert Case("ConvTranspose", (2, 3, 7), (3, 4, 3)).contraction.macs((2, 3, 7), (2, 4, 9)) == 2 * 7 * 3 * 4 * 3
    assert Case("MatMul", (2, 3, 7, 5), (5, 4)).contraction.macs((2, 3, 7, 5), (2, 3, 7, 4)) == 42 * 20


@pytest.mark.parametrize("case", [case for case in CASES if case.operator.startswith("Conv")], ids=str)
def test_a_small_limit_cuts_blocks_but_changes_no_row(case: Case) -> None:
    x, w, b = case.data()
    y, contraction = case.run(x, w, b), case.contraction
    limit = 4 * x.shape[1] * contraction.taps * 7  # seven rows
    parts = list(blocks(contraction, x, y, limit=limit))
    assert all(part.input.shape[2] <= 7 for part in parts) or contraction.kernel == (1, 1)
    np.testing.assert_array_equal(np.concatenate([part.input for part in parts], axis=2), _whole(contraction, x))
    targets = [part.target for part in parts if part.target is not None]
    np.testing.assert_array_equal(np.concatenate(targets, axis=2).transpose(0, 2, 1), rows(contraction, y))


def _whole(contraction: Kernel, x: Float32) -> Float32:
    return unfold(contraction, x).transpose(0, 2, 1)
