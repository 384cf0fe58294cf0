"""The weights of a recurrent layer, moved so that its states over whole sequences are those of the original.

Least squares on gates know the states that a layer has, not those that it will have with the new weights, nor that a gate which is shut passes no error
on. So from there the sum of the squared errors of all states goes down along its gradient through time (L-BFGS), in coordinates in which the columns of what
is read are uncorrelated and of one size. How far, samples decide that the steps have not seen: what one half of them asks for is judged on the other, and
as many steps are made on all as were best there.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from onnx_subprune._typing import Float32, Float64, Int64
from onnx_subprune.calibration.moments.regression import Regression
from onnx_subprune.calibration.streaming.request import Request
from onnx_subprune.calibration.streaming.sequences import Sequences
from onnx_subprune.graph.contractions.recurrent import UnitWeight
from onnx_subprune.graph.gradients.sequences import BIAS, RECURRENCE, WEIGHT, Sizes, losing
from onnx_subprune.graph.gradients.tape import NoGradientError
from onnx_subprune.graph.rules.recurrent import LENGTHS, PEEPHOLES
from onnx_subprune.reconstruction.columns import dropped_channels
from onnx_subprune.reconstruction.coordinates import Constants, Coordinates
from onnx_subprune.reconstruction.fit import Fit
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.progress import State

PATIENCE, WORTH = 3, 0.01
"""So many evaluations that together gain less than this share on what is judged end the way."""
STRIDE = 0.3
"""Length of the first step, in these coordinates, in units of the root of what is wrong there; later ones follow from the gradients."""
LARGE = 1 << 21
"""Layers with more weights are left as they are: the way remembers ten of its steps."""
MEMORY = 10
"""Steps that L-BFGS remembers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ends:
    """Units and features of a layer that are left, and the rows of its gates that these units have."""

    units: Int64
    features: Int64
    rows: Int64

    def of(self, whole: Constants) -> dict[str, Float64]:
        """Return what is left of W, R and B."""
        found = {
            WEIGHT: whole[WEIGHT][:, self.rows][:, :, self.features],
            RECURRENCE: whole[RECURRENCE][:, self.rows][:, :, self.units],
        }
        if BIAS in whole:
            bias = whole[BIAS].reshape(len(whole[BIAS]), 2, -1)[:, :, self.rows]
            found[BIAS] = bias.reshape(len(bias), -1)
        return found

    def into(self, whole: Constants, found: Constants) -> dict[str, Float64]:
        """Return W, R and B with what is left of them replaced."""
        new = {name: np.array(value) for name, value in whole.items()}
        new[WEIGHT][np.ix_(np.arange(len(new[WEIGHT])), self.rows, self.features)] = found[WEIGHT]
        new[RECURRENCE][np.ix_(np.arange(len(new[RECURRENCE])), self.rows, self.units)] = found[RECURRENCE]
        if BIAS in whole:
            bias = new[BIAS].reshape(len(new[BIAS]), 2, -1)
            bias[:, :, self.rows] = found[BIAS].reshape(len(bias), 2, -1)
        return new


@dataclass(slots=True, eq=False)
class _Way:
    """What was met on the way: the least error that was judged, the constants there, after so many evaluations of all that are `done`."""

    least: float = np.inf
    best: Constants = field(default_factory=dict)
    at: int = 0
    done: int = 0
    met: list[float] = field(default_factory=list)


class _End(Exception):  # noqa: N818 - no error
    """The way ends here."""


