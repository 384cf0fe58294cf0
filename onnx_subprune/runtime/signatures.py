"""What tells the rows of tensors apart: two sums for each place on the first axis, computed where the tensors are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_subprune._typing import Array, Float64
from onnx_subprune.runtime.observing import with_outputs
from onnx_subprune.runtime.session import Session

SUMS = ("ReduceL1", "ReduceSumSquare")
"""Rows of a normalization have the same sum of squares, those of a softmax the same sum: one of the two differs."""


class Signatures:
    """Runs `model`, optimizations off, and sums up the tensors `names`, of one axis or more, row by row."""

    def __init__(self, model: ModelProto, names: Sequence[str], folder: Path | None = None) -> None:
        self._names = names
        opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=13)
        made = [node for name in names for node in _summed(name, opset)]
        outputs = [_sum(name, op) for name in names for op in SUMS]
        self._session = Session(with_outputs(model, outputs, made), optimize=False, folder=folder)
        self._outputs = outputs

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Float64]:
        """Return the sums of each row of each tensor, (rows, 2), in a run on `feeds`."""
        found = self._session.run(feeds, self._outputs)
        return {
            name: np.stack([found[_sum(name, op)].astype(np.float64) for op in SUMS], axis=1) for name in self._names
        }


def _sum(name: str, op: str) -> str:
    return f"{op} of {name}, by rows"


def _summed(name: str, opset: int) -> list[NodeProto]:
    flat, wide = f"{name}, flat", f"{name}, wide"
    nodes = [
        helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT),
        helper.make_node("Flatten", [wide], [flat], axis=1),
    ]
    if opset < 18:
        return [*nodes, *(helper.make_node(op, [flat], [_sum(name, op)], axes=[1], keepdims=0) for op in SUMS)]
    axes = f"{name}, axes"
    nodes.append(helper.make_node("Constant", [], [axes], value=helper.make_tensor(axes, TensorProto.INT64, [1], [1])))
    return [*nodes, *(helper.make_node(op, [flat, axes], [_sum(name, op)], keepdims=0) for op in SUMS)]
