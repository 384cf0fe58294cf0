"""Collects the moments of one contraction, chunk by chunk: the streaming side of `moments`.

Chunks are cut by the caller, at fixed places. Each chunk's products are formed by the cheaper `Route` and added with an
order-independent sum, so batches, shards and the order of arrival do not change a byte of the result.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.products import Products, Route, Unfolding, route
from onnx_subprune.calibration.moments.regression import check_finite
from onnx_subprune.calibration.moments.scale import largest_in, scale_of, scaled
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.selection.linalg.rounding import energies, mask_cross
from onnx_subprune.selection.linalg.summation import CompensatedSum

ANY_SIZE = 0
"""Stands for the sizes of samples that have different ones."""
SUMS = ("gram", "cross", "energy", "sum_input", "sum_target")


class Collector:
    """Sums over chunks.

    with_gram: False where only a new target is collected for inputs whose gram is known.
    sampled: every chunk comes with the output positions to take. ragged: chunks have different sizes; no route counts on one.
    """

    def __init__(
        self, contraction: Kernel, *, with_gram: bool = True, sampled: bool = False, ragged: bool = False
    ) -> None:
        self.contraction = contraction
        self._with_gram, self._sampled, self._ragged = with_gram, sampled, ragged
        self._route: Route | None = None
        self._spatial: tuple[int, ...] = ()
        self._count = 0
        self._sums = {name: CompensatedSum() for name in SUMS}

    def products(
        self, x: Array, target: Array | None = None, positions: Int64 | None = None, *, threads: int = 1
    ) -> Products:
        """Return the products of one chunk, which `take` adds; changes nothing, so that chunks may be worked on side by side.

        target: in the layout of the output, None for the gram only. positions: flat output positions to take, sorted (see
        `unfold.sample_positions`); then the target is (samples, channels, positions). threads: 2 or more share the work.
        """
        assert self._sampled == (positions is not None), "either every chunk comes with positions, or none"
        route = self._route_for(x.shape) if positions is None else Unfolding(self.contraction, positions)
        with np.errstate(over="ignore", invalid="ignore"):  # `moments` refuses what is not finite
            own = scale_of(largest_in(x))
            wanted = 1.0 if target is None else scale_of(largest_in(target))
            if own == wanted == 1.0:
                return route.products(x, target, with_gram=self._with_gram, threads=threads)
            level = None if target is None else scaled(target, wanted)
            found = route.products(scaled(x, own), level, with_gram=self._with_gram, threads=threads)
            return found.unscaled(own, wanted)

    def add(self, x: Array, target: Array | None = None, positions: Int64 | None = None) -> None:
        """Add one chunk; see `products`."""
        self.take(self.products(x, target, positions), x.shape)

    def take(self, found: Products, shape: Sequence[int]) -> None:
        """Add the products of a chunk whose input has this shape."""
        if self._route is None:
            self._route = self._route_for(shape)
            self._spatial = (ANY_SIZE,) * (len(shape) - 1) if self._ragged else tuple(shape[1:])
        self._count += found.count
        with np.errstate(over="ignore", invalid="ignore"):
            for name, total in self._sums.items():
                value = getattr(found, name)
                if value is not None:
                    total.add(value)

    def _route_for(self, shape: Sequence[int]) -> Route:
        any_size = self._sampled or self._ragged
        return self._route or (Unfolding(self.contraction) if any_size else route(self.contraction, shape))

    def empty(self) -> "Collector":
        """Return a collector of the same contraction with nothing in it."""
        return Collector(self.contraction, ragged=self._ragged)

    def merge(self, other: "Collector") -> None:
        """Add everything that was added to `other`, a collector of the same contraction."""
        if self._route is None:
            self._route, self._spatial = other._route, other._spatial
        any_size = other._route is None or isinstance(self._route, Unfolding)
        assert any_size or other._spatial == self._spatial, "the images differ in size"
        self._count += other._count
        with np.errstate(over="ignore", invalid="ignore"):  # as in `products`
            for name, total in self._sums.items():
                total.merge(other._sums[name])

    def moments(self) -> Moments:
        """Return the moments, rounded once; what was not collected is zero, the gram empty. ModelError if they are not numbers."""
        assert self._route is not None, "nothing was added"
        found = {name: total.total() for name, total in self._sums.items() if total.hi is not None}
        groups, p = found["sum_input"].shape
        m = found["cross"].shape[2] if "cross" in found else 0
        gram = self._route.gram(found["gram"], p) if "gram" in found else np.zeros((groups, 0, 0))
        parts = (energies(gram), *(found[name] for name in ("sum_input", "sum_target", "energy") if name in found))
        check_finite(self.contraction.node, *parts)
        return Moments(
            count=float(self._count),
            gram=gram,
            cross=mask_cross(gram, found.get("cross", np.zeros((groups, p, m)))),
            energy=found.get("energy", np.zeros((groups, m))),
            sum_input=found["sum_input"],
            sum_target=found.get("sum_target", np.zeros((groups, m))),
        )

    def state(self) -> Mapping[str, Array]:
        """Return the sums as arrays, unrounded, for a shard's file."""
        arrays: dict[str, Array] = {"count": np.array(self._count), "shape": np.array(self._spatial, np.int64)}
        for name, total in self._sums.items():
            if total.hi is not None and total.lo is not None:
                arrays[f"{name}.hi"], arrays[f"{name}.lo"] = total.hi, total.lo
        return arrays

    @classmethod
    def restore(cls, contraction: Kernel, state: Mapping[str, Array]) -> "Collector":
        """Undo `state`."""
        collector = cls(contraction, with_gram="gram.hi" in state, ragged=ANY_SIZE in state["shape"])
        collector._count, collector._spatial = int(state["count"]), tuple(int(size) for size in state["shape"])
        collector._route = collector._route_for((1, *collector._spatial))
        for name in SUMS:
            if f"{name}.hi" in state:
                hi, lo = (np.array(state[f"{name}.{half}"], np.float64) for half in ("hi", "lo"))
                collector._sums[name] = CompensatedSum(hi, lo)
        return collector