class WholeSequences:
    """The way of one layer. data: its W. seen: moments of its units and of its data, (d, p + p')."""

    def __init__(self, state: State, layer: Layer, data: Layer, seen: Regression) -> None:
        self._state, self._layer, self._data = state, layer, data
        gone, units = dropped_channels(state.task.graph, state.choices, layer.contraction.rows), layer.prior.shape[1]
        left = np.setdiff1d(np.arange(units), gone)
        rows = (np.arange(layer.prior.shape[2] // units)[:, None] * units + left).ravel()
        self._ends = Ends(units=left, features=np.flatnonzero(state.alive(data)), rows=rows)
        self._biased = layer.bias is not None
        columns = units + self._ends.features, self._ends.units
        self._coordinates = Coordinates.of(seen, columns, len(rows), biased=self._biased)
        self._sizes, self._model = self._modelled()

    @property
    def possible(self) -> bool:
        """True where the states follow from data and weights alone, by formulas that are known here."""
        return bool(self._model)

    def settled(self, judged: Constants, both: Constants, most: int) -> dict[str, Float64] | None:
        """Return W, R and B that lose less over whole sequences than `both`, after at most so many gradients.

        None where `judged`, fitted to the second half, wins nothing on the first.
        """
        tried = self._way(self._ends.of(judged), fitted=slice(1, 2), judge=slice(0, 1), most=most)
        if not tried.at:
            return None
        found = self._way(self._ends.of(both), fitted=slice(0, 2), judge=slice(0, 2), most=tried.at)
        return self._ends.into(both, found.best) if found.at else None

    def _modelled(self) -> tuple[Sizes | None, bytes]:
        network, contraction = self._state.task.network, self._layer.contraction
        node, ends, task = network.node(contraction.node), self._ends, self._state.task
        more = [name for name in (*node.input[LENGTHS : LENGTHS + 1], *node.input[PEEPHOLES:]) if name]
        shape = task.graph.observation.shapes.get(contraction.output.tensor, ())
        weights = [network.array(name) for name in node.input[1:4] if name]
        size = (len(ends.features) + len(ends.units) + 2) * len(ends.rows) * len(weights[0])
        plain = all(value.dtype == np.float32 for value in weights) and task.running.mask is None
        whole = len(shape) == 4 and contraction.output.tensor == node.output[0] and self._biased == (len(weights) == 3)
        if more or not plain or not whole or size > LARGE or not len(ends.features):
            return None, b""
        sizes = Sizes(
            steps=shape[0],
            samples=task.data.chunk,
            features=len(ends.features),
            directions=len(weights[0]),
            units=len(ends.units),
            gates=len(ends.rows),
        )
        try:
            return sizes, losing(node, sizes, bias=self._biased)
        except NoGradientError:
            return None, b""

    def _way(self, start: Constants, *, fitted: slice, judge: slice, most: int) -> _Way:
        """Go down from `start` along the gradient on some halves, judged on others, in at most so many evaluations."""
        from scipy.optimize import minimize  # noqa: PLC0415 - takes long, and recurrent layers alone need it

        way, places, here = _Way(), self._coordinates, self._answers(start)
        stride = STRIDE * np.sqrt(_total(here[fitted])[0])

        def lost(step: Float64) -> tuple[float, Float64]:
            now = places.moved(start, stride * step)
            answers = self._answers(now) if step.any() else here
            found = _total(answers[judge])[0]
            if found < way.least:
                way.least, way.best, way.at = found, now, way.done
            way.met.append(way.least)
            if way.done >= most or (way.done > PATIENCE and way.least > (1.0 - WORTH) * way.met[-1 - PATIENCE]):
                raise _End
            way.done += 1
            value, slopes = _total(answers[fitted])
            return value, stride * places.slope(slopes)

        with suppress(_End):
            minimize(lost, places.start, jac=True, method="L-BFGS-B", options={"maxcor": MEMORY, "maxiter": most})
        return way

    def _answers(self, now: Constants) -> list[tuple[float, float, dict[str, Float64]]]:
        """Return squared errors, energies and gradients by half."""
        assert self._sizes is not None, "it was asked whether that is possible"
        question = Sequences(
            states=self._layer.contraction.output.tensor,
            units=self._ends.units,
            features=self._ends.features,
            model=self._model,
            sizes=self._sizes,
            constants={name: value.astype(np.float32) for name, value in now.items()},
            counted=self._counted(),
        )
        contraction = self._data.contraction
        request = Request(
            weight=contraction.weight, kernel=self._data.kernel, input=contraction.input.tensor, question=question
        )
        halves = self._state.models.collect(request).halves
        return [question.apart(half.moments().energy[0]) for half in halves]

    def _counted(self) -> Float32:
        """What errors count, (T, D, H): where others read the last state, that counts as much as all steps."""
        sizes, network = self._sizes, self._state.task.network
        assert sizes is not None, "it was asked whether that is possible"
        node, kernel = network.node(self._layer.contraction.node), self._layer.kernel
        assert isinstance(kernel, UnitWeight), "R is"
        counted = np.ones((sizes.steps, sizes.directions, sizes.units), np.float32)
        if len(node.output) > 1 and network.readers.get(node.output[1]):
            for direction, backward in enumerate(kernel.backwards):
                counted[0 if backward else -1, direction] += sizes.steps
        return counted


def _total(answers: Sequence[tuple[float, float, dict[str, Float64]]]) -> tuple[float, dict[str, Float64]]:
    """Return the squared errors and the gradients of some halves together, over the energy of the states."""
    energy = sum(item[1] for item in answers) or 1.0
    names = answers[0][2]
    return (
        sum(item[0] for item in answers) / energy,
        {name: np.asarray(sum(item[2][name] for item in answers) / energy) for name in names},
    )


def fits(found: Constants, units: tuple[Layer, Fit], data: tuple[Layer, Fit]) -> tuple[Fit, Fit]:
    """Return the fits of R and of W with what was found in place of their weights and biases; those of before are given."""
    both = found[BIAS].reshape(len(found[BIAS]), 2, -1) if BIAS in found else None
    biases = (None, None) if both is None else (both[:, 1], both[:, 0].reshape(1, -1))
    parts = [
        replace(fit, weights=layer.kernel.to_matrix(found[name]), bias=bias, refitted=True, exact=False)
        for (layer, fit), name, bias in zip((units, data), (RECURRENCE, WEIGHT), biases, strict=True)
    ]
    return parts[0], parts[1]
