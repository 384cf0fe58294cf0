"""Every pattern through the whole of `prune`: choose, refit, cut, verify. Where what goes is dead, nothing changes."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from onnx import ModelProto

from onnx_subprune import Asymmetric, Channels, Gates, Layerwise, Refined, Refit, Resources, Sequential, prune
from onnx_subprune.allocation import proportional
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.verification import verify
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import parameters
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.rounding import PLAIN
from onnx_subprune.pruning.resources import memory_of, running_of
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Formulation
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.progress import silent
from onnx_subprune.runtime.session import Session
from tests.conftest import sample_models
from tests.networks.check import feeds_of
from tests.networks.dead import apart, doomed, killed
from tests.networks.patterns import PATTERNS, Pattern

ONE_FLAG = "if-bodies-capture"
"""Has an input that is not one a sample, which calibration data cannot give: refused in one line."""
BY_INDEX = ("messages-along-edges", "rows-that-are-replaced")
"""Their inputs count rows and what points at them: calibration data are whole runs, as samples cannot be taken apart."""
PRUNED = [pytest.param(p, id=p.name) for p in PATTERNS if p.widths and p.name not in (ONE_FLAG, *BY_INDEX)]
ONE = Resources(threads=1)
SAMPLES = 12


@cache
def traced(pattern: Pattern) -> tuple[Network, ChannelGraph]:
    network = load(pattern.model(pattern.opsets[-1]))
    return network, trace(network)


def samples_of(feeds: Mapping[str, np.ndarray]) -> Calibration:
    return Calibration(arrays=feeds, chunk=SAMPLES // 4)


def walked(
    network: Network, graph: ChannelGraph, feeds: Mapping[str, np.ndarray], formulation: Formulation
) -> tuple[Plan, ModelProto]:
    """Half of the channels, without what `prune` does before and after."""
    task = Task(
        network=network,
        graph=graph,
        data=samples_of(feeds),
        widths=proportional(PLAIN.rooms(graph), 0.5),
        formulation=formulation,
        selector=Refined(),
        refit=Refit(),
        running=running_of(ONE, graph.observation),
        memory=memory_of(ONE),
        watch=silent,
        clock=lambda: 0.0,
    )
    done = reconstruct(task)
    plan = Plan(supports={name: choice.support for name, choice in done.choices.items()}, weights=done.weights)
    return plan, apply(network, graph, plan)


def centred(network: Network) -> bool:
    return any(item.centred for item in network.spelled.normalizations)


@pytest.mark.parametrize("pattern", PRUNED)
def test_a_pattern_goes_through_the_walk_with_refit(pattern: Pattern):
    network, graph = traced(pattern)
    feeds = feeds_of(network, SAMPLES, 0)
    plan, small = walked(network, graph, feeds, Asymmetric())
    assert verify(network, graph, plan, small, samples_of(feeds)) < 0.05
    assert parameters(Network(small)) < parameters(network)


@pytest.mark.filterwarnings("ignore:.*depends on the others beside it")
@pytest.mark.parametrize("pattern", PRUNED)
def test_a_pattern_of_which_half_is_dead_comes_out_as_it_was_whatever_the_formulation(pattern: Pattern):
    network, graph = traced(pattern)
    if any(graph.normalized(group) for group in graph.groups) and centred(network):
        pytest.skip("a mean over channels moves where some are zero: see test_statistics")
    feeds = feeds_of(network, SAMPLES, 0)
    model = killed(network, graph, doomed(graph), feeds)
    reference = Session(model, optimize=False).run(feeds)
    found = prune(model, feeds, budget=Channels(0.5), round_to=1, resources=ONE)
    half_dead = Network(model)
    same = trace(half_dead)
    made = [found.model, *(walked(half_dead, same, feeds, each)[1] for each in (Sequential(), Layerwise()))]
    assert found.report.params.after < found.report.params.before
    for small in made:
        assert apart(reference, Session(small, optimize=False).run(feeds)) < (
            1e-2 if pattern.dtype == np.float16 else 1e-5
        )


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.name in BY_INDEX], ids=lambda pattern: pattern.name)
def test_whole_runs_of_which_half_is_dead_come_out_as_they_were(pattern: Pattern):
    network, graph = traced(pattern)
    runs = [feeds_of(network, SAMPLES, seed) for seed in range(8)]
    for run in runs:  # what points at rows points at some that are there
        run.update({name: abs(value) % 4 for name, value in run.items() if value.dtype == np.int64})
    model = killed(network, graph, doomed(graph), runs[0])
    found = prune(model, iter(runs), budget=Channels(0.5), round_to=1, resources=ONE, gates=Gates(accept_any=True))
    assert found.report.params.after < found.report.params.before
    for run in runs:
        before, after = (Session(each, optimize=False).run(run) for each in (model, found.model))
        assert apart(before, after) < 1e-5


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("path", sample_models(), ids=lambda path: path.stem)
def test_a_sample_model_of_which_half_is_dead_comes_out_as_it_was(path, formulation, few):
    network, feeds = load(path), {"input": few}
    graph = trace(network)
    model = killed(network, graph, doomed(graph), feeds)
    found = prune(model, feeds, budget=Channels(0.5), round_to=1, formulation=formulation, resources=ONE)
    assert apart(*(Session(each, optimize=False).run(feeds) for each in (model, found.model))) < 1e-5
