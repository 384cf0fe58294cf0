"""Machines and the widths that their kernels like."""

import numpy as np
import pytest

from onnx_subprune import Channels, Macs, OptionError, Params, prune
from onnx_subprune.allocation import Uniform
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.targets import TARGETS, multiple_of, this_machine
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.faster import fastest
from onnx_subprune.pruning.budgets.rounding import PLAIN, Rounding, rounding_of
from onnx_subprune.runtime.blocks import convolution_block
from tests.networks.net import Net

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32)


def mixed():
    """A convolution of 64 channels, a depthwise one, a grouped one of two groups, and dense layers of 48 and 12 units."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 12, 12]), 64, 3, name="wide"))
    x = net.relu(net.conv(x, 64, 3, group=64))
    x = net.relu(net.conv(x, 64, 1, name="halved"))
    x = net.relu(net.conv(x, 40, 3, group=2, name="grouped"))
    x = net("Flatten", net.gap(x))
    x = net.relu(net.dense(x, 40, 48, name="hidden"))
    net.output(net.dense(net.relu(net.dense(x, 48, 12, name="narrow")), 12, 5), 2)
    return net.model()


def narrow():
    """A convolution of 24 channels."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 12, 12]), 24, 3, name="narrow"))
    net.output(net.conv(x, 4))
    return net.model()


@pytest.fixture(scope="module")
def traced():
    return trace(Network(mixed()))


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_widths_are_multiples_of_what_the_target_computes_at_once_or_halves_of_it(target, traced):
    block = {"wide": target.convolution, "halved": target.convolution, "hidden": target.matrix, "narrow": target.matrix}
    for room in Rounding(target=target).rooms(traced):
        for width in room.choices[:-1]:
            wanted = block.get(room.name)
            if wanted is not None:
                assert width % wanted == 0 or wanted % width == 0


def test_equally_many_channels_of_each_group_of_a_convolution_stay(traced):
    for room in Rounding(target=TARGETS["cpu-avx512"]).rooms(traced):
        step = traced.group(room.name).step
        assert all(width % step == 0 for width in room.choices)
        assert len(room.choices) > 1


def test_whole_heads_go_and_parts_of_a_head_in_blocks():
    net = Net()
    x = net.input(["n", 6, 48])
    parts = [net.reshape(net.linear(x, 48, 48), 0, 6, 3, 16) for _ in range(3)]
    q, k, v = (net("Transpose", part, perm=[0, 2, 1, 3]) for part in parts)
    scores = net("Softmax", net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    y = net.reshape(net("Transpose", net("MatMul", scores, v), perm=[0, 2, 1, 3]), 0, 6, 48)
    net.output(net.linear(y, 48, 48), 3)
    graph = trace(Network(net.model()))
    assert graph.groups
    for group in graph.groups:
        multiple = multiple_of(graph, group, TARGETS["cpu-avx2"])
        owned = group.slices[0].positions.shape[1]
        assert multiple == group.step if owned >= 8 else multiple // group.step * owned % 8 == 0


def test_this_machine_computes_as_many_channels_at_once_as_onnxruntime_pads_to():
    assert this_machine().convolution == convolution_block()
    assert convolution_block() in (8, 16)


def test_any_width_will_do_for_size_alone_and_for_a_budget_of_parameters():
    assert rounding_of("auto", None, size=True) == rounding_of("auto", "none", size=False) == PLAIN
    assert rounding_of("auto", "qnn", size=True).target == TARGETS["qnn"]
    assert rounding_of(8, None, size=False) == Rounding(multiple=8)
    found = prune(mixed(), IMAGES, budget=Params(0.7), refit=None, allocator=Uniform())
    assert any(group.width[1] % 4 for group in found.report.groups)
    assert found.report.settings["round_to"] == "1"


@pytest.mark.parametrize(("round_to", "target"), [(8, "qnn"), (0, None), ("auto", "abacus")])
def test_a_target_that_is_unknown_or_contradicts_a_multiple_is_refused(round_to, target):
    with pytest.raises(OptionError):
        prune(mixed(), IMAGES, round_to=round_to, target=target)


def test_a_fraction_of_the_channels_is_rounded_up():
    found = prune(mixed(), IMAGES, budget=Channels(0.4), refit=None, target="cpu-avx512").report.groups
    assert all(after >= 0.4 * before for before, after in (group.width for group in found))
    assert {group.width for group in found if group.name == "wide"} == {(64, 32)}


@pytest.mark.parametrize("fraction", [0.9, 0.7])
def test_a_fraction_that_coarse_multiples_would_round_up_to_everything_takes_finer_ones(fraction):
    rounding = Rounding(target=TARGETS["tensorrt-int8"])
    graph = trace(Network(narrow()))
    kind, widths = rounding.shared(graph, rounding.rooms(graph), fraction)
    assert widths["narrow"] in range(int(24 * fraction), 24)
    assert kind.block < rounding.block
    assert rounding.shared(graph, rounding.rooms(graph), 0.5) == (rounding, {"narrow": 16})


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.02])
def test_small_budgets_are_reached_by_finer_multiples(fraction):
    found = prune(
        mixed(), IMAGES, budget=Macs(fraction), refit=None, allocator=Uniform(), target="tensorrt-int8"
    ).report
    assert found.macs.ratio <= fraction


def ratios(*found):
    """A stopwatch that returns these, one after the other."""
    left = list(found)
    return lambda widths, seconds: left.pop(0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((0.9,), 16),
        ((1.1, 0.99), 16),
        ((1.1, 1.2, 0.8, 0.9), 8),
        ((1.1, 1.2, 1.19, 0.7), 1),
        ((1.1, 1.2, 1.3, 1.4), 16),
    ],
)
def test_widths_that_are_no_faster_give_way_to_finer_ones_that_are(found, expected):
    rounding = Rounding(target=TARGETS["cpu-avx512"])
    assert fastest(ratios(*found), rounding, {"g": 16}, lambda kind: {"g": kind.block}) == {"g": expected}


def test_a_multiple_that_the_user_names_is_kept():
    assert fastest(ratios(), Rounding(multiple=4), {"g": 4}, lambda kind: {"g": 1}) == {"g": 4}


def test_wide_groups_may_have_halves_of_a_block_too(traced):
    room = next(room for room in Rounding(target=TARGETS["cpu-avx512"]).rooms(traced) if room.name == "wide")
    assert room.choices == (1, 2, 4, 8, 16, 32, 48, 64)
