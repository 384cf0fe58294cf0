"""Models whose first axis counts windows, or time, inside: what comes out does not depend on how few samples a run has."""

import numpy as np
import pytest

from onnx_subprune.allocation import Channels
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net

WINDOWS, TOKENS, WIDTH = 40, 2, 6
X = np.random.default_rng(0).standard_normal((16, WINDOWS * TOKENS, WIDTH)).astype(np.float32)
BATCH_SIZES = (2, 32)
ANY = Gates(accept_any=True)


def dead_dense(net, x, width, hidden):
    """Two dense layers, of whose hidden units half are dead."""
    w, b = net.weight(width, hidden), net.weight(hidden)
    net.weights[w][:, ::2] = 0
    net.weights[b][::2] = 0
    return net("MatMul", net.relu(net("Add", net("MatMul", x, w, name=f"up {w}"), b)), net.weight(hidden, width))


def windows():
    """Dense layers on windows, which a mask of one number a window of a sample is added to."""
    net = Net(seed=3)
    x = net.reshape(dead_dense(net, net.input(["n", WINDOWS * TOKENS, WIDTH]), WIDTH, 16), -1, TOKENS, WIDTH)
    parts = net.reshape(dead_dense(net, x, WIDTH, 16), -1, WINDOWS, TOKENS, WIDTH)
    masked = net("Add", parts, net.weight(1, WINDOWS, 1, 1))
    inside = net.relu(net.reshape(masked, -1, TOKENS, WIDTH))
    back = net.reshape(dead_dense(net, inside, WIDTH, 16), -1, WINDOWS * TOKENS, WIDTH)
    net.output(net.reduce("ReduceMean", back, 1, keepdims=0))
    return net.model()


def time_first():
    """An LSTM between dense layers, on the transposed input: the first axis has as many places as a chunk has samples."""
    net = Net(seed=3)
    x = net("Transpose", dead_dense(net, net.input(["n", 4, WIDTH]), WIDTH, 16), perm=[1, 0, 2])
    y, *_ = net.add(
        "LSTM", x, net.weight(1, 4 * WIDTH, WIDTH), net.weight(1, 4 * WIDTH, WIDTH), outputs=3, hidden_size=WIDTH
    )
    net.output(dead_dense(net, net("Squeeze", y, net.constant(np.array([1]))), WIDTH, 16))
    return net.model()


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("model", [windows(), time_first()], ids=["windows", "time first"])
def test_dead_units_go_and_nothing_else_changes(model, batch_size):
    x = X if model.graph.input[0].type.tensor_type.shape.dim[1].dim_value > 4 else X[:, :4]
    resources = Resources(threads=1, batch_size=batch_size)
    small = prune(model, x, budget=Channels(0.5), only=["up*"], resources=resources).model
    (wanted,), (have,) = (Session(item, threads=1).run({"x": x}).values() for item in (model, small))
    np.testing.assert_allclose(have, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("model", [windows(), time_first()], ids=["windows", "time first"])
def test_the_size_of_runs_changes_nothing_but_rounding(model):
    x = X if model.graph.input[0].type.tensor_type.shape.dim[1].dim_value > 4 else X[:, :4]
    smaller = [
        prune(model, x, budget=Channels(0.25), resources=Resources(threads=1, batch_size=size), gates=ANY).model
        for size in BATCH_SIZES
    ]
    (one,), (other,) = (Session(item, threads=1).run({"x": x}).values() for item in smaller)
    np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(other).max())
