"""Models that are refused, each with an error that says why; and parts that stay, with a reason that can be read."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.errors import ModelError
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.net import Net

IMAGE = ("N", 3, 8, 8)


def refused(model: onnx.ModelProto, *pieces: str) -> None:
    with pytest.raises(ModelError) as caught:
        trace(model)
    assert "\n" not in str(caught.value)
    for piece in pieces:
        assert piece in str(caught.value)


def test_a_quantized_model_is_refused_with_advice():
    n = Net()
    x = n.input(IMAGE)
    w = n("DequantizeLinear", n.constant(np.ones((6, 3, 1, 1), np.int8)), n.constant(np.float32(0.1)))
    n.output(n("Conv", x, w), 4)
    refused(n.model(), "dequantizelinear_", "quantized", "prune the float model first")


def test_an_operator_of_an_unknown_domain_is_refused_by_name():
    n = Net()
    n.domains["my.domain"] = 1
    n.head(n("Frobnicate", n.conv(n.input(IMAGE), 6, 3), domain="my.domain"))
    refused(n.model(), "onnxruntime cannot load the model", "Frobnicate")


def test_bfloat16_convolutions_are_refused_because_onnxruntime_has_none():
    n = Net(22, dtype=helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    n.head(n.conv(n.input(IMAGE), 6, 3))
    refused(n.model(), "onnxruntime cannot load the model", "NOT_IMPLEMENTED")


def test_a_model_whose_inputs_do_not_fit_one_another_is_refused():
    n = Net()
    n.output(n("MatMul", n.input((2, 3), "a"), n.input((2, 3), "b")), 2)
    refused(n.model(), "onnxruntime cannot", "matmul")


def test_a_model_without_nodes_is_refused():
    n = Net()
    n.output(n.input((2, 3)), 2)
    refused(n.model(), "nothing to prune")


def test_a_string_input_is_refused():
    n = Net()
    x = n.input(("N",), "words", TensorProto.STRING)
    n.output(n("Identity", x), 1, TensorProto.STRING)
    refused(n.model(), "'words' is not a numeric tensor")


def test_weights_outside_the_folder_of_the_model_are_refused(tmp_path):
    n = Net()
    n.head(n.conv(n.input(IMAGE), 6, 3))
    model = n.model()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    (tmp_path / "inside").mkdir()
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = "../w.bin"
    (tmp_path / "inside" / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load(tmp_path / "inside" / "m.onnx")


def test_what_feeds_an_operator_without_a_rule_is_named_with_node_and_operator():
    n = Net()
    n.domains["com.microsoft"] = 1
    x = n("Trilu", n.conv(n.input(IMAGE), 7), domain="com.microsoft", name="Act_1")
    n.head(n.conv(n.relu(n.conv(x, 5)), 4))
    reasons = {pinned.reason for pinned in trace(n.model()).pinned}
    assert "it feeds or leaves Act_1 (com.microsoft.Trilu), an operator without a rule" in reasons


def test_sparse_initializers_are_left_alone():
    n = Net()
    x = n.relu(n.conv(n.input(("N", 3, 1, 1)), 6))
    x = n("Flatten", x)
    n.output(n("MatMul", n.relu(n.dense(x, 6, 4)), "sparse"), 2)
    model = n.model()
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([0, 5]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    graph = trace(model)
    assert [group.width for group in graph.groups] == [6]
    assert any("the shape of 'sparse' is not known" in pinned.reason for pinned in graph.pinned)
