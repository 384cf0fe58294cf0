"""Residual branches without channels: which may have none, and that the model without them is the masked one."""

import numpy as np
import onnx
import pytest

from onnx_subprune import (
    Asymmetric,
    Channels,
    Gates,
    Layerwise,
    Macs,
    Recipe,
    Refit,
    Resources,
    Sequential,
    apply_recipe,
    prune,
)
from onnx_subprune.evaluation.report.removed import removable
from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.branches import dispensable
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.written import counted
from tests.conftest import MODELS
from tests.networks.net import Net

RESNET = MODELS / "resnet_fashion.onnx"


def finished(net, x):
    y = net.add("Flatten", net.gap(net.relu(x)))[0]
    net.output(net.dense(y, net.width[x], 3), 2)
    return net.model()


def begun(**settings):
    net = Net(**settings)
    return net, net.relu(net.conv(net.input(["n", 3, 8, 8]), 8, 3))


def plain(net, x):
    return net("Add", net.conv(net.relu(net.conv(x, 6, 3)), 8, 3), x)


def swapped(net, x):
    return net("Add", x, net.conv(net.relu(net.conv(x, 6, 3)), 8, 3, bias=False))


def normalized(net, x):
    y = net.relu(net.bn(net.conv(x, 6, 3, bias=False)))
    return net("Add", net.bn(net.bn(net.conv(y, 8, 3, bias=False))), x)


def inverted(net, x):
    y = net.relu(net.conv(x, 12))
    return net("Add", net.bn(net.conv(net.relu(net.conv(y, 12, 3, group=12)), 8)), x)


def projected(net, x):
    return net("Add", net.conv(net.relu(net.conv(x, 6, 3)), 8, 3), net.conv(x, 8))


def bottleneck(net, x):
    y = net.relu(net.conv(net.relu(net.conv(x, 6)), 6, 3))
    return net("Add", net.conv(y, 8), x)


def grouped(net, x):
    """The groups of the first convolution have inputs left that nothing reads."""
    return net("Add", net.conv(net.relu(net.conv(x, 6, 3, group=2)), 8), x)


def gated(net, x):
    """Squeeze and excite inside: a second reader of what the last convolution reads."""
    y = net.relu(net.conv(x, 12))
    gate = net("Sigmoid", net.conv(net.relu(net.conv(net.gap(y), 4)), 12))
    return net("Add", net.conv(net("Mul", y, gate), 8), x)


def channels_last(net, x):
    """A block of ConvNeXt: layer scale, and a layout of its own."""
    y = net("Transpose", x, perm=[0, 2, 3, 1])
    y = net.linear(net.relu(net.linear(y, 8, 12)), 12, 8)
    y = net("Transpose", net("Mul", y, net.weight(8)), perm=[0, 3, 1, 2])
    return net("Add", x, y)


