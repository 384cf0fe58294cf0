"""Two layers refitted together: a reader, and the producer of what it reads.

The reader's refit makes the best of the channels that are left. But those were made for the whole: with fewer of them, each had better be
something else. So what the reader still puts out wrong is sent back to its producer (target propagation), which takes a step
towards it (`newton`), and the reader is refitted to what it is given now. The step ends at the lowest point of the parabola through what the
reader puts out wrong without it and with all of it. There are no labels, and nothing is trained from end to end.
"""

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from onnx_subprune._typing import Array, Float64, Int64, Mask, Weights
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.regression import Sums
from onnx_subprune.calibration.streaming.executor import Lockstep
from onnx_subprune.calibration.streaming.questions import Greatest, Probed, SentBack, Short
from onnx_subprune.calibration.streaming.request import Request, Sampling
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.errors import NotFiniteError
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.graph.contractions.reading import positionwise
from onnx_subprune.graph.network import Network
from onnx_subprune.reconstruction.layer import Layer, farther
from onnx_subprune.reconstruction.producers.adjoint import adjoint
from onnx_subprune.reconstruction.producers.chains import Chain
from onnx_subprune.reconstruction.producers.gauss_newton import Step, direction, reach

Trial = TypeVar("Trial")

WORTH = 0.1
"""Another step follows one that took away this share of the residual's energy."""
LASTING = 3
"""A dense layer, whose steps cost next to nothing, takes so many times as many, for a share so many times smaller."""
ROWS = 32
"""A step needs so many output positions for each column of the producer."""
SPARED = 8
"""At least one in so many samples is looked at for a step, however large the maps are."""


