"""One tiny model with data, in a folder: what examples in docstrings, in the README and in the documentation run on."""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

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
