"""One tiny model with data, in a folder: what examples in docstrings, in the README and in the documentation run on."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from onnx_subprune import Channels, Gates, Recipe, Resources, collect, prune
from tests.networks.net import Net


def small_model() -> ModelProto:
    """Two convolutions and a classifier, on images of (3, 8, 8); nearly half of the channels are like others."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 8, 8], "input"), 16, 3, name="conv1"))
    x = net.relu(net.conv(_wide(net, x, 16), 24, 3, name="conv2"))
    x = net("Flatten", net.gap(_wide(net, x, 24)))
    net.dense(x, 24, 5, name="classifier")
    net.nodes[-1].output[0] = "logits"
    net.output("logits", 2)
    for name, weight in net.weights.items():
        if weight.ndim in (1, 4) and len(weight) > 5:
            half = len(weight) // 2
            net.weights[name] = np.concatenate([weight[:half], weight[:half] + 0.05 * weight[half:]])
    return net.model()


def _wide(net: Net, x: str, width: int) -> str:
    net.width[x] = width
    return x


def fill(folder: Path) -> None:
    """Write model.onnx, calibration.npz, test.npz and labels.npy into a folder."""
    rng = np.random.default_rng(0)
    onnx.save(small_model(), folder / "model.onnx")
    for name, count in (("calibration", 64), ("test", 32)):
        np.savez(folder / f"{name}.npz", input=rng.standard_normal((count, 3, 8, 8)).astype(np.float32))
    np.save(folder / "labels.npy", rng.integers(0, 5, 32))


def fill_more(folder: Path) -> None:
    """Write the models and data of the cookbook: a reader of lines, an encoder of texts, a streaming model."""
    rng = np.random.default_rng(1)
    onnx.save(line_reader(), folder / "ocr.onnx")
    widths = {"lines_of_16": 16, "lines_of_24": 24, "lines_of_32": 32}
    np.savez(folder / "lines.npz", **{name: _normal(rng, 24, 1, 8, width) for name, width in widths.items()})
    onnx.save(encoder(), folder / "encoder.onnx")
    for name, count in (("texts", 96), ("other_texts", 32)):
        mask = (np.arange(12) < rng.integers(3, 13, (count, 1))).astype(np.int64)
        np.savez(folder / f"{name}.npz", input_ids=rng.integers(0, 50, (count, 12)), attention_mask=mask)
    onnx.save(detector(), folder / "detector.onnx")
    for name, count in (("photographs", 64), ("other_photographs", 32)):
        np.savez(folder / f"{name}.npz", images=_normal(rng, count, 3, 16, 16))
    onnx.save(stream(), folder / "stream.onnx")
    np.savez(folder / "windows.npz", window=_normal(rng, 128, 8))


def fill_before_commands(folder: Path) -> None:
    """Write what the examples of the commands take from one another."""
    shutil.copy(folder / "model.onnx", folder / "finetuned.onnx")
    data, resources = folder / "calibration.npz", Resources(threads=1)
    found = prune(folder / "model.onnx", data, budget=Channels(0.5), gates=Gates(accept_any=True), resources=resources)
    Recipe.of(found.report).to_json(folder / "recipe.json")
    for number in (2, 3, 4):  # the first is that of the example
        collect(folder / "model.onnx", data, folder / f"{number}.npz", shard=(number, 4), resources=resources)


def line_reader() -> ModelProto:
    """Convolutions over lines of 8 pixels' height and any width, an LSTM over their columns, scores of eleven letters."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 1, 8, "w"], "image"), 16, 3, name="conv1"))
    x = net.relu(net.conv(_wide(net, x, 16), 24, 3, name="conv2"))
    x = net("ReduceMean", x, axes=[2], keepdims=0)
    x = net("Transpose", x, perm=[2, 0, 1])
    weights = (net.weight(1, 48, 24), net.weight(1, 48, 12), net.weight(1, 96))
    x = net("Squeeze", net.add("LSTM", x, *weights, outputs=3, hidden_size=12)[0], net.constant([1]))
    net.linear(x, 12, 11)
    net.nodes[-1].output[0] = "letters"
    net.output("letters", 3)
    return net.model()


def encoder() -> ModelProto:
    """Embeddings of fifty words, a hidden layer, and the mean over the words that the mask shows."""
    net = Net()
    ids, mask = (net.input(["n", "t"], name, TensorProto.INT64) for name in ("input_ids", "attention_mask"))
    x = net.linear(net.relu(net.linear(net("Gather", net.weight(50, 16), ids), 16, 48)), 48, 16)
    shown = net("Unsqueeze", net("Cast", mask, to=TensorProto.FLOAT), net.constant([2]))
    total = net("ReduceSum", net("Mul", x, shown), net.constant([1]), keepdims=0)
    net.nodes.append(
        helper.make_node("Div", [total, net("ReduceSum", shown, net.constant([1]), keepdims=0)], ["embedding"])
    )
    net.output("embedding", 2)
    return net.model()


def detector() -> ModelProto:
    """Two convolutions and a head that gives four sides and two scores, between 0 and 1, at each of 64 places."""
    net = Net()
    x = net.relu(net.conv(net.input(["n", 3, 16, 16], "images"), 16, 3, stride=2, name="conv1"))
    x = net.relu(net.conv(_wide(net, x, 16), 24, 3, name="conv2"))
    x = net.relu(net.conv(_wide(net, x, 24), 16, 1, name="head1"))
    x = net("Sigmoid", net.conv(_wide(net, x, 16), 6, 1, name="head2"))
    net.nodes.append(helper.make_node("Reshape", [x, net.constant([0, 6, 64])], ["boxes"]))
    net.output("boxes", 3)
    return net.model()


def stream() -> ModelProto:
    """A window and a state in, scores and the next state out."""
    net = Net()
    both = net("Concat", net.input([1, 8], "window"), net.input([1, 6], "state_in"), axis=1)
    x = net.relu(net.dense(both, 14, 32))
    net.nodes.append(helper.make_node("Tanh", [net.dense(x, 32, 6)], ["state_out"]))
    net.dense(x, 32, 3)
    net.nodes[-1].output[0] = "scores"
    net.output("scores", 2)
    net.output("state_out", 2)
    return net.model()


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)
