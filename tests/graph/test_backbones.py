"""The skeleton networks of the `onnx` package: slicing equals masking, and what a uniform half leaves of them."""

import numpy as np
import onnx
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.backbones import FOLDER, backbone
from tests.networks.check import feeds_of, supports_of

LEFT = {
    "bvlc_alexnet": (0.25, 0.30),
    "densenet121": (0.25, 0.30),
    "inception_v1": (0.25, 0.30),
    "inception_v2": (0.25, 0.30),
    "resnet50": (0.25, 0.30),
    "vgg19": (0.25, 0.30),
    "zfnet512": (0.25, 0.30),
    "squeezenet": (0.25, 0.40),  # the classifier, whose outputs stay, has two fifths of the parameters
    "shufflenet": (
        0.25,
        0.75,
    ),  # the streams of its stages are concatenated unevenly over the groups of its convolutions
}
"""Share of the parameters that is left at half of the channels."""


@pytest.mark.skipif(not FOLDER.is_dir(), reason="this onnx package has no backend test data")
@pytest.mark.parametrize("name", LEFT)
def test_a_backbone_is_pruned_everywhere_and_slicing_equals_masking(name: str):
    network = load(backbone(name))
    graph = trace(network)
    supports = supports_of(graph, 0, share=0.5)
    assert law(network, graph, supports, feeds_of(network, 1, 0)) < 1e-5
    small = apply(network, graph, Plan(supports=supports))
    onnx.checker.check_model(small, full_check=True)
    known = costs(network, graph)
    widths = {name: len(support) for name, support in supports.items()}
    left = known.params(widths) / known.params({})
    low, high = LEFT[name]
    assert low <= left <= high
    read = {name for node in small.graph.node for name in node.input}
    kept = [
        tensor
        for tensor in small.graph.initializer
        if tensor.name in read and tensor.data_type == onnx.TensorProto.FLOAT
    ]
    assert sum(int(np.prod(tensor.dims)) for tensor in kept) == known.params(widths)
