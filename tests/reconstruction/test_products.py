"""What the numbers of a head bring to the product of Q and K, where a head of K serves several of Q."""

import numpy as np
import pytest

from onnx_subprune import Channels, Gates, Resources, prune, sensitivity
from tests.graph.test_attention import grouped
from tests.networks.net import Net

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


def encoder(batch, *, positions_first):
    """Attention of two heads of 4; positions first is what torch.nn.TransformerEncoder makes of it: samples and heads on one axis."""
    net = Net(seed=3)
    x = net.input([batch, 6, 8])
    x = net("Transpose", x, perm=[1, 0, 2]) if positions_first else x
    made = [net.linear(x, 8, 8) for _ in range(3)]
    if positions_first:
        q, k, v = (net("Transpose", net.reshape(part, 6, -1, 4), perm=[1, 0, 2]) for part in made)
        scores = net("MatMul", q, net("Transpose", k, perm=[0, 2, 1]))
    else:
        q, k, v = (net("Transpose", net.reshape(part, 0, 6, 2, 4), perm=[0, 2, 1, 3]) for part in made)
        scores = net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2]))
    context = net("MatMul", net("Softmax", net("Div", scores, net.constant(np.array(2.0, np.float32))), axis=-1), v)
    if positions_first:
        y = net.linear(net.reshape(net("Transpose", context, perm=[1, 0, 2]), 6, -1, 8), 8, 8)
        y = net("Transpose", y, perm=[1, 0, 2])
    else:
        y = net.linear(net.reshape(net("Transpose", context, perm=[0, 2, 1, 3]), 0, 6, 8), 8, 8)
    net.output(net.linear(y, 8, 3), 3)
    return net.model()


@pytest.mark.parametrize("batch", [1, "n", 6])  # as many samples as positions do not mislead either
def test_keys_are_centred_over_positions_whichever_axis_counts_them(batch):
    data = np.random.default_rng(0).standard_normal((48, 6, 8)).astype(np.float32) + 1.0
    numbers = []
    for first in (False, True):
        model = encoder(batch if first else "n", positions_first=first)
        found = sensitivity(model, data, resources=Resources(threads=1))
        numbers.append(found[0].output.errors)  # of Q and K, which come first
    assert min(numbers[0]) > 0.0
    np.testing.assert_allclose(numbers[1], numbers[0], rtol=0.03)
