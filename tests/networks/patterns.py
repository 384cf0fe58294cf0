"""One small network or more for every pattern that must work, and what `trace` must find in it.

`widths` are the widths of the groups, `pinned` pieces of the reasons that must appear. A pattern without groups is one that is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.networks.looped import Looped
from tests.networks.net import BOOL, FLOAT, INT64, NEWEST, Net

ALL = (9, 11, 13, 17, 18, 21, NEWEST)
IMAGE = ("N", 3, 8, 8)


@dataclass(frozen=True)
class Pattern:
    """A small network: `build(net)` draws it for one opset."""

    name: str
    build: Callable[[Net], None]
    widths: tuple[int, ...]
    pinned: tuple[str, ...]
    opsets: tuple[int, ...]
    ir_version: int | None
    dtype: type[np.generic]

    def model(self, opset: int, seed: int = 0) -> ModelProto:
        """Return the network, with weights drawn from `seed`."""
        net = Net(opset, dtype=self.dtype, seed=seed)
        net.ir_version = self.ir_version or net.ir_version
        self.build(net)
        return net.model()


PATTERNS: list[Pattern] = []


def pattern(
    *widths: int,
    pinned: Sequence[str] = (),
    opsets: Sequence[int] = (17,),
    ir_version: int | None = None,
    dtype: type[np.generic] = np.float32,
) -> Callable[[Callable[[Net], None]], Callable[[Net], None]]:
    """Add the decorated builder to the table."""

    def add(build: Callable[[Net], None]) -> Callable[[Net], None]:
        name = build.__name__.replace("_", "-")
        PATTERNS.append(Pattern(name, build, tuple(sorted(widths)), tuple(pinned), tuple(opsets), ir_version, dtype))
        return build

    return add


def activation(name: str, apply: Callable[[Net, str], str], opsets: Sequence[int] = (17,)) -> None:
    """Conv, the activation, Conv, the activation, classifier."""

    def build(n: Net) -> None:
        x = apply(n, n.conv(n.input(IMAGE), 6, 3))
        n.head(apply(n, n.conv(x, 5)))

    PATTERNS.append(Pattern(f"activation-{name}", build, (5, 6), (), tuple(opsets), None, np.float32))


def hard_swish(n: Net, x: str) -> str:
    return n("Mul", x, n("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def silu(n: Net, x: str) -> str:
    return n("Mul", x, n("Sigmoid", x))


def decomposed_layer_normalization(n: Net, x: str, axis: int = -1) -> str:
    """As PyTorch writes it, before scale and shift."""
    centred = n("Sub", x, n.reduce("ReduceMean", x, axis))
    variance = n.reduce("ReduceMean", n("Mul", centred, centred), axis)
    return n("Div", centred, n("Sqrt", n("Add", variance, n.constant(np.array(1e-5, np.float32)))))


def decomposed_hard_swish(n: Net, x: str) -> str:
    """As Paddle writes it: x * clip(x + 3, 0, 6) / 6."""
    shifted = n("Add", x, n.constant(np.array(3, np.float32)))
    return n("Div", n("Mul", x, n.clip(shifted, 0, 6)), n.constant(np.array(6, np.float32)))


def decomposed_mish(n: Net, x: str) -> str:
    return n("Mul", x, n("Tanh", n("Softplus", x)))


def decomposed_gelu(n: Net, x: str) -> str:
    inner = n("Erf", n("Div", x, n.constant(np.array(np.sqrt(2), np.float32))))
    return n(
        "Mul",
        n("Mul", x, n("Add", inner, n.constant(np.array([1], np.float32)))),
        n.constant(np.array(0.5, np.float32)),
    )


def dropout(n: Net, x: str) -> str:
    return n("Dropout", x, ratio=0.5) if n.opset < 12 else n("Dropout", x, n.constant(np.array(0.5, np.float32)))


def dropout_with_mask(n: Net, x: str) -> str:
    return n.add("Dropout", x, outputs=2)[0]


def cast(n: Net, x: str) -> str:
    return n("Cast", n("Cast", x, to=TensorProto.DOUBLE), to=FLOAT)


def square_root(n: Net, x: str) -> str:
    return n("Sqrt", n("Exp", n("Neg", n("Abs", x))))


for _op in (
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Softsign",
    "HardSigmoid",
    "Identity",
    "ThresholdedRelu",
):
    activation(_op.lower(), lambda n, x, op=_op: n(op, x))
activation("hardswish", lambda n, x: n("HardSwish", x), (14, 17, 22))
activation("mish", lambda n, x: n("Mish", x), (18, 22))
activation("gelu", lambda n, x: n("Gelu", x), (20, NEWEST))
activation("celu", lambda n, x: n("Celu", x), (12, 17))
activation("clip", lambda n, x: n.clip(x, 0, 6), ALL)
activation("hard-swish-of-hard-sigmoid", hard_swish)
activation("hard-swish-of-clip", decomposed_hard_swish, (9, 11, 17))
activation("silu", silu)
activation("mish-of-softplus", decomposed_mish)
activation("gelu-of-erf", decomposed_gelu, (9, 17))
activation("dropout", dropout, ALL)
activation("dropout-with-mask", dropout_with_mask, (9, 12, 17))
activation("cast", cast, (9, 13, NEWEST))
activation("sqrt-exp-neg-abs", square_root)
activation("pow", lambda n, x: n("Pow", x, n.constant(np.array(2.0, np.float32))), (9, 17))
activation("prelu-c11", lambda n, x: n("PRelu", x, n.weight(n.width[x], 1, 1)), (9, 17, NEWEST))
activation("prelu-1c11", lambda n, x: n("PRelu", x, n.weight(1, n.width[x], 1, 1)), (9, 17))
activation("prelu-one-slope", lambda n, x: n("PRelu", x, n.weight(1)), (9, 17))


# Convolutions and dense layers


@pattern(6, 8, 5, opsets=ALL)
def conv_chain(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n.relu(n.conv(x, 8, 3, stride=2))
    n.head(n.relu(n.conv(x, 5, 1, bias=False)))


@pattern(6, 8)
def conv_1d(n: Net) -> None:
    x = n.relu(n.conv(n.input(("N", 4, 16)), 6, 3, rank=1))
    n.head(n.relu(n.conv(x, 8, 3, rank=1)))


@pattern(6, 8)
def conv_3d(n: Net) -> None:
    x = n.relu(n.conv(n.input(("N", 2, 4, 6, 6)), 6, 3, rank=3))
    n.head(n.relu(n.conv(x, 8, 3, rank=3)))


@pattern(6, 8)
def conv_auto_pad(n: Net) -> None:
    x = n.input(IMAGE)
    x = n("Conv", x, n.weight(6, 3, 3, 3), n.weight(6), auto_pad="SAME_UPPER")
    n.width[x] = 6
    n.head(n.conv(n.relu(x), 8, 3))


@pattern(6, 8, opsets=(9, 13, 17))
def conv_transpose(n: Net) -> None:
    x = n.relu(n.deconv(n.input(IMAGE), 6))
    x = n.relu(n.deconv(x, 8))
    n.output(n.conv(x, 2), 4)


@pattern(8, 12, 32, pinned=("left over",))
def grouped_convs_with_a_shuffle_that_does_not_divide(n: Net) -> None:
    """ShuffleNet: 36 channels, in 4 groups before and after the shuffle, make cells of two and three."""
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    x = shuffle(n, n.relu(n.conv(x, 36, 1, group=4)), 4)
    n.head(n.relu(n.conv(x, 12, 1, group=4)))


@pattern(8, 8, 12)
def conv_transpose_grouped(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    x = n.relu(n.deconv(x, 12, group=4))
    n.head(n.relu(n.conv(x, 8)))


@pattern(6)
def conv_transpose_depthwise(n: Net) -> None:
    x = n.deconv(n.relu(n.conv(n.input(IMAGE), 6, 3)), 6, group=6)
    n.head(x)


@pattern(8, 7, opsets=(9, 17, NEWEST))
def depthwise(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    x = n.relu(n.conv(x, 8, 3, group=8))
    n.head(n.relu(n.conv(x, 7)))


@pattern(4)
def depthwise_multiplier(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    n.head(n.relu(n.conv(x, 12, 3, group=4)))


@pattern(24, 6)
def many_outputs_of_each_input(n: Net) -> None:
    """Real and imaginary part, or colours, filtered one by one: more outputs of each than there are inputs."""
    x = n.relu(n.conv(n.input(IMAGE), 24, 3, group=3))
    n.head(n.relu(n.conv(x, 6)))


@pattern(4)
def grouped_conv_of_one_output_each(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    n.head(n.relu(n.conv(x, 4, 3, group=4)))


@pattern(pinned=("input",))
def depthwise_on_the_input(n: Net) -> None:
    n.head(n.conv(n.input(IMAGE), 3, 3, group=3))


@pattern(12, 8, 6)
def grouped_conv(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 12, 3))
    x = n.relu(n.conv(x, 8, 3, group=4))
    n.head(n.relu(n.conv(x, 6)))


@pattern(12, 12, 12)
def grouped_convs_with_other_groups(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 12, 3))
    x = n.relu(n.conv(x, 12, 3, group=2))
    n.head(n.relu(n.conv(x, 12, 3, group=3)))


@pattern(6, 4, 16, opsets=ALL)
def flatten_with_extent(n: Net) -> None:
    x = n("MaxPool", n.relu(n.conv(n.input(IMAGE), 6, 3)), kernel_shape=[2, 2], strides=[2, 2])
    x = n("AveragePool", n.relu(n.conv(x, 4, 3)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.relu(n.dense(n("Flatten", x), 16, 16))
    n.output(n.dense(x, 16, 5), 2)


@pattern(4, 16, opsets=(9, 13, 17))
def reshape_to_a_constant(n: Net) -> None:
    x = n.reshape(n.relu(n.conv(n.input(IMAGE), 4, 3)), -1, 256)
    n.output(n.dense(n.relu(n.dense(x, 256, 16)), 16, 5), 2)


@pattern(4)
def reshape_with_zero_and_minus_one(n: Net) -> None:
    n.output(n.dense(n.reshape(n.relu(n.conv(n.input(IMAGE), 4, 3)), 0, -1), 256, 5), 2)


@pattern(4, opsets=(9, 11, 13, 17))
def reshape_to_a_computed_target(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    target = n.concat(n.dim(x, 0), n.constant(np.array([-1])), axis=0)
    n.output(n.dense(n("Reshape", x, target), 256, 5), 2)


@pattern(4, opsets=(9, 17))
def reshape_to_a_product_of_sizes(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    width = n("Mul", n("Mul", n.dim(x, 1), n.dim(x, 2)), n.dim(x, 3))
    target = n.concat(n.dim(x, 0), width, axis=0)
    n.output(n.dense(n("Reshape", x, target), 256, 5), 2)


@pattern(6, opsets=(9, 17))
def reshape_of_dynamic_extent(n: Net) -> None:
    x = n.relu(n.conv(n.input(("N", 3, "H", "W")), 6, 3))
    target = n.concat(n.dim(x, 0), n.dim(x, 1), n.constant(np.array([-1])), axis=0)
    x = n("Transpose", n("Reshape", x, target), perm=[0, 2, 1])
    n.output(n.linear(x, 6, 5), 3)


@pattern(6)
def reshape_of_dynamic_extent_and_fixed_width(n: Net) -> None:
    x = n.relu(n.conv(n.input(("N", 3, "H", "W")), 6, 3))
    x = n("Transpose", n.reshape(x, 0, 6, -1), perm=[0, 2, 1])
    x = n.linear(x, 6, 5)
    shape = n.concat(n.dim(x, 0), n.constant(np.array([-1, 5])), axis=0)
    n.output(n("Reshape", x, shape), 3)


@pattern(8, 6)
def recurrent_style_reshape(n: Net) -> None:
    """The convolutional part of a text recognizer: height is pooled away, width becomes time."""
    x = n.relu(n.conv(n.input(("N", 3, 8, "W")), 8, 3))
    x = n("MaxPool", x, kernel_shape=[8, 1], strides=[8, 1])
    x = n("Transpose", n.squeeze(x, 2), perm=[0, 2, 1])
    x = n.relu(n.linear(x, 8, 6))
    n.output(n("Softmax", n.linear(x, 6, 5), axis=2), 3)


@pattern(16, 12, opsets=ALL)
def gemm_chain(n: Net) -> None:
    x = n.relu(n.dense(n.input(("N", 10)), 10, 16))
    n.output(n.dense(n.relu(n.dense(x, 16, 12, transB=0)), 12, 5), 2)


@pattern(16, 12)
def gemm_alpha_beta(n: Net) -> None:
    x = n.relu(n.dense(n.input(("N", 10)), 10, 16, alpha=0.5, beta=2.0))
    n.output(n.dense(n.relu(n.dense(x, 16, 12, alpha=2.0)), 12, 5, beta=0.5), 2)


@pattern(12)
def gemm_of_a_transposed_input(n: Net) -> None:
    x = n("Transpose", n.input((4, 10)), perm=[1, 0])
    x = n.relu(n("Gemm", x, n.weight(12, 10), n.weight(1, 12), transA=1, transB=1))
    n.output(n("Gemm", n("Transpose", x, perm=[1, 0]), n.weight(12, 5), n.weight(1), transA=1), 2)


@pattern(12, 7, opsets=(11, 17))
def gemm_without_bias(n: Net) -> None:
    x = n.relu(n("Gemm", n.input(("N", 10)), n.weight(10, 12)))
    x = n.relu(n("Gemm", x, n.weight(12, 7), n.weight(4, 1)[:0] or n.constant(np.ones((1, 1), np.float32))))
    n.output(n("Gemm", x, n.weight(7, 5)), 2)


@pattern(16, 12, opsets=(9, 17, NEWEST))
def matmul_of_rank_2(n: Net) -> None:
    x = n.relu(n.linear(n.input(("N", 10)), 10, 16))
    n.output(n.linear(n.relu(n.linear(x, 16, 12, bias=False)), 12, 5), 2)


@pattern(16, 12)
def matmul_of_rank_3(n: Net) -> None:
    x = n.relu(n.linear(n.input(("N", 7, 10)), 10, 16))
    n.output(n.linear(n.relu(n.linear(x, 16, 12)), 12, 5), 3)


@pattern(16, 12)
def matmul_of_rank_4(n: Net) -> None:
    x = n.relu(n.linear(n.input(("N", 3, 7, 10)), 10, 16))
    n.output(n.linear(n.relu(n.linear(x, 16, 12)), 12, 5), 4)


@pattern(12)
def matmul_with_the_constant_on_the_left(n: Net) -> None:
    x = n.input(("N", 10, 7))
    x = n.relu(n("MatMul", n.weight(12, 10), x))
    n.output(n("MatMul", n.weight(5, 12), x), 3)


@pattern(12, 5)
def matmul_behind_a_leading_one(n: Net) -> None:
    """A stack of one matrix, as some exporters write a Linear layer."""
    x = n.relu(n("MatMul", n.input(("N", 4, 10)), n.weight(1, 10, 12)))
    x = n.relu(n("MatMul", x, n.weight(12, 5)))
    n.output(n("MatMul", x, n.weight(5, 3)), 3)


@pattern(12, pinned=("MatMul", "sums over this axis"))
def matmul_with_a_vector(n: Net) -> None:
    x = n.relu(n.linear(n.input(("N", 10)), 10, 12))
    x = n.relu(n.linear(x, 12, 6))
    n.output(n("MatMul", x, n.weight(6)), 1)


@pattern(9, 11, 13)
def several_biases(n: Net) -> None:
    """Biases of other shapes than (width,): a row, a column of ones, a scalar."""
    x = n("Add", n("MatMul", n.input(("N", 10)), n.weight(10, 9)), n.weight(1, 9))
    x = n("Add", n("MatMul", n.relu(x), n.weight(9, 11)), n.constant(np.ones((1, 1), np.float32)))
    x = n("Add", n.weight(13), n("MatMul", n.relu(x), n.weight(11, 13)))
    n.output(n.linear(n.relu(x), 13, 2), 2)


# Normalisation


@pattern(6, 8, opsets=(9, 13, 14, 15, 17, NEWEST))
def batch_normalization(n: Net) -> None:
    x = n.relu(n.bn(n.conv(n.input(IMAGE), 6, 3, bias=False)))
    n.head(n.relu(n.bn(n.conv(x, 8, 3))))


@pattern(6)
def batch_normalization_before_flatten(n: Net) -> None:
    x = n.bn(n.conv(n.input(IMAGE), 6, 3))
    n.output(n.dense(n("Flatten", n.relu(x)), 6 * 64, 3), 2)


@pattern(6, opsets=(7, 8))
def batch_normalization_spatial(n: Net) -> None:
    n.head(n.bn(n.conv(n.input(IMAGE), 6, 3), **({"spatial": 1} if n.opset < 9 else {})))


@pattern(6, opsets=(17,))
def batch_normalization_of_vectors(n: Net) -> None:
    x = n.dense(n.input(("N", 10)), 10, 6)
    n.output(n.dense(n.bn(x), 6, 2), 2)


@pattern(6, 8, opsets=(9, 17, NEWEST))
def instance_normalization(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    x = n.relu(n("InstanceNormalization", x, n.weight(6), n.weight(6)))
    n.head(n.conv(x, 8))


@pattern(4, 8, opsets=(18, 20))
def group_normalization_by_group(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 12, 3)
    x = n.relu(n("GroupNormalization", x, n.weight(4), n.weight(4), num_groups=4))
    n.head(n.conv(x, 8))


@pattern(4, 8, opsets=(21, NEWEST))
def group_normalization(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 12, 3)
    x = n.relu(n("GroupNormalization", x, n.weight(12), n.weight(12), num_groups=4))
    n.head(n.conv(x, 8))


@pattern(6, 8, opsets=(15, 19, NEWEST))
def numbers_in_the_type_of_a_tensor(n: Net) -> None:
    """As functions of onnxscript and JAX's exporter leave constants: a root mean square among them."""
    x = n("Mul", n.linear(n.input(("N", 4)), 4, 6), n("CastLike", n.constant(np.float32(2)), "x"))
    squares = n.reduce("ReduceMean", n("Mul", x, x), -1)
    root = n("Sqrt", n("Add", squares, n("CastLike", n.constant(np.float32(1e-5)), x)))
    x = n("Mul", n("Div", x, root), n.weight(6, positive=True))
    n.output(n.linear(n.relu(n.linear(x, 6, 8)), 8, 3), 2)