def attention(net, x, *, bias=True):
    """Two heads over the positions of a map, which a Reshape makes tokens of and another one a map again."""
    tokens = net("Transpose", net.reshape(x, 0, 8, 64), perm=[0, 2, 1])
    q, k, v = (
        net("Transpose", net.reshape(net.linear(tokens, 8, 8, bias=bias), 0, 64, 2, 4), perm=order)
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    y = net("Transpose", net("MatMul", net("Softmax", net("MatMul", q, k), axis=-1), v), perm=[0, 2, 1, 3])
    y = net.linear(net.reshape(y, 0, 64, 8), 8, 8, bias=bias)
    y = net.reshape(net("Transpose", y, perm=[0, 2, 1]), 0, 8, 8, 8)
    net.width[y] = 8
    return net("Add", y, x)


def unbiased(net, x):
    return attention(net, x, bias=False)


def sized(net, x):
    """TorchScript's attention of PyTorch: a product of two axes, whose own sizes are part of what shape its output gets."""
    tokens = net("Transpose", net.reshape(x, 0, 8, 64), perm=[0, 2, 1])
    y = net.relu(net.linear(tokens, 8, 12))
    y = net.dense(net.reshape(y, -1, 12), 12, 8)
    shape = net.concat(net.dim(x, 0), net.constant(np.array([64])), net.dim(y, 1), axis=0)
    y = net.reshape(net("Transpose", net("Reshape", y, shape), perm=[0, 2, 1]), 0, 8, 8, 8)
    net.width[y] = 8
    return net("Add", y, x)


BLOCKS = {
    sized: 2,
    plain: 2,
    swapped: 2,
    normalized: 2,
    inverted: 3,
    projected: 2,
    bottleneck: 3,
    grouped: 2,
    gated: 4,
    channels_last: 2,
    attention: 6,
    unbiased: 6,
}
"""Residual blocks, and how many products go with their branches."""
PRODUCTS = ("Conv", "Gemm", "MatMul")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("alone", [True, False])
def test_a_model_without_a_branch_is_the_masked_one(block, alone):
    net, x = begun(seed=3)
    model = finished(net, block(net, block(net, x)))
    network = Network(model)
    graph = trace(network)
    idle = dispensable(network, graph)
    assert len(idle) == 2
    supports = {name: [] for name in sorted(idle)[: 1 if alone else 2]}
    if not alone:
        supports |= {group.name: range(0, group.width, 2) for group in graph.groups if group.name not in idle}
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    assert law(network, graph, supports, feeds) < 1e-6
    small = apply(network, graph, Plan(supports=supports))
    onnx.checker.check_model(small, full_check=True)
    read = {name for node in small.graph.node for name in node.input}
    for tensor in small.graph.initializer:
        assert 0 not in tensor.dims
        assert tensor.name in read
    gone = len(supports) if alone else 2
    products = (sum(node.op_type in PRODUCTS for node in item.graph.node) for item in (model, small))
    assert next(products) - next(products) == gone * BLOCKS[block]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_goes_with_a_branch_costs_nothing(block):
    """Multiply-accumulates are exact, and no parameter is left that is not counted."""
    net, x = begun(seed=3)
    network = Network(finished(net, block(net, block(net, x))))
    graph = trace(network)
    price = costs(network, graph)
    for names in ([min(dispensable(network, graph))], dispensable(network, graph)):
        small = Network(apply(network, graph, Plan(supports=dict.fromkeys(names, ()))))
        left, widths = counted(small, trace(small)), dict.fromkeys(names, 0)
        assert price.macs(widths) == left.macs
        slack = 80 * len(names)  # of the normalisations at the end of a branch one sum is left
        assert left.params <= price.params(widths) <= left.params + slack


def test_a_branch_that_adds_nothing_leaves_no_sum():
    net, x = begun(seed=3)
    model = finished(net, unbiased(net, unbiased(net, x)))
    network = Network(model)
    graph = trace(network)
    small = apply(network, graph, Plan(supports=dict.fromkeys(dispensable(network, graph), ())))
    assert [node.op_type for node in small.graph.node] == [
        "Conv",
        "Relu",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]


def meeting(net, x):
    """Two branches, and nothing else."""
    one, other = (net.conv(net.relu(net.conv(x, 6, 3)), 8, 3) for _ in range(2))
    return net("Add", one, other)


def twice(net, x):
    y = net.conv(net.relu(net.conv(x, 6, 3)), 8, 3)
    return net("Add", y, y)


def spread(net, x):
    """A branch of one position a channel, which the sum spreads out."""
    return net("Add", x, net.conv(net.relu(net.conv(net.gap(x), 6)), 8))


def joined(net, x):
    """The reader has other inputs too."""
    both = net("Concat", net.relu(net.conv(x, 6, 3)), x, axis=1)
    net.width[both] = 14
    return net("Add", net.conv(both, 8, 3), x)


def read_twice(net, x):
    y = net.conv(net.relu(net.conv(x, 6, 3)), 8, 3)
    return net("Add", net("Add", y, x), net.relu(y))


def given(net, x):
    y = net.conv(net.relu(net.conv(x, 6, 3)), 8, 3)
    net.output(y, 4)
    return net("Add", y, x)


def weighed(net, x):
    """The other summand is a constant."""
    return net("Add", net.conv(net.relu(net.conv(x, 6, 3)), 8, 3), net.weight(1, 8, 8, 8))


@pytest.mark.parametrize(
    ("block", "count"),
    [(meeting, 1), (twice, 0), (spread, 0), (joined, 0), (read_twice, 0), (given, 0), (weighed, 0)],
)
def test_what_a_sum_needs_stays(block, count):
    net, x = begun()
    network = Network(finished(net, block(net, x)))
    assert len(dispensable(network, trace(network))) == count


def test_rounded_widths_let_branches_go_and_min_width_keeps_them(few):
    free, kept = (
        prune(RESNET, few, budget=Macs(0.1), round_to=16, min_width=least, resources=Resources(trials=0))
        for least in (None, 1)
    )
    widths = [{group.name: group.width[1] for group in found.report.groups} for found in (free, kept)]
    assert min(widths[0].values()) == 0
    assert min(widths[1].values()) > 0
    for found in (free, kept):
        assert found.report.macs.ratio <= 0.1
        assert found.report.deviation < 1e-5
    assert len(free.model.graph.node) < len(kept.model.graph.node)
    notes = [[note for note in found.report.notes if "gone as a whole" in note] for found in (free, kept)]
    assert [len(item) for item in notes] == [1, 0]
    assert "residual block of 2 layers" in notes[0][0]


def test_inspect_says_which_blocks_may_go():
    net, x = begun(seed=3)
    network = Network(finished(net, plain(net, channels_last(net, attention(net, x)))))
    graph = trace(network)
    assert removable(network, graph) == [
        "May go as a whole, what they add is a constant then: 1 attention block, 1 feed-forward block, 1 residual block."
    ]


@pytest.mark.parametrize("settings", [{}, {"formulation": Sequential()}, {"formulation": Layerwise()}, {"refit": None}])
def test_branches_go_in_every_formulation(few, settings):
    """At a 64th of every group the nearest width of narrow ones is none; the law is checked before the model is handed out."""
    found = prune(RESNET, few, budget=Channels(1 / 64), round_to=16, gates=Gates(accept_any=True), **settings)
    assert 0 in {group.width[1] for group in found.report.groups}
    assert np.isfinite(next(iter(found.report.fidelity.outputs.values())).relative_error)


@pytest.mark.parametrize(
    ("settings", "goes"), [({"exclude": ["conv_2", "first"]}, False), ({"exclude": "conv_2"}, True)]
)
def test_what_the_user_excludes_does_not_go_with_its_block(settings, goes):
    net, x = begun(seed=4)
    y = net.relu(net.conv(net.relu(net.conv(x, 8, 3, name="first")), 8, 3, name="second"))
    model = finished(net, net("Add", x, net.conv(y, 8, 3)))
    network = Network(model)
    assert "second" in dispensable(network, trace(network))
    given = np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32)
    found = prune(
        model, given, budget=Channels(1 / 64), round_to=8, min_width=0, gates=Gates(accept_any=True), **settings
    )
    assert ("first" not in {node.name for node in found.model.graph.node}) == goes


