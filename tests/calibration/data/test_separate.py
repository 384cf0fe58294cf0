"""Whether a model treats samples one by one shows in a few runs."""

import numpy as np
import pytest

from onnx_subprune.calibration.data.separate import independent
from onnx_subprune.runtime.session import Runnable
from tests.networks.net import Net


def model():
    net = Net(seed=1)
    net.output(net("Mul", net.input(["rows", 4]), net.constant(np.array(1e30, np.float32))), 2)
    return net.model()


@pytest.mark.parametrize("spoiled", [np.inf, np.nan, 1e38])
def test_outputs_that_are_no_numbers_are_compared_without_a_warning(spoiled):
    data = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    data[1, 2] = spoiled

    assert independent(Runnable(model()), {"x": data}, 0, {})
