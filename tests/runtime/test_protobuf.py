"""What is written piece by piece is what protobuf writes and reads."""

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, helper, numpy_helper

from onnx_subprune.runtime.protobuf import Field, in_graph


@pytest.mark.parametrize("size", [0, 20, 30, 31, 32, 4000, 1 << 20])
def test_a_weight_alone_is_the_same_bytes(size):
    tensor = numpy_helper.from_array(np.arange(size, dtype=np.float32), "weight")
    model = ModelProto(graph=GraphProto(initializer=[tensor]))
    assert in_graph(Field.INITIALIZER, tensor.SerializeToString()) == model.SerializeToString()


def test_pieces_behind_one_another_are_one_model():
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["y", "w"], ["z"])]
    ends = [helper.make_tensor_value_info(name, 1, ["n", 3]) for name in ("x", "z")]
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    whole = helper.make_model(helper.make_graph(nodes, "part", ends[:1], ends[1:], [weight]))
    pieces = [
        ModelProto(ir_version=whole.ir_version, opset_import=whole.opset_import).SerializeToString(),
        in_graph(Field.OUTPUT, ends[1].SerializeToString()),
        *(in_graph(Field.NODE, node.SerializeToString()) for node in nodes),
        in_graph(Field.INITIALIZER, weight.SerializeToString()),
        in_graph(Field.INPUT, ends[0].SerializeToString()),
        in_graph(Field.NAME, b"part"),
    ]
    assert ModelProto.FromString(b"".join(pieces)) == whole
