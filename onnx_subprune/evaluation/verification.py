"""Is the smaller model the model that the plan describes? Nothing leaves this package that fails here.

The law: slicing a group equals zeroing its dropped channels in the weights that contract over it. It is checked with onnxruntime's
optimizations off, because at the default level some Convs run whose channels disagree with their weights; on the outputs, each by its own scale, and on
what every layer that was cut reads and makes, the channels that stay. Sums of fewer terms are rounded otherwise; how far that may carry in the outputs of
a network that amplifies it (a steep threshold at its end) is seen from inputs that differ in their last digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import SubpruneError, VerificationError
from onnx_subprune.evaluation.checked import drawn_feeds, last_digit, spread_feeds
from onnx_subprune.evaluation.masked import masked, masked_in_steps
from onnx_subprune.graph.channels import Axis, ChannelGraph
from onnx_subprune.graph.formats import model_bytes
from onnx_subprune.graph.network import LARGE, Network
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.runtime.observing import observing
from onnx_subprune.runtime.session import Session
from onnx_subprune.runtime.weights import LIMIT

TOLERANCE, LAYERS = 1e-4, 1e-3
"""Largest deviation of sliced from masked, relative to the largest element of an output, and of a tensor in between, which may be what is left of larger
ones: rounding of float32 over many layers."""
AMPLIFIED, MOST = 8.0, 1e-2
"""A network that amplifies rounding may deviate so many times as much as the plan does on inputs that differ in their last digit, but never more than that."""
BOUNDED = frozenset(("HardSigmoid", "Sigmoid", "Softmax"))
"""Operators whose numbers lie between 0 and 1."""
SHUT = 1e-2
"""What the largest of such numbers counts for at least: kernels round them as parts of 1, so that where all are nearly 0 nothing is left but that."""
HALF_TOLERANCE = 0.05
"""The same where there are weights of 16 bits."""
HALF = frozenset((onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16))
TURN = 256 << 20
"""Bytes of tensors that are looked at in one run."""


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
    return deviations(network, graph, plan, sliced, feeds, folder).outputs


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far outputs, and what cut layers read and make, are from the plan, each relative to its own largest value.

    worst: the tensor in between that is farthest off. finite: True if the plan has finite outputs.
    """

    outputs: float
    layers: float
    worst: str
    finite: bool


def deviations(
    network: Network,
    graph: ChannelGraph,
    plan: Plan,
    sliced: ModelProto,
    feeds: Mapping[str, Array],
    folder: Path | None = None,
) -> Deviation:
    """Return how far `sliced` is from the masked model of `plan` on `feeds`. Raises ModelError where one does not run."""
    kept = kept_positions(graph, plan.supports)
    names = cut_tensors(network, graph, kept, sliced)
    made = {name for node in sliced.graph.node for name in node.output}
    fronts = [name for name in graph.observation.fronts if name in made]
    names = list(dict.fromkeys([*names, *fronts]))
    ours = observing(sliced, names, folder or network.folder)
    floats = {port.name for port in ours.outputs if port.dtype.kind == "f"}
    names = [name for name in names if name in floats]
    large = model_bytes(network.proto) > LARGE
    theirs = None if large else observing(masked(network, graph, plan), names, network.folder)
    worst, finite = {True: (0.0, ""), False: (0.0, "")}, True
    outputs = [*(name for name in network.outputs if name not in network.constants), *fronts]
    for turn in _turns(graph, list(dict.fromkeys([*outputs, *names])), feeds):
        inside = [name for name in turn if name in names]
        found = masked_in_steps(network, graph, plan, feeds, inside) if theirs is None else theirs.run(feeds, turn)
        mine = ours.run(feeds, turn)
        for name in turn:
            if name in graph.observation.ranked and len(fronts) == len(graph.observation.fronts):
                continue  # what its rows are chosen from is looked at in its place
            reference = _left(found[name], name, kept)
            distance = _distance(mine[name], reference, _least(network, name))
            finite = finite and (reference.dtype.kind != "f" or bool(np.isfinite(reference).all()))
            worst[name in outputs] = max(worst[name in outputs], (distance, name))
    return Deviation(worst[True][0], worst[False][0], worst[False][1], finite)


def rounding(network: Network, graph: ChannelGraph, plan: Plan, feeds: Mapping[str, Array], tensor: str = "") -> float:
    """Return how far the outputs of the masked model move, or one tensor, relative to the largest number, where its inputs change in their last digit."""
    if model_bytes(network.proto) > LARGE:
        return 0.0
    generator = np.random.default_rng(0)
    other = {name: last_digit(value, generator) for name, value in feeds.items()}
    left = [name for name in network.outputs if name not in {*network.constants, *graph.observation.ranked}]
    outputs = [tensor] if tensor else [*left, *graph.observation.fronts]
    session = observing(masked(network, graph, plan), outputs, network.folder)
    found, moved = session.run(feeds, outputs), session.run(other, outputs)
    return max((_distance(moved[name], found[name], _least(network, name)) for name in outputs), default=0.0)