def spared(samples: int, positions: int, columns: int) -> int:
    """Return of how many samples one is enough for the step of a producer with so many output positions and columns."""
    return max(1, min(SPARED, samples * positions // (ROWS * columns)))


def lasting(kernel: Kernel, positions: int) -> int:
    """Return how much longer than others a producer with so many output positions a sample goes on; see `LASTING`."""
    return LASTING if not kernel.spatial and positions == 1 else 1


class Producer:
    """The producer's weight and bias as they are now, in the pruned model; `put` changes that."""

    def __init__(self, layer: Layer, weight: Array, shift: Array | None) -> None:
        self._layer, self._weight, self._shift = layer, weight, shift
        self._matrix: Weights = layer.kernel.to_matrix(weight)

    @property
    def weight(self) -> Use:
        """Its weight."""
        return self._layer.contraction.weight

    @property
    def biased(self) -> bool:
        """True if it has a bias to move."""
        return self._shift is not None

    @property
    def values(self) -> dict[Use, Array]:
        """Its constants."""
        values = {self._layer.contraction.weight: self._weight}
        if self._layer.bias is not None and self._shift is not None:
            values[self._layer.bias.use] = self._shift
        return values

    def moved(self, step: Step, far: float) -> "Producer":
        """Return the producer `far` along `step`, which is of those of its outputs that are not dropped."""
        layer, shift = self._layer, self._shift
        matrix = self._matrix + layer.whole(far * step.weights)
        weight = layer.kernel.from_matrix(matrix, self._weight.dtype, self._weight.shape)
        if layer.bias is not None and shift is not None and step.bias is not None:
            change = layer.whole(far * step.bias).ravel() * layer.bias.scale
            shift = (shift.astype(np.float64) + change.reshape(shift.shape)).astype(shift.dtype)
        return Producer(layer, weight, shift)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """The pruned model as far as it is made: it waits at `position`, with `weights` in place of the network's constants.

    held: later tensors that are worth holding while its constants stay as they are. threads: for linear algebra.
    """

    network: Network
    models: Lockstep
    weights: MutableMapping[Use, Array]
    position: int
    held: tuple[str, ...]
    threads: int

    def put(self, values: Mapping[Use, Array]) -> None:
        """Give it other constants; what is held of the tensors behind is forgotten."""
        for use, value in values.items():
            self.weights[use] = value
            self.models.override(use, value)
        self.models.advance(self.position)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """How to move a producer.

    request: about its inputs; the weight is its reader's. alive: (g, p), its inputs that have not been dropped.
    outputs: those of its outputs that have not, None for all. share: of its output positions, those that count in its moments.
    lasting: how much longer than others it goes on. gram: of its inputs a row, about their means where it has a bias; None if it is not known.
    """

    request: Request
    producer: Producer
    alive: Mask
    outputs: Int64 | None
    share: float
    lasting: int
    gram: Float64 | None


class Joint:
    """One reader, which falls short of `aim`, and its producer, to be refitted together. uses: the reader's weight and its bias.

    margin: weights of the producer that are farther from those at first by this share of the way must give finite numbers, too.
    """

    def __init__(
        self, pruned: Pruned, chain: Chain, source: Source, aim: Aim, uses: Collection[Use], *, margin: float = 0.0
    ) -> None:
        self._pruned, self._models, self._chain = pruned, pruned.models, chain
        self._aim, self._source, self._producer = aim, source, source.producer
        self._gram, self._uses = source.gram, uses
        self._first, self._margin = source.producer.values, margin
        self._rests: bool | None = None

    def _left(self) -> float:
        """Return what the reader puts out wrong, on the first half: enough to see whether it falls."""
        request = self._source.request
        sampling = Sampling(every=request.sampling.every, one_half=True)
        request = replace(request, question=Short(self._aim), sampling=sampling, channels=None)
        return _energies(self._models.collect(request).halves)[0]

    def step(self, refit: Callable[[], Trial]) -> tuple[float, Trial | None]:
        """Move the producer and refit the reader; return the share of the residual's energy that this took away, and what `refit` returned.

        0 and None if it would have made nothing better, or what lies between them left its domain: then both stay as they were.
        """
        try:
            found, energies = self._gradients()
        except NotFiniteError:  # a slope at the edge of a domain
            return 0.0, None
        if found is None or energies[0] <= 0.0:
            return 0.0, None
        before = {use: self._pruned.weights[use] for use in self._uses if use in self._pruned.weights}
        try:
            fall, trial = self._moved(found, energies, refit)
        except NotFiniteError:
            fall, trial = 0.0, None
        if trial is None:
            self._settle({**before, **self._producer.values})
        return fall, trial

    def _moved(
        self, found: tuple[Moments, Float64, Float64], energies: Sequence[float], refit: Callable[[], Trial]
    ) -> tuple[float, Trial | None]:
        """Move the producer and refit the reader; 0 and None if that made nothing better."""
        whole, first = sum(energies), energies[0]
        step = direction(*found, self._source.alive, free_bias=self._producer.biased, threads=self._pruned.threads)
        self._pruned.put(self._producer.moved(step, 1.0).values)
        far = reach(whole, step.slope / self._source.share, whole * self._left() / first)
        if far > 0.0:
            moved = self._producer.moved(step, far)
            self._settle(moved.values)
            trial = refit()
            fall = 1.0 - self._left() / first
            if fall > 0.0 and self._holds(moved.values):
                self._producer = moved
                return fall, trial
        return 0.0, None

    def _holds(self, values: Mapping[Use, Array]) -> bool:
        """False where a domain is left by these, by others a little farther on, or where the producer reads nothing but zeros."""
        if not self._margin:
            return True
        if self._rests is None:
            self._rests = self._defined(self._at_rest(self._first))
        beyond = {use: farther(value, self._first[use], self._margin) for use, value in values.items()}
        rests = not self._rests or self._defined(self._at_rest(values))
        return rests and self._defined(beyond) and self._defined(values)  # which settles them, at last

    def _defined(self, values: Mapping[Use, Array]) -> bool:
        """True if what the reader reads is finite with these; what it puts out may hide that, behind a Relu."""
        self._settle(values)
        given, (read,) = self._source.request, self._pruned.held
        request = Request(weight=given.weight, kernel=given.kernel, input=read, question=Greatest())
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(self._models.collect(request).whole().energy).all())

    def _at_rest(self, values: Mapping[Use, Array]) -> Mapping[Use, Array]:
        return {**values, self._producer.weight: np.zeros_like(values[self._producer.weight])}

    def _settle(self, values: Mapping[Use, Array]) -> None:
        self._pruned.put(values)
        self._models.advance(self._pruned.position, self._pruned.held)

    def _gradients(self) -> tuple[tuple[Moments, Float64, Float64] | None, list[float]]:
        """Moments of the producer whose target is the gradient, the gram and the curvature; None where there are rows in place of moments.

        Beside it what the reader puts out wrong, on each half.
        """
        aim, request = self._aim, self._source.request
        back = adjoint(self._pruned.network, self._chain, self._pruned.weights, aim.outputs, self._source.outputs)
        found = self._models.collect(replace(request, question=SentBack(aim, back, with_gram=self._gram is None)))
        energies, moments = _energies(found.residuals), found.whole()
        if not isinstance(moments, Moments):
            return None, energies
        if self._gram is None:
            self._gram = (moments.centered() if self._producer.biased else moments).gram / moments.count
        kernel, sampling = positionwise(request.kernel), Sampling(every=request.sampling.every)
        probe = replace(request, question=Probed(aim, back), kernel=kernel, sampling=sampling, channels=None)
        probed = self._models.collect(probe).whole()
        assert probed.gram is not None
        return (moments, moments.count * self._gram, probed.gram[0] / probed.count), energies


def _energies(sums: Sequence[Sums]) -> list[float]:
    return [float(half.moments().energy[0, 0]) for half in sums]
