"""Normalisations over channels spelled out when a model is loaded: see `normalization`.

What an operator does (LayerNormalization, RMSNormalization and the like) becomes elementary ones. Where the file has these already, the reductions alone
change. Left as they are: other axes than the last of an operator, a scale that is computed or not there, numbers of 16 bits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onnx_subprune.graph.decomposed import Found, Reduction, normalizations_in
from onnx_subprune.graph.flattened import Flattened, flattened_in, write_flattened
from onnx_subprune.graph.normalization import Closed, Mean, Normalization, Place
from onnx_subprune.graph.stored import Stored
from onnx_subprune.graph.writer import Writer

MS = "com.microsoft"
CENTRED = {("", "LayerNormalization"), (MS, "SkipLayerNormalization")}
PLAIN = {
    ("", "RMSNormalization"),
    ("", "SimplifiedLayerNormalization"),
    (MS, "SimplifiedLayerNormalization"),
    (MS, "SkipSimplifiedLayerNormalization"),
}
MAKING = frozenset(("MatMul", "Gemm", "FusedMatMul"))
"""Operators that the bias of a SkipLayerNormalization belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spelled:
    """A model with normalisations spelled out. added: constants that the file does not have."""

    proto: ModelProto
    normalizations: tuple[Normalization, ...] = ()
    closed: tuple[Closed, ...] = ()
    added: frozenset[str] = frozenset()

    @property
    def weighed(self) -> frozenset[str]:
        """What is summed up to a mean over channels."""
        return frozenset(mean.weighed for item in self.normalizations for mean in item.means)


def spelled(proto: ModelProto) -> Spelled:
    """Return `proto`, which is not changed, with its normalisations over channels spelled out; itself where there are none."""
    constants = Stored(proto)
    fused = [node for node in proto.graph.node if _operator(node) and _fits(node, constants)]
    found, flat = normalizations_in(proto, constants), flattened_in(proto.graph.node, constants)
    if not fused and not found and not flat:
        return Spelled(proto=proto)
    writer = _Writer(opset=_opset(proto), constants=constants)
    writer.write(proto.graph.node, {node.output[0] for node in fused}, found, flat)
    return Spelled(
        proto=_with_nodes(proto, writer),
        normalizations=tuple(writer.normalizations),
        closed=tuple(writer.closed),
        added=frozenset(writer.added),
    )


def _with_nodes(proto: ModelProto, writer: "_Writer") -> ModelProto:
    found = ModelProto()
    found.CopyFrom(proto)
    del found.graph.node[:]
    found.graph.node.extend(writer.nodes)
    found.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in writer.added.items())
    if found.ir_version < 4:  # every initializer had to be an input then
        found.graph.input.extend(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in writer.added.items()
        )
    return found


def _opset(proto: ModelProto) -> int:
    return max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=1)


def _operator(node: NodeProto) -> tuple[str, str] | None:
    key = ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
    return key if key in CENTRED | PLAIN else None


def _skips(node: NodeProto) -> bool:
    return node.op_type.startswith("Skip")


def _slots(node: NodeProto) -> tuple[int, ...]:
    """Slots of scale, shift and bias."""
    if node.op_type == "SkipLayerNormalization":
        return (2, 3, 4)
    return (2, -1, 3) if _skips(node) else (1, 2 if node.op_type == "LayerNormalization" else -1, -1)


def _named(node: NodeProto, slot: int) -> str:
    return node.input[slot] if 0 <= slot < len(node.input) else ""


def _fits(node: NodeProto, constants: Stored) -> bool:
    """True if the last axis is normalised, with a scale for each channel, and nothing but the result and the sum comes out."""
    scale, *others = (_named(node, slot) for slot in _slots(node))
    given = [constants.vector(name) for name in (scale, *others) if name]
    axis = next((item.i for item in node.attribute if item.name == "axis"), -1)
    more = [name for which, name in enumerate(node.output) if name and which and not (_skips(node) and which == 3)]
    known = bool(scale) and None not in given and len(set(given)) == 1 and not constants.half
    return known and axis in (-1, constants.rank(node.input[0]) - 1) and not more and bool(node.output[0])


