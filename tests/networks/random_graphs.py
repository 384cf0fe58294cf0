"""Random networks that combine the patterns: each step draws a block and puts it behind what is there."""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto

from tests.networks.net import Net
from tests.networks.patterns import GATES, shuffle, squeeze_excite

SIZE = 8
ACTIVATIONS: tuple[Callable[[Net, str], str], ...] = (
    lambda n, x: n.relu(x),
    lambda n, x: n("Sigmoid", x),
    lambda n, x: n.clip(x, 0, 6),
    lambda n, x: n("Mul", x, n("Sigmoid", x)),
    lambda n, x: n("PRelu", x, n.weight(n.width[x], 1, 1)),
    lambda n, x: n.bn(x),
    lambda n, x: x,
)
Choose = Callable[[int], int]
"""Draws a number below its argument."""


def random_network(opset: int, choose: Choose, steps: int) -> ModelProto:
    """Return a network of `steps` blocks on 8x8 images and a head; `choose` makes all decisions."""
    n = Net(opset, seed=choose(1000))
    earlier = [act(n, choose, n.conv(n.input(("N", 3, SIZE, SIZE)), widths(choose), 3))]
    for _ in range(steps):
        x = earlier[choose(len(earlier))] if choose(3) == 0 else earlier[-1]
        earlier.append(BLOCKS[choose(len(BLOCKS))](n, choose, x))
    if choose(4) == 0:
        n.output(n.conv(earlier[choose(len(earlier))], 2), 4)
    HEADS[choose(len(HEADS))](n, earlier[-1])
    return n.model()


def act(n: Net, choose: Choose, x: str) -> str:
    return ACTIVATIONS[choose(len(ACTIVATIONS))](n, x)


def widths(choose: Choose) -> int:
    return (2, 4, 6, 8, 12)[choose(5)]


def plain(n: Net, choose: Choose, x: str) -> str:
    return act(n, choose, n.conv(x, widths(choose), 1 + 2 * choose(2), bias=bool(choose(2))))


def residual(n: Net, choose: Choose, x: str) -> str:
    y = n.conv(act(n, choose, n.conv(x, widths(choose), 3)), n.width[x], 3)
    return act(n, choose, n(("Add", "Mul", "Sub", "Max")[choose(4)], y, x))


def branches(n: Net, choose: Choose, x: str) -> str:
    parts = [plain(n, choose, x) for _ in range(1 + choose(3))]
    return n.concat(*parts, *([x] if choose(2) else parts[:1]))


def halves(n: Net, choose: Choose, x: str) -> str:
    half = n.width[x] // 2
    a, b = n.split(x, [half, n.width[x] - half])
    b = plain(n, choose, b)
    return n.concat(b, a) if choose(2) else n.concat(a, b, a)


def depthwise(n: Net, choose: Choose, x: str) -> str:
    return act(n, choose, n.conv(x, n.width[x] * (1 + choose(2)), 3, group=n.width[x]))


def grouped(n: Net, choose: Choose, x: str) -> str:
    group = 2 if n.width[x] % 2 == 0 else 1
    return act(n, choose, n.conv(x, 4 * (1 + choose(2)), 3, group=group))


def shuffled(n: Net, choose: Choose, x: str) -> str:
    groups = (2, 3, 4)[choose(3)]
    return shuffle(n, x, groups, SIZE) if n.width[x] % groups == 0 else x


def excited(n: Net, choose: Choose, x: str) -> str:
    gates = list(GATES.values())
    return squeeze_excite(n, x, 1 + choose(4), gates[choose(len(gates))], linear=bool(choose(2)))


def pooled(n: Net, choose: Choose, x: str) -> str:
    parts = [x]
    for _ in range(1 + choose(2)):
        parts.append(n("MaxPool", parts[-1], kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1]))
    return n.concat(*parts)


def cut(n: Net, choose: Choose, x: str) -> str:
    start = choose(n.width[x])
    y = n.slice(x, start, n.width[x])
    n.width[y] = n.width[x] - start
    return y


def padded(n: Net, choose: Choose, x: str) -> str:
    before, after = choose(3), choose(3)
    y = n.pad(x, [0, before, 0, 0, 0, after, 0, 0])
    n.width[y] = n.width[x] + before + after
    return y


def picked(n: Net, choose: Choose, x: str) -> str:
    indices = [choose(n.width[x]) for _ in range(1 + choose(n.width[x]))]
    y = n("Gather", x, n.constant(np.array(indices)), axis=1)
    n.width[y] = len(indices)
    return y


def folded(n: Net, choose: Choose, x: str) -> str:
    """To depth and back, with a convolution between."""
    y = n("SpaceToDepth", x, blocksize=2)
    n.width[y] = 4 * n.width[x]
    width = widths(choose)
    y = n("DepthToSpace", n.conv(y, 4 * width), blocksize=2)
    n.width[y] = width
    return y


def normalised(n: Net, choose: Choose, x: str) -> str:
    """GroupNormalization as it is decomposed."""
    width = n.width[x]
    groups = 2 if width % 2 == 0 else 1
    ones, zeros = n.constant(np.ones(groups, np.float32)), n.constant(np.zeros(groups, np.float32))
    y = n("InstanceNormalization", n.reshape(x, 0, groups, -1), ones, zeros)
    y = n("Mul", n("Reshape", y, n("Shape", x)), n.weight(width, 1, 1))
    n.width[y] = width
    return y


def channels_last(n: Net, choose: Choose, x: str) -> str:
    width = widths(choose)
    y = n.linear(n("Transpose", x, perm=[0, 2, 3, 1]), n.width[x], width)
    y = n("Transpose", n.relu(y), perm=[0, 3, 1, 2])
    n.width[y] = width
    return y


def flattened_positions(n: Net, choose: Choose, x: str) -> str:
    y = n.reshape(x, 0, n.width[x], -1)
    y = n("Reshape", n.relu(y), n("Shape", x))
    n.width[y] = n.width[x]
    return y


BLOCKS = (
    plain,
    residual,
    branches,
    halves,
    depthwise,
    grouped,
    shuffled,
    excited,
    pooled,
    cut,
    padded,
    picked,
    folded,
    normalised,
    channels_last,
    flattened_positions,
)


def flat_head(n: Net, x: str) -> None:
    hidden = n.relu(n.dense(n("Flatten", x), n.width[x] * SIZE * SIZE, 6))
    n.output(n.dense(hidden, 6, 3), 2)


def reduced_head(n: Net, x: str) -> None:
    n.output(n.linear(n.reduce("ReduceMean", x, 2, 3, keepdims=0), n.width[x], 3), 2)


HEADS = (lambda n, x: n.head(x), flat_head, reduced_head)