def shares(net, x):
    """Channels that stay where the block does: a Softmax goes over them."""
    y = net("Softmax", net.conv(x, 6, 3, name="shared out"), axis=1)
    return net("Add", net.conv(net.relu(net.conv(y, 6)), 8), x)


@pytest.mark.parametrize("block", [bottleneck, attention, shares])
def test_what_lies_in_a_block_that_is_gone_is_listed_as_gone_and_recipes_tell_it(block, tmp_path):
    net, x = begun(seed=4)
    model = finished(net, block(net, x))
    given = np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32)
    settings = {"budget": Channels(1 / 64), "round_to": 8, "min_width": 0, "gates": Gates(accept_any=True)}
    report = prune(model, given, exclude="conv_2", **settings).report
    inner = [group for group in report.groups if group.gone is not None]
    assert {group.width[1] for group in report.groups} == {0}
    assert len(inner) == (block is not shares)
    assert "shared out" not in {item.node for item in report.pinned}
    assert all(group.kept == () and group.gone.startswith("the ") for group in inner)
    listed = {item["name"]: item for item in report.to_dict()["groups"]}
    Recipe.of(report).to_json(tmp_path / "r.json")
    read = Recipe.read(tmp_path / "r.json")
    assert [item.gone for item in read.groups] == [group.gone for group in report.groups]
    for data in (None, given) if block is bottleneck else (None,):
        again = {group.name: group for group in apply_recipe(model, read, data).report.groups}
        assert all((again[item.name].width, again[item.name].gone) == (item.width, item.gone) for item in report.groups)
    for group in inner:
        assert listed[group.name]["width"]["after"] == 0
        assert f"gone with {group.gone}" in report._repr_html_()


