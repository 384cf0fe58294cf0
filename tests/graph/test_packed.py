"""Q, K and V of one layer, taken apart by a Reshape: loaded with a Split in its place, the size of a head in a scale as a number, a view as a Reshape."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.graph.packed import unpacked
from onnx_subprune.graph.roots import steadied
from onnx_subprune.graph.strides import viewed
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net
from tests.networks.patterns import taken_apart

FLOAT, HEADS, SIZE, LENGTH, WIDTH = onnx.TensorProto.FLOAT, 3, 4, 5, 12
Build = Callable[[Net, str, str], list[str]]


def targeted(*sizes: int, **attributes: int) -> Build:
    """Taken apart behind a Reshape to a target that is known."""

    def build(n: Net, x: str, y: str) -> list[str]:
        place = sizes.index(3)
        rest = [axis for axis in range(len(sizes)) if axis != place]
        target = n.constant(np.array(sizes, np.int64))
        y = n("Transpose", n("Reshape", y, target, **attributes), perm=[place, *np.roll(rest, 1)])
        return taken_apart(n, y, "Split")

    return build


def computed(*sizes: int | str, of: str = "x", form: str = "Gather", factor: bool = False) -> Build:
    """The same, with sizes by the index of an axis of the layer's input, or of what it makes. factor: the last one is a third of a size."""

    def build(n: Net, x: str, y: str) -> list[str]:
        own = {"x": x, "y": y}[of]
        shown = sizes[:-1] if factor else sizes
        parts = [n.dim(own, int(size)) if isinstance(size, str) else n.constant(np.array([size])) for size in shown]
        if factor:
            whole = n("Gather", n("Shape", x), n.constant(np.array(2)), axis=0)
            parts += [n.unsqueeze(n("Div", whole, n.constant(np.array(HEADS))), 0)]
        y = n("Transpose", n("Reshape", y, n.concat(*parts, axis=0)), perm=[2, 0, 3, 1, 4])
        return taken_apart(n, y, form)

    return build


def with_another_axis(n: Net, x: str, y: str) -> list[str]:
    """As torch.nn.MultiheadAttention has it."""
    y = n("Transpose", n.unsqueeze(n.reshape(y, 0, 0, 3, WIDTH), 0), perm=[3, 1, 2, 0, 4])
    return taken_apart(n, n.squeeze(y, 3), "Gather")


def as_torchscript(n: Net, x: str, y: str) -> list[str]:
    """As TorchScript writes `proj.unflatten(-1, (3, E))` of torch.nn.MultiheadAttention."""
    first, one = n.constant(np.array([0])), n.constant(np.array([1]))
    place = n("Mod", n.constant(np.array([2])), n.constant(np.array([3])))
    shape, ends = n("Shape", y), n.constant(np.array([2**63 - 1]))
    wide = n("Slice", n("Shape", x), n.constant(np.array([-1])), ends, first)
    parts = n.concat(n.constant(np.array([3])), n.unsqueeze(n.squeeze(wide, 0), 0), axis=0)
    ahead = n("Slice", shape, first, n("Reshape", place, one))
    behind = n("Slice", shape, n("Reshape", n("Add", place, one), one), ends)
    y = n.unsqueeze(n("Reshape", y, n.concat(ahead, parts, behind, axis=0)), 0)
    return taken_apart(n, n.squeeze(n("Transpose", y, perm=[3, 1, 2, 0, 4]), 3), "Gather")


def with_changes_of_type(n: Net, x: str, y: str) -> list[str]:
    """As Paddle has it: a batch of zero, and all sizes of another type first."""
    short = n("Cast", n("Shape", x), to=onnx.TensorProto.INT32)
    sizes = [n.constant(np.array([size], np.int32)) for size in (0, 3, HEADS, SIZE)]
    sizes.insert(1, n.slice(short, 1, 2, 0))
    target = n.concat(*(n("Cast", size, to=onnx.TensorProto.INT64) for size in sizes), axis=0)
    return taken_apart(n, n("Transpose", n("Reshape", y, target), perm=[2, 0, 3, 1, 4]), "Slice")


def in_place(n: Net, x: str, y: str) -> list[str]:
    y = n.reshape(y, 0, 0, 3, HEADS, SIZE)
    return [n("Gather", y, n.constant(np.array(i)), axis=2) for i in (2, 0)]


def two_parts(n: Net, x: str, y: str) -> list[str]:
    return [n.squeeze(part, 2) for part in n.split(n.reshape(n.linear(x, WIDTH, 24), 0, 0, 2, HEADS, SIZE), [1, 1], 2)]


