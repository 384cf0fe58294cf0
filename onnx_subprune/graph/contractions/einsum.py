"""Einsum with a constant matrix: a matrix product where the last axis of the activation is summed and its place is taken by the new one.

...d,dm->...m       input @ W          ...d,md->...m       input @ W'          (either operand first; letters may be any)
...gd,gdm->...gm    input @ W[g]       ...gd,gmd->...gm    input @ W[g]'       a matrix for each place of the axis before, which stays
"""

from dataclasses import dataclass

from onnx import NodeProto

from onnx_subprune.graph.network import attribute


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """An Einsum that is one: its weight is input `weight`, (d, m), or, `transposed`, (m, d); with g in front where it is `grouped`."""

    weight: int
    transposed: bool
    grouped: bool = False

    @property
    def data(self) -> int:
        """The input that is the activation."""
        return 1 - self.weight


def matrix_product(node: NodeProto, weight: int) -> MatrixProduct | None:
    """Return how input `weight` of an Einsum, a matrix or a stack of them, multiplies the last axis of the other input; None if it does something else."""
    equation = attribute(node, "equation", b"")
    assert isinstance(equation, bytes)
    left, arrow, result = equation.decode().replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2 or weight not in (0, 1):
        return None
    matrix, data = terms[weight], terms[1 - weight]
    letters = data.replace("...", "")
    if len(matrix) not in (2, 3) or "." in matrix or len(set(letters)) < len(letters) or not letters:
        return None
    grouped = len(matrix) == 3
    if grouped and (len(letters) < 2 or not data.endswith(letters[-2:]) or matrix[0] != letters[-2]):
        return None
    summed, matrix = data[-1], matrix[int(grouped) :]
    made = matrix.replace(summed, "", 1)
    if summed not in matrix or len(made) != 1 or made in data or result != data[:-1] + made:
        return None
    return MatrixProduct(weight=weight, transposed=matrix[0] != summed, grouped=grouped)
