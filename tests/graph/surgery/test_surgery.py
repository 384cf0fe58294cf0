"""Surgery: what is cut, what is un-shared, and what leaves exactly as it came."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.masking import zero_rows
from onnx_subprune.graph.surgery.slicing import slice_weight
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.check import feeds_of, supports_of
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS

IMAGE = ("N", 3, 8, 8)


def two_layers() -> Net:
    n = Net()
    shared = n.weight(6, name="shared")
    x = n.relu(n.conv(n.input(IMAGE), 6, 3, b=shared))
    n.head(n.relu(n.conv(x, 6, b=shared)))
    return n


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_shared_bias_is_cloned_where_its_layers_keep_different_channels():
    network = load(two_layers().model())
    graph = trace(network)
    first, second = (group.name for group in graph.groups)
    small = apply(network, graph, Plan(supports={first: [0, 1], second: [3, 4, 5]}))
    before, after = initializers(network.proto), initializers(small)
    biases = [after[node.input[2]] for node in small.graph.node if node.op_type == "Conv"]
    np.testing.assert_array_equal(biases[0], before["shared"][:2])
    np.testing.assert_array_equal(biases[1], before["shared"][3:])


def test_a_shared_bias_stays_shared_where_its_layers_keep_the_same_channels():
    network = load(two_layers().model())
    graph = trace(network)
    small = apply(network, graph, Plan(supports={group.name: [0, 2] for group in graph.groups}))
    assert len({node.input[2] for node in small.graph.node if node.op_type == "Conv"}) == 1


def test_the_model_that_comes_in_is_never_changed():
    for pattern in PATTERNS[::7]:
        model = pattern.model(pattern.opsets[0])
        before = model.SerializeToString(deterministic=True)
        network = load(model)
        graph = trace(network)
        apply(network, graph, Plan(supports=supports_of(graph, 0)))
        assert model.SerializeToString(deterministic=True) == before


def test_keeping_all_channels_changes_nothing():
    for pattern in PATTERNS[::7]:
        network = load(pattern.model(pattern.opsets[0]))
        graph = trace(network)
        same = apply(network, graph, Plan(supports={group.name: range(group.width) for group in graph.groups}))
        assert list(same.graph.node) == list(network.given.graph.node)
        assert list(same.graph.initializer) == list(network.given.graph.initializer)


def test_new_weights_are_written_in_the_place_of_the_old_ones_and_sliced():
    network = load(two_layers().model())
    graph = trace(network)
    contraction = graph.groups[0].consumers[0].contraction
    weight = np.arange(36, dtype=np.float32).reshape(6, 6, 1, 1)
    plan = Plan(supports={graph.groups[0].name: [1, 4]}, weights={contraction.weight: weight})
    after = initializers(apply(network, graph, plan))
    np.testing.assert_array_equal(after[contraction.weight_tensor], weight[:, [1, 4]])


def test_a_missing_bias_is_added_and_sliced():
    n = Net()
    x = n.relu(n.conv(n.input(IMAGE), 6, 3, bias=False))
    n.head(n.relu(n.conv(x, 5)))
    network = load(n.model())
    graph = trace(network)
    name = graph.groups[0].name
    small = apply(network, graph, Plan(supports={name: [5]}, weights={Use(name, 2): np.arange(6, dtype=np.float32)}))
    onnx.checker.check_model(small, full_check=True)
    np.testing.assert_array_equal(initializers(small)[small.graph.node[0].input[2]], [5])


def test_a_grouped_weight_is_sliced_group_by_group():
    n = Net()
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    n.head(n.relu(n.conv(x, 6, group=2)))
    graph = trace(n.model())
    contraction = next(c for c in graph.contractions if c.groups == 2)
    weight = np.arange(12).reshape(6, 2)
    sliced = slice_weight(weight, contraction, np.array([1, 2]), np.array([0, 2, 3, 5]))
    np.testing.assert_array_equal(sliced, [[1], [5], [6], [10]])


def test_stale_shapes_are_dropped_and_other_ones_kept():
    n = two_layers()
    model = onnx.shape_inference.infer_shapes(n.model())
    network = load(model)
    graph = trace(network)
    small = apply(network, graph, Plan(supports={graph.groups[0].name: [0, 1]}))
    known = {value.name for value in small.graph.value_info}
    assert known
    assert not known & {part.axis.tensor for part in graph.groups[0].slices}
    onnx.checker.check_model(small, full_check=True)


@pytest.mark.parametrize("threshold", [0, 200])
def test_weights_in_a_side_file_are_sliced_and_the_rest_stays_in_it(tmp_path, threshold):
    path = tmp_path / "model.onnx"
    onnx.save(two_layers().model(), path, save_as_external_data=True, location="w.bin", size_threshold=threshold)
    network = load(path)
    graph = trace(network)
    supports = {graph.groups[0].name: [0, 3]}
    assert law(network, graph, supports, feeds_of(network, 2, 0)) < 1e-5
    small = apply(network, graph, Plan(supports=supports))
    outside = {t.name for t in small.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    first, second = (node for node in small.graph.node if node.op_type == "Conv")
    assert not outside & set(first.input)
    assert second.input[2] == "shared"
    assert "shared" in outside or threshold


def test_masking_zeroes_what_reads_a_dropped_channel_and_leaves_depthwise_weights():
    n = Net()
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n.relu(n.conv(x, 6, 3, group=6))
    n.head(n.relu(n.conv(x, 5)))
    network = load(n.model())
    graph = trace(network)
    group = graph.groups[0]
    assert all(not consumer.contraction.whole_groups for consumer in group.consumers)
    (consumer,) = group.consumers
    value = np.array(network.array(consumer.contraction.weight_tensor))
    zero_rows(value, consumer.contraction, consumer.positions[[1, 3, 4, 5]].ravel())
    assert value.shape == (5, 6, 1, 1)
    assert not value[:, [1, 3, 4, 5]].any()
    assert value[:, [0, 2]].all()


def test_a_slice_of_no_channels_stays_one():
    n = Net()
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    n.output(n("Slice", x, *(n.constant(np.array([value])) for value in (0, 0, 1))), 4)
    n.head(n.relu(n.conv(x, 6, 3)))
    network = load(n.model())
    graph = trace(network)
    assert law(network, graph, supports_of(graph, 0, share=0.5), feeds_of(network, 3, 1)) < 1e-5
