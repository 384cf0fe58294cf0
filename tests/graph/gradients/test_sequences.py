"""A recurrent layer alone, over whole sequences: its loss against the definition, and its gradients against differences."""

import numpy as np
import pytest
from onnx import helper

from onnx_subprune.graph.contractions.recurrent import GATES
from onnx_subprune.graph.gradients.sequences import (
    BIAS,
    COUNTS,
    DATA,
    LOST,
    RECURRENCE,
    WANTED,
    WEIGHT,
    Sizes,
    gradient_of,
    losing,
)
from onnx_subprune.graph.gradients.tape import NoGradientError
from onnx_subprune.runtime.session import Session

CASES = [
    ("LSTM", {"direction": "bidirectional"}, True),
    ("LSTM", {}, False),
    ("GRU", {"linear_before_reset": 1, "direction": "reverse"}, True),
    ("GRU", {}, True),
    ("RNN", {"direction": "bidirectional"}, True),
]
SIZES = {"steps": 4, "samples": 3, "features": 2, "units": 3}


def node_of(op, attributes, biased, units=7):
    inputs = ["x", "W", "R", *(["B"] if biased else [])]
    return helper.make_node(op, inputs, ["y", "last"], hidden_size=units, **attributes)


@pytest.mark.parametrize(("op", "attributes", "biased"), CASES)
def test_the_loss_is_that_of_the_operator_and_gradients_are_its_slopes(op, attributes, biased):
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    sizes = Sizes(**SIZES, directions=directions, gates=GATES[op] * 3)
    session = Session(losing(node_of(op, attributes, biased), sizes, bias=biased))
    rng = np.random.default_rng(0)
    shapes = {port.name: tuple(port.shape) for port in session.inputs}
    assert shapes[WANTED] == shapes[COUNTS] == (4, directions, 3, 3)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    feeds[COUNTS] = np.abs(feeds[COUNTS])
    found = session.run(feeds)

    layer = node_of(op, attributes, biased, units=3)
    names = [DATA, WEIGHT, RECURRENCE, *([BIAS] if biased else [])]
    layer.input[:] = names
    graph = helper.make_graph(
        [layer],
        "layer",
        [helper.make_tensor_value_info(name, 1, shapes[name]) for name in names],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    plain = Session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8))

    def lost(changed):
        (states,) = plain.run({name: changed[name] for name in names}, ["y"]).values()
        return float(np.sum(feeds[COUNTS] * (states.astype(np.float64) - feeds[WANTED]) ** 2))

    assert float(found[LOST]) == pytest.approx(lost(feeds), rel=1e-5)
    for name in names[1:]:
        way = rng.standard_normal(shapes[name]).astype(np.float32)
        ends = [lost({**feeds, name: feeds[name] + np.float32(sign * 1e-2) * way}) for sign in (1, -1)]
        slope = float(np.sum(found[gradient_of(name)] * way.astype(np.float64)))
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(slope, rel=5e-3, abs=5e-3)


def test_a_layer_without_formulas_is_refused():
    with pytest.raises(NoGradientError):
        losing(node_of("GRU", {"clip": 1.0}, True), Sizes(**SIZES, directions=1, gates=9), bias=True)
