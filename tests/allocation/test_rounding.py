"""Widths in multiples: what groups may have, which work they are for, and what is said where they are too coarse."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from onnx_subprune import Macs, Resources, prune
from onnx_subprune.allocation import BlockAware, Curve, Factor, MarginalCost, Multilinear, Room, Term, Uniform, smallest
from onnx_subprune.allocation.blocks import SAVED
from onnx_subprune.errors import BudgetError
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.targets import TARGETS
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.ladder import Ladder, filled_up
from onnx_subprune.pruning.budgets.rounding import Rounding
from tests.networks.net import Net

ANY = Gates(accept_any=True)
"""What this is about is not how good the result is."""


@pytest.mark.parametrize(
    ("room", "choices"),
    [
        (Room("wide", 64, 16), (16, 32, 48, 64)),
        (Room("a little wider", 24, 16), (16, 24)),
        (Room("as wide", 16, 16), (1, 2, 4, 8, 16)),
        (Room("narrower", 10, 16), (1, 2, 4, 8, 10)),
        (Room("odd", 12, 12), (3, 6, 12)),
        (Room("grouped", 48, 48, 1, 12), (12, 24, 48)),
        (Room("with a floor", 16, 16, 4), (4, 8, 16)),
        (Room("with a floor above", 16, 16, 16), (16,)),
        (Room("wide with a floor", 64, 16, 17), (32, 48, 64)),
        (Room("any", 4), (1, 2, 3, 4)),
    ],
    ids=lambda value: value.name if isinstance(value, Room) else "",
)
def test_narrow_groups_have_the_halves_of_the_multiple_and_others_only_multiples(room, choices):
    assert room.choices == choices


def chain(*widths):
    """Layers that cost the product of their neighbours' widths."""
    names = [f"g{i}" for i in range(len(widths))]
    sizes = [Factor(3, {}), *(Factor(0, {name: 1}) for name in names), Factor(10, {})]
    terms = tuple(Term(1.0, pair) for pair in itertools.pairwise(sizes))
    return Multilinear(terms, dict(zip(names, widths, strict=True)))


def test_where_only_rounding_is_in_the_way_the_error_names_a_multiple_that_works():
    cost = chain(24, 24, 24)
    coarse = [Room(name, 24, 16) for name in cost.full]
    with pytest.raises(BudgetError, match="--round-to") as raised:
        smallest(coarse, cost, 0.3 * cost({}))
    found = re.search(r"with --round-to (\d+) it is (0\.\d+)", str(raised.value))
    finer = [room.rounded(int(found[1])) for room in (Room(name, 24) for name in cost.full)]
    least = cost(smallest(finer, cost, 0.3 * cost({}))) / cost({})
    assert least == pytest.approx(float(found[2]), abs=1e-4)
    with pytest.raises(BudgetError, match="allow more"):
        smallest(coarse, cost, 1e-4 * cost({}))


