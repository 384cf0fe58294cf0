"""The walk goes on what is left of the model after the first choices, and comes to what it would have come to on the whole."""

import numpy as np
import pytest

from onnx_subprune import Channels, Resources, prune
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.reconstruction import reconstruct as reconstruction
from onnx_subprune.reconstruction.compaction import presliced
from onnx_subprune.runtime.session import Session
from tests.conftest import MODELS
from tests.networks.check import feeds_of, supports_of
from tests.networks.patterns import PATTERNS

GENERATOR = np.random.default_rng(0)


def cut(model):
    network = load(model)
    graph = trace(network)
    supports = dict([*supports_of(graph, 0, share=0.5).items()][::2])
    return network, graph, supports, presliced(network, graph, supports)


def drawn(pattern):
    return pattern.model(pattern.opsets[-1])


@pytest.fixture(scope="module")
def fashion():
    return cut(MODELS / "resnet_fashion.onnx")


def test_there_is_nothing_to_slice_without_choices(fashion):
    network, graph, _, found = fashion
    assert found is not None
    assert presliced(network, graph, {}) is None


def test_most_models_are_sliced():
    seen = [cut(drawn(pattern)) for pattern in PATTERNS]
    sliced = [found is not None for _, _, supports, found in seen if supports]
    assert sum(sliced) > 0.8 * len(sliced)


OTHER_NODES = ("group-normalization-decomposed", "reshape-of-dynamic-extent", "squeeze-excite-with-computed-reshapes")
"""Patterns that lose nodes when they are cut, because what these computed is a constant then."""


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.name in OTHER_NODES], ids=lambda pattern: pattern.name)
def test_the_original_keeps_step_where_its_nodes_are_others(pattern):
    network, graph, _, found = cut(drawn(pattern))
    assert len(found.network.nodes) != len(network.nodes)
    for contraction in graph.contractions:
        here = found.original.place(found.network.position[contraction.node])
        held = {name for node in network.nodes[:here] for name in node.output}
        assert here <= network.position[contraction.node]
        assert contraction.input.tensor in {*held, *(value.name for value in network.inputs)}
    assert found.original.place(len(found.network.nodes)) == len(network.nodes)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_constants_that_are_put_back_are_the_originals_with_zeros_for_what_was_dropped(pattern):
    network, graph, supports, found = cut(drawn(pattern))
    if found is None:
        return
    again = trace(found.network)
    for before, after in zip(graph.contractions, again.contractions, strict=True):
        left = found.network.array(after.weight_tensor)
        whole = found.whole(before.weight, left)
        original = network.array(before.weight_tensor)
        assert whole.shape == original.shape
        assert whole.dtype == original.dtype
        assert np.array_equal(whole[whole != 0], original[whole != 0])
        assert np.count_nonzero(whole) == np.count_nonzero(left)
    uses = {
        item.weight: found.whole(item.weight, found.network.array(item.weight_tensor)) for item in again.contractions
    }
    model = apply(network, graph, Plan(supports=supports, weights=uses))
    feeds = feeds_of(network, 2, 0)
    ours, theirs = (Session(item, optimize=False).run(feeds) for item in (model, found.network.given))
    for output, value in theirs.items():
        np.testing.assert_array_equal(ours[output], value)


def test_a_new_bias_is_put_back_where_its_channels_were(fashion):
    network, graph, supports, found = fashion
    for contraction in graph.contractions:
        empty = Use(contraction.node, 2)
        group = next((g for g in graph.groups if g.name in supports and contraction.node in g.producers), None)
        if group is None or len(network.node(contraction.node).input) > 2:
            continue
        value = GENERATOR.standard_normal(len(supports[group.name]))
        whole = found.whole(empty, value)
        assert whole.shape == (group.width,)
        np.testing.assert_array_equal(whole[list(supports[group.name])], value)
        return
    pytest.fail("no contraction without a bias lost outputs")


def test_the_walk_comes_to_the_same(images, monkeypatch):
    pruned = [prune(MODELS / "resnet_fashion.onnx", images, budget=Channels(0.5), resources=Resources(samples=128))]
    calls = []
    monkeypatch.setattr(reconstruction, "presliced", lambda *arguments: calls.append(arguments))
    pruned.append(prune(MODELS / "resnet_fashion.onnx", images, budget=Channels(0.5), resources=Resources(samples=128)))
    assert calls
    one, other = ({group.name: group for group in item.report.groups} for item in pruned)
    assert list(one) == list(other)
    same = [len(set(one[name].kept) & set(other[name].kept)) / len(one[name].kept) for name in one]
    assert np.mean(same) > 0.9
    errors = [next(iter(item.report.fidelity.outputs.values())).relative_error for item in pruned]
    assert errors[0] == pytest.approx(errors[1], rel=0.1)
