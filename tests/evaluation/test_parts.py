"""Outputs that hold numbers of different kinds: each kind counts."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune import Macs, prune
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.parts import apart, parts_of
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observing import observe
from onnx_subprune.pruning.sensitivity import sensitivity

BOXES, SCORES, PLACES = 4, 3, 16


def detector(*, last: bool = False):
    """Boxes in pixels from one branch, scores below one from the other, joined as detectors join them; last: features on the last axis."""
    random = np.random.default_rng(0)
    initializers, nodes = [], []

    def conv(name, source, out, channels):
        weight = random.normal(size=(out, channels, 1, 1)).astype(np.float32)
        initializers.append(numpy_helper.from_array(weight / channels**0.5, f"{name}.w"))
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [name], name=name))

    initializers.append(numpy_helper.from_array(np.array(100.0, np.float32), "pixels"))
    initializers.append(numpy_helper.from_array(np.array([0, -1, PLACES], np.int64), "rows"))
    for kind, width in (("box", BOXES), ("score", SCORES)):
        conv(f"{kind}1", "x", 16, 3)
        nodes.append(helper.make_node("Relu", [f"{kind}1"], [f"{kind}2"]))
        conv(f"{kind}3", f"{kind}2", width, 16)
        nodes.append(helper.make_node("Reshape", [f"{kind}3", "rows"], [f"{kind}4"]))
    nodes.append(helper.make_node("Mul", ["box4", "pixels"], ["boxes"]))
    nodes.append(helper.make_node("Sigmoid", ["score4"], ["scores"]))
    shape = ["n", PLACES, BOXES + SCORES] if last else ["n", BOXES + SCORES, PLACES]
    nodes.append(helper.make_node("Concat", ["boxes", "scores"], ["joined"], axis=1))
    nodes.append(helper.make_node("Transpose", ["joined"], ["y"], perm=[0, 2, 1] if last else [0, 1, 2]))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(64, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(("last", "axis"), [(False, 1), (True, 2)])
def test_parts_are_what_a_concat_joins_where_their_scales_differ(last, axis, images):
    network = Network(detector(last=last))
    places = parts_of(network, observe(network), network.outputs)
    assert places == {"y": {axis: (BOXES,)}}
    values = np.random.default_rng(0).normal(size=(2, BOXES + SCORES, PLACES))
    values[:, :BOXES] *= 100.0
    values = np.moveaxis(values, 1, axis)
    found = apart(places, [{"y": values}]).of({"y": values})
    assert [value.shape[axis] for value in found.values()] == [BOXES, SCORES]
    assert np.array_equal(np.concatenate([*found.values()], axis), values)
    alike = values / np.abs(values)
    assert [*apart(places, [{"y": alike}]).of({"y": alike})] == ["y"]


def test_what_scores_lose_is_felt_and_said_beside_boxes(images):
    """In one sum of squares the scores are a ten-thousandth: their layer would be cut to the bone, and the error printed as nothing."""
    model = detector()
    found = {item.name: item.output.errors for item in sensitivity(model, images)}
    assert min(max(errors) for errors in found.values()) > 1e-2
    report = prune(model, images, budget=Macs(0.6), round_to=1, gates=Gates(accept_any=True)).report
    assert report.fidelity is not None
    outputs = report.fidelity.outputs
    assert set(outputs) == {"y", "y[:, 0:4]", "y[:, 4:7]"}
    assert outputs["y"].relative_error == pytest.approx(outputs["y[:, 0:4]"].relative_error, rel=0.01)
    widths = [group.width[1] for group in report.groups]
    assert min(widths) >= 4


def test_an_axis_that_is_shorter_on_other_data_is_not_cut():
    values = np.concatenate([np.ones((2, 4)), np.full((2, 2), 1e3)], axis=1)[:, :, None]
    assert apart({"y": {1: (4,)}}, [{"y": values}]).cuts
    assert not apart({"y": {1: (4,)}}, [{"y": values[:, :3]}]).cuts
    assert not apart({"y": {1: (4,)}}, [{"y": values}, {"y": values[:, :3]}]).cuts
