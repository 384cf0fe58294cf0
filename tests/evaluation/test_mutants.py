"""Ways to cut wrongly: verification catches every one of them, also where the data begin with blank samples."""

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnx_subprune import VerificationError
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.checked import drawn_feeds, spread_feeds
from onnx_subprune.evaluation.verification import verify
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.net import Net


def convolutions() -> ModelProto:
    """A stem with normalization, two branches that are joined, a residual, depthwise and grouped convolutions, a dense head behind a flat map."""
    net = Net(17, seed=1)
    x = net.input(("N", 3, 6, 6))
    stem = net("Relu", net.bn(net.conv(x, 12, 3)))
    left, right = net("Relu", net.conv(stem, 6, 3)), net("Tanh", net.conv(stem, 10, 1))
    joined = net("Concat", left, right, axis=1)
    net.width[joined] = 16
    mixed = net("PRelu", net.conv(joined, 12), net.weight(12, 1, 1))
    stream = net("Add", stem, mixed)
    net.width[stream] = 12
    deep = net("Relu", net.conv(stream, 12, 3, group=12))
    scaled = net("Mul", net.conv(deep, 8), net.weight(1, 8, 1, 1))
    net.width[scaled] = 8
    net.conv(net("Relu", scaled), 8, 3, group=2)
    last = net.conv(net("Relu", scaled), 6, 1)
    flat = net("Reshape", net("Relu", last), net.constant([-1, 6 * 36]))
    hidden = net("Relu", net.dense(flat, 6 * 36, 14))
    net.output(net.dense(hidden, 14, 5), 2)
    return net.model()


def steps() -> ModelProto:
    """Dense layers on a sequence, with a Split of what one of them makes."""
    net = Net(17, seed=2)
    x = net.input(("N", 5, 8))
    up = net("Add", net("MatMul", x, net.weight(8, 20)), net.weight(20))
    value, gate = net.add("Split", up, net.constant([10, 10]), outputs=2, axis=2)
    product = net("Mul", value, net("Sigmoid", gate))
    down = net("Add", net("MatMul", product, net.weight(10, 6)), net.weight(6))
    net.output(net("Add", down, net("MatMul", x, net.weight(8, 6))), 3)
    return net.model()


def mutants(original: ModelProto, sliced: ModelProto) -> Iterator[tuple[str, ModelProto]]:
    """Constants that were sliced: shifted by one, reversed, the first so many in place of the chosen ones; and nodes that are wrong."""
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    used = {name: (node, slot) for node in sliced.graph.node for slot, name in enumerate(node.input)}
    for index, tensor in enumerate(sliced.graph.initializer):
        value = numpy_helper.to_array(tensor)
        old = before.get(tensor.name)
        if old is None:  # renamed where it was un-shared
            continue
        if value.dtype.kind == "i" and not np.array_equal(value, old):
            yield f"{tensor.name} of {used[tensor.name][0].op_type} is stale", changed(sliced, index, old)
        for axis in range(value.ndim if value.dtype.kind == "f" else 0):
            if value.shape[axis] == old.shape[axis]:
                continue
            place = f"{tensor.name} of {used[tensor.name][0].op_type}, axis {axis}"
            first = np.take(old, range(value.shape[axis]), axis=axis)
            for other in (a for a in range(value.ndim) if first.shape[a] != value.shape[a]):
                first = np.take(first, range(value.shape[other]), axis=other)
            yield f"{place}: shifted", changed(sliced, index, np.roll(value, 1, axis=axis))
            yield f"{place}: reversed", changed(sliced, index, np.flip(value, axis=axis))
            yield f"{place}: the first", changed(sliced, index, first)
            yield (
                f"{place}: one too few",
                changed(sliced, index, np.take(value, range(value.shape[axis] - 1), axis=axis)),
            )
        if value.ndim == 1 and value.dtype.kind == "f" and value.shape != old.shape:
            yield f"{tensor.name}: not there", changed(sliced, index, np.zeros_like(value))
    for index, node in enumerate(sliced.graph.node):
        if node.op_type == "Concat":
            yield "swapped producers", rewired(sliced, index, lambda n: n.input.reverse())
        if node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute):
            yield f"group of {node.name}", rewired(sliced, index, one_group)
        if node.op_type in ("Relu", "Tanh", "Sigmoid", "PRelu"):
            yield f"no {node.name}", rewired(sliced, index, as_identity)


