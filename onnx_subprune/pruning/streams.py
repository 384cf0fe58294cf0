"""What a pruned streaming model does with its own states: in the report its inputs are those of the original, one step at a time."""

from collections.abc import Mapping
from dataclasses import replace

from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.graph.formats import Model
from onnx_subprune.pruning.compare import stream_fidelity
from onnx_subprune.pruning.result import Pruned


def with_own_states(
    result: Pruned, model: Model, data: Source, carry: Mapping[str, str], constants: Mapping[str, Constant]
) -> Pruned:
    """Return the result with a note on the errors of its outputs in a stream, where what a state is wrong by goes on to the next run.

    carry: see `carried`. A result with a side file is returned as it is.
    """
    if result.side_file:
        return result
    found = stream_fidelity(model, result.model, data, carry, constants)
    errors = ", ".join(f"{name!r} {item.error_words}" for name, item in found.outputs.items() if item.error_words)
    note = f"in a stream, each model with its own states, relative errors are {errors}, over all of the data, of which most was fitted"
    return replace(result, report=replace(result.report, notes=(*result.report.notes, note)))