def unbiased_scaled(net, x):
    """A block of ConvNeXt without biases: a layer scale, and a layout of its own, behind its last product."""
    y = net("Transpose", x, perm=[0, 2, 3, 1])
    y = net.linear(net.relu(net.linear(y, 8, 12, bias=False)), 12, 8, bias=False)
    return net("Add", x, net("Transpose", net("Mul", y, net.weight(8)), perm=[0, 3, 1, 2]))


@pytest.mark.parametrize(
    ("block", "formulation"),
    [(unbiased, Asymmetric()), (unbiased_scaled, Sequential()), (unbiased_scaled, Layerwise())],
)
def test_a_branch_leaves_the_mean_of_what_it_added_though_nothing_has_a_bias(block, formulation):
    net, x = begun(seed=3)
    y = net.add("Flatten", net.gap(net.relu(block(net, block(net, x)))))[0]
    net.output(net.linear(y, 8, 3, bias=False), 2)
    model = net.model()
    given = np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32) + 1.0
    settings = {"budget": Macs(0.4), "round_to": 8, "min_width": 0, "exclude": "conv_2"}
    settings |= {"gates": Gates(accept_any=True), "formulation": formulation}
    report = prune(model, given, **settings).report
    gone = [group for group in report.groups if group.gone is None and group.width[1] == 0]
    assert gone
    assert report.deviation < 1e-5
    assert next(iter(report.fidelity.outputs.values())).relative_error < 0.12
    known = [group.curve for group in report.groups if group.curve[0][0] == 0]
    assert all(curve[1][0] < 1.0 for curve in known)  # without the mean it is many times what the output varies by


def two_ends(net, x):
    """Two branches end with what reads the same channels."""
    y = net.relu(net.conv(x, 8, 3))
    return net("Add", net("Add", x, net.conv(y, 8, 3)), net.conv(y, 8))


def weight_twice(net, x):
    """Two blocks with the same weights."""
    first, last = net.weight(8, 8, 3, 3), net.weight(8, 8, 3, 3)
    for _ in range(2):
        x = net("Add", x, net.conv(net.relu(net.conv(x, 8, 3, w=first)), 8, 3, w=last))
    return x


@pytest.mark.parametrize("block", [two_ends, weight_twice])
def test_all_ends_that_read_nothing_are_refitted(block):
    """The first finds out that nothing is read, the others are told."""
    net, x = begun(seed=4)
    given = np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32)
    settings = {"budget": Macs(0.2), "round_to": 8, "exclude": "conv_2", "gates": Gates(accept_any=True)}
    found = prune(finished(net, block(net, x)), given, **settings)
    assert [group.width for group in found.report.groups if group.width[1] == 0]
    assert found.report.deviation < 1e-5


def test_refits_are_better_than_none(few):
    errors = []
    for refit in (Refit(), None):
        found = prune(
            RESNET,
            few,
            budget=Macs(0.3),
            round_to=16,
            refit=refit,
            gates=Gates(accept_any=True),
            resources=Resources(trials=0),
        )
        errors.append(next(iter(found.report.fidelity.outputs.values())).relative_error)
    assert errors[0] < 0.7 * errors[1]


def test_channels_that_nobody_reads_without_a_branch_are_as_few_as_planned():
    net = Net()
    stem = net.conv(net.input(["n", 3, 8, 8]), 8, 3)
    net.output(stem, 4)
    stream = net.conv(stem, 12, 1)  # what follows leads to no output
    net("Add", stream, net.conv(net.relu(net.conv(stream, 8, 3)), 12, 3))
    data = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
    options = {"refit": False, "gates": Gates(accept_any=True), "round_to": 4}
    found = prune(net.model(), data, budget=Macs(0.15), **options)
    assert found.report.macs.ratio <= 0.15
    assert {group.width[1] for group in found.report.groups} == {8, 0}
