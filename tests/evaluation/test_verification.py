"""Slicing a group equals zeroing its dropped channels in the weights that contract over it."""

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import VerificationError
from onnx_subprune.evaluation.verification import MOST, TOLERANCE, law, verify
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.graph.tracing.trace import trace
from tests.conftest import SHARED, all_models
from tests.networks.net import Net


def random_supports(network, graph, generator):
    """Channels of every group; sometimes none of a residual branch."""
    supports, idle = {}, dispensable(network, graph)
    for group in graph.groups:
        if group.name in idle and generator.random() < 0.3:
            supports[group.name] = []
            continue
        each = int(generator.integers(1, group.width // group.step + 1))
        picks = [
            generator.choice(np.flatnonzero(group.cells == cell), each, replace=False) for cell in range(group.step)
        ]
        supports[group.name] = sorted(np.concatenate(picks).tolist())
    return supports


def feeds_for(network, generator, batch):
    feeds = {}
    for value in network.inputs:
        shape = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        feeds[value.name] = generator.standard_normal(shape).astype(np.float32)
    return feeds


@pytest.mark.parametrize("path", all_models(), ids=lambda path: path.stem)
@pytest.mark.parametrize("seed", [0, 1])
def test_slicing_equals_masking_on_real_models(path, seed):
    network = load(path)
    graph = trace(network)
    generator = np.random.default_rng(seed)
    supports = random_supports(network, graph, generator)
    assert law(network, graph, supports, feeds_for(network, generator, 3 + seed)) < 1e-5


@pytest.mark.parametrize("path", all_models(), ids=lambda path: path.stem)
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_costs_as_functions_of_the_widths_are_those_of_the_sliced_model(path, seed):
    network = load(path)
    graph = trace(network)
    supports = random_supports(network, graph, np.random.default_rng(seed))
    sliced = Network(apply(network, graph, Plan(supports=supports)), network.folder)
    widths = {name: len(support) for name, support in supports.items()}
    ours, theirs = costs(network, graph), costs(sliced, trace(sliced))
    if all(supports.values()):
        assert ours.params(widths) == pytest.approx(theirs.params({}))
    else:  # what a branch without channels adds is folded into one constant
        assert theirs.params({}) <= ours.params(widths)
    assert ours.macs(widths) == pytest.approx(theirs.macs({}))


@pytest.mark.parametrize("path", all_models(), ids=lambda path: path.stem)
def test_a_model_that_loses_nothing_leaves_as_it_came(path):
    network = load(path)
    graph = trace(network)
    untouched = apply(network, graph, Plan())
    assert untouched.graph.node == network.given.graph.node
    assert untouched.graph.initializer == network.given.graph.initializer
    assert untouched.opset_import == network.proto.opset_import
    assert untouched.graph.output == network.proto.graph.output


def test_the_streams_of_option_a_shortcuts_are_found():
    path = SHARED / "models" / "resnet56_cifar10.onnx"
    if not path.exists():
        pytest.skip("the model is not there")
    graph = trace(path)
    assert len(graph.groups) >= 28
    assert {group.width for group in graph.groups if len(group.consumers) > 1} == {16, 32}


def test_metadata_names_and_ports_survive(tmp_path):
    network = load(all_models()[2])
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    proto.metadata_props.add(key="author", value="me")
    proto.doc_string = "mine"
    proto.graph.node[0].doc_string = "first"
    graph = trace(proto)
    sliced = apply(load(proto), graph, Plan(supports={graph.groups[1].name: [0, 3]}))
    assert sliced.metadata_props[0].value == "me"
    assert sliced.doc_string == "mine"
    assert sliced.graph.node[0].doc_string == "first"
    assert sliced.graph.input == proto.graph.input
    assert sliced.graph.output == proto.graph.output


def amplifying(gain):
    """A sum over 2,048 channels, much enlarged, behind a sine: what differs in the last digit there differs much in the output."""
    generator, net = np.random.default_rng(0), Net()
    x = net.input(("N", 32))
    made = net.relu(net("MatMul", x, net.constant(generator.standard_normal((32, 2048)).astype(np.float32), "made")))
    read = net("MatMul", made, net.constant(generator.standard_normal((2048, 4)).astype(np.float32), "read"))
    net.output(net("Sin", net("Mul", read, net.constant(np.float32(gain)))), 2)
    network = load(net.model())
    graph = trace(network)
    supports = {group.name: tuple(range(0, group.width, 2)) for group in graph.groups}
    return (
        network,
        graph,
        supports,
        Calibration(arrays={"x": generator.standard_normal((16, 32)).astype(np.float32)}, chunk=16),
    )


def test_what_rounding_alone_moves_in_a_network_that_amplifies_it_is_no_other_model():
    network, graph, supports, data = amplifying(10.0)
    plan = Plan(supports=supports)
    found = verify(network, graph, plan, apply(network, graph, plan), data)
    assert TOLERANCE < found < MOST


def test_a_wrong_weight_in_such_a_network_is_seen():
    network, graph, supports, data = amplifying(10.0)
    plan = Plan(supports=supports)
    wrong = apply(network, graph, plan)
    for tensor in wrong.graph.initializer:
        if tensor.name == "read":
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[0, 0] *= np.float32(1.01)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    with pytest.raises(VerificationError, match="not what was planned"):
        verify(network, graph, plan, wrong, data)


@pytest.mark.parametrize("shift", [0.0, -16.0])
def test_what_a_shut_sigmoid_rounds_is_no_deviation(shift):
    """A detector of text on pictures without any: its largest number is the rounding of 1, which differs where sums have fewer terms."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 8, 8], "x"), 32, 3))
    x = net("Add", net.conv(x, 1, 3), net.constant(np.full(1, shift, np.float32)))
    net.output(net("Sigmoid", x), 4)
    network = Network(net.model())
    graph = trace(network)
    plan = Plan(supports={graph.groups[0].name: range(0, 32, 3)})
    feeds = {"x": np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)}
    data = Calibration(arrays=feeds, chunk=8)
    sliced = apply(network, graph, plan)
    assert verify(network, graph, plan, sliced, data) < TOLERANCE
    for tensor in sliced.graph.initializer:  # a wrong model is found all the same, where there is anything to see
        if len(tensor.dims) == 4:
            wrong = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
    with pytest.raises(VerificationError):
        verify(network, graph, plan, sliced, data)
