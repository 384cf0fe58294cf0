"""Networks in which one weight serves several nodes on purpose."""

from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from onnx_subprune._typing import Array
from tests.networks.net import BOOL, FLOAT, Net

WIDTH, STEPS = 16, 20


def dead(net: Net, name: str, axis: int, places: slice = slice(0, None, 2)) -> None:
    """Every other channel of a weight or bias makes nothing."""
    value = net.weights[name]
    value[(slice(None),) * axis + (places,)] = 0


def _dense(net: Net, x: str, w: str, b: str = "") -> str:
    return net("Gemm", x, w, *([b] if b else []), transB=1)


def siamese(net: Net) -> None:
    """The distance of two inputs behind one encoder of two layers."""
    w, b, v, c = net.weight(WIDTH, 6), net.weight(WIDTH), net.weight(5, WIDTH), net.weight(5)
    dead(net, w, 0)
    dead(net, b, 0)
    ends = [_dense(net, net.relu(_dense(net, net.input(("N", 6), name), w, b)), v, c) for name in "pq"]
    net.output(net("Abs", net("Sub", *ends)), 2)


def siamese_convolutions(net: Net) -> None:
    """The same with convolutions, without biases, each behind a normalisation of shared constants."""
    w, v = net.weight(8, 3, 3, 3), net.weight(5, 8, 1, 1)
    dead(net, w, 0)
    scale = [net.constant(np.ones(8, np.float32)), net.constant(np.zeros(8, np.float32))]
    more = [net.constant(np.zeros(8, np.float32)), net.constant(np.ones(8, np.float32))]
    ends = []
    for name in "pq":
        x = net("Conv", net.input(("N", 3, 6, 6), name), w, kernel_shape=[3, 3])
        x = net.relu(net("BatchNormalization", x, *scale, *more))
        ends.append(net("Conv", x, v, kernel_shape=[1, 1]))
    net.output(net("Sub", *ends), 4)


def repeated(net: Net) -> None:
    """x + relu(x A) B, three times with the same weights."""
    x = net.input(("N", 6))
    w, b, v = net.weight(WIDTH, 6), net.weight(WIDTH), net.weight(6, WIDTH)
    dead(net, w, 0)
    dead(net, b, 0)
    for _ in range(3):
        x = net("Add", x, _dense(net, net.relu(_dense(net, x, w, b)), v))
    net.output(x, 2)


def autoencoder(net: Net) -> None:
    """The decoder is the encoder turned."""
    w, b = net.weight(WIDTH, 6), net.weight(WIDTH)
    dead(net, w, 0)
    dead(net, b, 0)
    net.output(net("MatMul", net.relu(_dense(net, net.input(("N", 6)), w, b)), w), 2)


def autoencoder_by_transpose(net: Net) -> None:
    """The same, as exporters write it: a Transpose of the weight."""
    w = net.weight(WIDTH, 6)
    dead(net, w, 0)
    hidden = net.relu(net("MatMul", net.input(("N", 6)), net("Transpose", w, perm=[1, 0])))
    net.output(net("MatMul", hidden, w), 2)


def recurrent(net: Net) -> None:
    """h = tanh(x V + h W + b), unrolled; the state begins with a computed one."""
    x = net.input(("N", STEPS * 3))
    w, v, b = net.weight(WIDTH, WIDTH), net.weight(3, WIDTH), net.weight(WIDTH)
    for name, axis in ((w, 1), (v, 1), (b, 0)):
        dead(net, name, axis)
    parts = net.add("Split", x, net.constant([3] * STEPS), outputs=STEPS, axis=1)
    h = net("Tanh", net("MatMul", parts[0], v))
    for part in parts[1:]:
        h = net("Tanh", net("Add", net("Add", net("MatMul", part, v), net("MatMul", h, w)), b))
    net.output(net("MatMul", h, net.weight(WIDTH, 4)), 2)


def read_in_parts(net: Net) -> None:
    """One tensor is split, and its parts are read with one weight."""
    w, b, v = net.weight(2 * WIDTH, 6), net.weight(2 * WIDTH), net.weight(5, WIDTH)
    dead(net, w, 0)
    dead(net, b, 0)
    hidden = net.relu(_dense(net, net.input(("N", 6)), w, b))
    parts = net.add("Split", hidden, net.constant([WIDTH, WIDTH]), outputs=2, axis=1)
    net.output(net("Sub", *(_dense(net, part, v) for part in parts)), 2)


BUILDERS: Mapping[str, Callable[[Net], None]] = {
    build.__name__: build
    for build in (
        siamese,
        siamese_convolutions,
        repeated,
        autoencoder,
        autoencoder_by_transpose,
        recurrent,
        read_in_parts,
    )
}


def network(build: Callable[[Net], None], seed: int = 0) -> ModelProto:
    """Return the network of a builder, of which every other channel is dead."""
    net = Net(seed=seed)
    build(net)
    return net.model()


def read_in_a_body() -> ModelProto:
    """The second layer's weight is read by the body of an If, too."""
    net = Net()
    x = net.input(("N", 6))
    w, v = net.weight(WIDTH, 6), net.weight(WIDTH, 5, name="shared")
    hidden = net.relu(_dense(net, x, w))
    y = net("MatMul", hidden, v)

    def branch(name: str, factor: float) -> object:
        made = [
            helper.make_node("Constant", [], [f"{name}_c"], value=numpy_helper.from_array(np.float32(factor))),
            helper.make_node("Mul", ["shared", f"{name}_c"], [f"{name}_w"]),
            helper.make_node("ReduceSum", [f"{name}_w"], [f"{name}_y"], keepdims=0),
        ]
        return helper.make_graph(made, name, [], [helper.make_tensor_value_info(f"{name}_y", FLOAT, [])])

    flag = net.constant(np.array(True), "flag")
    which = net("And", flag, net.input((), "go", BOOL))
    scale = net("If", which, then_branch=branch("yes", 1.0), else_branch=branch("no", 0.5))
    net.output(net("Mul", y, scale), 2)
    return net.model()


def samples(model: ModelProto, count: int, seed: int = 0) -> dict[str, Array]:
    """Return so many samples for each input."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.input:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        found[value.name] = rng.standard_normal((count, *dims)).astype(np.float32)
    return found
