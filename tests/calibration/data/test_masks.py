"""Hidden positions are no rows: what stands there changes nothing."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from onnx_subprune import Channels, DataError, Macs, Resources, prune
from onnx_subprune.calibration.data.masks import Visible, mask_of
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.graph.contractions.convolution import Conv
from onnx_subprune.graph.contractions.product import Product
from onnx_subprune.graph.network import load
from tests.networks.net import Net

WIDTH, LENGTH, SAMPLES = 8, 6, 48
RNG = np.random.default_rng(2)
MASK = (np.arange(LENGTH) < RNG.integers(2, LENGTH, (SAMPLES, 1))).astype(np.int64)


@pytest.fixture(scope="module")
def network():
    """One head of attention over the visible positions, then two dense layers at each position."""
    net = Net(seed=1)
    x = net.input(["n", LENGTH, WIDTH])
    mask = net.input(["n", LENGTH], name="shown", kind=TensorProto.INT64)
    hidden = net("Sub", net.constant(np.float32(1)), net("Cast", mask, to=TensorProto.FLOAT))
    hidden = net.unsqueeze(net("Mul", hidden, net.constant(np.float32(-1e4))), 1)
    scores = net("Add", net("MatMul", x, net("Transpose", x, perm=[0, 2, 1])), hidden)
    seen = net("Add", x, net("MatMul", net("Softmax", scores, axis=-1), x))
    wide = net.relu(net("MatMul", seen, net.weight(WIDTH, 24)))
    net.output(net("MatMul", wide, net.weight(24, WIDTH)), 3)
    return net.model()


def data_of(padding):
    x = np.random.default_rng(3).standard_normal((SAMPLES, LENGTH, WIDTH)).astype(np.float32)
    x[MASK == 0] = padding
    return {"x": x, "shown": MASK}


def weights_of(model, data, budget=Channels(0.5), **resources):
    # as many channels as kernels like are timed, and on a busy machine two runs may end with different ones: any number will do
    found = prune(model, data, budget=budget, round_to=1, resources=Resources(threads=1, trials=0, **resources)).model
    return {item.name: numpy_helper.to_array(item) for item in found.graph.initializer}


@pytest.mark.parametrize("budget", [Channels(0.5), Macs(0.7)])
def test_what_stands_at_hidden_positions_changes_no_weight(network, budget):
    clean, odd = (weights_of(network, data_of(padding), budget) for padding in (0.0, 7.0))
    assert clean.keys() == odd.keys()
    for name, value in clean.items():
        np.testing.assert_allclose(value, odd[name], rtol=1e-4, atol=1e-5)


def test_the_mask_is_found_where_it_hides_something(network):
    data, whole = data_of(1.0), load(network)
    assert mask_of(whole, Calibration(arrays=data, chunk=8), None) == "shown"
    full = {**data, "shown": np.ones_like(MASK)}
    assert mask_of(whole, Calibration(arrays=full, chunk=8), None) is None
    kinds = {**data, "shown": MASK * 2}
    assert mask_of(whole, Calibration(arrays=kinds, chunk=8), None) is None
    assert mask_of(whole, Calibration(arrays=kinds, chunk=8), "shown") == "shown"


def test_a_mask_that_is_no_input_of_positions_is_refused(network):
    for name in ("x", "nothing"):
        with pytest.raises(DataError, match="--mask"):
            weights_of(network, data_of(0.0), mask=name)


def test_zeros_and_ones_that_are_read_as_numbers_hide_nothing():
    net = Net()
    net.output(net("Gather", net.weight(2, 5), net.input(["n", LENGTH], kind=TensorProto.INT64)), 3)
    assert mask_of(load(net.model()), Calibration(arrays={"x": MASK}, chunk=8), None) is None


def test_rows_are_the_visible_ones_one_by_one_or_flattened():
    visible = Visible(Calibration(arrays=data_of(0.0), chunk=8), "shown")
    shown = MASK[8:16] != 0
    kernel, x = Product(node=""), RNG.standard_normal((8, LENGTH, 5))
    for array in (x, x.reshape(-1, 5)):
        rows, nothing = visible.rows(kernel, 1, array, None)
        np.testing.assert_array_equal(rows, x[shown])
        assert nothing is None
        np.testing.assert_array_equal(visible.shown(1, array).reshape(x.shape), x * shown[..., None])
    pooled = x[:, 0]
    assert visible.rows(kernel, 1, pooled)[0] is pooled
    convolution = Conv(node="", kernel=(1,), strides=(1,), dilations=(1,), pads=(0, 0))
    assert visible.rows(convolution, 1, x)[0] is x
