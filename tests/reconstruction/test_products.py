"""What the numbers of a head bring to the product of Q and K, where a head of K serves several of Q."""

import numpy as np

from onnx_subprune.allocation import Channels
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.resources import Resources
from tests.graph.test_attention import grouped

X = np.random.default_rng(0).standard_normal((24, 5, 8)).astype(np.float32)


def test_the_pair_of_numbers_that_meets_zeros_in_each_head_of_k_goes():
    net = grouped(4, 2, 6, rotated=True)
    q, k = [value for value in net.weights.values() if value.shape in ((8, 24), (8, 12))][:2]
    for number in (0, 3):  # large, but where Q has it K has not, and the other way round
        q[:, [number, 6 + number]] *= 9
        q[:, [12 + number, 18 + number]] = 0
        k[:, number] = 0
        k[:, 6 + number] *= 9
    found = prune(
        net.model(), X, budget=Channels(2 / 3), round_to=1, gates=Gates(accept_any=True), resources=Resources(threads=1)
    )
    kept = {group.width[0]: group.kept for group in found.report.groups}
    assert tuple(kept[3]) == (1, 2)
