"""Parameters and multiply-accumulates of a model as it lies there: what a file holds, and what a run of it does.

Parameters are the floating-point numbers of the constants that the file holds and something reads, those in bodies included, each once, and what
operators on quantized numbers read of integers.
Multiply-accumulates are those of products with weights or of activations: convolutions, matrix products, recurrent layers (a product with both
weights in every step and direction), Einsum (all indices run through), fused attention, and bodies as often as they run (an If: its longer branch).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import attribute, key_of
from onnx_subprune.graph.order import captured
from onnx_subprune.graph.quantized import quantizes
from onnx_subprune.graph.sharing import readers_of_constants

FLOATING = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
ATTENTION, FUSED_MATMUL = "com.microsoft.Attention", "com.microsoft.FusedMatMul"
UNPACKED = ("Attention", "com.microsoft.GroupQueryAttention", "com.microsoft.MultiHeadAttention")
"""Attention on queries, keys and values that layers of their own make."""


def parameters(network: Network) -> int:
    """Return the parameters of `network`."""
    return sum(stored(network).values()) + sum(sum(parameters_inside(node).values()) for node in network.nodes)


def stored(network: Network) -> dict[str, int]:
    """Return how many numbers each floating-point or quantized constant holds that lies in the file and that something reads, outside of bodies."""
    found = {}
    quantized = {name for node in network.nodes if quantizes(node) for name in node.input}
    for name in readers_of_constants(network):
        if name in network.spelled.added:
            continue
        if name in network.initializers:
            tensor = network.initializers[name]
            if tensor.data_type in FLOATING or name in quantized:
                found[name] = prod(tensor.dims)
        elif name in network.producer and key_of(network.nodes[network.producer[name]]) == "Constant":
            value = network.array(name)
            if value.dtype.kind == "f" or name in quantized:
                found[name] = value.size
    return found


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the bodies of a node."""
    for item in node.attribute:
        if item.type in (AttributeProto.GRAPH, AttributeProto.UNDEFINED) and item.HasField("g"):
            yield item.g
        yield from item.graphs


def parameters_inside(node: NodeProto) -> dict[str, int]:
    """Return how many numbers each floating-point constant holds that lies in a body of `node`."""
    found: dict[str, int] = {}
    for number, body in enumerate(bodies(node)):
        tensors = [(tensor.name, tensor) for tensor in body.initializer]
        for inner in body.node:
            tensors += [(inner.output[0], item.t) for item in inner.attribute if item.name == "value"]
            found.update({f"{number}/{name}": size for name, size in parameters_inside(inner).items()})
        found.update({f"{number}/{n}": prod(t.dims) for n, t in tensors if t.data_type in FLOATING})
    return found


def multiply_accumulates(network: Network, observation: Observation) -> float:
    """Return the multiply-accumulates of one sample."""
    shapes = all_shapes(network, observation)
    return sum(macs_of(network, index, shapes, observation) for index in range(len(network.nodes)))


def all_shapes(network: Network, observation: Observation) -> dict[str, Shape]:
    """Return the shapes of all activations and initializers."""
    dims = {name: tuple(tensor.dims) for name, tensor in network.initializers.items()}
    return {**dims, **observation.shapes}


def macs_of(network: Network, index: int, shapes: Shapes, observation: Observation) -> float:
    """Return the multiply-accumulates of a node, for one sample; those of a constant are none."""
    node = network.nodes[index]
    if network.constants.issuperset(name for name in node.output if name):
        return 0.0
    values = {
        name: network.array(name) if name in network.constants else observation.values[name]
        for name in node.input[:1]
        if name and (name in network.constants or name in observation.values) and key_of(node) == "Loop"
    }
    trips = int(values[node.input[0]].item()) if node.input and node.input[0] in values else None
    missing = {
        name: network.array(name).shape for name in node.input if name in network.constants and name not in shapes
    }
    return _macs(node, {**shapes, **missing}, trips) / observation.batch


def _macs(node: NodeProto, shapes: Shapes, trips: int | None = None) -> float:
    """Of one run of a node; 0 where shapes are not known."""
    rule = COUNTED.get(key_of(node))
    try:
        if rule is not None:
            return float(rule(node, [shapes.get(name) or () for name in node.input], shapes.get(node.output[0]) or ()))
        if any(True for _ in bodies(node)):
            return _of_bodies(node, shapes, trips)
    except (IndexError, KeyError, ValueError):  # an operator that does not have the inputs that it should have
        return 0.0
    return 0.0


