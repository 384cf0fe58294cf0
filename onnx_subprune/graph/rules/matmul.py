"""Matrix products: Gemm, and MatMul of any rank, with a constant matrix or of two activations; Einsum where it is one, or one a group.

Where each place of an axis has its matrix (`btgi,gih->btgh`), all lose the same channels, and the places stay: a Reshape in front, or behind, can follow
the channels then.
"""

from onnx_subprune.graph.channels import Axis, Contraction, Product, Use
from onnx_subprune.graph.contractions.einsum import matrix_product
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.elementwise import broadcast
from onnx_subprune.graph.rules.vocabulary import Rule, Scope, UnknownError


def _bias_behind(scope: Scope) -> Use | None:
    """A MatMul's bias is the constant of an Add that alone reads its output."""
    readers = scope.network.readers.get(scope.node.output[0], ())
    if len(readers) != 1 or scope.node.output[0] in scope.network.outputs:
        return None
    index, slot = readers[0]
    node = scope.network.nodes[index]
    other = 1 - slot
    if key_of(node) != "Add" or slot < 0 or node.input[other] not in scope.network.constants:
        return None
    shape = scope.shape_of(node.input[other])
    width = scope.out_shape()[-1]
    ranks = len(shape) <= len(scope.out_shape())
    return Use(scope.network.labels[index], other) if ranks and shape == (1,) * (len(shape) - 1) + (width,) else None


def _contract(
    scope: Scope, weight: int, data: int, *, rows: int, columns: int, axis: int, output: int, bias: Use | None
) -> None:
    """Input `data` is contracted over `axis` with axis `rows` of the constant input `weight`, a matrix or a stack of them."""
    name, use = scope.node.input[weight], Use(scope.label, weight)
    scope.tie(scope.input(weight, rows), scope.input(data, axis))
    scope.tie(scope.input(weight, columns), scope.output(output))
    scope.contract(
        Contraction(
            node=scope.label,
            op=key_of(scope.node),
            input=scope.in_axis(data, axis),
            weight=use,
            weight_tensor=name,
            rows=Axis(name, rows, use),
            columns=Axis(name, columns, use),
            output=scope.out_axis(output),
            bias=bias,
            new_bias=Use(scope.label, 2) if key_of(scope.node) == "Gemm" and not scope.has(2) else None,
            stacked=len(scope.shape(weight)) == 3,
        )
    )


def gemm(scope: Scope) -> None:
    """Y = alpha A' B' + beta C."""
    row, inner = (1, 0) if scope.integer("transA", 0) else (0, 1)
    rows, columns = (1, 0) if scope.integer("transB", 0) else (0, 1)
    scope.tie(scope.input(0, row), scope.output(0))
    if scope.constant(1) and not scope.constant(0):
        bias = Use(scope.label, 2) if scope.has(2) and scope.constant(2) else None
        _contract(scope, 1, 0, rows=rows, columns=columns, axis=inner, output=1, bias=bias)
    else:
        scope.tie(scope.input(1, columns), scope.output(1))
    if scope.has(2):
        broadcast(scope, [2])


def matmul(scope: Scope) -> None:
    """Product over the last axis of A and the second-last of B; leading axes broadcast."""
    a, b = scope.shape(0), scope.shape(1)
    if len(a) >= 2 and len(b) == 2 and scope.constant(1) and not scope.constant(0):
        for axis in range(len(a) - 1):
            scope.tie(scope.input(0, axis), scope.output(axis))
        _contract(scope, 1, 0, rows=0, columns=1, axis=-1, output=-1, bias=_bias_behind(scope))
    elif len(b) >= 2 and len(a) == 2 and scope.constant(0) and not scope.constant(1):
        for axis in (*range(-len(b), -2), -1):
            scope.tie(scope.input(1, axis), scope.output(axis))
        _contract(scope, 0, 1, rows=1, columns=0, axis=-2, output=-2, bias=None)
    elif len(a) >= 2 and len(b) >= 2:
        scope.tie(scope.input(0, -2), scope.output(-2))
        scope.tie(scope.input(1, -1), scope.output(-1))
        broadcast(scope, [0, 1], leading=2)
        if scope.beyond is not None and not (scope.constant(0) or scope.constant(1)):
            scope.tie(scope.input(0, -1), scope.input(1, -2))
            scope.multiply(Product(node=scope.label, left=scope.in_axis(0, -1), right=scope.in_axis(1, -2)))


def einsum(scope: Scope) -> None:
    """Einsum with a constant matrix along the last axis, or with one for each place of the axis before it; what else is a product is written as one."""
    slot = next((slot for slot in (1, 0) if scope.constant(slot)), None)
    product = None if slot is None else matrix_product(scope.node, slot)
    if product is None:
        raise UnknownError("its indices are not those of a product with a constant matrix along the last axis")
    rank = len(scope.out_shape())
    for axis in range(rank - 1):
        scope.tie(scope.input(product.data, axis), scope.output(axis))
    first = int(product.grouped)
    if product.grouped:
        places = scope.input(product.weight, 0)
        scope.tie(places, scope.output(rank - 2))
        scope.pin(places, "each place of this axis has its own matrix")
    rows = first + product.transposed
    columns, bias = 2 * first + 1 - rows, None if product.grouped else _bias_behind(scope)
    _contract(scope, product.weight, product.data, rows=rows, columns=columns, axis=-1, output=-1, bias=bias)


RULES = {"Einsum": Rule(einsum), "Gemm": Rule(gemm), "MatMul": Rule(matmul)}