@pattern(6, 8)
def mean_over_the_last_axis_as_a_pooling(n: Net) -> None:
    """LayerNormalization of three axes, as tf2onnx leaves it."""
    x = n.linear(n.input(("N", 4, 10)), 10, 6)
    centred = n("Sub", x, n("GlobalAveragePool", x))
    variance = n("GlobalAveragePool", n("Mul", centred, centred))
    root = n("Sqrt", n("Add", variance, n.constant(np.array(1e-5, np.float32))))
    x = n("Add", n("Mul", n("Div", centred, root), n.weight(6)), n.weight(6))
    n.output(n.linear(n.relu(n.linear(x, 6, 8)), 8, 3), 3)


@pattern(4, 8)
def group_normalization_of_maps_of_any_size(n: Net) -> None:
    """As diffusion's U-Nets are exported: height and width are free, which the Reshape merges with the channels of a group."""
    x = n.conv(n.input(("N", 3, "H", "W")), 12, 3)
    flat = n("Reshape", x, n.constant(np.array([0, 4, -1])))
    ones, zeros = n.constant(np.ones(4, np.float32)), n.constant(np.zeros(4, np.float32))
    y = n("Reshape", n("InstanceNormalization", flat, ones, zeros), n("Shape", x))
    n.width[y] = 12
    y = n("Add", n("Mul", y, n.weight(12, 1, 1)), n.weight(12, 1, 1))
    n.width[y] = 12
    n.output(n.gap(n.conv(n.relu(n.conv(n.relu(y), 8)), 3)), 4)


@pattern(4)
def group_normalization_of_sequences_of_any_length(n: Net) -> None:
    x = n.conv(n.input(("N", 3, "L")), 12, 3, rank=1)
    flat = n("Reshape", x, n.constant(np.array([0, 4, -1])))
    ones, zeros = n.constant(np.ones(4, np.float32)), n.constant(np.zeros(4, np.float32))
    y = n("Reshape", n("InstanceNormalization", flat, ones, zeros), n("Shape", x))
    n.width[y] = 12
    n.output(n.conv(n.relu(y), 3, rank=1), 3)


