"""A recurrent layer alone: what its states are wrong by over whole sequences, and the gradients of its weights."""

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnx_subprune.graph.gradients.reverse import gradients
from onnx_subprune.graph.gradients.tape import Seen, Tape

DATA, WEIGHT, RECURRENCE, BIAS, WANTED, COUNTS, LOST = "data", "w", "r", "b", "wanted", "counts", "lost"
"""What the model reads, and what it puts out first; `gradient_of` names the others."""
OPSET, IR_VERSION = 14, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Steps, samples, features, directions and units of a layer; gates: rows of its weights by direction."""

    steps: int
    samples: int
    features: int
    directions: int
    units: int
    gates: int


def gradient_of(name: str) -> str:
    """Return the output with the gradient of an input."""
    return f"gradient of {name}"


def losing(node: NodeProto, sizes: Sizes, *, bias: bool) -> bytes:
    """Return the model that runs a layer like `node`, whose states begin as zeros, and goes back through time.

    It reads DATA (T, N, I), WEIGHT (D, m, I), RECURRENCE (D, m, H), BIAS (D, 2 m) where there is one, WANTED (T, D, N, H) and COUNTS (T, D, N, H), what the
    square of each error counts; it puts out LOST, the sum of these, and its gradients. Raises NoGradientError where the formulas do not have what `node` does.
    """
    d, m, h, states = (
        sizes.directions,
        sizes.gates,
        sizes.units,
        (sizes.steps, sizes.directions, sizes.samples, sizes.units),
    )
    shapes = {
        DATA: (sizes.steps, sizes.samples, sizes.features),
        WEIGHT: (d, m, sizes.features),
        RECURRENCE: (d, m, h),
        BIAS: (d, 2 * m),
        WANTED: states,
        COUNTS: states,
    }
    learned = [WEIGHT, RECURRENCE, *([BIAS] if bias else [])]
    layer = NodeProto()
    layer.CopyFrom(node)
    del layer.input[:], layer.output[:]
    layer.input.extend([DATA, *learned])
    layer.output.append("states")
    kept = [item for item in node.attribute if item.name != "hidden_size"]
    del layer.attribute[:]
    layer.attribute.extend([*kept, helper.make_attribute("hidden_size", h)])
    known = {**shapes, "states": states}
    tape = Tape({name: Seen(shape, np.dtype(np.float32)) for name, shape in known.items()}, OPSET)
    apart = tape.op("Sub", "states", WANTED)
    counted = tape.op("Mul", apart, COUNTS)
    lost = tape.total(tape.op("Mul", counted, apart), [0, 1, 2, 3])
    found = gradients(tape, [layer], {"states": tape.op("Mul", counted, tape.number(2.0))}, learned)
    outputs = [(lost, LOST), *((found[name], gradient_of(name)) for name in learned)]
    named = [helper.make_node("Identity", [here], [name]) for here, name in outputs]
    graph = helper.make_graph(
        [layer, *tape.nodes, *named],
        "whole sequences",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
            for name in (DATA, *learned, WANTED, COUNTS)
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for _, name in outputs],
        tape.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    found_bytes: bytes = model.SerializeToString(deterministic=True)
    return found_bytes
