"""Layers that onnxruntime has fused with what is behind them, in a model that it has written: taken apart when it is loaded, as it fuses them anew.

com.microsoft.FusedConv(x, w, b, z)  ->  Conv, Add of z, the activation        com.microsoft.FusedGemm  ->  Gemm, the activation
"""

from onnx import ModelProto, NodeProto, helper

from onnx_subprune.graph.operators import STANDARD, attributes
from onnx_subprune.graph.order import rewritten

DOMAIN = "com.microsoft"
FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
BOUNDS_ARE_INPUTS = 11
"""The opset since which Clip has its bounds as inputs."""
BOUNDS = ("least", "most")
ADDED = 3
"""The slot of FusedConv with what is added to the output."""
PARAMETERS = {
    "Clip": (),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
}
"""Activations, and the attributes that their parameters are."""


def apart(proto: ModelProto) -> ModelProto:
    """Return the model with such layers taken apart; `proto` itself where there are none. It is not changed."""
    opset = max((item.version for item in proto.opset_import if item.domain in STANDARD), default=1)
    found = {node.output[0]: parts for node in proto.graph.node if (parts := _parts(node, opset))}
    if not found:
        return proto
    nodes = [
        part for node in proto.graph.node for part in (found.get(node.output[0]) if node.output else None) or [node]
    ]
    return rewritten(proto, nodes, [])


def _parts(node: NodeProto, opset: int) -> list[NodeProto]:
    """What a fused layer does, in order; nothing for any other node, or an activation that is not known."""
    if node.domain != DOMAIN or node.op_type not in FUSED:
        return []
    given = attributes(node)
    kind = given.pop("activation", b"").decode()
    names = ("activation_alpha", "activation_beta") if node.op_type == "FusedGemm" else ("activation_params",)
    values = [value for name in names if name in given for value in _listed(given.pop(name))]
    given.pop("activation_gamma", None)
    bounded = kind != "Clip" or (opset >= BOUNDS_ARE_INPUTS and len(values) == len(BOUNDS))
    if kind and (kind not in PARAMETERS or not bounded):
        return []
    y, summed = node.output[0], node.op_type == "FusedConv" and len(node.input) > ADDED and bool(node.input[ADDED])
    made = [f"{y}/layer"] * bool(kind or summed) + [f"{y}/sum"] * bool(kind and summed) + [y]
    parts = [helper.make_node(FUSED[node.op_type], node.input[:ADDED], made[:1], name=node.name, **given)]
    if summed:
        parts.append(helper.make_node("Add", [made[0], node.input[ADDED]], made[1:2], name=f"{y}/sum"))
    if kind == "Clip":
        parts += _clipped(made[-2], y, values)
    elif kind:
        parts.append(helper.make_node(kind, made[-2:-1], [y], name=f"{y}/activation"))
        parts[-1].attribute.extend(map(helper.make_attribute, PARAMETERS[kind], values))
    return parts


def _clipped(x: str, y: str, values: list[float]) -> list[NodeProto]:
    bounds = [f"{y}/{end}" for end in BOUNDS]
    ends = [
        helper.make_node("Constant", [], [bound], name=bound, value_float=value)
        for bound, value in zip(bounds, values, strict=True)
    ]
    return [*ends, helper.make_node("Clip", [x, *bounds], [y], name=f"{y}/activation")]


def _listed(value: object) -> list[float]:
    return [float(item) for item in value] if isinstance(value, (list, tuple)) else [float(value)]  # type: ignore[arg-type]
