"""Damaged models and data against every command: whatever comes in, a command ends in time, without a traceback, and writes nothing where it fails.

    python tools/fuzz.py --seconds 60 --seed 0 --keep findings

Small sound models and data are mutated - bytes of the file, or its parts: nodes, names, sizes, attributes, weights - and given to `inspect`,
`prune`, `prune --statistics`, `sensitivity`, `compare`, `collect` and `merge`. Commands run in a child process with a bound of time and memory; a child does
many, and a new one is forked where it dies. The time is that of the processor, so that a busy machine makes no findings. A finding is a
traceback, an exit status other than 0, 1, 2 and 130, a run over its time, a death, or a file that is there though the command failed.
Findings are kept as folders with the command. Exit status: 1 with findings.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

RIGHT = (0, 1, 2, 130)
TIME, MEMORY = 30, 6 << 30
WAITING = 20 * TIME
"""Seconds on the clock after which a command is not waited for any more: it waits for something itself."""
SAMPLES = 12
Model = Callable[[np.random.Generator], ModelProto]


def weights(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return (generator.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def made(
    nodes: list[NodeProto], inputs: dict[str, list[object]], constants: dict[str, np.ndarray], output: str
) -> ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    out = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", infos, out, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def dense(g: np.random.Generator) -> ModelProto:
    n = helper.make_node
    nodes = [
        n("MatMul", ["x", "w0"], ["a"], name="first"),
        n("Relu", ["a"], ["b"]),
        n("Gemm", ["b", "w1", "b1"], ["c"], transB=1),
        n("Relu", ["c"], ["d"]),
        n("MatMul", ["d", "w2"], ["y"]),
    ]
    constants = {"w0": weights(g, 6, 8), "w1": weights(g, 8, 8), "b1": weights(g, 8), "w2": weights(g, 8, 3)}
    return made(nodes, {"x": ["N", 6]}, constants, "y")


def convolutional(g: np.random.Generator) -> ModelProto:
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "w0", "b0"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="stem"),
        n("BatchNormalization", ["a", "s", "t", "m", "v"], ["b"]),
        n("Relu", ["b"], ["c"]),
        n("Conv", ["c", "w1"], ["d"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8),
        n("Concat", ["c", "d"], ["e"], axis=1),
        n("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        n("Conv", ["f", "w2"], ["h"], kernel_shape=[1, 1]),
        n("Split", ["h", "sizes"], ["i", "j"], axis=1),
        n("Mul", ["i", "j"], ["k"]),
        n("Shape", ["k"], ["shape"]),
        n("Gather", ["shape", "zero"], ["batch"], axis=0),
        n("Concat", ["batch", "rest"], ["target"], axis=0),
        n("Reshape", ["k", "target"], ["l"]),
        n("Gemm", ["l", "w3", "b3"], ["y"], transB=1, alpha=0.5),
    ]
    ones = np.ones(8, np.float32)
    constants = {
        "w0": weights(g, 8, 3, 3, 3),
        "b0": weights(g, 8),
        "s": ones,
        "t": 0 * ones,
        "m": 0 * ones,
        "v": ones,
        "w1": weights(g, 8, 1, 3, 3),
        "w2": weights(g, 8, 16, 1, 1),
        "sizes": np.array([4, 4]),
        "zero": np.array([0]),
        "rest": np.array([-1]),
        "w3": weights(g, 4, 36),
        "b3": weights(g, 4),
    }
    return made(nodes, {"x": ["N", 3, 6, 6]}, constants, "y")


def attention(g: np.random.Generator) -> ModelProto:
    n = helper.make_node
    nodes = [
        n("LayerNormalization", ["x", "s", "t"], ["a"], axis=-1),
        n("MatMul", ["a", "wqkv"], ["b"]),
        n("Reshape", ["b", "heads"], ["c"]),
        n("Transpose", ["c"], ["d"], perm=[2, 0, 3, 1, 4]),
        n("Split", ["d"], ["q4", "k4", "v4"], axis=0, num_outputs=3),
        *(n("Squeeze", [f"{name}4", "zero"], [name]) for name in "qkv"),
        n("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        n("MatMul", ["q", "kt"], ["scores"]),
        n("Softmax", ["scores"], ["p"], axis=-1),
        n("MatMul", ["p", "v"], ["o"]),
        n("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        n("Reshape", ["ot", "flat"], ["r"]),
        n("MatMul", ["r", "wo"], ["z"]),
        n("Add", ["x", "z"], ["u"]),
        n("MatMul", ["u", "w1"], ["f"]),
        n("Relu", ["f"], ["h"]),
        n("MatMul", ["h", "w2"], ["y"]),
    ]
    constants = {
        "s": np.ones(8, np.float32),
        "t": np.zeros(8, np.float32),
        "wqkv": weights(g, 8, 24),
        "heads": np.array([0, 0, 3, 2, 4]),
        "zero": np.array([0]),
        "flat": np.array([0, 0, 8]),
        "wo": weights(g, 8, 8),
        "w1": weights(g, 8, 12),
        "w2": weights(g, 12, 4),
    }
    model = made(nodes, {"x": ["N", 5, 8]}, constants, "y")
    model.opset_import[0].version = 18
    return model


def functional(g: np.random.Generator) -> ModelProto:
    model = dense(g)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = [helper.make_node("Inner", ["p"], ["t"], domain="local"), helper.make_node("Relu", ["t"], ["q"])]
    model.functions.append(helper.make_function("local", "Outer", ["p"], ["q"], body, opsets))
    inner = [helper.make_node("Abs", ["p"], ["q"])]
    model.functions.append(helper.make_function("local", "Inner", ["p"], ["q"], inner, opsets))
    model.graph.node[3].CopyFrom(helper.make_node("Outer", ["c"], ["d"], domain="local"))
    model.opset_import.append(opsets[1])
    then = helper.make_graph(
        [helper.make_node("Relu", ["d"], ["d1"])], "t", [], [helper.make_tensor_value_info("d1", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["d"], ["d2"])], "e", [], [helper.make_tensor_value_info("d2", 1, None)]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[4].CopyFrom(helper.make_node("If", ["yes"], ["e"], then_branch=then, else_branch=other))
    model.graph.node.append(helper.make_node("MatMul", ["e", "w2"], ["y"]))
    return model


def quantized(g: np.random.Generator) -> ModelProto:
    """Attention in Einsum, as Keras has it, and layers in floating point around quantized ones."""
    n = helper.make_node
    nodes = [
        n("MatMul", ["x", "w0"], ["h"]),
        *(n("Einsum", ["h", f"w{name}"], [name], equation="abc,cde->abde") for name in "qkv"),
        n("Einsum", ["k", "q"], ["scores"], equation="aecd,abcd->acbe"),
        n("Softmax", ["scores"], ["p"], axis=-1),
        n("Einsum", ["p", "v"], ["o"], equation="acbe,aecd->abcd"),
        n("Einsum", ["o", "wo"], ["z"], equation="abcd,cde->abe"),
        n("Add", ["h", "z"], ["u"]),
        n("QuantizeLinear", ["u", "scale", "zero"], ["u8"]),
        n("DequantizeLinear", ["u8", "scale", "zero"], ["uq"]),
        n("DequantizeLinear", ["w8", "scale", "zero"], ["w1"]),
        n("MatMul", ["uq", "w1"], ["f"]),
        n("Relu", ["f"], ["g"]),
        n("MatMul", ["g", "w2"], ["i"]),
        n("Relu", ["i"], ["j"]),
        n("MatMul", ["j", "w3"], ["y"]),
    ]
    constants = {
        "w0": weights(g, 8, 6),
        **{f"w{name}": weights(g, 6, 2, 3) for name in "qkv"},
        "wo": weights(g, 2, 3, 6),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "w8": g.integers(-90, 90, (6, 8)).astype(np.int8),
        "w2": weights(g, 8, 8),
        "w3": weights(g, 8, 4),
    }
    return made(nodes, {"x": ["N", 5, 8]}, constants, "y")


MODELS: dict[str, Model] = {item.__name__: item for item in (dense, convolutional, attention, functional, quantized)}
SHAPES = {"dense": (6,), "convolutional": (3, 6, 6), "attention": (5, 8), "functional": (6,), "quantized": (5, 8)}
NUMBERS = (-(2**63), -(2**31), -100, -2, -1, 0, 1, 2, 3, 7, 64, 255, 1000, 2**20, 2**31, 2**40, 2**62)
FLOATS = (float("nan"), float("inf"), -1.0, 0.0, 1e-30, 1e30)
NAMES = ("", "x", "y", "a", "b", "w0", "w1", "[/red]", "a\nb", "ä" * 50, "n" * 3000, "../up", "\x1b[31m", ":")
OPERATORS = (
    "Relu",
    "Add",
    "MatMul",
    "Conv",
    "Concat",
    "Split",
    "Reshape",
    "Transpose",
    "Gather",
    "Slice",
    "Softmax",
    "Expand",
    "Loop",
)
OPERATORS += (
    "ReduceMean",
    "Squeeze",
    "Pad",
    "Resize",
    "Tile",
    "LSTM",
    "Einsum",
    "Dropout",
    "Where",
    "Identity",
    "Flatten",
    "Frobnicate",
    "",
)


def some_integers(r: random.Random, field: object) -> None:
    """Change, add or take away a number of a repeated field."""
    values = list(field)  # type: ignore[call-overload]
    kind = r.randrange(4)
    if kind == 0 and values:
        values[r.randrange(len(values))] = r.choice(NUMBERS)
    elif kind == 1:
        values.insert(r.randrange(len(values) + 1), r.choice(NUMBERS))
    elif kind == 2 and values:
        del values[r.randrange(len(values))]
    else:
        r.shuffle(values)
    del field[:]  # type: ignore[attr-defined]
    field.extend(values)  # type: ignore[attr-defined]


def change_attribute(r: random.Random, item: AttributeProto) -> None:
    kind = r.randrange(6)
    if kind == 0:
        item.name = r.choice((*NAMES, "axis", "perm", "kernel_shape", "group", "pads", "strides"))
    elif kind == 1:
        item.i = r.choice(NUMBERS)
    elif kind == 2:
        some_integers(r, item.ints)
    elif kind == 3:
        item.type = r.choice([value for value in AttributeProto.AttributeType.values()])  # noqa: C416 - no list
    elif kind == 4 and item.HasField("t"):
        change_tensor(r, item.t)
    elif item.HasField("g"):
        change_graph(r, item.g)
    else:
        item.f = r.choice(FLOATS)


def change_node(r: random.Random, node: NodeProto, names: list[str]) -> None:
    kind = r.randrange(8)
    field = r.choice((node.input, node.output))
    if kind in (0, 1) and field:
        field[r.randrange(len(field))] = r.choice(names)
    elif kind == 2:
        field.append(r.choice(names))
    elif kind == 3 and field:
        del field[r.randrange(len(field))]
    elif kind == 4:
        node.op_type = r.choice(OPERATORS)
    elif kind == 5:
        node.name = r.choice(NAMES)
    elif kind == 6:
        node.domain = r.choice(("", "ai.onnx", "com.microsoft", "local", "my.own"))
    elif node.attribute:
        number = r.randrange(len(node.attribute))
        if r.random() < 0.2:
            del node.attribute[number]
        else:
            change_attribute(r, node.attribute[number])
    else:
        node.attribute.append(helper.make_attribute(r.choice(("axis", "group", "keepdims")), r.choice(NUMBERS)))


def change_tensor(r: random.Random, tensor: TensorProto) -> None:
    kind = r.randrange(8)
    if kind in (0, 1):
        some_integers(r, tensor.dims)
    elif kind == 2:
        tensor.data_type = r.choice([*TensorProto.DataType.values(), 99])
    elif kind == 3:
        tensor.name = r.choice(NAMES)
    elif kind == 4:
        tensor.raw_data = tensor.raw_data[: r.randrange(len(tensor.raw_data) + 1)]
    elif kind == 5:
        content = bytearray(tensor.raw_data)
        for _ in range(r.randrange(1, 5)):
            if content:
                content[r.randrange(len(content))] = r.choice((0, 0x7F, 0x80, 0xFF))
        tensor.raw_data = bytes(content)
    elif kind == 6:
        tensor.ClearField("raw_data")
        getattr(tensor, r.choice(("float_data", "int64_data", "int32_data", "double_data"))).extend(
            [1] * r.randrange(20)
        )
    else:
        tensor.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            if r.random() < 0.8:
                value = r.choice(("w.bin", "../w.bin", "", ".", "0", "-1", "abc", "4", "1" * 30, "x.npz", "m.onnx"))
                tensor.external_data.add(key=key, value=value)


def change_graph(r: random.Random, graph: GraphProto) -> None:  # noqa: PLR0912 - a table of changes
    names = [name for node in graph.node for name in (*node.input, *node.output)] + list(NAMES)
    kind = r.randrange(12)
    if kind < 5 and graph.node:
        change_node(r, r.choice(graph.node), names)
    elif kind < 7 and graph.initializer:
        change_tensor(r, r.choice(graph.initializer))
    elif kind == 7 and graph.node:
        nodes = list(graph.node)
        first = r.randrange(len(nodes))
        how = r.randrange(3)
        if how == 0:
            del nodes[first]
        elif how == 1:
            nodes.insert(r.randrange(len(nodes)), nodes[first])
        else:
            r.shuffle(nodes)
        del graph.node[:]
        graph.node.extend(nodes)
    elif kind == 8 and graph.initializer:
        del graph.initializer[r.randrange(len(graph.initializer))]
    elif kind == 9 and graph.output:
        if r.random() < 0.5:
            graph.output[0].name = r.choice(names)
        else:
            graph.output.append(helper.make_tensor_value_info(r.choice(names), r.choice((1, 7, 9, 10, 11)), None))
    elif graph.input:
        value = r.choice(graph.input)
        kind = value.type.tensor_type
        how = r.randrange(4)
        if how == 0:
            value.name = r.choice(names)
        elif how == 1:
            kind.elem_type = r.choice([*TensorProto.DataType.values(), 99])
        elif how == 2 and kind.shape.dim:
            kind.shape.dim[r.randrange(len(kind.shape.dim))].dim_value = r.choice(NUMBERS)
        else:
            graph.input.append(helper.make_tensor_value_info(r.choice(names), 1, ["N", r.choice(NUMBERS)]))


def change_model(r: random.Random, model: ModelProto) -> None:
    kind = r.randrange(12)
    if kind == 0:
        model.opset_import[0].version = r.choice((*NUMBERS, 7, 9, 11, 13, 21))
    elif kind == 1:
        model.ir_version = r.choice(NUMBERS)
    elif kind < 5 and model.functions:
        function = r.choice(model.functions)
        names = [*NAMES, "p", "q", "t"]
        if r.random() < 0.3:
            some = r.choice((function.input, function.output))
            some.append(r.choice(names))
        elif function.node:
            change_node(r, r.choice(function.node), [*names, "Outer", "Inner"])
            if r.random() < 0.3:
                function.node[0].op_type, function.node[0].domain = r.choice((("Outer", "local"), ("Inner", "local")))
    else:
        change_graph(r, model.graph)


def change_bytes(r: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(r.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        place, kind = r.randrange(len(changed)), r.randrange(5)
        if kind == 0:
            changed[place] ^= 1 << r.randrange(8)
        elif kind == 1:
            changed[place] = r.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del changed[place : place + r.choice((1, 4, 100))]
        elif kind == 3:
            changed[place:place] = changed[place : place + r.choice((1, 4, 100))]
        else:
            changed = changed[:place]
    return bytes(changed)


def mutated_model(r: random.Random, name: str) -> bytes:
    model = MODELS[name](np.random.default_rng(r.randrange(4)))
    if r.random() < 0.25:
        return change_bytes(r, model.SerializeToString())
    for _ in range(r.choice((1, 1, 1, 2, 4))):
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # what protobuf itself refuses
            change_model(r, model)
    content = model.SerializeToString()
    return content.replace(b"first", b"fi\xffst") if r.random() < 0.02 else content


def sound_data(name: str) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((SAMPLES, *SHAPES[name])).astype(np.float32)}


def mutated_data(r: random.Random, name: str) -> bytes:
    arrays = sound_data(name)
    x = arrays["x"]
    kind = r.randrange(10)
    if kind == 0:
        arrays["x"] = x.astype(r.choice(("float64", "float16", "int64", "bool", "complex64", ">f4", "S3")))
    elif kind == 1:
        arrays = {r.choice(NAMES[1:]).replace("/", "_"): x}
    elif kind == 2:
        arrays["z"] = x
    elif kind == 3:
        x.reshape(-1)[r.randrange(x.size)] = r.choice(FLOATS) * 1e8
    elif kind == 4:
        arrays["x"] = r.choice((x[:0], x[:1], x[0], x[..., None], x * 1e30, x * 0, np.float32(1)))
    file = io.BytesIO()
    (np.savez_compressed if r.random() < 0.3 else np.savez)(file, **arrays)
    content = file.getvalue()
    return change_bytes(r, content) if kind > 5 else content


def moments(folder: Path, run: Callable[[list[str]], int]) -> None:
    """The moments of sound models, to be mutated."""
    for name, make in MODELS.items():
        here = folder / name
        here.mkdir()
        onnx.save(make(np.random.default_rng(0)), here / "m.onnx")
        np.savez(here / "x.npz", **sound_data(name))
        for number in (1, 2):
            tokens = [
                "collect",
                "m.onnx",
                "--data",
                "x.npz",
                "--shard",
                f"{number}/2",
                "-o",
                f"s{number}.npz",
                "--threads",
                "1",
                "--quiet",
            ]
            with contextlib.chdir(here):
                assert run(tokens) == 0
        with contextlib.chdir(here):
            assert run(["merge", "s1.npz", "s2.npz", "-o", "s.npz"]) == 0


def mutated_archive(r: random.Random, content: bytes) -> bytes:
    """A zip file whose bytes or members are changed."""
    if r.random() < 0.4:
        return change_bytes(r, content)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = r.choice(names)
        for name in names:
            text = old.read(name)
            if name == chosen:
                if r.random() < 0.3:
                    continue
                text = text[:128] + change_bytes(r, text[128:]) if r.random() < 0.6 else change_bytes(r, text)
                if name == "header.npy" and r.random() < 0.7:
                    head, _, body = content_of(text)
                    body = re.sub(
                        rb"\d+", lambda m: str(r.choice(NUMBERS)).encode() if r.random() < 0.1 else m[0], body
                    )
                    text = head + body
            new.writestr(name, text)
    return out.getvalue()


def content_of(text: bytes) -> tuple[bytes, bytes, bytes]:
    """Head and body of an .npy member."""
    place = text.find(b"\n") + 1
    return text[:place], b"\n", text[place:]


def case(r: random.Random, folder: Path, sound: Path) -> list[list[str]]:
    """Write the files of a case into `folder`, and return its commands."""
    name = r.choice(list(MODELS))
    for file in (sound / name).iterdir():
        shutil.copy(file, folder / file.name)
    (folder / "w.bin").write_bytes(bytes(4096))
    which = r.choice(("model", "model", "model", "data", "moments", "both"))
    if which in ("model", "both"):
        shutil.copy(folder / "m.onnx", folder / "sound.onnx")
        (folder / "m.onnx").write_bytes(mutated_model(r, name))
    else:
        shutil.copy(folder / "m.onnx", folder / "sound.onnx")
    if which in ("data", "both"):
        (folder / "x.npz").write_bytes(mutated_data(r, name))
    if which == "moments":
        for file in ("s1.npz", "s.npz"):
            (folder / file).write_bytes(mutated_archive(r, (folder / file).read_bytes()))
    budget = r.choice((["--macs", "0.6"], ["--params", "0.6"], ["--channels", "0.5"]))
    form = r.choice((["--formulation", "layerwise"], ["--formulation", "sequential"], []))
    few = ["--threads", "1"]
    commands = {
        "inspect": ["inspect", "m.onnx", "--json", "o.json"],
        "prune": [
            "prune",
            "m.onnx",
            "o.onnx",
            "--data",
            "x.npz",
            "--json",
            "o.json",
            "--trials",
            "0",
            "--quiet",
            *few,
            *form,
            *budget,
        ],
        "sensitivity": ["sensitivity", "m.onnx", "--data", "x.npz", "--json", "o.json", "--quiet", *few],
        "compare": [
            "compare",
            *r.choice((["m.onnx", "sound.onnx"], ["sound.onnx", "m.onnx"])),
            "--data",
            "x.npz",
            "--json",
            "o.json",
            *few,
        ],
        "collect": ["collect", "m.onnx", "--data", "x.npz", "-o", "o.npz", "--quiet", *few],
        "merge": ["merge", "s1.npz", "s2.npz", "-o", "o.npz"],
        "statistics": [
            "prune",
            "m.onnx",
            "o.onnx",
            "--statistics",
            "s.npz",
            "--json",
            "o.json",
            "--quiet",
            *few,
            *budget,
        ],
    }
    if budget[0] == "--channels":
        commands["prune"] = [token for token in commands["prune"] if token not in ("--trials", "0")]
    if which == "moments":
        return [commands[key] for key in ("merge", "statistics")]
    wanted = ["prune", r.choice(("inspect", "sensitivity", "compare", "collect", "statistics"))]
    return [commands[key] for key in wanted]


def attempt(command: list[str], run: Callable[[list[str]], int]) -> str | None:
    """Run a command in the present folder; return what is wrong with how it ended."""
    out, err = io.StringIO(), io.StringIO()
    outputs = [Path(name) for name in ("o.onnx", "o.onnx.data", "o.json", "o.npz")]
    for file in outputs:
        file.unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(command)
    except BaseException:  # the door let something through
        return f"traceback: {traceback.format_exc()[-1500:]}"
    text = err.getvalue()
    if status not in RIGHT or "Traceback" in out.getvalue() + text:
        return f"exit status {status}: {text[-1500:]}"
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if status and len(lines) != 1:
        return f"exit status {status} with {len(lines)} lines `error: ...`: {text[-500:]}"
    left = [file.name for file in outputs if file.exists()] if status else []
    left += [file.name for file in Path().glob(".onnx-subprune-*")]
    return f"exit status {status}, but there is {', '.join(left)}" if left else None


class Child:
    """A process that runs commands, one after the other, with a bound of memory."""

    def __init__(self, run: Callable[[list[str]], int]) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._orders)
            os.close(self._answers)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            with os.fdopen(orders) as reader, os.fdopen(answers, "w") as writer:
                for line in reader:
                    folder, command = json.loads(line)
                    os.chdir(folder)
                    signal.setitimer(signal.ITIMER_PROF, TIME)  # of all threads; it ends the process
                    writer.write(json.dumps(attempt(command, run)) + "\n")
                    writer.flush()
            os._exit(0)
        os.close(orders)
        os.close(answers)

    def attempt(self, folder: Path, command: list[str]) -> tuple[str | None, bool]:
        """Return what is wrong, and whether the process is still there."""
        import select  # noqa: PLC0415 - of the parent alone

        os.write(self._orders, (json.dumps([str(folder), command]) + "\n").encode())
        text, end = b"", time.monotonic() + WAITING
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0, end - time.monotonic()))
            if not ready:
                self.end()
                return f"still waiting after {WAITING} s", False
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                _, status = os.waitpid(self._pid, 0)
                code = os.waitstatus_to_exitcode(status)
                if code == -signal.SIGPROF:
                    return f"still running after {TIME} s of the processor", False
                return f"the process died: {code}", False
            text += piece
        answer: str | None = json.loads(text)
        return answer, True

    def end(self) -> None:
        """Stop the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first case; a case depends on seed and number alone"
    )
    parser.add_argument("--cases", type=int, help="stop after so many")
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    options = parser.parse_args()

    from onnx_subprune.cli import run  # noqa: PLC0415 - after the options

    start, found, number, commands = time.monotonic(), dict[str, int](), options.first, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        sound = Path(temporary) / "sound"
        sound.mkdir()
        preparing = os.fork()  # threads of a library in the parent would not be there in its children
        if preparing == 0:
            moments(sound, run)
            os._exit(0)
        _, status = os.waitpid(preparing, 0)
        assert status == 0, "the sound models do not pass"
        child = Child(run)
        while time.monotonic() - start < options.seconds and (
            options.cases is None or number < options.first + options.cases
        ):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            for command in case(random.Random(f"{options.seed}/{number}"), folder, sound):
                commands += 1
                wrong, alive = child.attempt(folder, command)
                if wrong is not None:
                    kind = re.sub(r"\d+", "#", wrong[:200])
                    found[kind] = found.get(kind, 0) + 1
                    if found[kind] == 1:
                        print(f"FINDING in case {number}: {' '.join(command)}\n  {wrong}", flush=True)
                        if options.keep is not None:
                            shutil.copytree(folder, options.keep / f"{options.seed}-{number}", dirs_exist_ok=True)
                            (options.keep / f"{options.seed}-{number}" / "command.txt").write_text(
                                " ".join(command) + "\n"
                            )
                if not alive:
                    child = Child(run)
            shutil.rmtree(folder)
            number += 1
        child.end()
    taken = time.monotonic() - start
    print(
        f"{number - options.first} cases, {commands} commands in {taken:.0f} s, seed {options.seed}: {sum(found.values())} findings of {len(found)} kinds"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