def changed(model: ModelProto, index: int, value: np.ndarray) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    tensor = copy.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    return copy


def rewired(model: ModelProto, index: int, change) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    change(copy.graph.node[index])
    return copy


def one_group(node: onnx.NodeProto) -> None:
    next(item for item in node.attribute if item.name == "group").i = 1


def as_identity(node: onnx.NodeProto) -> None:
    node.op_type = "Identity"
    del node.input[1:], node.attribute[:]


def data_of(shape: tuple[int, ...]) -> Calibration:
    """64 samples, the first 24 of them blank."""
    x = np.random.default_rng(3).standard_normal((64, *shape)).astype(np.float32)
    x[:24] = 0
    return Calibration(arrays={"x": x}, chunk=16)


@pytest.mark.parametrize(("build", "shape", "least"), [(convolutions, (3, 6, 6), 60), (steps, (5, 8), 14)])
def test_every_wrong_cut_is_caught(build, shape, least):
    network = load(build())
    graph = trace(network)
    rng = np.random.default_rng(5)
    supports = {}
    for group in graph.groups:
        kept = [
            rng.permutation(np.flatnonzero(group.cells == cell))[: max(1, group.width // group.step * 2 // 3)]
            for cell in range(group.step)
        ]
        supports[group.name] = sorted(int(channel) for part in kept for channel in part)
    plan = Plan(supports=supports)
    sliced, data = apply(network, graph, plan), data_of(shape)
    assert verify(network, graph, plan, sliced, data) < 1e-5
    found = dict(mutants(network.proto, sliced))
    assert len(found) >= least
    assert [name for name, model in found.items() if not caught(network, graph, plan, model, data)] == []


def caught(network, graph, plan, model, data) -> bool:
    try:
        verify(network, graph, plan, model, data)
    except VerificationError:
        return True
    return False


def test_refitted_weights_that_were_not_written_are_caught():
    network = load(steps())
    graph = trace(network)
    group = graph.groups[0]
    use = group.consumers[0].contraction.weight
    old = network.array(group.consumers[0].contraction.weight_tensor)
    plan = Plan(supports={group.name: list(range(group.step))}, weights={use: old * np.float32(1.01)})
    with pytest.raises(VerificationError, match="largest value"):
        verify(network, graph, plan, apply(network, graph, Plan(supports=plan.supports)), data_of((5, 8)))


def test_samples_to_look_at_are_spread_and_drawn_ones_are_new():
    data = data_of((5, 8))
    (seen,) = spread_feeds(data)
    assert [bool(sample.any()) for sample in seen["x"]] == [False, True, True, True]
    drawn = drawn_feeds(data)["x"]
    assert drawn.dtype == np.float32
    assert drawn.all()
    ids = np.arange(12).reshape(6, 2)
    mixed = drawn_feeds(Calibration(arrays={"ids": ids}, chunk=2))["ids"]
    assert all(value in ids[:, place] for row in mixed for place, value in enumerate(row))


def test_samples_to_look_at_are_fed_as_the_data_are():
    x, rate = np.zeros((12, 2), np.float32), np.array(16000)
    batch = Calibration(arrays={"x": x}, chunk=3, fixed=3)
    runs = Calibration(arrays={"x": x}, chunk=1, runs=True, shared={"rate": rate})
    assert [feeds["x"].shape for feeds in (*spread_feeds(batch), drawn_feeds(batch))] == [(3, 2)] * 2
    for feeds in (*spread_feeds(runs), drawn_feeds(runs)):
        assert feeds["x"].shape == (2,)
        assert feeds["rate"] is rate