WRITTEN: dict[str, Build] = {
    "zeros": targeted(0, 0, 3, HEADS, SIZE),
    "a batch that follows": targeted(-1, LENGTH, 3, HEADS, SIZE),
    "a size that follows": targeted(0, 0, 3, HEADS, -1),
    "zeros that are sizes": targeted(-1, LENGTH, 3, HEADS, SIZE, allowzero=1),
    "no heads": targeted(0, 0, 3, WIDTH),
    "positions in front": targeted(LENGTH, -1, 3, HEADS, SIZE),
    "sizes of the input": computed("0", "1", 3, HEADS, SIZE, form="Slice"),
    "sizes of the output": computed("0", "1", 3, HEADS, -1, of="y"),
    "a size that is divided": computed("0", "1", 3, HEADS, SIZE, factor=True),
    "one size of the input": computed("0", LENGTH, 3, HEADS, SIZE),
    "sizes of other axes": computed("1", "0", 3, HEADS, SIZE),
    "sizes behind changes of type": with_changes_of_type,
    "another axis": with_another_axis,
    "sizes of layer and input": as_torchscript,
    "in place": in_place,
    "two parts": two_parts,
}


def read_whole(n: Net, x: str, y: str) -> list[str]:
    y = n("Transpose", n.reshape(y, 0, 0, 3, HEADS, SIZE), perm=[2, 0, 3, 1, 4])
    return [*taken_apart(n, y, "Gather"), n("Relu", y)]


def read_in_part(n: Net, x: str, y: str) -> list[str]:
    parts = n.split(n.reshape(y, 0, 0, 3, HEADS, SIZE), [1, 1, 1], 2)
    return [n.squeeze(parts[0], 2), n("Relu", parts[1])]


def heads_in_front(n: Net, x: str, y: str) -> list[str]:
    return taken_apart(n, n("Transpose", n.reshape(y, 0, 0, HEADS, 3, SIZE), perm=[3, 0, 2, 1, 4]), "Gather")


def of_positions(n: Net, x: str, y: str) -> list[str]:
    return taken_apart(n, n("Transpose", n.reshape(y, -1, 3, 3 * WIDTH), perm=[1, 0, 2]), "Gather")


LEFT: dict[str, Build] = {
    "read as a whole too": read_whole,
    "a part that is not squeezed": read_in_part,
    "heads in front of the parts": heads_in_front,
    "positions that are taken apart": of_positions,
    "sizes that need not be the layer's": computed("1", "0", 3, HEADS, -1),
    "a relu in between": lambda n, x, y: targeted(0, 0, 3, HEADS, SIZE)(n, x, n("Relu", y)),
}


