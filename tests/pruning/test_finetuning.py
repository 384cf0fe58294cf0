"""Fine-tuning as a stage of `prune`: which samples it has, and what it leaves as it is."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnx_subprune import ArgumentTypeError, FineTune, OptionError, Resources, prune
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.pruning.arguments import finetune_of
from onnx_subprune.pruning.samples import samples_of
from tests.networks.net import Net

QUICK = Resources(trials=0, threads=1)


def network(last: str = "Identity"):
    net = Net()
    x = net.relu(net.conv(net.input(["n", 2, 6, 6], "input"), 8, 3, name="conv1"))
    x = net.relu(net.conv(x, 8, 3, name="conv2"))
    net(last, net.dense(net("Flatten", net.gap(x)), 8, 4, name="classifier"))
    net.nodes[-1].output[0] = "logits"
    net.output("logits", 2)
    return net.model()


def data(samples: int = 96) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((samples, 2, 6, 6)).astype(np.float32)


def without_weights(model):
    found = type(model)()
    found.CopyFrom(model)
    del found.graph.initializer[:]
    return found, [(tensor.name, tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer]


def test_only_weights_change_and_the_report_says_what_it_cost():
    result = prune(network(), data(256), budget=0.25, finetune=FineTune(steps=100), resources=QUICK)
    found = result.report.finetuning
    assert found is not None
    assert found.kept
    assert found.loss[1] < found.loss[0]
    plain = prune(network(), data(), finetune=None, resources=Resources(trials=0, threads=1, samples=72))
    assert plain.report.finetuning is None
    assert "finetuning" in result.report.to_dict()
    assert f"{found.loss[0]:.3g} to {found.loss[1]:.3g}" in str(result)
    assert result.report.seconds["fine-tuning"] > 0
    assert result.report.fidelity is not None
    assert result.report.fidelity.held_out
    assert result.report.data["samples"] == found.samples[0]
    assert result.report.data["samples"] + found.samples[1] + result.report.data["held_out"] == 256
    again = prune(network(), data(256), budget=0.25, finetune=FineTune(steps=100), resources=QUICK)
    assert again.model.SerializeToString() == result.model.SerializeToString()


def test_what_has_no_gradient_is_a_warning_and_the_model_stays():
    found, plain = (prune(network("Celu"), data(), finetune=steps, resources=QUICK, budget=0.6) for steps in (20, None))
    assert found.report.finetuning is None
    assert any("not fine-tuned" in line and "(Celu) has no gradient here" in line for line in found.report.warnings)
    assert without_weights(found.model)[0].graph.node == without_weights(plain.model)[0].graph.node
    assert all(np.isfinite(numpy_helper.to_array(item)).all() for item in found.model.graph.initializer)


def test_gradients_that_are_no_numbers_are_a_warning():
    """The root of what Relu has made zero: no step would be taken."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 2, 6, 6], "input"), 8, 3))
    net.head(net.conv(net("Sqrt", x), 8, 3), 4)
    found = prune(net.model(), data(), finetune=40, resources=QUICK, budget=0.6).report
    assert found.finetuning is None
    assert any("not fine-tuned: the gradients are no finite numbers" in line for line in found.warnings)


@pytest.mark.parametrize("rest", [0, 40])
@pytest.mark.parametrize("chooses", [False, True])
def test_no_sample_is_for_two_things(rest, chooses):
    every = np.arange(200, dtype=np.float32)[:, None]
    given = Calibration(arrays={"x": every[: 200 - rest]}, chunk=8)
    left = Calibration(arrays={"x": every[200 - rest :]}, chunk=8) if rest else None
    found = samples_of(
        given, left, None, lambda part: part, lambda a, b: np.zeros(0, np.int64), chooses=chooses, tunes=True
    )
    assert found.tuning is not None
    used, tuning = (set(part.all_of("x").ravel().tolist()) for part in (found.used, found.tuning))
    judged = set(found.judged.data.all_of("x").ravel().tolist())
    assert not used & tuning
    assert not judged & (used | tuning)
    assert found.places is not None
    for item, places in zip((found.used, found.tuning), found.places, strict=True):
        assert places.tolist() == item.all_of("x").ravel().tolist()
    assert found.held_out
    for item in (found.judged, found.chosen):
        assert item.places.tolist() == item.data.all_of("x").ravel().tolist()


@pytest.mark.parametrize("also", ["sum", "constant"])
def test_outputs_that_are_not_of_samples_are_kept_to_as_well(also):
    """A number of the whole batch, and a constant with another number of rows."""
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 2), np.float32), "held"))
    whole = also == "sum"
    node = (
        helper.make_node("ReduceSum", ["logits"], ["also"], keepdims=0)
        if whole
        else helper.make_node("Identity", ["held"], ["also"])
    )
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("also", 1, [] if whole else [3, 2]))
    found = prune(model, data(), budget=0.5, finetune=FineTune(steps=20), resources=QUICK).report
    assert found.finetuning is not None
    assert found.finetuning.steps == 20
    assert found.finetuning.loss[1] <= found.finetuning.loss[0]


@pytest.mark.parametrize("alone", [False, True])
def test_outputs_whose_size_depends_on_what_is_found_do_not_stop_anything(alone):
    """As many numbers as there are scores above zero: another model finds others."""
    model = network()
    nodes = [
        helper.make_node("Relu", ["logits"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["places"]),
        helper.make_node("GatherND", ["logits", "places"], ["found"]),
    ]
    model.graph.node.extend(nodes)
    if alone:
        del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("found", 1, ["m"]))
    report = prune(model, data(), budget=0.5, finetune=FineTune(steps=5), resources=QUICK).report
    assert not any("another shape than the original's" in line for line in report.warnings)
    assert any("'found' are chosen" in line for line in report.notes)
    assert "logits" in report.fidelity.outputs
    assert all(item.relative_error is not None for item in report.fidelity.outputs.values())
    assert (report.finetuning is None) == alone
    assert any("one shape for all inputs" in line for line in report.warnings) == alone


def test_too_few_samples_to_choose_by_are_a_warning():
    result = prune(network(), data(7), finetune=5, resources=QUICK, budget=0.6)
    assert any("too few samples" in line for line in result.report.warnings)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2000", FineTune(steps=2000)),
        (300, FineTune(steps=300)),
        ("90s", FineTune(seconds=90.0)),
        ("1.5 min", FineTune(seconds=90.0)),
        ("1h", FineTune(seconds=3600.0)),
        (True, FineTune()),
        (None, None),
        (False, None),
    ],
)
def test_steps_and_times_are_read(given, meant):
    assert finetune_of(given) == meant


@pytest.mark.parametrize("wrong", ["", "0", "0s", "1.5", "-3", "5x", "fast"])
def test_anything_else_is_refused_in_one_line(wrong):
    with pytest.raises(OptionError, match="--finetune"):
        finetune_of(wrong)


def test_another_type_is_refused():
    with pytest.raises(ArgumentTypeError, match="finetune"):
        prune(network(), data(), finetune=[1])
