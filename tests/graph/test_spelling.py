"""Normalisations spelled out: the same function, the file's own nodes again when nothing is cut, and none that is not one over channels."""

from collections.abc import Callable

import numpy as np
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.operators import attribute
from onnx_subprune.graph.statistics import operand
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of
from tests.networks.dead import apart
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS

OWN = {"domain": "com.microsoft"}
NORMED = [
    p for p in PATTERNS if p.name.startswith(("layer-normalization", "stream-", "post-norm", "separate-attention-n"))
]


def skipping(operator: str, *, biased: bool) -> Net:
    """Two blocks, each with a SkipLayerNormalization or the like that carries the stream on, and a projection in front."""
    n = Net(17)
    n.domains["com.microsoft"] = 1
    stream, block = (n.linear(n.input(("N", 4, 5)) if not at else "x", 5, 8) for at in (0, 1))
    for _ in range(2):
        scales = [n.weight(8, positive=True)] + ([n.weight(8)] if operator == "SkipLayerNormalization" else [])
        y, _, _, stream = n.add(operator, block, stream, *scales, *([n.weight(8)] if biased else []), outputs=4, **OWN)
        n.nodes[-1].output[1], n.nodes[-1].output[2] = "", ""
        block = n("MatMul", n.relu(n.linear(y, 8, 6)), n.weight(6, 8))
    n.output(n.linear(n("Add", block, stream), 8, 3), 3)
    return n


SKIPS = [
    pytest.param(op, biased, id=f"{op}{'-biased' * biased}")
    for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    for biased in (False, True)
]


def same_function(network: Network) -> float:
    """How far what is calibrated is from what the file computes."""
    feeds = feeds_of(network, 3, 0)
    return apart(*(Session(each, optimize=False).run(feeds) for each in (network.given, network.proto)))


@pytest.mark.parametrize("pattern", NORMED, ids=lambda pattern: pattern.name)
def test_a_normalisation_that_is_spelled_out_is_the_same_function_and_the_nodes_of_the_file_come_back(pattern):
    for opset in pattern.opsets:
        network = load(pattern.model(opset))
        assert same_function(network) < 1e-5
        graph = trace(network)
        same = apply(network, graph, Plan(supports={group.name: range(group.width) for group in graph.groups}))
        assert list(same.graph.node) == list(network.given.graph.node)
        assert list(same.graph.initializer) == list(network.given.graph.initializer)


@pytest.mark.parametrize(("operator", "biased"), SKIPS)
def test_the_stream_between_fused_skips_goes_and_they_stay_fused(operator, biased):
    network = load(skipping(operator, biased=biased).model())
    graph = trace(network)
    assert same_function(network) < 1e-5
    assert sorted(group.width for group in graph.groups) == [6, 6, 8]
    supports = supports_of(graph, 0, share=0.5)
    assert law(network, graph, supports, feeds_of(network, 3, 1)) < 1e-5
    small = apply(network, graph, Plan(supports=supports))
    assert [node.op_type for node in small.graph.node] == [node.op_type for node in network.given.graph.node]
    assert apply(network, graph, Plan()).graph.node == network.given.graph.node


def test_a_new_epsilon_is_an_attribute_and_a_new_scale_a_constant():
    network = load(next(p for p in PATTERNS if p.name == "layer-normalization-over-channels").model(17))
    graph, (item,) = trace(network), network.spelled.normalizations
    (scale, _), (epsilon, _) = (operand(network, place) for place in (item.scale, item.epsilon))
    plan = Plan(weights={scale: np.arange(6, dtype=np.float32), epsilon: np.array(0.25, np.float32)})
    (node,) = (node for node in apply(network, graph, plan).graph.node if node.op_type == "LayerNormalization")
    assert attribute(node, "epsilon") == 0.25
    small = Network(apply(network, graph, plan))
    np.testing.assert_array_equal(small.array(node.input[1]), np.arange(6))


def decomposed(
    shape: tuple[int, ...], axis: int, scale: tuple[int, ...], dtype: type = np.float32
) -> Callable[[], Net]:
    def build() -> Net:
        n = Net(17, dtype=dtype)
        x = n.conv(n.input(("N", 3, *shape)), 6, 1, rank=len(shape))
        centred = n("Sub", x, n.reduce("ReduceMean", x, axis))
        variance = n.reduce("ReduceMean", n("Mul", centred, centred), axis)
        root = n("Sqrt", n("Add", variance, n.constant(np.array(1e-5, dtype))))
        x = n("Mul", n("Div", centred, root), n.weight(*scale, positive=True))
        n.width[x] = 6
        n.output(n.conv(x, 4, 1, rank=len(shape)), 2 + len(shape))
        return n

    return build


def test_channels_in_front_of_positions_go_whatever_the_axis_is_called():
    for axis in (1, -3):
        network = load(decomposed((4, 4), axis, (6, 1, 1))().model())
        graph = trace(network)
        assert same_function(network) < 1e-5
        assert [group.width for group in graph.groups] == [6]
        assert law(network, graph, {graph.groups[0].name: [0, 2, 5]}, feeds_of(network, 2, 0)) < 1e-5


@pytest.mark.parametrize(
    "build",
    [
        decomposed((6,), 2, (6, 1)),
        decomposed((4, 6), -1, (6, 1, 1)),
        decomposed((4, 4), 1, (1,)),
        decomposed((4, 4), 1, (6, 1, 1), np.float16),
    ],
    ids=["over positions", "over rows", "no scale a channel", "16 bits"],
)
def test_what_is_no_normalisation_over_channels_is_left_as_it_is(build):
    network = load(build().model())
    assert network.proto is network.given


def test_a_statistic_that_is_an_output_is_left_as_it_is():
    n = decomposed((4, 4), 1, (6, 1, 1))()
    mean = next(node.output[0] for node in n.nodes if node.op_type == "ReduceMean")
    n.output(mean, 4)
    network = load(n.model())
    assert all(not item.centred for item in network.spelled.normalizations)
    assert same_function(network) < 1e-5
