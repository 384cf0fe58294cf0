"""Convolutions that read the channels alone for which their weights are not zero."""

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.streaming.submodel import BLOCK, channels_read
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network
from onnx_subprune.runtime.spill import Store

RNG = np.random.default_rng(7)


def masked(channels: int, alive: list[int]) -> np.ndarray:
    weight = np.zeros((8, channels, 3, 3), np.float32)
    weight[:, alive] = RNG.standard_normal((8, len(alive), 3, 3))
    return weight


def test_all_living_channels_are_read_and_as_many_dead_ones_as_make_a_block():
    alive = [1, 5, 17, 30, 31, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 63]
    read = channels_read("Conv", masked(64, alive), 1)
    assert read is not None
    assert set(alive) <= set(read.tolist())
    assert len(read) == 2 * BLOCK
    assert np.all(np.diff(read) > 0)


@pytest.mark.parametrize(
    ("op", "weight", "group"),
    [
        ("Conv", masked(64, list(range(50))), 1),
        ("Conv", masked(64, [0]), 2),
        ("ConvTranspose", masked(64, [0]), 1),
        ("Conv", np.full((8, 64, 1, 1), np.nan, np.float32), 1),
    ],
)
def test_what_would_not_gain_reads_everything(op, weight, group):
    assert channels_read(op, weight, group) is None


def test_a_weight_of_zeros_reads_one_block():
    assert channels_read("Conv", masked(64, []), 1).tolist() == list(range(BLOCK))


@pytest.mark.parametrize("alive", [[], [3], list(range(0, 64, 2)), list(range(64))])
def test_a_stream_computes_the_same_with_narrow_convolutions(alive):
    whole = masked(64, list(range(64)))
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 64, 6, 5])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 8, 6, 5])],
        [onnx.numpy_helper.from_array(whole, "w")],
    )
    network = Network(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    x = RNG.standard_normal((3, 64, 6, 5)).astype(np.float32)
    weight = np.where(np.isin(np.arange(64), alive)[None, :, None, None], whole, np.float32(0.0))
    with Store(1 << 20) as store:
        stream = Stream(network, Calibration(arrays={"x": x}, chunk=2), store, Running())
        stream.override(Use(network.labels[0], 1), weight)
        found = np.concatenate([part["y"] for part in stream.read(["y"])])
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    wanted = np.einsum("nchwij,mcij->nmhw", windows.astype(np.float64), weight.astype(np.float64))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
