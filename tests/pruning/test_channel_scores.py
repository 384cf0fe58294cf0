"""Gating channels in a real model equals removing, or scaling, them; the selectors work from end to end."""

import numpy as np
import pytest

from onnx_subprune import Channels, LayerGreedyFS, Macs, Resources, Shapley, Taylor, prune, sensitivity
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.evaluation.divergence import divergence
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.channel_scores import Gates, first_reader, probed
from onnx_subprune.reconstruction.settings import Layerwise
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.spill import Store
from tests.conftest import sample_models
from tests.graph.test_whole_prune import PRUNED
from tests.networks.check import feeds_of


def task_of(path, images, selector):
    return task_on(load(path), Calibration(arrays={"input": images}, chunk=16), selector)


def task_on(network, data, selector):
    return Task(
        network=network,
        graph=trace(network),
        data=data,
        widths={},
        formulation=Layerwise(),
        selector=selector,
        refit=None,
        running=Running(),
        memory=1 << 30,
        watch=lambda stage, done, total: None,
        clock=lambda: 0.0,
    )


@pytest.mark.parametrize("path", sample_models(), ids=lambda path: path.stem)
def test_a_gate_of_zero_costs_what_removing_the_channel_costs(path, few):
    task = task_of(path, few[:32], Taylor())
    network, original = task.network, Session(path)
    reference = [original.run({"input": few[:32]})]
    with Store(1 << 30) as store:
        for group in task.graph.groups:
            stream = Stream(network, task.data, store, Running())
            chunks = list(stream.read(network.outputs))
            stream.advance(first_reader(task, group))
            probe = Gates(task, group, stream, network.outputs, chunks)
            gone = list(range(0, group.width, 3))
            gates = np.ones((2, group.width))
            gates[0, gone] = 0.0
            kept = np.setdiff1d(np.arange(group.width), gone).tolist()
            small = Session(apply(network, task.graph, Plan(supports={group.name: kept})))
            expected = divergence(reference, [small.run({"input": few[:32]})])
            assert probe(gates) == pytest.approx([expected, 0.0], rel=1e-3, abs=1e-9), group.name


@pytest.mark.parametrize("pattern", PRUNED)
def test_a_gate_of_zero_costs_what_removing_costs_in_every_pattern(pattern):
    network = load(pattern.model(pattern.opsets[-1]))
    feeds = feeds_of(network, 4, 0)
    task = task_on(network, Calibration(arrays=feeds, chunk=4), Taylor())
    with Store(1 << 30) as store:
        for group in task.graph.groups:
            if group.product is not None:
                continue  # what a product of activations sums over is chosen by its strength, without a probe
            stream = Stream(network, task.data, store, Running())
            reference = list(stream.read(network.outputs))
            stream.advance(first_reader(task, group))
            probe = Gates(task, group, stream, network.outputs, reference)
            kept = np.concatenate([np.flatnonzero(group.cells == cell)[1:] for cell in range(group.step)])
            if not kept.size:
                continue
            gates = np.ones((2, group.width))
            gates[0] = np.isin(np.arange(group.width), kept)
            small = apply(network, task.graph, Plan(supports={group.name: sorted(kept.tolist())}))
            expected = divergence(reference, [Session(small).run(feeds, list(network.outputs))])
            assert probe(gates) == pytest.approx([expected, 0.0], rel=5e-3, abs=1e-6), group.name


def test_channels_that_are_zero_for_every_input_get_no_score(few):
    """The model's second group reads ReLU outputs: a bias far below zero silences a channel for good."""
    path = sample_models()[1]
    network = load(path)
    group = next(group for group in trace(network).groups if group.width == 100)
    proto = network.proto
    silent = type(proto)()
    silent.CopyFrom(proto)
    for tensor in silent.graph.initializer:
        if list(tensor.dims) == [100]:
            values = np.frombuffer(tensor.raw_data, np.float32).copy()
            values[7] = -1e6
            tensor.raw_data = values.tobytes()
    for selector in (Taylor(samples=32), Shapley(samples=32, permutations=2)):
        scores = probed(task_of(silent, few, selector), selector, {group.name: 50})[group.name]
        assert scores[7] == pytest.approx(0.0, abs=1e-9)
        assert np.argmin(np.abs(scores)) == 7 or np.sum(np.abs(scores) <= 1e-9) > 1


@pytest.mark.parametrize("selector", [Taylor(samples=16), LayerGreedyFS(samples=16), Shapley(samples=16)], ids=str)
@pytest.mark.parametrize("budget", [Channels(0.25), Macs(0.6)], ids=str)
def test_every_probing_selector_prunes_within_its_budget(selector, budget, few):
    path = sample_models()[0]
    result = prune(path, few, budget=budget, selector=selector)
    assert result.report.macs.ratio <= 0.6
    assert result.report.fidelity.outputs["logits"].relative_error < 1.0


def test_probing_with_multiples_asks_for_widths_that_were_ranked(few):
    result = prune(sample_models()[0], few, budget=Channels(0.3), selector=LayerGreedyFS(samples=16), round_to=4)
    assert all(len(group.kept) % 4 == 0 or len(group.kept) == group.width[0] for group in result.report.groups)


def test_the_sensitivity_of_a_group_can_be_asked_of_a_probing_selector(few):
    found = sensitivity(sample_models()[0], few, selector=Taylor(samples=16), resources=Resources(samples=32))
    assert all(np.isfinite(item.output.errors).all() for item in found)
