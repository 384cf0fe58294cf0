"""An If that declared sizes decide is the body that runs, and any other stays."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.decided import decided
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of
from tests.networks.net import Net

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def body(name, nodes, made, constants=(), kind=FLOAT):
    outputs = [helper.make_tensor_value_info(item, kind, None) for item in made]
    return helper.make_graph(nodes, name, [], outputs, constants)


def size(n, x, axis):
    return n("Gather", n("Shape", x), n.constant(np.array([axis])))


def swapped(n, x):
    return n("Gather", n.concat(size(n, x, 2), size(n, x, 1), axis=0), one(n))


def one(n):
    return n.constant(np.array([1]))


CONDITIONS = {
    "an axis": lambda n, x: n("Equal", size(n, x, 2), one(n)),
    "an axis from the end": lambda n, x: n("Equal", size(n, x, -1), one(n)),
    "not": lambda n, x: n("Not", n("Equal", size(n, x, 1), one(n))),
    "a part of the shape": lambda n, x: n("Equal", n("Shape", x, start=1, end=2), n.constant(np.array([3]))),
    "rank": lambda n, x: n("Equal", n("Size", n("Shape", x)), n.constant(np.array(3))),
    "more than": lambda n, x: n("Greater", n.squeeze(size(n, x, 1), 0), n.constant(np.array(2))),
    "at most": lambda n, x: n("LessOrEqual", n("Add", size(n, x, 1), size(n, x, 2)), n.constant(np.array([7]))),
    "both": lambda n, x: n("And", n("Equal", size(n, x, 2), one(n)), n("Less", one(n), size(n, x, 1))),
    "a number as a truth value": lambda n, x: n("Cast", n("Sub", size(n, x, 1), size(n, x, 2)), to=BOOL),
    "sizes in other words": lambda n, x: n(
        "Equal", *(n("Cast", item, to=TensorProto.INT32) for item in (swapped(n, x), size(n, x, 1)))
    ),
}
OPEN = {
    "the number of samples": lambda n, x: n("Equal", size(n, x, 0), one(n)),
    "either": lambda n, x: n("Or", n("Equal", size(n, x, 0), one(n)), n("Equal", size(n, x, 1), one(n))),
    "all sizes": lambda n, x: n("Equal", n("Size", x), n.constant(np.array(12))),
    "numbers": lambda n, x: n("Greater", n("ReduceMax", x, keepdims=0), n.constant(np.float32(0.0))),
    "half a size": lambda n, x: n(
        "Equal", n("Cast", n("Div", n("Cast", size(n, x, 1), to=FLOAT), n.constant(np.float32(2.0))), to=INT64), one(n)
    ),
}


def chosen(condition, width):
    """Scaled or shifted by constants that both bodies call the same, (N, 3, width)."""
    n = Net(17)
    x = n.input(("N", 3, width))
    bodies = {
        name: body(name, [helper.make_node(op, [x, "c"], ["y"])], ["y"], [numpy_helper.from_array(np.float32(2), "c")])
        for name, op in (("then_branch", "Mul"), ("else_branch", "Add"))
    }
    y = n("If", condition(n, x), **bodies)
    z = n("If", condition(n, y), **bodies)
    n.output(n("Add", y, z), 3)
    return n.model()


@pytest.mark.parametrize("name", [*CONDITIONS, *OPEN])
def test_what_sizes_decide_runs_as_before(name):
    for width in (1, 4):
        model = chosen({**CONDITIONS, **OPEN}[name], width)
        found = decided(model)
        assert (found is model) == (name in OPEN)
        assert any(node.op_type in ("If", "Shape") for node in found.graph.node) == (name in OPEN)
        feeds = feeds_of(load(model), 2, 0)
        before, after = (Session(item).run(feeds) for item in (model, found))
        assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_model_that_puts_out_a_sequence_is_inferred_as_well():
    n = Net(17)
    x = n.input(("N", 3, 1))
    bodies = {
        name: body(name, [helper.make_node(op, [x], ["y"])], ["y"])
        for name, op in (("then_branch", "Exp"), ("else_branch", "Sin"))
    }
    n.output(n("If", CONDITIONS["an axis"](n, x), **bodies), 3)
    n.outputs.append(helper.make_tensor_sequence_value_info(n("SequenceConstruct", x), FLOAT, None))
    assert [node.op_type for node in decided(n.model()).graph.node] == ["Exp", "SequenceConstruct"]


def test_channels_lead_through_a_body_that_sizes_decide():
    """As TorchScript exports a reader of text lines: the height is gone if it is one, which it always is."""
    n = Net(17)
    x = n.relu(n.conv(n.input(("N", 3, 8, "W")), 6, 3))
    x = n("ReduceMax", n.relu(n.conv(x, 7, 3)), axes=[2])
    squeeze = helper.make_node("Squeeze", [x, "two"], ["s"])
    same = helper.make_node("Identity", [x], ["s"])
    two = [numpy_helper.from_array(np.array([2]), "two")]
    bodies = {"then_branch": body("yes", [squeeze], ["s"], two), "else_branch": body("no", [same], ["s"])}
    x = n("Transpose", n("If", CONDITIONS["an axis"](n, x), **bodies), perm=[2, 0, 1])
    y = n.squeeze(n.add("GRU", x, n.weight(1, 12, 7), n.weight(1, 12, 4), outputs=2, hidden_size=4)[0], 1)
    n.output(n.linear(y, 4, 2), 3)
    network = load(n.model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [6, 7, 4]
    assert law(network, graph, supports_of(graph, 0), feeds_of(network, 2, 0)) < 1e-5


def test_bodies_within_bodies_read_what_they_did():
    """The inner If reads what the outer body makes, which has the name of what another body makes."""
    n = Net(17)
    x, flag = n.input(("N", 3)), n.input((), "flag", BOOL)
    twice, thrice = (
        body(name, [helper.make_node("Mul", ["a", "c"], ["b"])], ["b"], [numpy_helper.from_array(np.float32(by), "c")])
        for name, by in (("twice", 2), ("thrice", 3))
    )
    nodes = [
        helper.make_node("Neg", [x], ["a"]),
        helper.make_node("If", [flag], ["d"], then_branch=twice, else_branch=thrice),
    ]
    other = body("other", [helper.make_node("Exp", [x], ["a"]), helper.make_node("Exp", ["a"], ["d"])], ["d"])
    condition = n("Equal", size(n, x, 1), n.constant(np.array([3])))
    y = n("If", condition, then_branch=body("outer", nodes, ["d"]), else_branch=other)
    z = n("If", n("Not", condition), then_branch=other, else_branch=body("outer", nodes, ["d"]))
    n.output(n("Sub", y, n("Exp", z)), 2)
    model = n.model()
    found = decided(model)
    assert [node.op_type for node in found.graph.node].count("If") == 2  # those of the flag
    for value in (True, False):
        feeds = {"x": np.ones((2, 3), np.float32), "flag": np.array(value)}
        before, after = (Session(item).run(feeds) for item in (model, found))
        assert all(np.array_equal(before[key], after[key]) for key in before)


def test_what_enters_a_body_says_which_input_chooses():
    n = Net(17)
    x = n.relu(n.conv(n.input(("N", 3, 4, 4)), 6, 3))
    bodies = {
        name: body(name, [helper.make_node(op, [x], ["y"])], ["y"])
        for name, op in (("then_branch", "Exp"), ("else_branch", "Sin"))
    }
    y = n("If", OPEN["the number of samples"](n, "x"), **bodies)
    n.width[y] = 6
    n.head(n.relu(n.conv(y, 5)))
    reasons = {item.reason for item in trace(load(n.model())).pinned}
    assert any("reads it: which one runs hangs on the input 'x'" in reason for reason in reasons)
