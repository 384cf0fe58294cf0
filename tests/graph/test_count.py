"""Every operator with weights counts: its parameters, and its multiply-accumulates as often as it runs."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.graph.costs.count import multiply_accumulates, parameters
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import load
from onnx_subprune.graph.observing import observe
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.net import BOOL, FLOAT, INT64, Net

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, HIDDEN, INPUTS = 7, 5, 3


def counts(net: Net) -> tuple[float, float]:
    network = load(net.model())
    return parameters(network), multiply_accumulates(network, observe(network))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op", GATES)
def test_a_recurrent_layer_counts_in_every_step_and_direction(op, directions):
    net = Net()
    rows = GATES[op] * HIDDEN
    x = net.input((STEPS, "N", INPUTS))
    w, r = net.weight(directions, rows, INPUTS), net.weight(directions, rows, HIDDEN)
    direction = "bidirectional" if directions > 1 else "forward"
    net.output(net(op, x, w, r, hidden_size=HIDDEN, direction=direction), 4)
    size = directions * rows * (INPUTS + HIDDEN)
    assert counts(net) == (size, STEPS * size)


@pytest.mark.parametrize(
    ("equation", "shape", "macs"),
    [
        ("bnd,dm->bnm", (4, 6), 5 * 4 * 6),
        ("...d,md->...m", (6, 4), 5 * 4 * 6),
        ("b n d , h d -> b h n", (6, 4), 5 * 4 * 6),
    ],
)
def test_an_einsum_counts_all_its_indices(equation, shape, macs):
    net = Net()
    net.output(net("Einsum", net.input(("N", 5, 4)), net.weight(*shape), equation=equation), 3)
    assert counts(net) == (24, macs)


def test_a_grouped_einsum_counts_all_its_indices():
    net = Net()
    net.output(net("Einsum", net.input(("N", 7, 3, 4)), net.weight(3, 4, 5), equation="btgi,gih->btgh"), 4)
    assert counts(net) == (60, 7 * 60)


def body_of(name: str, inputs, outputs, nodes, weight):
    values = [helper.make_tensor_value_info(item, kind, shape) for item, kind, shape in inputs]
    made = [helper.make_tensor_value_info(item, kind, shape) for item, kind, shape in outputs]
    return helper.make_graph(nodes, name, values, made, [numpy_helper.from_array(weight, "w")])


WEIGHT = np.full((4, 4), 0.1, np.float32)


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    net = Net()
    body = body_of(
        "body",
        [("i", INT64, []), ("go", BOOL, []), ("s", FLOAT, None)],
        [("on", BOOL, []), ("t", FLOAT, None)],
        [helper.make_node("MatMul", ["s", "w"], ["t"]), helper.make_node("Identity", ["go"], ["on"])],
        WEIGHT,
    )
    trips, yes = net.constant(np.array(5)), net.constant(np.array(True))
    net.output(net("Loop", trips, yes, net.input(("N", 4)), body=body), 2)
    assert counts(net) == (16, 5 * 16)


def test_the_body_of_a_scan_counts_for_every_step():
    net = Net()
    body = body_of(
        "body",
        [("s", FLOAT, None), ("x_t", FLOAT, None)],
        [("t", FLOAT, None), ("y_t", FLOAT, None)],
        [
            helper.make_node("MatMul", ["s", "w"], ["p"]),
            helper.make_node("Add", ["p", "x_t"], ["t"]),
            helper.make_node("Identity", ["t"], ["y_t"]),
        ],
        WEIGHT,
    )
    state = net.input((1, 4), "h")
    made = net.add("Scan", state, net.input((6, 1, 4)), outputs=2, body=body, num_scan_inputs=1)
    net.output(made[1], 3)
    assert counts(net) == (16, 6 * 16)


def test_an_if_counts_its_longer_branch():
    net = Net()
    x, flag = net.input(("N", 4)), net.input((), "go", BOOL)
    long, short = (
        body_of(name, [], [(f"{name}_y", FLOAT, None)], [helper.make_node(op, [x, w], [f"{name}_y"])], WEIGHT)
        for name, op, w in (("yes", "MatMul", "w"), ("no", "Add", x))
    )
    net.output(net("If", flag, then_branch=long, else_branch=short), 2)
    assert counts(net) == (32, 16)


def test_operators_of_onnxruntime_count():
    net = Net()
    net.domains["com.microsoft"] = 1
    x = net("FusedConv", net.input(("N", 3, 4, 4)), net.weight(5, 3, 1, 1), activation="Relu", domain="com.microsoft")
    net.output(net("FusedMatMul", x, net.weight(4, 6), domain="com.microsoft"), 4)
    assert counts(net) == (15 + 24, 16 * 15 + 5 * 4 * 24)


def test_products_of_activations_count_and_constants_do_not():
    net = Net()
    x = net.input(("N", 5, 4))
    scores = net("MatMul", x, net("Transpose", x, perm=[0, 2, 1]))
    ready = net("MatMul", net.weight(5, 3), net.weight(3, 5))
    net.output(net("Add", scores, ready), 3)
    assert counts(net) == (30, 5 * 5 * 4)


def test_constants_in_nodes_count_and_whole_numbers_do_not():
    net = Net()
    value = helper.make_tensor("v", TensorProto.FLOAT, (4,), [1.0, 2.0, 3.0, 4.0])
    x = net("Add", net.input(("N", 4)), net("Constant", value=value))
    net.output(net("Reshape", x, net.constant(np.array([-1, 2, 2]))), 3)
    assert counts(net) == (4, 0)


def test_what_stays_because_it_is_in_the_bodies_of_an_if_is_told_with_the_input_that_chooses():
    net = Net()
    x, rate, held = net.input(("N", 4)), net.input((), "rate", INT64), net.weight(4, 6)
    condition = net("Equal", rate, net.constant(np.array(16000)))
    branches = {}
    for name, factor in (("then_branch", 1.0), ("else_branch", 2.0)):
        nodes = [
            helper.make_node("MatMul", [x, held], [f"{name}_a"]),
            helper.make_node("Mul", [f"{name}_a", f"{name}_c"], [f"{name}_b"]),
        ]
        constants = [numpy_helper.from_array(np.float32(factor), f"{name}_c")]
        outputs = [helper.make_tensor_value_info(f"{name}_b", FLOAT, ["N", 6])]
        branches[name] = helper.make_graph(nodes, name, [], outputs, constants)
    net.output(net("If", condition, **branches), 2)
    network = load(net.model())
    found = layers(network, trace(network))
    (item,) = found.staying
    assert (item.op, item.params) == ("If", 4 * 6 + 2)
    assert item.reason == "its bodies are not looked into: which one runs hangs on the input 'rate'"


def test_weights_that_are_computed_of_constants_are_those_of_the_layer_that_reads_them():
    """As standardized weights are: the file has a weight, and the nodes that make another one of it."""
    net = Net(17)
    x, layers_ = net.input(("N", 3, 8, 8)), []
    for reads, makes in ((3, 6), (6, 5)):
        weight = net("Mul", net.weight(makes, reads, 1, 1), net.constant(np.float32(2.0)))
        x = net("Relu", net("Conv", x, weight, name=f"layer{makes}"))
        layers_.append(f"layer{makes}")
    net.output(x, 4)
    network = load(net.model())
    found = layers(network, trace(network))
    assert {item.node: item.params for item in found.items if item.params} == {"layer6": 19, "layer5": 31}
    assert found.smaller == (1.0, 1.0)
