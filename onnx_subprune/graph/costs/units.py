"""The work of the units of recurrent layers beside their products: activations, which fall with the width and not with its square.

onnxruntime 1.32 on one thread takes 4 ns for a unit of an LSTM in a step of a sample, 6 of a GRU, 6 to 12 of an RNN, whose Tanh it computes one number
at a time, and 3 where its activation is Relu: least squares on widths of 48 to 128, batches of 32.
"""

from onnx_subprune.allocation import Term
from onnx_subprune.graph.channels import Axis, ChannelGraph, Contraction
from onnx_subprune.graph.costs.sizes import Sizes, folded, shape_of
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute

UNIT = {"LSTM": 230.0, "GRU": 320.0, "RNN": 500.0}
"""Work of a unit in a step of a sample, in multiply-accumulates of a large convolution."""
RELU = 150.0
"""The same where the activation of an RNN is Relu."""


def units(network: Network, graph: ChannelGraph, contraction: Contraction, sizes: Sizes) -> Term:
    """Return the work of the units of a recurrent layer, of all directions, steps and samples. contraction: that with its own states."""
    node, name, use = network.node(contraction.node), contraction.weight_tensor, contraction.weight
    given = attribute(node, "activations", [])
    each = RELU if isinstance(given, list) and given[:1] == [b"Relu"] else UNIT[node.op_type]
    directions, _, width = shape_of(network, name)
    run = [sizes.factor(Axis(name, 2, use), width), *sizes.activation(node.input[0])[:2]]
    return folded(each * directions / graph.observation.batch, run)