def padded_residual(widths=(16, 32, 64), depth=3):
    """As the CIFAR networks: a stream that grows by channels of zeros, behind blocks of its own width."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 16, 16]), widths[0], 3))
    for stage, width in enumerate(widths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = net.conv(net.relu(net.conv(x, width, 3, stride=stride)), width, 3)
            if stride == 2:
                more = (width - widths[stage - 1]) // 2
                x = net(
                    "Slice", x, *(net.constant([v, v]) for v in (0, 99)), net.constant([2, 3]), net.constant([2, 2])
                )
                x = net("Pad", x, net.constant([0, more, 0, 0, 0, more, 0, 0]))
            x = net.relu(net("Add", y, x))
            net.width[x] = width
    net.output(net.dense(net("Flatten", net.gap(x)), widths[-1], 10), 2)
    return net.model()


@pytest.fixture(scope="module")
def residual():
    model = padded_residual()
    network = Network(model)
    graph = trace(network)
    rooms = Rounding(multiple=16).rooms(graph)
    curves = {
        room.name: Curve(room.choices[:-1], tuple(float(np.exp(-6 * k / room.width)) for k in room.choices[:-1]))
        for room in rooms
    }
    return model, costs(network, graph, block=16), rooms, curves


def test_a_network_of_16_32_and_64_channels_reaches_half_its_macs_in_multiples_of_16(residual):
    model, _, _, _ = residual
    images = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    report = prune(model, images, budget=Macs(0.5), round_to=16, resources=Resources(trials=0)).report
    assert 0.2 < report.macs.ratio <= 0.5
    for before, after in (group.width for group in report.groups):
        assert after % 16 == 0 or (before == 16 and after in (1, 2, 4, 8))


def test_an_axis_of_several_groups_works_in_whole_blocks_of_them_all(residual):
    _, cost, rooms, _ = residual
    stem, *others = (room.name for room in rooms if room.width == 16)
    extra = max(others, key=lambda name: len(cost.macs.neighbours(name)))

    def saved(widths, more):
        return cost.work(widths) - cost.work({**widths, **more})

    assert cost.macs({extra: 8}) < 0.95 * cost.macs({})
    assert saved({}, {extra: 8}) < 1e-3 * cost.work({})  # 24 of 32 channels are two blocks, as 32 are
    assert saved({stem: 8}, {extra: 8}) > 0.02 * cost.work({})  # 16 of 32 are one


def test_changes_of_the_work_are_differences_of_two_works(residual):
    _, cost, rooms, _ = residual
    generator = np.random.default_rng(0)
    for _ in range(5):
        widths = {room.name: int(generator.choice(room.choices)) for room in rooms}
        for room in rooms:
            expected = [cost.work({**widths, room.name: k}) - cost.work(widths) for k in room.choices]
            assert cost.work.changes(widths, room.name, np.array(room.choices)) == pytest.approx(np.array(expected))


def test_work_is_what_is_multiplied_where_blocks_are_single_channels(residual):
    model, _, rooms, _ = residual
    network = Network(model)
    cost = costs(network, trace(network))
    for widths in ({}, {room.name: room.choices[0] for room in rooms}):
        assert cost.work(widths) == cost.macs(widths)


@pytest.mark.parametrize("share", [0.4, 0.5, 0.7])
def test_blocks_cost_no_more_macs_and_less_work(residual, share):
    _, cost, rooms, curves = residual
    limit = share * cost.macs({})
    plain = MarginalCost().allocate(rooms, curves, cost.macs, limit)
    aware = BlockAware(MarginalCost(), cost.work).allocate(rooms, curves, cost.macs, limit)
    assert cost.macs(aware) <= limit
    assert cost.work(aware) <= cost.work(plain)
    assert cost.work(aware) <= (1 - SAVED * (1 - share)) * cost.work({})


def test_other_allocators_reach_the_budget_with_rounded_widths(residual):
    _, cost, rooms, _ = residual
    widths = Uniform().allocate(rooms, {}, cost.macs, 0.5 * cost.macs({}))
    assert cost.macs(widths) <= 0.5 * cost.macs({})
    assert all(widths[room.name] in room.choices for room in rooms)


def test_pruning_to_multiples_that_are_too_coarse_advises_a_finer_one(residual):
    model, _, _, _ = residual
    images = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    with pytest.raises(BudgetError, match=r"with --round-to (\d+) it is 0\.\d+") as raised:
        prune(model, images, budget=Macs(0.15), round_to=56, min_width=1, allocator=Uniform(), refit=None)
    finer = int(re.search(r"--round-to (\d+)", str(raised.value))[1])
    found = prune(model, images, budget=Macs(0.15), round_to=finer, allocator=Uniform(), refit=None, gates=ANY)
    assert found.report.macs.ratio <= 0.15


@pytest.mark.parametrize("share", [0.7, 0.85])
def test_a_narrow_group_takes_smaller_multiples_where_whole_blocks_leave_the_budget_unused(share):
    rooms = [Room("a", 64, 16, halves=True)]
    cost = Multilinear(terms=(Term(coefficient=1.0, factors=(Factor(offset=0, slopes={"a": 1}),)),), full={"a": 64})
    curves = {"a": Curve((0, 32), (1.0, 0.1))}
    ladder = Ladder(rooms=rooms, curves=curves, cost=cost, allocator=MarginalCost())
    finer = [[room.rounded(1) for room in [Room("a", 64, step, halves=True)]] for step in (8, 4)]
    assert ladder.widths(share)["a"] == {0.7: 32, 0.85: 48}[share]
    found = filled_up(ladder, share, finer).widths(share)["a"]
    assert found == {0.7: 44, 0.85: 52}[share]


def test_only_kernels_that_pad_take_smaller_multiples():
    assert [target.convolution for target in TARGETS["cpu-avx512"].finer()] == [8, 4]
    assert not TARGETS["tensorrt-int8"].finer()
    assert not TARGETS["none"].finer()


def test_where_the_work_cannot_be_reached_no_more_is_cut_for_it(residual):
    """A part that cannot get smaller: no width of the others brings the work to its limit."""
    _, cost, rooms, curves = residual
    stuck = replace(cost.work, terms=(*cost.work.terms, Term(coefficient=4.0 * cost.work({}), factors=())))
    limit = 0.5 * cost.macs({})
    assert cost.macs(BlockAware(MarginalCost(), stuck).allocate(rooms, curves, cost.macs, limit)) >= 0.8 * limit