def _convolution(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    return prod(inputs[0] if key_of(node) == "ConvTranspose" else output) * prod(inputs[1][1:]) if inputs[1] else 0


def _product(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    first = inputs[0]
    turned = len(first) > 1 and bool(attribute(node, "transA", 0))
    return prod(output) * first[-2 if turned else -1]


def _recurrence(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    """Steps and samples, times both weights of all directions."""
    return prod(inputs[0][:2]) * (prod(inputs[1]) + prod(inputs[2]))


def _einsum(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    """All indices run through, each as far as the operands say."""
    equation = attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    if len(inputs) < 2:
        return 0
    sizes: dict[str, int] = {}
    rest: Shape = ()
    for term, shape in zip(equation.decode().replace(" ", "").split("->")[0].split(","), inputs, strict=True):
        before, _, after = term.partition("...")
        inner = len(shape) - len(after)
        sizes.update(zip(before, shape, strict=False))
        sizes.update(zip(after, shape[inner:], strict=True))
        middle = shape[len(before) : inner] if "..." in term else ()
        rest = middle if len(middle) > len(rest) else rest
    return prod(sizes.values()) * prod(rest)


def _fused_attention(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    """One product for queries, keys and values, and those of queries with keys and of weights with values; queries are as wide as keys."""
    batch, length, _ = inputs[0]
    return prod(inputs[0]) * inputs[1][1] + batch * length * length * (inputs[1][1] + output[2]) // 2


def _attention(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    keys = inputs[1]
    return (prod(inputs[0]) + prod(output)) * keys[-2] if keys else 0


COUNTED: Mapping[str, Callable[[NodeProto, Sequence[Shape], Shape], int]] = {
    **dict.fromkeys(
        ("Conv", "ConvInteger", "ConvTranspose", "com.microsoft.FusedConv", "com.microsoft.NhwcFusedConv"),
        _convolution,
    ),
    **dict.fromkeys(
        (
            "MatMul",
            "MatMulInteger",
            "QLinearMatMul",
            "Gemm",
            "com.microsoft.DynamicQuantizeMatMul",
            "com.microsoft.MatMulIntegerToFloat",
            "com.microsoft.MatMulNBits",
            "com.microsoft.FusedGemm",
            FUSED_MATMUL,
            "com.microsoft.FusedMatMulActivation",
            "com.microsoft.GemmFastGelu",
            "com.microsoft.TransposeMatMul",
        ),
        _product,
    ),
    "QLinearConv": lambda node, inputs, output: _convolution(node, (inputs[0], inputs[3]), output),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrence),
    "Einsum": _einsum,
    **dict.fromkeys(UNPACKED, _attention),
    ATTENTION: _fused_attention,
}


def _of_bodies(node: NodeProto, shapes: Shapes, trips: int | None) -> float:
    key, inside = key_of(node), list(bodies(node))
    states = len(inside[0].input) - (2 if key == "Loop" else 0)
    if key == "If":
        return max(_of_body(body, [], shapes) for body in inside)
    if key == "Loop":
        scanned = [shapes.get(name) for name in node.output[states:] if shapes.get(name)]
        count = scanned[0][0] if scanned and scanned[0] else (1 if trips is None else trips)
        return count * _of_body(inside[0], [(), (), *(shapes.get(name, ()) for name in node.input[2:])], shapes)
    if key == "Scan":
        along = attribute(node, "num_scan_inputs", 1)
        assert isinstance(along, int)
        first = len(node.input) - along
        axes = attribute(node, "scan_input_axes") or [0] * along
        assert isinstance(axes, list)
        seen = [shapes[name] for name in node.input[first:]]
        steps = [shape[:axis] + shape[axis % len(shape) + 1 :] for shape, axis in zip(seen, axes, strict=True)]
        return seen[0][axes[0]] * _of_body(inside[0], [*(shapes[name] for name in node.input[:first]), *steps], shapes)
    return 0.0


def _of_body(body: GraphProto, inputs: Sequence[Shape], outer: Shapes) -> float:
    """Of one run of a body whose inputs have these shapes; it reads tensors of `outer` as well."""
    known = {value.name: shape for value, shape in zip(body.input, inputs, strict=False)}
    inner = _inferred(body, {**outer, **known})
    return sum(_macs(node, {**outer, **inner}) for node in body.node)


def _inferred(body: GraphProto, shapes: Shapes) -> dict[str, Shape]:
    """The shapes in a body, as far as inference finds them."""
    own = {tensor.name: tuple(tensor.dims) for tensor in body.initializer}
    graph = GraphProto()
    graph.CopyFrom(body)
    del graph.input[:]
    names = {value.name: value.type.tensor_type.elem_type for value in body.input}
    read = {name for node in body.node for name in (*node.input, *captured(node)) if name in shapes and name not in own}
    for name in read | set(names):
        kind = names.get(name) or TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(name, kind, shapes.get(name)))
    try:
        model = onnx.shape_inference.infer_shapes(helper.make_model(graph))
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return own
    found = dict(own)
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found
