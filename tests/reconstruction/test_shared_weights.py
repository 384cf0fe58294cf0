"""A weight that several nodes read keeps one value: one support, one refit, nothing that grows."""

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, Params, Resources, prune
from onnx_subprune.calibration.survey import LOCAL
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction.settings import Asymmetric, Layerwise, Sequential
from onnx_subprune.runtime.session import Session
from tests.networks.net import INT64, Net
from tests.networks.sharing import BUILDERS, STEPS, network, read_in_a_body, samples

COUNT = 32
FAST = Resources(threads=1, trials=0)


def outputs(model, feeds):
    return Session(model).run(feeds)


def far(model, pruned, feeds):
    """How far outputs are apart, relative to the original's."""
    ours, theirs = outputs(model, feeds), outputs(pruned, feeds)
    return max(float(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(ours[name])) for name in ours)


def numbers(model):
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)


FORMULATIONS = (Asymmetric(), Sequential(), Layerwise())
CASES = [(name, item) for name in BUILDERS for item in FORMULATIONS[: 1 if name == "recurrent" else 3]]
"""Twenty uses take longest: once is enough."""


@pytest.mark.parametrize(("name", "formulation"), CASES)
def test_without_its_dead_channels_a_network_is_the_same_and_no_weight_is_copied(name, formulation):
    model = network(BUILDERS[name])
    result = prune(model, samples(model, COUNT), budget=Channels(0.5), round_to=1, formulation=formulation)
    assert far(model, result.model, samples(model, 8, seed=1)) < 1e-5
    matrices = [sum(len(t.dims) > 1 for t in proto.graph.initializer) for proto in (model, result.model)]
    assert matrices[0] == matrices[1]
    assert result.report.params.after == numbers(result.model)


@pytest.mark.parametrize("name", ["repeated", "recurrent"])
def test_fewer_channels_than_live_are_refitted_for_all_uses_together(name):
    """With half the channels that live, and much less error on other samples than the plain slice has."""
    model = network(BUILDERS[name])
    data, others = samples(model, 2 * COUNT), samples(model, 64, seed=1)
    fitted, sliced = (prune(model, data, budget=Channels(0.25), round_to=1, **more) for more in ({}, {"refit": None}))
    assert far(model, fitted.model, others) < 0.6 * far(model, sliced.model, others)


@pytest.mark.parametrize("fraction", [0.4, 0.7, 0.9])
@pytest.mark.parametrize("name", ["siamese_convolutions", "repeated", "autoencoder_by_transpose", "read_in_parts"])
def test_a_budget_of_parameters_is_one_of_the_file(name, fraction):
    model = network(BUILDERS[name])
    result = prune(model, samples(model, COUNT), budget=Params(fraction), round_to=1)
    assert numbers(result.model) <= fraction * numbers(model)
    assert (result.report.params.before, result.report.params.after) == (numbers(model), numbers(result.model))


@pytest.mark.parametrize("name", ["siamese", "siamese_convolutions"])
def test_a_siamese_network_stays_one(name):
    model = network(BUILDERS[name])
    result = prune(model, samples(model, COUNT), budget=Channels(0.25), round_to=1)
    feeds = samples(model, 4, seed=3)
    same = dict.fromkeys(feeds, feeds["p"])
    assert all(np.abs(value).max() == 0.0 for value in outputs(result.model, same).values())


class Counting:
    """An executor that counts how often the models are asked, and how often they run on."""

    def __init__(self):
        self.asked = self.moved = 0

    def begin(self, *args, **kwargs):
        run, outer = LOCAL.begin(*args, **kwargs), self
        collect, advance = run.collect, run.advance

        def counted(ask):
            outer.asked += 1
            return collect(ask)

        def moved(*args):
            outer.moved += 1
            return advance(*args)

        run.collect, run.advance = counted, moved
        return run


def test_a_weight_of_an_unrolled_recurrence_is_refitted_once():
    """Three looks at most at the inputs and residuals of twenty steps, and not twenty refits, each with several looks."""
    model, executor = network(BUILDERS["recurrent"]), Counting()
    result = prune(model, samples(model, COUNT), budget=Channels(0.375), round_to=1, executor=executor)
    assert sum(len(group.consumers) for group in result.report.groups) == STEPS
    assert executor.asked <= STEPS + 8 * STEPS
    assert executor.moved <= 3 * STEPS


def test_a_weight_that_a_body_reads_too_stays_as_it_is_and_so_do_its_channels():
    model = read_in_a_body()
    graph = trace(model)
    assert not graph.groups
    assert any("'shared'" in item.reason and "the body of" in item.reason for item in graph.pinned)


def test_equal_biases_that_were_merged_are_told_apart_where_their_layers_are():
    net = Net()
    b = net.weight(16)
    x = net.relu(net("Gemm", net.input(("N", 6)), net.weight(16, 6), b, transB=1))
    x = net.relu(net("Gemm", x, net.weight(16, 16), b, transB=1))
    net.output(net("Gemm", x, net.weight(4, 16), transB=1), 2)
    model = net.model()
    assert len(trace(model).groups) == 2
    result = prune(model, samples(model, COUNT), budget=Params(0.6), round_to=1)
    assert numbers(result.model) <= 0.6 * numbers(model)


def test_a_filter_that_is_the_same_for_every_channel_ties_nothing():
    """Two blurs of equal widths, merged by an exporter."""
    net = Net()
    blur = net.constant(np.full((8, 1, 3, 3), 1 / 9, np.float32))
    x = net.relu(net.conv(net.input(("N", 3, 8, 8)), 8, 3))
    x = net("Conv", x, blur, group=8, kernel_shape=[3, 3])
    x = net.relu(net.conv(x, 8, 1))
    net.head(net("Conv", x, blur, group=8, kernel_shape=[3, 3]))
    assert [group.width for group in trace(net.model()).groups] == [8, 8]


def test_a_constant_turned_by_a_transpose_is_cut_where_it_lies():
    model = network(BUILDERS["autoencoder_by_transpose"])
    result = prune(model, samples(model, COUNT), budget=Channels(0.5), round_to=1)
    assert [tuple(t.dims) for t in result.model.graph.initializer] == [(8, 6)]
    assert [node.op_type for node in load(result.model).nodes].count("Transpose") == 1


@pytest.mark.parametrize("turned", [True, False], ids=["MatMul", "Gemm"])
def test_a_table_that_is_the_head_too_is_written_once_where_its_channels_stay(turned):
    net = Net(seed=4)
    table = net.weight(40, 12)
    stream = net("Gather", table, net.input(["n", 5], kind=INT64))
    made = net.linear(net.relu(net.linear(stream, 12, 32)), 32, 12)
    whole = net("ReduceMean", net("Add", made, stream), axes=[1], keepdims=0)
    head = net("MatMul", whole, net("Transpose", table, perm=[1, 0])) if turned else net("Gemm", whole, table, transB=1)
    net.output(head, 2)
    model, ids = net.model(), np.random.default_rng(0).integers(0, 40, (48, 5))
    narrow = [group.name for group in trace(load(model)).groups if group.width == 12]
    found = prune(model, ids, budget=Params(0.8), exclude=narrow, round_to=1, resources=FAST)
    assert found.report.params.after == numbers(found.model) <= 0.8 * numbers(model)
