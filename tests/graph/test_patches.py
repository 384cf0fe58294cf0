"""Patches of maps as MobileViT makes them: channels are merged with the batch and with rows of patches, and come apart again."""

import numpy as np
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from tests.networks.check import feeds_of, supports_of
from tests.networks.net import Net

WIDTH, ROWS, SIDE = 6, 4, 2


def patched(*, computed: bool) -> Net:
    """A dense layer over the channels of the pixels of patches, between convolutions. computed: sizes come from Shape, as TorchScript has it."""
    n = Net(seed=1)
    x = n.conv(n.input(("N", 3, 2 * ROWS, 2 * SIDE)), WIDTH, 1)

    def shaped(y: str, first: str, *rest: int) -> str:
        if not computed:
            return n.reshape(y, -1, *rest)
        return n("Reshape", y, n.concat(first, n.constant(np.array(rest)), axis=0))

    batch = n.dim(x, 0)
    merged = n("Mul", n("Mul", batch, n.dim(x, 1)), n.constant(np.array([ROWS])))
    y = n("Transpose", shaped(x, merged, 2, SIDE, 2), perm=[0, 2, 1, 3])
    y = n("Transpose", shaped(y, batch, WIDTH, ROWS * SIDE, 4), perm=[0, 3, 2, 1])
    y = n("Add", y, n.linear(y, WIDTH, WIDTH))
    y = shaped(n("Transpose", y, perm=[0, 3, 2, 1]), merged, SIDE, 2, 2)
    y = shaped(n("Transpose", y, perm=[0, 2, 1, 3]), batch, WIDTH, 2 * ROWS, 2 * SIDE)
    n.width[y] = WIDTH
    n.output(n.conv(y, 4, 3), 4)
    return n


@pytest.mark.parametrize("computed", [False, True])
def test_channels_that_are_merged_with_the_batch_and_with_positions_go(computed):
    network = load(patched(computed=computed).model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [WIDTH]
    for seed, batch in ((0, 1), (1, 3)):
        assert law(network, graph, supports_of(graph, seed, share=0.5), feeds_of(network, batch, seed)) < 1e-5
