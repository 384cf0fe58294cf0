"""Two layers refitted together: a reader, and the producer of what it reads.

The reader's refit makes the best of the channels that are left. But those were made for the whole: with fewer of them, each had better be
something else. So what the reader still puts out wrong is sent back to its producer (target propagation), which takes a step
towards it (`newton`), and the reader is refitted to what it is given now. How far the step goes is cross-validated: directions from each
half of the samples are judged on the other. There are no labels, and nothing is trained from end to end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.adjoint import Way, adjoint, way_between
from onnx_subprune.calibration.bias import Bias
from onnx_subprune.calibration.kernel import CONVOLUTIONS, Kernel, Kind
from onnx_subprune.calibration.lockstep import Ask, Lockstep, What
from onnx_subprune.calibration.moments import Moments
from onnx_subprune.calibration.stream import ROWS
from onnx_subprune.calibration.newton import Step, direction, reach
from onnx_subprune.graph.channels import Contraction, Use
from onnx_subprune.graph.model import Network
from onnx_subprune.selection.ridge import Weights

Array = NDArray[np.generic]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


SPARED = 4
"""At least one in so many samples is looked at for a step, however large the maps are."""


def ways(network: Network, contractions: Sequence[Contraction]) -> dict[str, Way]:
    """Return the way from its producer to each contraction that is the only reader of one, by the reader's label."""
    found = {}
    for producer in contractions:
        for reader in contractions:
            if network.position[producer.node] < network.position[reader.node]:
                way = way_between(network, producer, reader)
                if way is not None:
                    found[reader.node] = way
    return found


def spared(samples: int, positions: int, columns: int) -> int:
    """Return of how many samples one is enough for the step of a producer with so many output positions and columns."""
    return max(1, min(SPARED, samples * positions // (ROWS * columns)))


class Producer:
    """The producer's weight and bias as they are now, in the pruned model; `put` changes that."""

    def __init__(self, kernel: Kernel, use: Use, weight: Array, bias: Bias | None, shift: Array | None) -> None:
        self._kernel, self._use, self._weight = kernel, use, weight
        self._bias, self._shift = bias, shift
        self._matrix: Weights = kernel.to_matrix(weight)

    @property
    def values(self) -> dict[Use, Array]:
        """Its constants."""
        values = {self._use: self._weight}
        if self._bias is not None and self._shift is not None:
            values[self._bias.use] = self._shift
        return values

    def moved(self, step: Step, far: float) -> "Producer":
        """Return the producer `far` along `step`."""
        matrix = self._matrix + far * step.weights
        weight = self._kernel.from_matrix(matrix, self._weight.dtype, self._weight.shape)
        shift = self._shift
        if self._bias is not None and shift is not None and step.bias is not None:
            change = far * step.bias.ravel() * self._bias.scale
            shift = (shift.astype(np.float64) + change.reshape(shift.shape)).astype(shift.dtype)
        return Producer(self._kernel, self._use, weight, self._bias, shift)


class Joint:
    """One reader and its producer, to be refitted together.

    ask: for the moments of the reader. position: where the pruned model waits. alive: (g, p) of the producer's inputs.
    share: of the producer's output positions, those that count in its moments. put: takes a constant into the pruned model, and into `weights`.
    """

    def __init__(
        self,
        network: Network,
        models: Lockstep,
        way: Way,
        *,
        ask: Ask,
        source: Ask,
        producer: Producer,
        alive: Mask,
        free_bias: bool,
        share: float,
        position: int,
        put: Callable[[Use, Array], None],
        weights: Mapping[Use, Array],
    ) -> None:
        self._network, self._models, self._way = network, models, way
        self._ask, self._source, self._producer = ask, source, producer
        self._alive, self._free_bias, self._share, self._position = alive, free_bias, share, position
        self._put, self._weights = put, weights
        self._reader_uses = [use for use in weights if use.node == way.reader.node]
        self._grams: list[Float64] | None = None
        self._energies = self.energies()

    def energies(self) -> list[float]:
        """Return what the reader puts out wrong, on each half."""
        found = self._models.collect(replace(self._ask, what=What.RESIDUAL, every=self._source.every))
        return [float(half.moments().energy.sum()) for half in found]

    def step(self, refit: Callable[[], None]) -> bool:
        """Move the producer and refit the reader; return False, and leave both as they were, if that makes nothing better."""
        if len(self._energies) < 2 or min(self._energies) <= 0.0:
            return False
        before = {use: self._weights[use] for use in self._reader_uses}
        halves, curvature = self._gradients()
        if halves is None:
            return False
        whole = halves[0] + halves[1]
        step = direction(whole, curvature, self._alive, free_bias=self._free_bias)
        self._try(self._producer.moved(step, 1.0))
        far = reach(sum(self._energies), step.slope(whole) / self._share, sum(self.energies()))
        if far > 0.0:
            moved = self._producer.moved(step, far)
            self._move(moved)
            refit()
            energies = self.energies()
            if sum(energies) < sum(self._energies):
                self._producer, self._energies = moved, energies
                return True
        for use, value in before.items():
            self._put(use, value)
        self._move(self._producer)
        return False

    def _try(self, producer: Producer) -> None:
        for use, value in producer.values.items():
            self._put(use, value)
        self._models.advance(self._position)  # what was held of the reader's input was made by another producer

    def _move(self, producer: Producer) -> None:
        self._try(producer)
        self._models.advance(self._position, [self._ask.input])

    def _gradients(self) -> tuple[list[Moments] | None, Float64]:
        """Moments of the producer whose target is the gradient, of both halves; and the curvature."""
        back = adjoint(self._network, self._way, self._weights)
        ask = replace(self._source, back=back, with_gram=self._grams is None)
        found = self._models.collect(ask)
        grams: Sequence[Float64 | None] = self._grams or [None] * len(found)
        halves = [half.moments(gram) for half, gram in zip(found, grams, strict=True)]
        if not all(isinstance(half, Moments) for half in halves):
            return None, np.zeros((0, 0))
        plain = [half for half in halves if isinstance(half, Moments)]
        self._grams = [half.gram for half in plain]
        probe = self._models.collect(
            replace(ask, what=What.PROBE, kernel=_positionwise(ask.kernel), with_gram=True, positions=None)
        )
        felt = [half.moments() for half in probe]
        curvature = sum((half.gram[0] for half in felt if half.gram is not None), np.zeros((1, 1)))
        return plain, curvature / max(sum(half.count for half in felt), 1.0)


def _positionwise(kernel: Kernel) -> Kernel:
    """The kernel that reads the output of `kernel` position by position."""
    if kernel.kind not in CONVOLUTIONS:
        return Kernel(node=kernel.node, kind=Kind.MATMUL)
    ones = (1,) * kernel.spatial
    return Kernel(node=kernel.node, kind=Kind.CONV, kernel=ones, strides=ones, dilations=ones, pads=(0,) * (2 * len(ones)))

