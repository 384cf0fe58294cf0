"""Size and latency of models."""

from onnx import ModelProto

from onnx_subprune.calibration.fidelity import Runnable
from onnx_subprune.data import Calibration
from onnx_subprune.runtime import latency


def model_bytes(model: ModelProto) -> int:
    """Return the size of a model in bytes, side files included."""
    return int(model.ByteSize()) + sum(
        int(entry.value)
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    )


def measured_latency(
    original: Runnable, pruned: Runnable, data: Calibration, threads: int | None = None
) -> tuple[float, float]:
    """Return the median milliseconds that each model takes for one chunk of the data, measured in turns."""
    feeds = next(data.chunks())
    before, after = latency([original.session(threads=threads), pruned.session(threads=threads)], feeds, seconds=0.5)
    return before, after
