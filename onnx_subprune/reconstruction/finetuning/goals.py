"""What is asked of the outputs of a model that is fine-tuned."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.graph.gradients.tape import NoGradientError
from onnx_subprune.graph.operators import attribute
from onnx_subprune.reconstruction.finetuning.teacher import Goal, Teacher
from onnx_subprune.runtime.session import Session

HEAT = 4.0
"""Temperature of the classes where an output is a softmax."""
UNBOUNDED = frozenset(("Add", "Gemm", "MatMul"))
"""Operators that put out logits."""
PROBES = 4
"""Batches that tell whether an output has one shape."""


def goals_of(model: ModelProto, shapes: Mapping[str, Array]) -> list[Goal]:
    """Return what is asked of each output of floating-point numbers; shapes: what the original puts out, where that has one shape."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for name in (value.name for value in model.graph.output):
        value = shapes.get(name)
        if value is None or value.dtype.kind != "f" or not value.size:
            continue
        maker = makers.get(name)
        classes = maker is not None and _over_last_axis(maker, value.ndim, model)
        found.append(Goal(name, maker.input[0], HEAT) if classes and maker is not None else Goal(name, name))
    if not found:
        raise NoGradientError("no output holds floating-point numbers, in one shape for all inputs")
    return found


def classified(model: ModelProto, shapes: Mapping[str, Array], labels: Sequence[Int64]) -> Goal | None:
    """Return the goal of classes in the first output, before its softmax; None where that is no vector of logits, or has other classes than the labels."""
    name = model.graph.output[0].name
    value, maker = shapes.get(name), next((node for node in model.graph.node if name in node.output), None)
    if (
        value is None
        or maker is None
        or value.ndim != 2
        or any(np.any((part < 0) | (part >= value.shape[1])) for part in labels)
    ):
        return None
    if _over_last_axis(maker, 2, model):
        return Goal(name, maker.input[0], 1.0, labels=True)
    return Goal(name, name, 1.0, labels=True) if maker.op_type in UNBOUNDED else None


def steady_outputs(session: Session, data: Calibration, batch: int) -> dict[str, Array]:
    """Return what a batch makes, without outputs that have other shapes for other batches, as boxes that a model finds."""
    teacher, each = Teacher(session, data, (), (), batch), np.arange(batch, dtype=np.int64)
    runs = [session.run(teacher.feeds((each + data.samples * part // PROBES) % data.samples)) for part in range(PROBES)]
    return {name: value for name, value in runs[0].items() if all(run[name].shape == value.shape for run in runs)}


def _over_last_axis(node: NodeProto, rank: int, model: ModelProto) -> bool:
    """True for a softmax over the last axis."""
    late = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1) >= 13
    axis = attribute(node, "axis", -1 if late else 1)
    return node.op_type == "Softmax" and isinstance(axis, int) and axis in (-1, rank - 1)