def _least(network: Network, name: str) -> float:
    """What the largest number of a tensor counts for at least."""
    maker = network.producer.get(name)
    return SHUT if maker is not None and key_of(network.nodes[maker]) in BOUNDED else 1e-30


def cut_tensors(network: Network, graph: ChannelGraph, kept: Mapping[Axis, Int64], sliced: ModelProto) -> list[str]:
    """Return the tensors that a cut contraction reads or makes, as far as they are made in `sliced` too and are no outputs."""
    made = {name for node in sliced.graph.node for name in node.output}
    found: dict[str, None] = {}
    for contraction in graph.contractions:
        if contraction.rows in kept or contraction.columns in kept:
            found.update(dict.fromkeys((contraction.input.tensor, contraction.output.tensor)))
    return [name for name in found if name in made and name in network.producer and name not in network.outputs]


def _turns(graph: ChannelGraph, names: Sequence[str], feeds: Mapping[str, Array]) -> list[list[str]]:
    """The tensors in runs that hold at most `TURN` bytes, one at least."""
    samples = max((len(array) for array in feeds.values() if array.ndim), default=1)
    turns: list[list[str]] = [[]]
    left = TURN
    for name in names:
        shape = graph.observation.shapes.get(name, ())
        size = 4 * prod(shape) * max(1, samples // max(graph.observation.batch, 1))
        if size > left and turns[-1]:
            turns.append([])
            left = TURN
        turns[-1].append(name)
        left -= size
    return turns


def _left(value: Array, tensor: str, kept: Mapping[Axis, Int64]) -> Array:
    """What stays of a tensor of the masked model."""
    for axis in range(value.ndim):
        if (places := kept.get(Axis(tensor, axis))) is not None:
            value = np.take(value, places, axis=axis)
    return value


def _distance(value: Array, reference: Array, least: float = 1e-30) -> float:
    """The largest difference, relative to the largest element, or to `least`; infinite where the shapes differ, or it is not finite.

    Where the plan itself is not finite there is nothing to compare: whether it may be so is judged by its outputs.
    """
    if value.shape != reference.shape:
        return float("inf")
    if reference.dtype.kind != "f" or not reference.size:
        return 0.0
    ours, theirs = value.astype(np.float64), reference.astype(np.float64)
    if not (finite := np.isfinite(theirs)).all():
        ours, theirs = ours[finite], theirs[finite]
        if not theirs.size:
            return 0.0
    found = float(np.max(np.abs(ours - theirs))) / max(float(np.max(np.abs(theirs))), least)
    return found if np.isfinite(found) else float("inf")


def verify(
    network: Network,
    graph: ChannelGraph,
    plan: Plan,
    sliced: ModelProto,
    data: Calibration,
    folder: Path | None = None,
) -> float:
    """Check `sliced` and return the deviation of its outputs from the plan; VerificationError if anything is wrong.

    data: what to look at: some samples that are spread over it, and some that are drawn from it element by element.
    folder: where the side files of `sliced` lie, by default those of `network`.
    """
    if valid(network.given) is None and (complaint := valid(sliced)) is not None:
        raise VerificationError(f"the pruned model is not valid: {complaint}; please report this model")
    half = any(tensor.data_type in HALF for tensor in network.proto.graph.initializer)
    found = 0.0
    for feeds, drawn in (*((item, False) for item in spread_feeds(data)), (drawn_feeds(data), True)):
        try:
            seen = deviations(network, graph, plan, sliced, feeds, folder)
        except SubpruneError as error:
            if drawn and not _runs(network, feeds):
                continue
            raise VerificationError(f"the pruned model does not run: {error}; please report this model") from error
        if drawn and not seen.finite:
            continue
        found = max(found, seen.outputs)
        for what, distance, limit, tensor in (
            ("its outputs deviate", seen.outputs, TOLERANCE, ""),
            (f"{seen.worst!r} deviates", seen.layers, LAYERS, seen.worst),
        ):
            close = HALF_TOLERANCE if half else limit
            if not half and limit < distance <= MOST:  # some networks amplify rounding
                close = max(limit, min(MOST, AMPLIFIED * rounding(network, graph, plan, feeds, tensor)))
            if not distance <= close:
                raise VerificationError(
                    f"the pruned model is not what was planned ({what} by {distance:.2g} of the largest value): nothing was written; "
                    "please report this model"
                )
    return found


def _runs(network: Network, feeds: Mapping[str, Array]) -> bool:
    """True if the original runs on these inputs."""
    try:
        Session(network.proto, optimize=False, folder=network.folder).run(feeds)
    except SubpruneError:
        return False
    return True


def valid(model: ModelProto) -> str | None:
    """Return what onnx's checker, with shape inference, has against `model`; None if nothing."""
    if model.ByteSize() > LIMIT or any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
        return None  # the checker reads whole models only; onnxruntime has loaded this one
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split())[:300]
    return None
