"""Models whose outputs are integers, truth values, strings or no tensors at all: widths follow from the scores that these are made from."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_subprune.allocation import Channels, Macs
from onnx_subprune.evaluation.gates import Gates, missed
from onnx_subprune.evaluation.metric import Accuracy
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.sensitivity import sensitivity
from onnx_subprune.runtime.session import Session
from tests.networks.net import BOOL, FLOAT, INT64, Net

X = np.random.default_rng(0).standard_normal((32, 3, 6, 6)).astype(np.float32)
CHEAP = Resources(threads=1, trials=0)


def network(*ends, early=False):
    """Two convolutions, of whose channels half are dead, and then class ids, or whether a score is high."""
    net = Net(seed=2)
    x = net.input(["n", 3, 6, 6])
    first = net.relu(net.conv(x, 16, 3, w=net.weight(16, 3, 3, 3, name="w"), b=net.weight(16, name="b")))
    for name in ("w", "b"):
        net.weights[name][::2] = 0
    if early:
        net.output(net("ArgMax", net.conv(first, 4), axis=1), kind=INT64)
    scores = net.conv(net.relu(net.conv(first, 8, 3)), 4)
    for end in ends:
        made = net("ArgMax", scores, axis=1) if end == INT64 else net("Greater", scores, net.constant(np.float32(0.1)))
        net.output(made, kind=end)
    return net.model()


@pytest.mark.parametrize("ends", [(INT64,), (BOOL,), (INT64, BOOL)], ids=str)
def test_a_model_without_floating_point_outputs_is_pruned(ends):
    model = network(*ends)
    small = prune(model, X, budget=Macs(0.6), round_to=1, resources=CHEAP).model
    wanted, have = (Session(item, threads=1).run({"x": X}) for item in (model, small))
    assert min(np.mean(wanted[name] == have[name]) for name in wanted) > 0.9


def test_its_sensitivities_are_those_of_the_scores():
    scores = network(INT64)
    del scores.graph.output[:]
    scores.graph.output.add(name=scores.graph.node[-1].input[0]).type.tensor_type.elem_type = FLOAT
    del scores.graph.node[-1]
    found = [sensitivity(item, X, resources=CHEAP) for item in (network(INT64), scores)]
    for one, other in zip(*found, strict=True):
        assert one.output.errors == pytest.approx(other.output.errors, rel=1e-3, abs=1e-12)
        assert max(one.output.errors) > 0.0


def test_scores_that_come_early_are_held():
    model = network(INT64, early=True)
    assert len(trace(model).observation.judged) == 2
    assert all(max(item.output.errors) > 0.0 for item in sensitivity(model, X, resources=CHEAP))


def test_classes_are_held_against_labels():
    net = Net(seed=2)
    x = net.conv(net.input(["n", 3, 6, 6]), 16, 3)
    scores = net.dense(net("Flatten", net.gap(net.relu(x))), 16, 5)
    net.output(net("ArgMax", scores, axis=1, keepdims=0), kind=INT64)
    model = net.model()
    labels = next(iter(Session(model, threads=1).run({"x": X}).values()))
    labels[:8] = (labels[:8] + 1) % 5
    report = prune(model, X, budget=Macs(0.9), round_to=1, metric=Accuracy(labels), resources=CHEAP).report
    assert report.metric.before == 0.75


def _strings(net, scores):
    net.domains["ai.onnx.ml"] = 2
    keys = {"keys_int64s": [0, 1, 2, 3], "values_strings": list("abcd")}
    classes = net("ArgMax", scores, axis=1, keepdims=0)
    net.output(net("LabelEncoder", classes, domain="ai.onnx.ml", **keys), kind=onnx.TensorProto.STRING)


def _maps(net, scores):
    """As scikit-learn's classifiers are exported."""
    net.domains["ai.onnx.ml"] = 1
    made = net("ZipMap", net("Softmax", scores, axis=1), domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    kind = onnx.TypeProto()
    kind.sequence_type.elem_type.map_type.key_type = INT64
    kind.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = FLOAT
    net.outputs.append(helper.make_value_info(made, kind))


def _sequence(net, scores, axis=0):
    made = net("SplitToSequence", scores, axis=axis)
    net.outputs.append(helper.make_tensor_sequence_value_info(made, FLOAT, None))


def _optional(net, scores):
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    net.outputs.append(helper.make_value_info(net("Optional", scores), kind))


@pytest.mark.parametrize("end", [_strings, _maps, _sequence, lambda *made: _sequence(*made, axis=1), _optional])
def test_outputs_that_are_no_arrays_of_numbers_are_compared_too(end):
    net = Net(18, seed=2)
    end(net, net.dense(net.relu(net.dense(net("Flatten", net.input(["n", 3, 6, 6])), 108, 16)), 16, 4))
    report = prune(net.model(), X, budget=Channels(0.75), round_to=1, resources=CHEAP).report
    (found,) = report.fidelity.outputs.values()
    assert (found.agreement if found.relative_error is None else 1.0 - found.relative_error) > 0.5
    told = missed(report.fidelity, Gates(max_error=1e-6))
    assert told is not None
    assert ("bounds nothing" if found.relative_error is None else "relative error") in told