def packed(build: Build, opset: int = 17) -> onnx.ModelProto:
    n = Net(opset, seed=1)
    x = n.input(("N", LENGTH if build is not of_positions else 6, WIDTH))
    y = n.linear(x, WIDTH, 3 * WIDTH)
    for part in build(n, x, y):
        n.output(n("Softmax", n("Flatten", part), axis=-1), 2)
    return n.model()


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("form", WRITTEN)
def test_parts_of_a_layer_are_split_and_put_out_the_same(form, opset):
    if opset == 11 and form == "zeros that are sizes":
        pytest.skip("since opset 14")
    model = packed(WRITTEN[form], opset)
    before = model.SerializeToString()
    found = unpacked(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(found, full_check=True)
    parts = next(node for node in found.graph.node if node.op_type == "Split")
    made = next(node for node in found.graph.node if parts.input[0] in node.output)
    assert made.op_type == "Add"
    assert not {"Squeeze", "Slice"} & {node.op_type for node in found.graph.node}
    for batch in (1, 5):
        x = {"x": np.random.default_rng(batch).standard_normal((batch, LENGTH, WIDTH)).astype(np.float32)}
        ours, theirs = Session(model).run(x), Session(found).run(x)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    read = {name for node in found.graph.node for name in node.input}
    assert {tensor.name for tensor in found.graph.initializer} <= read


def test_a_layer_with_a_dead_head_stays_so_that_heads_go():
    build = targeted(0, 0, 3, HEADS, SIZE)
    model = packed(build)
    assert unpacked(model) is not model
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    silenced = onnx.ModelProto()
    silenced.CopyFrom(model)
    for tensor in silenced.graph.initializer:
        value = values[tensor.name].copy()
        if value.dtype == np.float32 and value.shape[-1:] == (3 * WIDTH,):
            value[..., 2 * WIDTH + SIZE : 2 * WIDTH + 2 * SIZE] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    assert unpacked(silenced) is silenced


@pytest.mark.parametrize("form", LEFT)
def test_what_is_no_layer_in_parts_stays(form):
    model = packed(LEFT[form])
    assert unpacked(model) is model


def scaled(axis: int, *target: int, length: int | str = LENGTH, power: float | None = None) -> onnx.ModelProto:
    """Scaled by the root of a size of a tensor that a Reshape makes, or by a power of it."""
    n = Net(seed=1)
    x = n("Transpose", n.reshape(n.linear(n.input(("N", length, 8)), 8, WIDTH), *target), perm=[0, 2, 1, 3])
    size = n("Cast", n("Gather", n("Shape", x), n.constant(np.array(axis)), axis=0), to=FLOAT)
    if power is None:
        n.output(n("Div", x, n("Sqrt", size)), 4)
    else:
        n.output(n("Mul", x, n("Pow", size, n.constant(np.float32(power)))), 4)
    return n.model()


@pytest.mark.parametrize(
    "model",
    [
        *(scaled(axis, 0, -1, HEADS, SIZE, length="L") for axis in (3, -1, 1)),
        scaled(3, 0, -1, HEADS, SIZE, power=-0.5),
        scaled(2, 0, -1, HEADS, SIZE),
        scaled(3, 0, LENGTH, HEADS, -1),
    ],
    ids=["last", "last from the end", "heads", "power", "declared", "what heads leave"],
)
def test_the_root_of_a_size_that_the_file_says_is_a_number(model):
    found = steadied(model)
    onnx.checker.check_model(found, full_check=True)
    assert "Shape" not in {node.op_type for node in found.graph.node}
    x = {"x": np.random.default_rng(0).standard_normal((2, LENGTH, 8)).astype(np.float32)}
    ours, theirs = Session(model).run(x), Session(found).run(x)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_the_root_of_a_size_that_it_does_not_say_stays():
    model = scaled(2, 0, -1, HEADS, SIZE, length="L")
    assert steadied(model) is model


def test_the_root_of_the_width_of_a_convolution_is_a_number():
    """As SuperGlue and RAFT divide a product of descriptors."""
    n = Net(seed=1)
    x = n.conv(n.input(("N", 3, "L")), 8, rank=1)
    width = n("Cast", n("Gather", n("Shape", x), n.constant(np.array(1)), axis=0), to=FLOAT)
    n.output(
        n("Div", n("MatMul", n("Transpose", x, perm=[0, 2, 1]), x), n("Pow", width, n.constant(np.float32(0.5)))), 3
    )
    found = steadied(n.model())
    assert "Shape" not in {node.op_type for node in found.graph.node}


def chunked(n: Net, heads: str) -> str:
    """Q as TorchScript cuts it from all of a head: up to a third of what its last axis is long, rounded up."""
    size = n("Gather", n("Shape", heads), n.constant(np.array([3])), axis=0)
    third = n("Div", n("Add", size, n.constant(np.array([2]))), n.constant(np.array([3])))
    end = n("Mul", third, n.constant(np.array([1])))
    return n("Slice", heads, n.constant(np.array([0])), end, n.constant(np.array([3])))


@pytest.mark.parametrize("cut", [None, chunked], ids=["whole", "chunked"])
@pytest.mark.parametrize("sizes", [(0, 0, HEADS, -1), ("0", "1", HEADS, -1), ("0", "1", -1, SIZE)])
def test_the_root_of_a_size_that_a_layer_is_wide_is_a_number(sizes, cut):
    n = Net(seed=1)
    x = n.input(("N", "L", 8))
    made = n.linear(x, 8, WIDTH)
    target = n.concat(*(n.dim(x, int(s)) if isinstance(s, str) else n.constant(np.array([s])) for s in sizes), axis=0)
    q = n("Transpose", n("Reshape", made, target), perm=[0, 2, 1, 3])
    q = q if cut is None else cut(n, q)
    size = n("Slice", n("Shape", q), n.constant(np.array([-1])), n.constant(np.array([1 << 62])))
    n.output(n("Div", q, n("Sqrt", n("Cast", size, to=FLOAT))), 4)
    model = n.model()
    found = steadied(model)
    onnx.checker.check_model(found, full_check=True)
    assert "Cast" in {node.op_type for node in found.graph.node}
    assert sum(node.op_type == "Shape" for node in found.graph.node) < sum(
        node.op_type == "Shape" for node in model.graph.node
    )
    for length in (1, LENGTH):
        x = {"x": np.random.default_rng(0).standard_normal((2, length, 8)).astype(np.float32)}
        ours, theirs = Session(model).run(x), Session(found).run(x)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def strided(places: np.ndarray, stride: int) -> onnx.ModelProto:
    """Numbers of pooled maps, gathered by places that are computed from the batch."""
    n = Net(seed=1)
    x = n.input(("N", 3, 6, 6))
    flat = n.reshape(n.gap(n.conv(x, 8)), -1)
    size = n("Gather", n("Shape", x), n.constant(np.array(0)), axis=0)
    samples = n("Mul", n("Range", n.constant(np.array(0)), size, n.constant(np.array(1))), n.constant(np.array(stride)))
    index = n("Add", n.unsqueeze(samples, 1, 2, 3), n.constant(places))
    n.output(n("Gather", flat, n("Add", index, n.constant(np.zeros((1, 1, 1, 1), np.int64))), axis=0), 4)
    return n.model()


def test_a_view_that_is_computed_as_a_gather_is_a_reshape():
    model = strided(np.arange(8).reshape(1, 8, 1, 1), 8)
    found = viewed(model)
    onnx.checker.check_model(found, full_check=True)
    assert "Range" not in {node.op_type for node in found.graph.node}
    for batch in (1, 3):
        x = {"x": np.random.default_rng(batch).standard_normal((batch, 3, 6, 6)).astype(np.float32)}
        ours, theirs = Session(model).run(x), Session(found).run(x)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("places", "stride"),
    [(np.arange(8)[::-1].copy(), 8), (np.arange(4), 8), (np.zeros(8, np.int64), 8), (np.arange(8), 4)],
)
def test_a_gather_that_is_no_view_of_all_stays(places, stride):
    model = strided(places.reshape(1, -1, 1, 1), stride)
    assert viewed(model) is model