@dataclass(slots=True, eq=False)
class _Writer(Writer):
    """Writes the nodes of a model anew."""

    constants: Stored

    def write(
        self, nodes: Iterable[NodeProto], fused: set[str], found: Sequence[Found], flat: Sequence[Flattened]
    ) -> None:
        """Write all nodes; `fused` are operators, by what they make, `found` what is decomposed, `flat` what is over positions, too."""
        reductions = {item.node.output[0]: item for one in found for item in one.reductions}
        means: dict[str, Mean] = {}
        over_all = {node.output[0]: (item, place) for item in flat for place, node in enumerate(item.nodes)}
        for node in nodes:
            name = node.output[0] if node.output else ""
            if name and name in fused:
                self._operator(node)
            elif name in over_all:
                write_flattened(self, *over_all[name])
            elif name and name in reductions:
                means[name] = self._reduction(reductions[name])
            else:
                self.nodes.append(node)
        for one in found:
            self.normalizations.append(
                Normalization(
                    source=one.source,
                    means=tuple(means[item.node.output[0]] for item in one.reductions),
                    centred=one.centred,
                    variance=one.variance,
                    shifted=one.epsilon[0],
                    epsilon=one.epsilon,
                    scale=one.scale,
                )
            )

    def _reduction(self, item: Reduction) -> Mean:
        """A reduction of the file, of weighed channels."""
        made = item.node.output[0]
        weight = self.constant(f"{made}/weight", item.weight)
        weighed = self.add("Mul", [item.node.input[0], weight], f"{made}/weighed")
        self.sum(weighed, item.axis, made, item.node.name, keep=item.keep)
        mean = Mean(weighed=weighed, weight=weight, number=item.number, inverse=item.inverse)
        self.closed.append(Closed(node=item.node, spelled=(weighed, made), means=(mean,)))
        return mean

    def _operator(self, node: NodeProto) -> None:
        first, y = len(self.nodes), node.output[0]
        size, dtype = self.constants.vector(_named(node, _slots(node)[0])) or (0, np.dtype(np.float32))
        weights = np.full(size, 1 / size, dtype)
        source, slots = self._source(node)
        means, centred, from_ = list[Mean](), source, _operator(node) in CENTRED

        def mean(of: str, name: str) -> str:
            weight = self.constant(f"{y}/{name}/weight", weights)
            weighed = self.add("Mul", [of, weight], f"{y}/{name}/weighed")
            means.append(Mean(weighed=weighed, weight=weight))
            self.sum(weighed, -1, f"{y}/{name}")
            return f"{y}/{name}"

        if from_:
            centred = self.add("Sub", [source, mean(source, "mean")], f"{y}/centred")
        variance = mean(self.add("Mul", [centred, centred], f"{y}/square"), "variance")
        default = 1e-12 if _skips(node) else 1e-5
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), default)
        small = self.constant(f"{y}/epsilon", np.array(epsilon, dtype))
        shifted = self.add("Add", [variance, small], f"{y}/shifted")
        normal = self.add("Div", [centred, self.add("Sqrt", [shifted], f"{y}/root")], f"{y}/normal")
        scale, shift, _ = _slots(node)
        beta = _named(node, shift)
        scaled = self.add("Mul", [normal, node.input[scale]], f"{y}/scaled" if beta else y, "" if beta else node.name)
        slots += [(scale, (scaled, 1))]
        if beta:
            slots += [(shift, (self.add("Add", [scaled, beta], y, node.name), 1))]
        made = tuple(item.output[0] for item in self.nodes[first:])
        self.closed.append(
            Closed(node=node, spelled=made, means=tuple(means), slots=tuple(slots), epsilon=(shifted, 1))
        )
        self.normalizations.append(
            Normalization(
                source=source,
                means=tuple(means),
                centred=from_,
                variance=variance,
                shifted=shifted,
                epsilon=(shifted, 1),
                scale=(scaled, 1),
            )
        )

    def _source(self, node: NodeProto) -> tuple[str, list[tuple[int, Place]]]:
        """What is normalised, the sum of two streams where the operator adds them; and where the bias of one of them is."""
        if not _skips(node):
            return node.input[0], []
        streams, slots, bias = [*node.input[:2]], list[tuple[int, Place]](), _named(node, _slots(node)[2])
        if bias:
            makers = [self.constants.maker(name) for name in streams]
            which = next((at for at, maker in enumerate(makers) if maker in MAKING), 0)
            streams[which] = self.add("Add", [streams[which], bias], f"{node.output[0]}/biased")
            slots.append((_slots(node)[2], (streams[which], 1)))
        whole = node.output[3] if len(node.output) > 3 and node.output[3] else f"{node.output[0]}/sum"
        return self.add("Add", streams, whole), slots
