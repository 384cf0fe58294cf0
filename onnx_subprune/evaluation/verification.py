"""Is the smaller model the model that the plan describes? Nothing leaves this package that fails here.

The law: slicing a group equals zeroing its dropped channels in the weights that contract over it. It is checked with onnxruntime's
optimizations off, because at the default level some Convs run whose channels disagree with their weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.errors import ModelError, VerificationError
from onnx_subprune.graph.channels import ChannelGraph, Contraction, Use
from onnx_subprune.graph.network import LARGE, Network, model_bytes
from onnx_subprune.graph.surgery.masking import zero_rows
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.spill import Store
from onnx_subprune.runtime.weights import LIMIT

TOLERANCE = 1e-4
"""Largest deviation of sliced from masked, relative to the largest output: rounding of float32 over many layers."""


def masked(network: Network, graph: ChannelGraph, plan: Plan) -> ModelProto:
    """Return the model of `plan` with dropped channels zeroed in the weights that read them, and nothing cut."""
    dropped = _dropped(graph, plan)
    weights = {
        use: _masked_weight(network, plan, use, dropped.get(use, ()))
        for use in {**dict.fromkeys(plan.weights), **dropped}
    }
    return apply(network, graph, Plan(weights=weights))


Rows = tuple[Contraction, Int64]
"""Rows of a contraction's weight that read dropped channels."""


def _dropped(graph: ChannelGraph, plan: Plan) -> dict[Use, list[Rows]]:
    found: dict[Use, list[Rows]] = {}
    for group in graph.groups:
        if group.name in plan.supports:
            gone = np.setdiff1d(np.arange(group.width), np.asarray(plan.supports[group.name], np.int64))
            for consumer in group.consumers:
                rows = consumer.positions[gone].ravel()
                found.setdefault(consumer.contraction.weight, []).append((consumer.contraction, rows))
    return found


def _masked_weight(network: Network, plan: Plan, use: Use, dropped: Sequence[Rows]) -> Array:
    value = plan.weights.get(use)
    if not dropped:
        assert value is not None, "nothing is new there"
        return value
    masked = np.array(network.array(dropped[0][0].weight_tensor) if value is None else value)
    for contraction, rows in dropped:
        zero_rows(masked, contraction, rows)
    return masked


def _masked_outputs(
    network: Network, graph: ChannelGraph, plan: Plan, feeds: Mapping[str, Array]
) -> Mapping[str, Array]:
    return Session(masked(network, graph, plan), optimize=False, folder=network.folder).run(feeds)


def _masked_in_steps(
    network: Network, graph: ChannelGraph, plan: Plan, feeds: Mapping[str, Array]
) -> Mapping[str, Array]:
    """The same from one changed node to the next, with no more weights in memory than one step has."""
    dropped = _dropped(graph, plan)
    uses: dict[int, list[Use]] = {}
    for use in {**dict.fromkeys(plan.weights), **dict.fromkeys(dropped)}:
        uses.setdefault(network.position[use.node], []).append(use)
    whole = Calibration(arrays={name: array[None] for name, array in feeds.items()}, chunk=1, runs=True)
    stream = Stream(network, whole, Store(LARGE), Running())
    for position in sorted(uses):
        stream.advance(position)
        for use in uses[position]:
            stream.override(use, _masked_weight(network, plan, use, dropped.get(use, ())))
    return next(iter(stream.read([name for name in network.outputs if name not in network.constants])))


def law(
    network: Network, graph: ChannelGraph, supports: Mapping[str, Sequence[int]], feeds: Mapping[str, Array]
) -> float:
    """Return how far slicing is from masking on `feeds`, relative to the largest output; original weights."""
    plan = Plan(supports=supports)
    return deviation(network, graph, plan, apply(network, graph, plan), feeds)


def deviation(
    network: Network,
    graph: ChannelGraph,
    plan: Plan,
    sliced: ModelProto,
    feeds: Mapping[str, Array],
    folder: Path | None = None,
) -> float:
    """Return how far `sliced` is from the masked model of `plan` on `feeds`, relative to the largest output."""
    ours = Session(sliced, optimize=False, folder=folder or network.folder).run(feeds)
    large = model_bytes(network.proto) > LARGE
    theirs = _masked_in_steps(network, graph, plan, feeds) if large else _masked_outputs(network, graph, plan, feeds)
    worst = 0.0
    for name, reference in theirs.items():
        if ours[name].shape != reference.shape:
            return float("inf")
        if reference.dtype.kind == "f" and reference.size:
            difference = float(np.max(np.abs(ours[name].astype(np.float64) - reference.astype(np.float64))))
            worst = max(worst, difference / max(float(np.max(np.abs(reference.astype(np.float64)))), 1e-30))
            if not np.isfinite(difference):
                return float("inf")
    return worst


def verify(
    network: Network,
    graph: ChannelGraph,
    plan: Plan,
    sliced: ModelProto,
    feeds: Mapping[str, Array],
    folder: Path | None = None,
) -> float:
    """Check `sliced` and return its deviation from the plan; VerificationError if anything is wrong.

    folder: where its side files lie, by default those of `network`.
    """
    if valid(network.proto) is None and (complaint := valid(sliced)) is not None:
        raise VerificationError(f"the pruned model is not valid: {complaint}; please report this model")
    try:
        found = deviation(network, graph, plan, sliced, feeds, folder)
    except ModelError as error:
        raise VerificationError(f"the pruned model does not run: {error}; please report this model") from error
    limit = TOLERANCE if all(array.dtype != np.float16 for array in feeds.values()) else 0.05
    if not found <= limit:
        raise VerificationError(
            f"the pruned model deviates from its plan by {found:.2g} of the largest output: nothing was written; please report this model"
        )
    return found


def valid(model: ModelProto) -> str | None:
    """Return what onnx's checker, with shape inference, has against `model`; None if nothing."""
    if model.ByteSize() > LIMIT or any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        return None  # the checker reads whole models only; onnxruntime has loaded this one
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())[:300]
    return None
