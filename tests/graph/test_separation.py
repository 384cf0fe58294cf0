"""Recurrent layers as exporters of frameworks write them: each has a width of its own."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune import Macs, prune
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.separation import separated
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session

UNITS, LAYERS, FEATURES = 8, 3, 5


def stack(op, directions, taken, *, zeros=True):
    """Layers whose states begin as slices of one tensor, and end joined; `taken` of the joined ones are read."""
    random = np.random.default_rng(0)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    initializers, nodes = [], []

    def const(name, value):
        initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    const("first", np.array([0], np.int64))
    value = numpy_helper.from_array(np.array([0.0 if zeros else 0.1], np.float32))
    nodes.append(helper.make_node("Shape", ["x"], ["shape"], start=0, end=1))
    nodes.append(helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]))
    nodes.append(
        helper.make_node(
            "Concat",
            [const("layers", [np.int64(LAYERS * directions)]), "shape", const("units", [np.int64(UNITS)])],
            ["all"],
            axis=0,
        )
    )
    nodes.append(helper.make_node("ConstantOfShape", ["all"], ["states"], value=value))
    source, width, finals = "steps", FEATURES, []
    for layer in range(LAYERS):
        low, high = (
            const(f"low{layer}", [np.int64(layer * directions)]),
            const(f"high{layer}", [np.int64((layer + 1) * directions)]),
        )
        nodes.append(helper.make_node("Slice", ["states", low, high, "first"], [f"s{layer}"]))
        shapes = {
            "W": (directions, gates * UNITS, width),
            "R": (directions, gates * UNITS, UNITS),
            "B": (directions, 2 * gates * UNITS),
        }
        weights = [
            const(f"{kind}{layer}", random.normal(size=shape).astype(np.float32) / 2) for kind, shape in shapes.items()
        ]
        states = [f"s{layer}"] * (2 if op == "LSTM" else 1)
        way = "bidirectional" if directions == 2 else "forward"
        nodes.append(
            helper.make_node(
                op,
                [source, *weights, "", *states],
                [f"y{layer}", f"e{layer}"],
                name=f"{op}{layer}",
                hidden_size=UNITS,
                direction=way,
            )
        )
        finals.append(f"e{layer}")
        if directions == 1:
            nodes.append(helper.make_node("Squeeze", [f"y{layer}", const(f"one{layer}", [np.int64(1)])], [f"z{layer}"]))
        else:
            nodes.append(helper.make_node("Transpose", [f"y{layer}"], [f"t{layer}"], perm=[0, 2, 1, 3]))
            nodes.append(
                helper.make_node(
                    "Reshape", [f"t{layer}", const(f"r{layer}", np.array([0, 0, -1], np.int64))], [f"z{layer}"]
                )
            )
        source, width = f"z{layer}", UNITS * directions
    nodes.append(helper.make_node("Concat", finals, ["ends"], axis=0))
    if taken == "slice":
        nodes.append(
            helper.make_node(
                "Slice",
                ["ends", const("from", [np.int64(-directions)]), const("to", [np.int64(2**31)]), "first"],
                ["part"],
            )
        )
        nodes.append(helper.make_node("ReduceSum", ["part", "first"], ["h"], keepdims=0))
    else:
        nodes.append(helper.make_node("Gather", ["ends", const("last", np.array(taken, np.int64))], ["h"], axis=0))
    nodes.append(
        helper.make_node("MatMul", ["h", const("V", random.normal(size=(UNITS, 4)).astype(np.float32))], ["y"])
    )
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("directions", "taken"), [(1, -1), (1, "slice"), (1, 0), (2, -1), (2, -2), (2, "slice")])
def test_layers_are_told_apart_and_the_model_stays_the_same(op, directions, taken):
    model = stack(op, directions, taken)
    before = model.SerializeToString()
    found = separated(model)
    assert model.SerializeToString() == before
    assert "ends" not in {name for node in found.graph.node for name in node.output}
    feeds = {"x": np.random.default_rng(1).normal(size=(3, 6, FEATURES)).astype(np.float32)}
    expected, got = Session(model).run(feeds), Session(found).run(feeds)
    assert np.array_equal(expected["y"], got["y"])
    wide = [group for group in trace(Network(model)).groups if group.width == UNITS]
    assert len(wide) == LAYERS


def test_states_that_are_not_zero_tie_the_layers():
    assert len([group for group in trace(Network(stack("GRU", 1, -1, zeros=False))).groups if group.width == UNITS]) < 2


def test_a_model_without_recurrent_layers_is_left_alone():
    model = stack("LSTM", 1, -1)
    del model.graph.node[4:]
    assert separated(model) is model


def test_a_stack_of_a_framework_is_pruned_layer_by_layer():
    random = np.random.default_rng(2)
    data = random.normal(size=(64, 6, FEATURES)).astype(np.float32)
    result = prune(stack("GRU", 1, -1), data, budget=Macs(0.7), round_to=1, gates=Gates(accept_any=True))
    assert len(result.report.groups) == LAYERS
    assert result.report.macs.ratio <= 0.7
