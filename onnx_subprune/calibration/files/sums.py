"""Sums of shards."""

from collections.abc import Mapping

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.selection.linalg.summation import CompensatedSum


class Sums:
    """A sum of states of collectors of one contraction, on arrays alone: shards add up without their model."""

    def __init__(self) -> None:
        self._count = 0
        self._shape: Array | None = None
        self._sums: dict[str, CompensatedSum] = {}

    def add(self, state: Mapping[str, Array]) -> None:
        """Add what one collector, maybe an empty one, has summed; ValueError if it does not fit."""
        check_state(state)
        if not int(state.get("count", np.array(0))):
            return
        names = {key for key in state if key.endswith(".hi")}
        if self._count and names != {f"{name}.hi" for name in self._sums}:
            raise ValueError("it has other sums than the files before it")
        self._count += int(state["count"])
        shape = state["shape"]
        if self._shape is not None and not np.array_equal(shape, self._shape):
            raise ValueError(f"its samples have other sizes ({shape.tolist()}, not {self._shape.tolist()})")
        self._shape = shape
        for name in sorted(key.removesuffix(".hi") for key in state if key.endswith(".hi")):
            hi, lo = (np.asarray(state[f"{name}.{half}"], np.float64) for half in ("hi", "lo"))
            total = self._sums.setdefault(name, CompensatedSum())
            if hi.shape != lo.shape or (total.hi is not None and total.hi.shape != hi.shape):
                raise ValueError(f"its sums {name!r} have another shape")
            total.merge(CompensatedSum(hi, lo))

    def state(self) -> dict[str, Array]:
        """Return the sum as a state, every pair as the number next to it and the rest: however it was added, the same bytes."""
        arrays: dict[str, Array] = {"count": np.array(self._count)}
        if self._shape is not None:
            arrays["shape"] = self._shape
        for name, total in self._sums.items():
            settled = CompensatedSum()
            settled.merge(total)
            assert settled.hi is not None
            assert settled.lo is not None
            arrays[f"{name}.hi"], arrays[f"{name}.lo"] = settled.hi, settled.lo
        return arrays


def check_state(state: Mapping[str, Array]) -> None:
    """Raise ValueError if `state` is not what a collector gives: a count, sizes, and sums as pairs of numbers."""
    count = np.asarray(state.get("count", 0))
    if count.ndim or count.dtype.kind not in "iu" or int(count) < 0:
        raise ValueError("its count is no number of rows")
    if not count:
        return
    shape = np.asarray(state.get("shape", 0.5))
    if shape.ndim != 1 or (len(shape) and (shape.dtype.kind not in "iu" or int(shape.min()) < 0)):
        raise ValueError("its samples have no sizes")
    for name in {key.rpartition(".")[0] for key in state if "." in key}:
        pair = [state.get(f"{name}.{half}") for half in ("hi", "lo")]
        if any(item is None or item.dtype.kind != "f" for item in pair):
            raise ValueError(f"its sums {name!r} are no pairs of numbers")