@pattern(6, 6, 6, 8)
def maps_resized_to_the_size_of_another(n: Net) -> None:
    """As decoders of segmentation do: one computed size serves several."""
    first = n.relu(n.conv(n.input(IMAGE), 6, 3))
    second = n.relu(n.conv(first, 6, 3, stride=2))
    third = n.relu(n.conv(second, 8, 3, stride=2))
    size = n.concat(n.dim(first, 2), n.dim(first, 3), axis=0)
    ends = [n.constant(np.array([place])) for place in (0, 2, 0)]
    for x in (second, n.relu(n.conv(third, 6, 1))):
        y = n("Resize", x, "", "", n.concat(n("Slice", n("Shape", x), *ends), size, axis=0))
        n.width[y] = 6
        first = n("Add", first, n.relu(n.conv(y, 6, 1)))
        n.width[first] = 6
    n.head(first)


@pattern(3, opsets=(13, 17, NEWEST))
def heads_of_positions_that_are_counted_together(n: Net) -> None:
    """As tf2onnx writes the products of Keras' attention: samples and positions are one axis, whose size a ReduceProd gives, and heads are left.

    The numbers of a head, which are more, can go.
    """
    heads = n.reshape(n.linear(n.input(("N", "T", 8)), 8, 6), 0, 0, 2, 3)
    sizes = n("Shape", heads)
    first = n("Gather", sizes, n.constant(np.array([0, 1])), axis=0)
    rows, last = n.reduce("ReduceProd", first, 0), n("Gather", sizes, n.constant(np.array([3])), axis=0)
    y = n("Reshape", heads, n.concat(rows, n.constant(np.array([-1])), last, axis=0))
    n.output(n.linear(n.reshape(n("Tanh", y), 0, -1), 6, 3), 2)


