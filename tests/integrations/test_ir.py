"""A pass of onnx_ir among others, against the library itself."""

import numpy as np
import onnxruntime
import pytest

from onnx_subprune import DataError
from tests.small import small_model

onnx_ir = pytest.importorskip("onnx_ir")
common = pytest.importorskip("onnx_ir.passes.common")
from onnx_subprune.integrations.ir import PrunePass  # noqa: E402 - it needs the library


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)


def test_pruning_is_one_of_several_passes(data):
    model = onnx_ir.from_proto(small_model())
    before = onnx_ir.to_proto(model).SerializeToString()
    ours = PrunePass(data, 0.5, round_to=1)
    done = onnx_ir.passes.Sequential(ours, common.ClearMetadataAndDocStringPass())(model)
    assert done.modified
    assert ours.report.macs.ratio <= 0.5
    assert onnx_ir.to_proto(model).SerializeToString() == before
    smaller = onnx_ir.to_proto(done.model)
    assert smaller.ByteSize() < len(before)
    session = onnxruntime.InferenceSession(smaller.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(None, {session.get_inputs()[0].name: data[:2]})[0]).all()


def test_what_cannot_be_pruned_is_an_error_of_the_pass(data):
    with pytest.raises(onnx_ir.passes.PassError) as found:
        onnx_ir.passes.PassManager([PrunePass(data[:, :1], 0.5)])(onnx_ir.from_proto(small_model()))
    cause = found.value
    while isinstance(cause, onnx_ir.passes.PassError):
        cause = cause.__cause__
    assert isinstance(cause, DataError)
