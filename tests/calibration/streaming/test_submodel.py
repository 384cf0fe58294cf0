"""Parts of a model are loaded with what runtimes must know of their inputs."""

import numpy as np

from onnx_subprune.calibration.streaming.submodel import Changed, part_of
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net


def test_how_many_sizes_there_are_is_declared_of_what_computes_a_target_of_resize():
    """As decoders of segmentation resize several maps to one computed height and width; SegFormer's did not load."""
    net = Net(seed=1)
    x = net.relu(net.conv(net.input(("N", 3, "H", "W")), 4))
    size = net.concat(net.dim(x, 2), net.dim(x, 3), axis=0)
    ends = [net.constant(np.array([place])) for place in (0, 2, 0)]
    target = net.concat(net("Slice", net("Shape", x), *ends), net("Cast", size, to=7), axis=0)
    y = net("Resize", x, "", "", target)
    net.output(net("Relu", y), 4)
    network = Network(net.model())
    held = {x: np.ones((2, 4, 3, 3), np.float32), size: np.array([6, 5])}
    nodes, _ = network.ancestors([y], list(held))
    session = Session(part_of(network, nodes, held, [y], Changed(constants={}, inputs={})), threads=1)
    assert {port.name: port.shape for port in session.inputs}[size] == (2,)
    assert session.run(held)[y].shape == (2, 4, 6, 5)