@pattern(6, 6, 8, opsets=(13, 17))
def layers_that_onnxruntime_has_fused(n: Net) -> None:
    """As it writes a model that it has optimised: convolutions with a sum and an activation, a product with one."""

    def fused(x: str, out: int, *more: str, k: int = 3, **attributes: object) -> str:
        weights = n.weight(out, n.width[x], k, k), n.weight(out)
        y = n(
            "FusedConv",
            x,
            *weights,
            *more,
            domain="com.microsoft",
            kernel_shape=[k, k],
            pads=[k // 2] * 4,
            **attributes,
        )
        n.width[y] = out
        return y

    x = fused(n.input(IMAGE), 6, activation="Relu")
    y = fused(
        fused(x, 6, activation="Clip", activation_params=[0.0, 6.0]),
        6,
        x,
        k=1,
        activation="LeakyRelu",
        activation_params=[0.1],
    )
    y = n("Flatten", n.gap(y))
    y = n("FusedGemm", y, n.weight(6, 8), n.weight(8), domain="com.microsoft", activation="Relu")
    n.domains["com.microsoft"] = 1
    n.output(n.linear(y, 8, 3), 2)


def one_group(n: Net, x: str, positions: int = 2) -> str:
    """GroupNorm(1, channels) as PyTorch's exporters leave it."""
    width = n.width[x]
    flat = n("Reshape", x, n.constant(np.array([0, 1, -1])))
    one, zero = n.constant(np.ones(1, np.float32)), n.constant(np.zeros(1, np.float32))
    back = n("Reshape", n("InstanceNormalization", flat, one, zero), n("Shape", x))
    shape = (width, *(1,) * positions)
    made = n("Add", n("Mul", back, n.weight(*shape, positive=True)), n.weight(*shape))
    n.width[made] = width
    return made


@pattern(5, 6, 8, opsets=(9, 13, 17, 18, NEWEST))
def normalization_of_one_group(n: Net) -> None:
    x = n.relu(one_group(n, n.conv(n.input(IMAGE), 6, 3)))
    n.head(n.relu(n.conv(n.relu(one_group(n, n.conv(x, 8))), 5)))


@pattern(5, 6, opsets=(21, NEWEST))
def normalization_of_one_group_as_an_operator(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    x = n.relu(n("GroupNormalization", x, n.weight(6, positive=True), n.weight(6), num_groups=1))
    n.head(n.relu(n.conv(x, 5)))


@pattern(5, 6, 8)
def normalization_of_one_group_of_sequences(n: Net) -> None:
    """As Conv-TasNet has them, the residual stream among them."""
    x = n.conv(n.input(("N", 3, 10)), 6, 3, rank=1)
    y = one_group(n, n.relu(n.conv(one_group(n, x, 1), 8, rank=1)), 1)
    x = n("Add", x, n.conv(y, 6, rank=1))
    n.width[x] = 6
    n.output(n.conv(n.relu(n.conv(one_group(n, x, 1), 5, rank=1)), 2, rank=1), 3)


@pattern(4, 8, opsets=(9, 13, 17))
def group_normalization_decomposed(n: Net) -> None:
    """As torch exports it: Reshape, InstanceNormalization, Reshape, Mul, Add."""
    x = n.conv(n.input(IMAGE), 12, 3)
    y = n(
        "InstanceNormalization",
        n.reshape(x, 0, 4, -1),
        n.constant(np.ones(4, np.float32)),
        n.constant(np.zeros(4, np.float32)),
    )
    y = n("Reshape", y, n("Shape", x))
    y = n("Add", n("Mul", y, n.weight(12, 1, 1)), n.weight(12, 1, 1))
    n.width[y] = 12
    n.head(n.conv(n.relu(y), 8))


@pattern(8, pinned=("LRN", "whose normalisation mixes channels"), opsets=(9, 17))
def local_response_normalization(n: Net) -> None:
    x = n("LRN", n.relu(n.conv(n.input(IMAGE), 6, 3)), size=3)
    n.head(n.relu(n.conv(x, 8)))


@pattern(6, 8)
def layer_normalization_over_channels(n: Net) -> None:
    x = n("LayerNormalization", n.linear(n.input(("N", 4, 10)), 10, 6), n.weight(6), n.weight(6))
    n.output(n.linear(n.relu(n.linear(x, 6, 8)), 8, 3), 3)


def decomposed_root_mean_square(n: Net, x: str) -> str:
    mean = n.reduce("ReduceMean", n("Pow", x, n.constant(np.array(2, np.float32))), -1)
    root = n("Sqrt", n("Add", mean, n.constant(np.array(1e-6, np.float32))))
    return n("Mul", n.weight(n.width[x], positive=True), n("Mul", x, n("Reciprocal", root)))


def pre_norm_stream(name: str, norm: Callable[[Net, str], str], opset: int = 17, *, tied: bool = False) -> None:
    """Token and position tables, two residual blocks that read the normalised stream, a norm and a head, which may be the table of tokens, turned."""

    def build(n: Net) -> None:
        table = n.weight(11, 8)
        words = n("Gather", table, n.input(("N", 4), kind=INT64))
        n.width[words] = 8
        x = n("Add", words, n.weight(4, 8))
        for _ in range(2):
            x = n("Add", x, n.linear(n("Tanh", n.linear(norm(n, x), 8, 6)), 6, 8))
        n.output(n("MatMul", norm(n, x), n("Transpose", table, perm=[1, 0]) if tied else n.weight(8, 11)), 3)

    PATTERNS.append(Pattern(f"stream-{name}", build, (6, 6, 8), (), (opset,), None, np.float32))


def layer_norm(n: Net, x: str) -> str:
    return n("LayerNormalization", x, n.weight(8, positive=True), n.weight(8), epsilon=1e-6)


def simplified(n: Net, x: str) -> str:
    return n("SimplifiedLayerNormalization", x, n.weight(8, positive=True), epsilon=1e-6)


def root_mean_square(n: Net, x: str) -> str:
    return n("RMSNormalization", x, n.weight(8, positive=True), epsilon=1e-6)


pre_norm_stream("layer-norm", layer_norm)
pre_norm_stream("simplified", simplified)
pre_norm_stream("rms-norm", root_mean_square, 23)
pre_norm_stream("rms-decomposed", decomposed_root_mean_square)
pre_norm_stream("tied-head", decomposed_root_mean_square, tied=True)


@pattern(6, 6, 8)
def post_norm_stream(n: Net) -> None:
    """As BERT has it: what a block adds to is normalised, and what it reads is, too."""
    x = n(
        "Add",
        n("Gather", n.weight(11, 8), n.input(("N", 4), kind=INT64)),
        n("Gather", n.weight(11, 8), n.input(("N", 4), "kind", kind=INT64)),
    )
    n.width[x] = 8
    for _ in range(2):
        x = layer_norm(n, x)
        x = n("Add", n.linear(n("Tanh", n.linear(x, 8, 6)), 6, 8), x)
    n.output(n.linear(layer_norm(n, x), 8, 3), 3)


@pattern(6, 8)
def layer_normalization_of_flax(n: Net) -> None:
    """Sums over channels in front of positions, times a number; the variance is a mean of squares less a squared mean."""
    x = n("Transpose", n.linear(n.input(("N", 4, 10)), 10, 6), perm=[0, 2, 1])
    share = n.constant(np.array(1 / 6, np.float32))
    mean, squares = (n("Mul", n.reduce("ReduceSum", y, 1, keepdims=0), share) for y in (x, n("Mul", x, x)))
    variance = n("Max", n.constant(np.array(0, np.float32)), n("Sub", squares, n("Mul", mean, mean)))
    inverse = n("Reciprocal", n("Sqrt", n("Add", n.unsqueeze(variance, 1), n.constant(np.array(1e-6, np.float32)))))
    x = n("Mul", n("Sub", x, n.unsqueeze(mean, 1)), n("Mul", inverse, n.weight(1, 6, 1, positive=True)))
    x = n("Transpose", n("Add", x, n.weight(1, 6, 1)), perm=[0, 2, 1])
    n.output(n.linear(n.relu(n.linear(x, 6, 8)), 8, 3), 3)


@pattern(6)
def layer_normalization_over_positions(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    x = n("LayerNormalization", x, n.weight(8, 8), n.weight(8, 8), axis=2)
    n.head(x)


@pattern(8, pinned=("ReduceMean",), opsets=(9, 17, 18))
def layer_normalization_decomposed_without_a_scale(n: Net) -> None:
    n.output(
        n.linear(
            n.relu(n.linear(decomposed_layer_normalization(n, n.linear(n.input(("N", 4, 10)), 10, 6)), 6, 8)), 8, 3
        ),
        3,
    )


@pattern(6, 8, opsets=(9, 17, 18))
def layer_normalization_decomposed(n: Net) -> None:
    x = decomposed_layer_normalization(n, n.linear(n.input(("N", 4, 10)), 10, 6))
    x = n("Add", n("Mul", x, n.weight(6)), n.weight(6))
    n.output(n.linear(n.relu(n.linear(x, 6, 8)), 8, 3), 3)


# Pooling and reductions


def pooled(name: str, pool: Callable[[Net, str], str], opsets: Sequence[int] = (9, 17)) -> None:
    """Conv, the pooling, Flatten, classifier."""

    def build(n: Net) -> None:
        x = pool(n, n.relu(n.conv(n.input(IMAGE), 6, 3)))
        n.output(n.dense(x if x.startswith("reduce") else n("Flatten", x), 6, 3), 2)

    PATTERNS.append(Pattern(f"pooling-{name}", build, (6,), (), tuple(opsets), None, np.float32))


pooled("global-average", lambda n, x: n.gap(x))
pooled("global-max", lambda n, x: n("GlobalMaxPool", x))
pooled("max", lambda n, x: n("MaxPool", x, kernel_shape=[8, 8]))
pooled("average", lambda n, x: n("AveragePool", x, kernel_shape=[8, 8]))
pooled("lp", lambda n, x: n("LpPool", x, kernel_shape=[8, 8]))
for _op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2"):
    for _keep in (0, 1):
        pooled(
            f"{_op.lower()}-{'keepdims' if _keep else 'drop'}",
            lambda n, x, op=_op, keep=_keep: (
                n.reduce(op, x, 2, 3, keepdims=0) if not keep else n("Identity", n.reduce(op, x, -1, -2, keepdims=1))
            ),
            (9, 13, 17, 18, NEWEST),
        )


@pattern(7, pinned=("indices count over all channels",))
def max_pool_with_indices(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    y, _ = n.add("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    n.head(n.relu(n.conv(y, 7)))


@pattern(7, pinned=("MaxPool", "indices"))
def max_unpooling(n: Net) -> None:
    x = n.relu(n.conv(n.input((2, 3, 8, 8)), 6, 3))
    y, indices = n.add("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    y = n("MaxUnpool", y, indices, kernel_shape=[2, 2], strides=[2, 2])
    n.width[y] = 6
    n.head(n.relu(n.conv(y, 7)))


@pattern(6, pinned=("ReduceMax", "sums over this axis"), opsets=(17, 18))
def reduction_over_channels(n: Net) -> None:
    x = n.reduce("ReduceMax", n.relu(n.conv(n.input(IMAGE), 5, 3)), 1)
    n.width[x] = 1
    n.head(n.conv(x, 6))


@pattern(6, 8)
def spatial_attention(n: Net) -> None:
    """The gate has one channel, broadcast over all."""
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    gate = n("Sigmoid", n.conv(n.relu(n.conv(x, 8)), 1))
    n.head(n("Mul", x, gate))


@pattern(6)
def reduction_over_the_batch(n: Net) -> None:
    x = n.relu(n.conv(n.input((4, 3, 8, 8)), 6, 3))
    mean = n.reduce("ReduceMean", x, 0)
    n.head(n("Sub", x, mean))


# Branches


@pattern(6, 5, 6)
def residual_identity(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    for width in (5, 6):
        x = n.relu(n("Add", n.conv(n.relu(n.conv(x, width, 3)), 6, 3), x))
    n.head(x)


@pattern(6, 5, 8)
def residual_projection(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    y = n.bn(n.conv(n.relu(n.bn(n.conv(x, 5, 3, stride=2))), 8, 3))
    n.head(n.relu(n("Add", y, n.bn(n.conv(x, 8, 1, stride=2)))))


@pattern(6, 4, 5)
def pre_activation_stream(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    for width in (4, 5):
        y = n.conv(n.relu(n.bn(x)), width, 3)
        x = n("Add", x, n.conv(n.relu(n.bn(y)), 6, 3))
    n.head(n.relu(n.bn(x)))


@pattern(4, 6, 4, opsets=(9, 10, 11, 13, 17))
def option_a_shortcut(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    y = n.conv(n.relu(n.conv(x, 6, 3, stride=2)), 8, 3)
    short = n("MaxPool", x, kernel_shape=[1, 1], strides=[2, 2])
    n.head(n.relu(n("Add", y, n.pad(short, [0, 2, 0, 0, 0, 2, 0, 0]))))


@pattern(4, 6, 4, opsets=(11, 17))
def option_a_shortcut_with_computed_pads(n: Net) -> None:
    """As torch exports F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)): pads from ConstantOfShape, Concat, Reshape, Slice, Transpose."""
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    y = n.conv(n.relu(n.conv(x, 6, 3, stride=2)), 8, 3)
    steps = [n.constant(np.array(v, np.int64)) for v in ([0, 0], [2**60, 2**60], [2, 3], [2, 2])]
    short = n("Slice", x, *steps)
    zeros = n("ConstantOfShape", n.constant(np.array([2])), value=helper.make_tensor("v", INT64, [1], [0]))
    pads = n.concat(n.constant(np.array([0, 0, 0, 0, 2, 2])), zeros, axis=0)
    pads = n("Reshape", pads, n.constant(np.array([-1, 2])))
    pads = n("Slice", pads, *(n.constant(np.array([v])) for v in (-1, -(2**62), 0, -1)))
    pads = n("Cast", n("Reshape", n("Transpose", pads, perm=[1, 0]), n.constant(np.array([-1]))), to=INT64)
    n.head(n.relu(n("Add", y, n("Pad", short, pads, n.constant(np.array(0, np.float32))))))


@pattern(*(6,) * 7, *(4,) * 8, 3, opsets=(9, 17))
def two_branches_by_every_operator(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 4, 3))
    for op in ("Sub", "Max", "Min", "Mul", "Div", "Sum", "Mean"):
        x = n(op, n.conv(x, 6), n("Exp", n.conv(x, 6)))
        x = n.conv(n("Tanh", x), 4)
    n.head(n.conv(x, 3))


@pattern(6, 5)
def per_channel_constants(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    x = n("Add", n("Mul", x, n.weight(6, 1, 1)), n.weight(1, 6, 1, 1))
    n.head(n("Div", n.conv(n.relu(x), 5), n.weight(5, 1, 1, positive=True)))


@pattern(6, 6, 4, 3)
def constants_in_a_late_slot(n: Net) -> None:
    x = n.conv(n.input((2, 3, 8, 8)), 6, 3)
    x = n("Sum", *(n("Tanh", x) for _ in range(6)), n.weight(1, 6, 1, 1))
    n.width[x] = 6
    parts = [n("MaxPool", n.conv(x, 6), kernel_shape=[1, 1])]
    parts += [n(op, parts[0]) for op in ("Tanh", "Sigmoid", "Abs", "Neg", "Exp")]
    x = n("Concat", *parts, n.weight(2, 3, 8, 8), axis=1)
    n.width[x] = 39
    n.head(n.relu(n.conv(x, 4)))


@pattern(6, 8)
def one_channel_broadcast_over_many(n: Net) -> None:
    x = n.input(IMAGE)
    one, many = n.conv(x, 1, 3), n.conv(x, 6, 3)
    x = n("Add", n("Mul", many, one), n.weight(1, 1, 1))
    n.head(n.conv(x, 8))


@pattern(6, 4, 5, 3)
def fan_out(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    n.head(n.relu(n.conv(x, 4)), 2)
    n.head(n.relu(n.conv(x, 5, 3)), 3)
    n.head(n.conv(n.conv(x, 3), 1), 3)


@pattern(4, 6, 5)
def concat_of_branches(n: Net) -> None:
    x = n.input(IMAGE)
    x = n.concat(n.relu(n.conv(x, 4)), n.relu(n.conv(x, 6, 3)), n("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4))
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 4, 4, 4)
def dense_block(n: Net) -> None:
    """Nested Concat with BatchNormalization behind it."""
    x = n.conv(n.input(IMAGE), 6, 3)
    for _ in range(3):
        x = n.concat(x, n.conv(n.relu(n.bn(x)), 4, 3))
    n.head(n.relu(n.bn(x)))


@pattern(6, 8)
def sppf(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6))
    parts = [x]
    for _ in range(3):
        parts.append(n("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4, strides=[1, 1]))
    n.head(n.relu(n.conv(n.concat(*parts), 8)))


@pattern(6, 5)
def concat_on_another_axis(n: Net) -> None:
    x = n.input(IMAGE)
    x = n.concat(n.relu(n.conv(x, 6, 3)), n.relu(n.conv(x, 6)), axis=2)
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 7)
def detection_heads(n: Net) -> None:
    """Boxes and classes of two scales, flattened and concatenated over positions; the outputs stay."""
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    y = n.relu(n.conv(x, 7, 3, stride=2))
    flat = [n.reshape(n.conv(t, 4), 0, 4, -1) for t in (x, y)]
    n.output(n("Transpose", n.concat(*flat, axis=2), perm=[0, 2, 1]), 3)


@pattern(4, 4, 3, 4, 5, opsets=(9, 11, 13, 18, NEWEST))
def c2f(n: Net) -> None:
    """Split in two, a bottleneck on one half, everything concatenated (YOLOv8)."""
    x = n.conv(n.input(IMAGE), 8)
    a, b = n.split(silu(n, x), [4, 4])
    n.width[a] = n.width[b] = 4
    y = n("Add", b, silu(n, n.conv(silu(n, n.conv(b, 3, 3)), 4, 3)))
    y2 = n("Add", y, silu(n, n.conv(silu(n, n.conv(y, 4, 3)), 4, 3)))
    n.head(silu(n, n.conv(n.concat(a, b, y, y2), 5)))


@pattern(6, 5, opsets=(9, 11, 13, 17, 18))
def glu_chunks(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 12, 3)
    a, b = n.split(x, [6, 6])
    n.head(n.relu(n.conv(n("Mul", a, n("Sigmoid", b)), 5)))


@pattern(6, 5, opsets=(18, NEWEST))
def split_by_num_outputs(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 12, 3)
    a, b = n.add("Split", x, outputs=2, axis=1, num_outputs=2)
    n.width[a] = n.width[b] = 6
    n.head(n.relu(n.conv(n("Mul", a, n("Sigmoid", b)), 5)))


@pattern(6, 5, opsets=(9, 13))
def split_in_equal_parts(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 12, 3)
    a, b = n.add("Split", x, outputs=2, axis=1)
    n.width[a] = n.width[b] = 6
    n.head(n.relu(n.conv(n("Mul", a, n("Sigmoid", b)), 5)))


@pattern(3, 5, 6, opsets=(9, 10, 13, 17))
def slice_channels(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    a, b = n.slice(x, 0, 3), n.slice(x, 3, 2**31)
    n.width[a], n.width[b] = 3, 5
    n.head(n.relu(n("Add", n.conv(a, 6), n.conv(b, 6))))


@pattern(2, 3, 3, 5)
def slices_that_overlap(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    a, b = n.slice(x, 0, 5), n.slice(x, -6, 8)
    n.width[a], n.width[b] = 5, 6
    n.head(n.relu(n("Add", n.conv(a, 5), n.conv(b, 5))))


@pattern(4, 5, 4)
def slice_with_a_step(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    even, odd = n.slice(x, 0, 8, step=2), n.slice(x, 7, -9, step=-2)
    n.width[even] = n.width[odd] = 4
    n.head(n("Add", n.conv(even, 5), n.conv(odd, 5)))


@pattern(3, 5, 3)
def gather_channels(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    a = n("Gather", x, n.constant(np.array([4, 0, -1])), axis=1)
    b = n("Gather", x, n.constant(np.array([1, 2, 3])), axis=1)
    n.width[a] = n.width[b] = 3
    n.head(n("Add", n.conv(a, 5), n.conv(b, 5)))


@pattern(6, 5)
def gather_that_permutes(n: Net) -> None:
    x = n("Gather", n.relu(n.conv(n.input(IMAGE), 6, 3)), n.constant(np.array([5, 3, 1, 0, 2, 4])), axis=1)
    n.head(n.conv(x, 5))


@pattern(5, 5, pinned=("picks it by position",))
def gather_of_one_channel(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    one = n("Gather", x, n.constant(np.array(2)), axis=1)
    one = n.unsqueeze(one, 1)
    n.head(n.relu(n.conv(n("Mul", n.conv(x, 5), one), 1)))


@pattern(6, 4)
def pad_of_positions(n: Net) -> None:
    x = n.pad(n.relu(n.conv(n.input(IMAGE), 6, 3)), [0, 0, 1, 1, 0, 0, 1, 1])
    n.head(n.relu(n.conv(x, 4, 3)))


@pattern(6, 4)
def pad_by_reflection(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n("Pad", x, n.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="reflect")
    n.head(n.relu(n.conv(x, 4, 3)))


@pattern(6, 4, opsets=(18, NEWEST))
def pad_of_some_axes(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    pads, axes = n.constant(np.array([1, 1, 1, 1])), n.constant(np.array([-1, -2]))
    n.head(n.relu(n.conv(n("Pad", x, pads, n.constant(np.array(0, np.float32)), axes), 4, 3)))


@pattern(6, 4)
def expand_to_the_batch(n: Net) -> None:
    """A learned map, made by a Conv, expanded over the batch."""
    x = n.relu(n.conv(n.input(("N", 3, 1, 1)), 6))
    shape = n.concat(n.constant(np.array([1, 6, 4, 4])), axis=0)
    n.head(n.conv(n("Expand", x, shape), 4, 3))


@pattern(6, 4)
def expand_to_the_shape_of_another(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    gate = n("Expand", n("Sigmoid", n.gap(n.conv(n.relu(n.conv(x, 4)), 6))), n("Shape", x))
    n.head(n("Mul", x, gate))


@pattern(6, 4)
def tile_positions(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    n.head(n.relu(n.conv(n("Tile", x, n.constant(np.array([1, 1, 2, 1]))), 4)))


@pattern(4, pinned=("Tile",))
def tile_channels(n: Net) -> None:
    x = n("Tile", n.relu(n.conv(n.input(IMAGE), 6, 3)), n.constant(np.array([1, 2, 1, 1])))
    n.width[x] = 12
    n.head(n.relu(n.conv(x, 4)))


@pattern(6, 5, opsets=ALL)
def squeeze_and_unsqueeze(n: Net) -> None:
    x = n.squeeze(n.gap(n.relu(n.conv(n.input(IMAGE), 6, 3))), 2, 3)
    x = n.unsqueeze(n.relu(n.dense(x, 6, 5)), 2, 3)
    n.width[x] = 5
    n.output(n.conv(x, 3), 4)


@pattern(6)
def squeeze_without_axes(n: Net) -> None:
    x = n("Squeeze", n.gap(n.relu(n.conv(n.input((2, 3, 8, 8)), 6, 3))))
    n.output(n.dense(x, 6, 3), 2)


@pattern(6, 8)
def transpose_to_channels_last(n: Net) -> None:
    x = n("Transpose", n.relu(n.conv(n.input(IMAGE), 6, 3)), perm=[0, 2, 3, 1])
    x = n("Transpose", n.relu(n.linear(x, 6, 8)), perm=[0, 3, 1, 2])
    n.head(x)


@pattern(6)
def transpose_by_default(n: Net) -> None:
    x = n("Transpose", n.relu(n.dense(n.input((4, 10)), 10, 6)))
    n.output(n("MatMul", n.weight(3, 6), x), 2)


def shuffle(n: Net, x: str, groups: int, height: int = 8) -> str:
    width = n.width[x]
    y = n.reshape(x, -1, groups, width // groups, height, height)
    y = n.reshape(n("Transpose", y, perm=[0, 2, 1, 3, 4]), -1, width, height, height)
    n.width[y] = width
    return y


@pattern(12, 5)
def channel_shuffle(n: Net) -> None:
    x = shuffle(n, n.relu(n.conv(n.input(IMAGE), 12, 3)), 3)
    n.head(n.relu(n.conv(x, 5)))


@pattern(2, 2, 2, 2, 4, 4, 5, 6, 6)
def shuffle_unit(n: Net) -> None:
    """ShuffleNetV2: half passes, half is convolved, then the halves are interleaved, twice."""
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    for _ in range(2):
        a, b = n.split(x, [4, 4])
        b = n.relu(n.conv(n.conv(n.relu(n.conv(b, 6)), 6, 3, group=6), 4))
        x = shuffle(n, n.concat(a, b), 2)
    n.head(n.relu(n.conv(x, 5)))


@pattern(12, 12)
def shuffle_between_grouped_convs(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 12, 3))
    x = shuffle(n, n.relu(n.conv(x, 12, 1, group=3)), 3)
    n.head(n.relu(n.conv(x, 12, 1, group=3)))


@pattern(6)
def pixel_shuffle(n: Net) -> None:
    x = n("DepthToSpace", n.relu(n.conv(n.input(IMAGE), 24, 3)), blocksize=2, mode="CRD")
    n.width[x] = 6
    n.output(n.conv(x, 3, 3), 4)


@pattern(6, opsets=(9, 13))
def pixel_shuffle_depth_first(n: Net) -> None:
    x = n("DepthToSpace", n.relu(n.conv(n.input(IMAGE), 24, 3)), blocksize=2)
    n.width[x] = 6
    n.output(n.conv(x, 3, 3), 4)


@pattern(8, 4)
def grouped_conv_before_group_normalization(n: Net) -> None:
    """Whole groups of the normalisation go, equally many from each group of the convolution."""
    x = n.conv(n.relu(n.conv(n.input(IMAGE), 8, 3)), 12, 3, group=2)
    y = n.reshape(x, 0, 4, -1)
    y = n("InstanceNormalization", y, n.constant(np.ones(4, np.float32)), n.constant(np.zeros(4, np.float32)))
    y = n("Add", n("Mul", n("Reshape", y, n("Shape", x)), n.weight(12, 1, 1)), n.weight(12, 1, 1))
    n.width[y] = 12
    n.head(n.relu(y))


@pattern(2)
def pixel_shuffle_of_more_pixels_than_channels(n: Net) -> None:
    x = n.reshape(n.relu(n.conv(n.input(IMAGE), 32, 3)), -1, 2, 4, 4, 8, 8)
    x = n.reshape(n("Transpose", x, perm=[0, 1, 4, 2, 5, 3]), -1, 2, 32, 32)
    n.width[x] = 2
    n.output(n.conv(x, 3, 3), 4)


@pattern(6)
def pixel_shuffle_by_reshape(n: Net) -> None:
    x = n.reshape(n.relu(n.conv(n.input(IMAGE), 24, 3)), -1, 6, 2, 2, 8, 8)
    x = n.reshape(n("Transpose", x, perm=[0, 1, 4, 2, 5, 3]), -1, 6, 16, 16)
    n.width[x] = 6
    n.output(n.conv(x, 3, 3), 4)


@pattern(6, 5)
def space_to_depth(n: Net) -> None:
    x = n("SpaceToDepth", n.relu(n.conv(n.input(IMAGE), 6, 3)), blocksize=2)
    n.width[x] = 24
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5)
def space_to_depth_by_reshape(n: Net) -> None:
    x = n.reshape(n.relu(n.conv(n.input(IMAGE), 6, 3)), -1, 6, 4, 2, 4, 2)
    x = n.reshape(n("Transpose", x, perm=[0, 3, 5, 1, 2, 4]), -1, 24, 4, 4)
    n.width[x] = 24
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5)
def space_to_depth_by_slices(n: Net) -> None:
    """The focus layer of YOLOv5."""
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    parts = [n.slice(n.slice(x, i, 8, 2, 2), j, 8, 3, 2) for j in (0, 1) for i in (0, 1)]
    n.head(n.relu(n.conv(n.concat(*parts), 5)))


@pattern(6, 5, opsets=(11, 13, 18, 19, NEWEST))
def resize_by_scales(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    roi = n.constant(np.zeros(0, np.float32)) if n.opset < 13 else ""
    x = n("Resize", x, roi, n.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5, opsets=(10,))
def resize_of_opset_10(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n("Resize", x, n.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5, opsets=(7, 8, 9))
def upsample(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    scales = [1.0, 1.0, 2.0, 2.0]
    x = n("Upsample", x, scales=scales) if n.opset < 9 else n("Upsample", x, n.constant(np.array(scales, np.float32)))
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5, opsets=(11, 13, 17))
def resize_to_constant_sizes(n: Net) -> None:
    x = n.relu(n.conv(n.input((2, 3, 8, 8)), 6, 3))
    empty = n.constant(np.zeros(0, np.float32))
    x = n(
        "Resize",
        x,
        empty if n.opset < 13 else "",
        empty if n.opset < 13 else "",
        n.constant(np.array([2, 6, 12, 12])),
        mode="nearest",
    )
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5, 4, opsets=(11, 17))
def resize_to_the_size_of_another(n: Net) -> None:
    """A feature pyramid with dynamic extents: sizes from Shape, Slice, Concat."""
    x = n.relu(n.conv(n.input(("N", 3, "H", "W")), 6, 3))
    y = n.relu(n.conv(x, 5, 3, stride=2))
    lateral, top = n.conv(x, 4), n.conv(y, 4)
    head = n.slice(n("Shape", top), 0, 2, axis=0)
    tail = n.slice(n("Shape", lateral), 2, 4, axis=0)
    empty = n.constant(np.zeros(0, np.float32))
    top = n(
        "Resize",
        top,
        empty if n.opset < 13 else "",
        empty if n.opset < 13 else "",
        n.concat(head, tail, axis=0),
        mode="nearest",
    )
    n.output(n.conv(n("Add", top, lateral), 2), 4)


@pattern(6, 5, opsets=(18, NEWEST))
def resize_of_some_axes(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n("Resize", x, "", "", n.constant(np.array([12, 10])), axes=[2, 3], mode="linear")
    n.head(n.relu(n.conv(x, 5)))


# Squeeze and excite


def squeeze_excite(n: Net, x: str, hidden: int, gate: Callable[[Net, str], str], *, linear: bool) -> str:
    width = n.width[x]
    y = n.gap(x)
    if linear:
        y = n.reshape(y, -1, width)
        y = n.dense(n.relu(n.dense(y, width, hidden)), hidden, width)
        y = n.reshape(gate(n, y), -1, width, 1, 1)
    else:
        y = gate(n, n.conv(n.relu(n.conv(y, hidden)), width))
    y = n("Mul", x, y)
    n.width[y] = width
    return y


GATES: dict[str, Callable[[Net, str], str]] = {
    "sigmoid": lambda n, x: n("Sigmoid", x),
    "hardsigmoid": lambda n, x: n("HardSigmoid", x),
    "tanh": lambda n, x: n("Tanh", x),
    "hard-sigmoid-of-clip": lambda n, x: n(
        "Div", n.clip(n("Add", x, n.constant(np.array(3, np.float32))), 0, 6), n.constant(np.array(6, np.float32))
    ),
    "relu": lambda n, x: n.relu(x),
    "softplus": lambda n, x: n("Softplus", x),
}
for _gate, _apply in GATES.items():
    for _linear in (False, True):

        def _excite(n: Net, gate: Callable[[Net, str], str] = _apply, linear: bool = _linear) -> None:
            x = n.relu(n.conv(n.input(IMAGE), 8, 3))
            x = n.relu(n.conv(x, 8, 3, group=8))
            n.head(n.conv(squeeze_excite(n, x, 5, gate, linear=linear), 6))

        _name = f"squeeze-excite-{'linear' if _linear else 'conv'}-{_gate}"
        PATTERNS.append(
            Pattern(_name, _excite, (5, 6, 8), (), (11, 17) if _gate == "sigmoid" else (17,), None, np.float32)
        )


@pattern(8, 5, 6)
def squeeze_excite_with_computed_reshapes(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    y = n("Reshape", n.gap(x), n.concat(n.dim(x, 0), n.dim(x, 1), axis=0))
    y = n("Sigmoid", n.dense(n.relu(n.dense(y, 8, 5)), 5, 8))
    y = n(
        "Reshape", y, n.concat(n.dim(x, 0), n.dim(x, 1), n.constant(np.array([1])), n.constant(np.array([1])), axis=0)
    )
    n.head(n.conv(n("Mul", x, n("Expand", y, n("Shape", x))), 6))


@pattern(8, 6)
def efficient_channel_attention(n: Net) -> None:
    """A 1-D Conv along the channels: it mixes them by position, so the stream in front of it stays."""
    x = n.relu(n.conv(n.input(IMAGE), 8, 3))
    x = n.relu(n.conv(x, 7, 3))
    y = n("Transpose", n.squeeze(n.gap(x), -1), perm=[0, 2, 1])
    y = n("Conv", y, n.weight(1, 1, 3), pads=[1, 1], kernel_shape=[3])
    y = n.unsqueeze(n("Transpose", n("Sigmoid", y), perm=[0, 2, 1]), -1)
    n.head(n.conv(n("Mul", x, y), 6))


# Constants


@pattern(6)
def one_weight_used_twice(n: Net) -> None:
    """What the first use makes the second reads, by the same weight: the channels of both axes of it are the same."""
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    w = n.weight(6, 6, 3, 3)
    x = n.relu(n.conv(x, 6, 3, w=w))
    n.head(n.relu(n.conv(x, 6, 3, w=w)))


@pattern(6, 6, 6)
def one_bias_for_two_layers(n: Net) -> None:
    x = n.input(IMAGE)
    b = n.weight(6)
    for _ in range(3):
        x = n.relu(n.conv(x, 6, 3, b=b))
    n.head(x)


@pattern(6, 6)
def one_scale_for_two_normalisations(n: Net) -> None:
    x = n.input(IMAGE)
    ones, zeros = n.constant(np.ones(6, np.float32)), n.constant(np.zeros(6, np.float32))
    for _ in range(2):
        x = n("BatchNormalization", n.conv(x, 6, 3), ones, zeros, zeros, ones)
    n.head(x)


@pattern(6, 5, opsets=(9,), ir_version=3)
def initializers_that_are_inputs(n: Net) -> None:
    x = n.relu(n.bn(n.conv(n.input(IMAGE), 6, 3)))
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 6, opsets=(9,), ir_version=3)
def shared_initializer_that_is_an_input(n: Net) -> None:
    x = n.input(IMAGE)
    b = n.weight(6)
    n.head(n.relu(n.conv(n.relu(n.conv(x, 6, 3, b=b)), 6, 3, b=b)))


@pattern(6, 5)
def initializer_that_is_an_output(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3, b=n.weight(6, name="bias")))
    n.head(n.relu(n.conv(x, 5)))
    n.outputs.append(helper.make_tensor_value_info("bias", FLOAT, [6]))


@pattern(6, 5, opsets=(9, 17))
def weights_in_constant_nodes(n: Net) -> None:
    x = n.input(IMAGE)

    def constant(*shape: int) -> str:
        value = n.rng.standard_normal(shape).astype(np.float32)
        return n("Constant", value=helper.make_tensor("v", FLOAT, shape, value.ravel()))

    x = n.relu(n("Conv", x, constant(6, 3, 3, 3), constant(6), kernel_shape=[3, 3]))
    x = n.relu(n("Conv", x, constant(5, 6, 1, 1), kernel_shape=[1, 1]))
    n.width[x] = 5
    n.head(x)


@pattern(6, 5)
def weights_behind_operators(n: Net) -> None:
    """Identity, Transpose, Cast and arithmetic of an initializer, as exporters leave them."""
    x = n.relu(
        n(
            "Conv",
            n.input(IMAGE),
            n("Identity", n.weight(6, 3, 3, 3)),
            n("Cast", n.constant(np.ones(6, np.float16)), to=FLOAT),
        )
    )
    w = n("Mul", n("Transpose", n.weight(6, 5, 1, 1), perm=[1, 0, 2, 3]), n.constant(np.array(0.5, np.float32)))
    x = n.relu(n("Conv", x, w))
    n.output(n("MatMul", n("Flatten", n.gap(x)), n("Transpose", n.weight(3, 5), perm=[1, 0])), 2)


@pattern(6, 5)
def one_transposed_weight_used_twice(n: Net) -> None:
    """Two uses of one computed constant keep other rows of it."""
    w = n("Identity", n.weight(6, 6, 3, 3))
    x = n.relu(n.conv(n.input(("N", 6, 8, 8)), 6, 3, w=w))
    x = n.relu(n.conv(x, 6, 3, w=w)) if n.opset == 0 else x
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5, dtype=np.float16)
def half_weights(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    n.head(n.relu(n.conv(x, 5)))


@pattern(16, 12, dtype=np.float64)
def double_dense(n: Net) -> None:
    x = n.relu(n.dense(n.input(("N", 10)), 10, 16))
    n.output(n.dense(n.relu(n.linear(x, 16, 12)), 12, 5), 2)


@pattern(6, 5)
def half_in_the_middle(n: Net) -> None:
    x = n("Cast", n.input(IMAGE), to=TensorProto.FLOAT16)
    n.dtype = np.dtype(np.float16)
    x = n.relu(n.conv(n.relu(n.conv(x, 6, 3)), 5))
    n.dtype = np.dtype(np.float32)
    n.head(n("Cast", x, to=FLOAT))


# Structure of the graph


@pattern(6, 5, 4)
def several_inputs_and_outputs(n: Net) -> None:
    a, b = n.relu(n.conv(n.input(IMAGE, "a"), 6, 3)), n.relu(n.conv(n.input(("N", 2, 8, 8), "b"), 5, 3))
    y = n.relu(n.conv(n.concat(a, b), 4))
    n.head(y)
    n.output(n.conv(y, 2), 4)


@pattern(4, pinned=("output of the model",))
def output_that_is_consumed_inside(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    n.output(x, 4)
    n.head(n.relu(n.conv(x, 4)))


@pattern(6, 5)
def where_with_a_mask(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    mask = n("Greater", x, n.constant(np.array(0, np.float32)))
    x = n("Where", mask, x, n.constant(np.array(-1, np.float32)))
    n.width[x] = 6
    keep = n("Cast", n("Equal", n("Cast", x, to=INT64), n.constant(np.array(0))), to=FLOAT)
    n.head(n.conv(n("Add", x, keep), 5))


@pattern(6, 5)
def mask_as_a_second_input(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 6, 3)
    mask = n.input(("N", 1, 8, 8), "mask", BOOL)
    x = n("Where", mask, x, n.constant(np.array(0, np.float32)))
    n.width[x] = 6
    n.head(n.relu(n.conv(x, 5)))


def branch(name: str, op: str, captured: str, other: str) -> object:
    body = helper.make_node(op, [captured, other] if other else [captured], [f"{name}_out"])
    return helper.make_graph([body], name, [], [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)])


@pattern(5, 4, pinned=("the body of if", "reads it"), opsets=(11, 17))
def if_bodies_capture(n: Net) -> None:
    x = n.relu(n.conv(n.relu(n.conv(n.input(IMAGE), 5, 3)), 6, 3))
    y = n(
        "If",
        n.input((1,), "flag", BOOL),
        then_branch=branch("then", "Relu", x, ""),
        else_branch=branch("else", "Add", x, x),
    )
    n.width[y] = 6
    n.head(n.relu(n.conv(y, 4)))


@pattern(5, 4, pinned=("the body of loop", "reads it"), opsets=(13, 17))
def loop_body_captures(n: Net) -> None:
    x = n.relu(n.conv(n.relu(n.conv(n.input(IMAGE), 5, 3)), 6, 3))
    values = [
        helper.make_tensor_value_info("i", INT64, []),
        helper.make_tensor_value_info("c", BOOL, []),
        helper.make_tensor_value_info("s", FLOAT, None),
    ]
    nodes = [helper.make_node("Add", ["s", x], ["s2"]), helper.make_node("Identity", ["c"], ["c2"])]
    outs = [helper.make_tensor_value_info("c2", BOOL, []), helper.make_tensor_value_info("s2", FLOAT, None)]
    body = helper.make_graph(nodes, "body", values, outs)
    y = n("Loop", n.constant(np.array(3)), n.constant(np.array(True)), x, body=body)
    n.width[y] = 6
    n.head(n.relu(n.conv(y, 4)))


@pattern(6, 5)
def local_function(n: Net) -> None:
    nodes = [helper.make_node("Sigmoid", ["a"], ["s"]), helper.make_node("Mul", ["a", "s"], ["b"])]
    n.functions.append(helper.make_function("local", "Silu", ["a"], ["b"], nodes, [helper.make_opsetid("", n.opset)]))
    n.domains["local"] = 1
    x = n("Silu", n.conv(n.input(IMAGE), 6, 3), domain="local")
    n.head(n("Silu", n.conv(x, 5), domain="local"))


@pattern(6, 5, pinned=("Trilu", "without a rule"))
def operator_of_another_domain(n: Net) -> None:
    n.domains["com.microsoft"] = 1
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n("Trilu", n.conv(x, 7), domain="com.microsoft")
    n.head(n.relu(n.conv(x, 5)))


@pattern(6, 5, 4, pinned=("NonZero", "without a rule"))
def operator_without_a_rule(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    n.output(n("NonZero", n.relu(n.conv(x, 3))), 2, INT64)
    n.head(n.relu(n.conv(n.relu(n.conv(x, 5)), 4)))


@pattern(8, opsets=(9, 13, 17))
def softmax_over_positions(n: Net) -> None:
    x = n.conv(n.input(IMAGE), 8, 3)
    n.head(n("Softmax", x, axis=3))


@pattern(6, pinned=("Softmax", "mixes all positions"), opsets=(9, 13))
def softmax_over_channels(n: Net) -> None:
    x = n("Softmax", n.conv(n.input(IMAGE), 5, 3), axis=1)
    n.width[x] = 5
    n.head(n.relu(n.conv(x, 6)))


@pattern(12, 12, 16)
def attention_of_one_head(n: Net) -> None:
    """With a feed-forward pair behind it: what Q and K have in common goes too."""
    x = n.input(("N", 7, 12))
    q, k, v = n.linear(x, 12, 12), n.linear(x, 12, 12), n.linear(x, 12, 12)
    scores = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = n("Add", x, n.linear(n("MatMul", scores, v), 12, 12))
    n.output(n.linear(n.relu(n.linear(y, 12, 16)), 16, 3), 3)


@pattern(6, 5, 5)
def stacked_lstm(n: Net) -> None:
    """As TorchScript exports it: initial states of zeros, one axis squeezed."""
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    shape = n.concat(n.constant(np.array([1])), n.dim("x", 0), n.constant(np.array([5])), axis=0)
    for inputs in (6, 5):
        zeros = n("ConstantOfShape", shape)
        args = (n.weight(1, 20, inputs), n.weight(1, 20, 5), n.weight(1, 40), "", zeros, zeros)
        x = n.squeeze(n.add("LSTM", x, *args, outputs=3, hidden_size=5)[0], 1)
    n.output(n.linear(x, 5, 3), 3)


@pattern(6, 4)
def gru_of_two_directions(n: Net) -> None:
    """As PyTorch exports it: reset behind the product, units of both directions one behind the other."""
    x = n("Transpose", n.relu(n.linear(n.input(("N", 5, 3)), 3, 6)), perm=[1, 0, 2])
    args = (n.weight(2, 12, 6), n.weight(2, 12, 4), n.weight(2, 24))
    y, _ = n.add("GRU", x, *args, outputs=2, hidden_size=4, direction="bidirectional", linear_before_reset=1)
    y = n.reshape(n("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, 8)
    n.output(n.linear(n("Transpose", y, perm=[1, 0, 2]), 8, 3), 3)


@pattern(6, 7, 4)
def convolutions_in_front_of_an_lstm(n: Net) -> None:
    """A reader of text lines: the columns of an image are the steps."""
    x = n.relu(n.conv(n.relu(n.conv(n.input(("N", 3, 8, 6)), 6, 3)), 7, 3))
    x = n("Transpose", n.squeeze(n("ReduceMax", x, axes=[2]), 2), perm=[2, 0, 1])
    args = (n.weight(2, 16, 7), n.weight(2, 16, 4), n.weight(2, 32))
    y, *_ = n.add("LSTM", x, *args, outputs=3, hidden_size=4, direction="bidirectional")
    y = n("Transpose", n.reshape(n("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, 8), perm=[1, 0, 2])
    n.output(n.linear(y, 8, 5), 3)


@pattern(6, 5)
def decoder_that_begins_where_the_encoder_ends(n: Net) -> None:
    """The last state of a GRU is the first of another: they keep the same units."""
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    args = [(n.weight(1, 15, 6), n.weight(1, 15, 5), n.weight(1, 30)) for _ in range(2)]
    last = n.add("GRU", x, *args[0], outputs=2, hidden_size=5)[1]
    y, _ = n.add("GRU", x, *args[1], "", last, outputs=2, hidden_size=5)
    n.output(n.linear(n("Transpose", n.squeeze(y, 1), perm=[1, 0, 2]), 5, 3), 3)


@pattern(6, 5)
def last_state_of_an_rnn(n: Net) -> None:
    """As Keras exports it: what nobody reads has no name."""
    x = n("Transpose", n.relu(n.linear(n.input(("N", 4, 3)), 3, 6)), perm=[1, 0, 2])
    _, y = n.add("RNN", x, n.weight(1, 5, 6), n.weight(1, 5, 5), n.weight(1, 10), outputs=2, hidden_size=5)
    n.nodes[-1].output[0] = ""
    n.output(n.linear(n.squeeze(y, 0), 5, 3), 2)


def taken_apart(n: Net, x: str, form: str) -> list[str]:
    """Q, K and V of (3, N, heads, T, dim)."""
    if form == "Gather":
        return [n("Gather", x, n.constant(np.array(i)), axis=0) for i in range(3)]
    parts = n.split(x, [1, 1, 1], 0) if form == "Split" else [n.slice(x, i, i + 1, 0) for i in range(3)]
    return [n.squeeze(part, 0) for part in parts]


def packed_attention(form: str, heads: int, *, computed: bool = False, merged: bool = False) -> None:
    """One layer for Q, K and V, which lose numbers of heads, or heads where there are as many.

    computed: sizes and the scale come from Shape. merged: K is turned with the heads in the batch.
    """

    def build(n: Net) -> None:
        width, dim = 4 * heads, 4
        x = n.input(("N", 5, width))
        start = [n.dim(x, 0)] if computed else []
        target = [n.constant(np.array(s)) for s in ([5, 3, heads, dim], [5, width])]
        split, join = (n.concat(*start, t, axis=0) if computed else "" for t in target)
        y = n.linear(x, width, 3 * width)
        y = n("Reshape", y, split) if computed else n.reshape(y, 0, 5, 3, heads, dim)
        q, k, v = taken_apart(n, n("Transpose", y, perm=[2, 0, 3, 1, 4]), form)
        root = n("Sqrt", n("Cast", n.dim(q, 3), to=FLOAT)) if computed else n.constant(np.array(2.0, np.float32))
        if merged:
            sizes = n.concat(n.dim(k, 0), n.dim(k, 1), n.constant(np.array([dim, 5])), axis=0)
            k = n("Reshape", n("Transpose", n.reshape(k, -1, 5, dim), perm=[0, 2, 1]), sizes)
        else:
            k = n("Transpose", k, perm=[0, 1, 3, 2])
        scores = n("Div", n("MatMul", q, k), root)
        y = n("Transpose", n("MatMul", n("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        y = n("Reshape", y, join) if computed else n.reshape(y, 0, 5, width)
        n.output(n("Add", x, n.linear(y, width, width)), 3)

    name = f"packed-attention-{form}-{heads}{'-computed' if computed else ''}{'-merged' if merged else ''}".lower()
    PATTERNS.append(Pattern(name, build, (4, 4) if heads < 4 else (heads,), (), (17,), None, np.float32))


for _form, _heads, _computed in (("Slice", 2, False), ("Split", 3, True), ("Gather", 3, False), ("Slice", 4, True)):
    packed_attention(_form, _heads, computed=_computed)
packed_attention("Slice", 2, merged=True)


@pattern(4, 4)
def packed_attention_with_the_heads_in_the_batch(n: Net) -> None:
    """As torch.nn.MultiheadAttention has it: positions, then the batch, whose axis takes the heads over from the layer's."""
    x = n("Transpose", n.input(("N", 5, 12)), perm=[1, 0, 2])
    y = n("Transpose", n.reshape(n.linear(x, 12, 36), 0, 0, 3, 12), perm=[2, 0, 1, 3])
    q, k, v = (n("Transpose", n.reshape(part, 5, -1, 4), perm=[1, 0, 2]) for part in taken_apart(n, y, "Gather"))
    scores = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = n("Transpose", n("MatMul", scores, v), perm=[1, 0, 2])
    n.output(n.linear(n.reshape(y, 5, -1, 12), 12, 3), 3)


def turned(n: Net, x: str, dim: int) -> str:
    """x * cosines + (x with its halves exchanged, one negated) * sines."""
    half = dim // 2
    other = n.concat(n("Neg", n.slice(x, half, dim, 3)), n.slice(x, 0, half, 3), axis=3)
    angles = np.tile(np.arange(5)[:, None] * 0.3 ** np.arange(half), 2).astype(np.float32)
    return n("Add", n("Mul", x, n.constant(np.cos(angles))), n("Mul", other, n.constant(np.sin(angles))))


def separate_attention(heads: int, dim: int, form: str = "") -> None:
    """Layers of their own for Q, K and V, or one that is split in three: numbers of Q and K go together, and numbers of V."""

    def build(n: Net) -> None:
        width = heads * dim
        x = n.input(("N", 5, 8))
        if form == "split":
            parts = n.split(n("Mul", n.linear(x, 8, 3 * width), n.constant(np.array(0.7, np.float32))), [width] * 3, 2)
        else:
            parts = [n.linear(x, 8, width, bias=bias) for bias in (True, False, True)]
        apart = [n("Transpose", n.reshape(part, 0, -1, heads, dim), perm=[0, 2, 1, 3]) for part in parts]
        if form == "merged":  # the heads are in the batch
            apart = [n.reshape(part, -1, 5, dim) for part in apart]
        if form == "turned":  # positions are rotations of pairs of numbers, which go together
            apart[:2] = [turned(n, part, dim) for part in apart[:2]]
        if form == "normed":
            apart[:2] = [n("LayerNormalization", part, n.weight(dim, positive=True)) for part in apart[:2]]
        if form == "per-number":
            apart[0] = n("Mul", apart[0], n.weight(dim, positive=True))
        perm = [0, 2, 1] if form == "merged" else [0, 1, 3, 2]
        scores = n("MatMul", apart[0], n("Transpose", apart[1], perm=perm))
        scores = n("Softmax", n("Div", scores, n.constant(np.array(2.0, np.float32))), axis=-1)
        y = n("MatMul", scores, apart[2])
        y = n.reshape(y, -1, heads, 5, dim) if form == "merged" else y
        y = n.reshape(n("Transpose", y, perm=[0, 2, 1, 3]), 0, -1, width)
        n.output(n.linear(y, width, 3), 3)

    pinned = ("a normalisation takes its statistics of it",) if form == "normed" else ()
    widths = {"turned": (dim // 2, dim), "normed": (dim,)}.get(form, (dim, dim))
    PATTERNS.append(Pattern(f"separate-attention-{form or heads}", build, widths, pinned, (17,), None, np.float32))


for _heads, _dim, _form in (
    (2, 6, ""),
    (3, 4, "split"),
    (2, 8, "per-number"),
    (2, 6, "turned"),
    (2, 4, "normed"),
    (2, 4, "merged"),
):
    separate_attention(_heads, _dim, _form)


@pattern(6, pinned=["its size enters a computation at sequenceinsert"])
def sizes_in_a_sequence(n: Net) -> None:
    """An empty sequence reads nothing, and is no constant tensor all the same."""
    y = n("Relu", n.linear(n("Relu", n.linear(n.input(("N", 8)), 8, 6)), 6, 5))
    held = n("SequenceInsert", n("SequenceEmpty", dtype=INT64), n("Shape", y))
    n.output(n.linear(n("Reshape", y, n("ConcatFromSequence", held, axis=0)), 5, 3), 2)


@pattern(5, 6)
def messages_along_edges(n: Net) -> None:
    """As graph networks sum over edges: rows are taken by one end, and added up by the other, which is expanded to as many columns."""
    x, ends = n.input((4, 8)), n.input((5, 1), "ends", kind=INT64)
    taken = n("GatherND", n("Relu", n.linear(x, 8, 6)), ends)
    made = n("Relu", n.linear(taken, 6, 5))
    index = n("Expand", ends, n.constant(np.array([5, 5])))
    zeros = n("ConstantOfShape", n.concat(n.dim(x, 0), n.constant(np.array([5])), axis=0))
    n.output(n.linear(n("ScatterElements", zeros, index, made, axis=0, reduction="add"), 5, 3), 2)


@pattern(6)
def rows_that_are_replaced(n: Net) -> None:
    x, places = n.input((4, 8)), n.input((2, 1), "places", kind=INT64)
    changed = n("ScatterND", n("Relu", n.linear(x, 8, 6)), places, n("Tanh", n.linear(n.input((2, 8), "y"), 8, 6)))
    order = n("Expand", n.input((4, 1), "order", kind=INT64), n.constant(np.array([1, 6])))
    n.output(n.linear(n("GatherElements", changed, order, axis=0), 6, 3), 2)


@pattern(6, 7, opsets=(16, 20, NEWEST))
def maps_read_at_points(n: Net) -> None:
    """As optical flow and image animation warp features."""
    x = n.relu(n.conv(n.input((2, 3, 8, 8)), 6, 3))
    x = n("GridSample", x, n.input((2, 8, 8, 2), "grid"))
    n.width[x] = 6
    n.head(n.relu(n.conv(x, 7)))


@pattern(6, 7, opsets=(10, 16, 21))
def regions_of_maps(n: Net) -> None:
    """As two-stage detectors read what lies in boxes; the classifier reads a flattened region."""
    x = n.relu(n.conv(n.input((1, 3, 8, 8)), 6, 3))
    boxes = n.constant(np.array([[0, 0, 5, 5], [1, 2, 7, 6], [3, 0, 6, 7]], np.float32))
    sample = n.constant(np.zeros(3, np.int64))
    x = n("RoiAlign", x, boxes, sample, output_height=2, output_width=2, sampling_ratio=2)
    n.output(n.linear(n.relu(n.linear(n("Flatten", x), 6 * 4, 7)), 7, 3), 2)


@pattern(6, 5)
def regions_by_their_largest(n: Net) -> None:
    x = n.relu(n.conv(n.input((1, 3, 8, 8)), 6, 3))
    places = n.constant(np.array([[0, 0, 0, 5, 5], [0, 2, 2, 7, 7]], np.float32))
    x = n("MaxRoiPool", x, places, pooled_shape=[2, 2])
    n.width[x] = 6
    n.output(n.linear(n("Flatten", n.relu(n.conv(x, 5, 1))), 5 * 4, 3), 2)


@pattern(6, 5)
def steps_turned_around(n: Net) -> None:
    """What Keras makes of a layer that runs backwards."""
    x = n("Tanh", n.linear(n.input(("N", 7, 8)), 8, 6))
    lengths = n("Expand", n.constant(np.array([5])), n.dim(x, 0))
    x = n("ReverseSequence", x, lengths, time_axis=1, batch_axis=0)
    n.output(n.linear(n("Tanh", n.linear(x, 6, 5)), 5, 3), 3)


@pattern(6, opsets=(14, 17, NEWEST))
def zeros_beside_a_diagonal(n: Net) -> None:
    x = n("Trilu", n.relu(n.conv(n.input(IMAGE), 6, 3)), upper=0)
    n.width[x] = 6
    n.head(x)


@pattern(6, opsets=(11, 17, NEWEST))
def largest_steps(n: Net) -> None:
    """The mean of the three largest numbers of each channel."""
    x = n.linear(n.input((4, 7, 8)), 8, 6)
    x, _ = n.add("TopK", x, n.constant(np.array([3])), outputs=2, axis=1)
    n.output(n.linear(n.reduce("ReduceMean", x, 1, keepdims=0), 6, 3), 2)


@pattern(pinned=["(TopK), which compares all positions of its axis"])
def largest_channels(n: Net) -> None:
    x, _ = n.add("TopK", n.linear(n.input((4, 8)), 8, 6), n.constant(np.array([3])), outputs=2)
    n.output(n.linear(x, 3, 3), 2)


@pattern(6, 7, opsets=(18, NEWEST))
def cut_about_the_centre(n: Net) -> None:
    x = n.relu(n.conv(n.input(IMAGE), 6, 3))
    x = n("CenterCropPad", x, n.constant(np.array([6, 10])), axes=[2, 3])
    n.width[x] = 6
    n.head(n.relu(n.conv(x, 7)))


@pattern(6, 7, opsets=(17, 19, 20, NEWEST))
def spectra(n: Net) -> None:
    """As Fourier layers mix positions: to a spectrum, whose parts become channels, and back."""
    x = n("Unsqueeze", n.relu(n.conv(n.input((2, 3, 8, 8)), 6, 3)), n.constant(np.array([4])))
    x = n("DFT", x, axis=3) if n.opset < 20 else n("DFT", x, "", n.constant(np.array(3)))
    x = n("Reshape", n("Transpose", x, perm=[0, 1, 4, 2, 3]), n.constant(np.array([2, 12, 8, 8])))
    n.width[x] = 12
    n.head(n.relu(n.conv(x, 7)))


@pattern(6, 7, opsets=(18, NEWEST))
def patches_that_are_added_up(n: Net) -> None:
    x = n.relu(n.conv(n.input((2, 3, 4, 4)), 6 * 4, 1))
    x = n("Reshape", x, n.constant(np.array([0, 0, -1])))
    x = n("Col2Im", x, n.constant(np.array([8, 8])), n.constant(np.array([2, 2])), strides=[2, 2])
    n.width[x] = 6
    n.head(n.relu(n.conv(x, 7)))


@pattern(6, 5)
def rows_by_an_index_that_is_repeated_for_all_columns(n: Net) -> None:
    """As detectors with queries take those of the best scores: the index is written once for each channel."""
    x = n("Relu", n.linear(n.input(("N", 7, 8)), 8, 6))
    _, best = n.add(
        "TopK", n.reduce("ReduceMax", n.linear(x, 6, 2), 2, keepdims=0), n.constant(np.array([3])), outputs=2
    )
    index = n("Tile", n("Unsqueeze", best, n.constant(np.array([2]))), n.constant(np.array([1, 1, 6])))
    n.output(n.linear(n("Relu", n.linear(n("GatherElements", x, index, axis=1), 6, 5)), 5, 3), 3)


@pattern(pinned=["(ScatterElements), whose indices count along this axis"])
def columns_by_index(n: Net) -> None:
    x = n("Relu", n.linear(n.input((4, 8)), 8, 6))
    columns = n.input((4, 2), "columns", kind=INT64)
    n.output(n.linear(n("ScatterElements", x, columns, n.input((4, 2), "y"), axis=1), 6, 3), 2)


@pattern(6, 5)
def looped_lstm(n: Net) -> None:
    Looped("LSTM", steps=None, apart=True, ones=True).build(n)


@pattern(6, 5)
def looped_gru(n: Net) -> None:
    Looped("GRU").build(n)
