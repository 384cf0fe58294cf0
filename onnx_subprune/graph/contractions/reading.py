"""Which kind of contraction a node is."""

from collections.abc import Sequence

import onnx

from onnx_subprune._typing import Weights
from onnx_subprune.graph.channels import Contraction
from onnx_subprune.graph.contractions import convolution, einsum, product, recurrent
from onnx_subprune.graph.contractions.kernel import Kernel, Reader, label_of
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import key_of

READERS: tuple[Reader, ...] = (convolution.read, product.read, einsum.read, recurrent.read)
"""A new kind of contraction is a module with such a function."""


def kernel_at(node: onnx.NodeProto, weight_shape: Sequence[int], weight_slot: int = 1) -> Kernel:
    """Return the kernel of `node`, whose input `weight_slot` is a constant of `weight_shape`.

    Raises ValueError for operators that do not contract and for weights of a rank that is not handled.
    """
    shape = tuple(int(size) for size in weight_shape)
    for read in READERS:
        found = read(node, shape, weight_slot)
        if found is not None:
            return found
    raise ValueError(
        f"{label_of(node)}: {key_of(node)} with a constant of shape {shape} at input {weight_slot} is not a known contraction"
    )


def positionwise(kernel: Kernel) -> Kernel:
    """Return the kernel that reads the output of `kernel` position by position."""
    if not kernel.spatial:
        return product.Product(node=kernel.node)
    ones = (1,) * kernel.spatial
    return convolution.Conv(node=kernel.node, kernel=ones, strides=ones, dilations=ones, pads=(0,) * (2 * len(ones)))


def kernel_of(network: Network, contraction: Contraction) -> tuple[Kernel, Weights]:
    """Return the kernel of a contraction and its weights as a matrix (g, p, m)."""
    weight = network.array(contraction.weight_tensor)
    kernel = kernel_at(network.node(contraction.node), weight.shape, contraction.weight.slot)
    return kernel, kernel.to_matrix(weight)
