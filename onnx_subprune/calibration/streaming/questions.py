"""Questions about one contraction, each a strategy of its own: which tensors it needs, and what it makes of one chunk of them.

The moments of the input alone (`Inputs`), or against a target: a tensor of the original (`Aimed`), or what a reader's residual asks of its producer
(`SentBack`). Less than moments: the energy of what is missing (`Short`), and that of the target beside it (`Lost`), the largest values of the
input (`Greatest`), the curvature that a producer has for its reader (`Probed`). Those of gates are in `gates`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.energies import Energies, Peaks
from onnx_subprune.calibration.moments.unfold import at
from onnx_subprune.calibration.streaming.target import Adjoint, Aim
from onnx_subprune.calibration.streaming.view import Terms, View


class Question(ABC):
    """What is asked of a contraction, chunk by chunk.

    step: some chunks will do, as for a step that a producer takes; probe: fewer still. residuals: those of a reader come beside. sums: adds the
    terms up; None for moments, which have a form of their own where rows are few. with_gram: False where the gram is known already. back: what
    computes the answer from a residual, if anything.
    """

    __slots__ = ()
    step: ClassVar[bool] = False
    probe: ClassVar[bool] = False
    residuals: ClassVar[bool] = False
    sums: ClassVar[type[Collector] | type[Energies] | None] = None
    with_gram: bool = True
    back: Adjoint | None = None

    @property
    def computes(self) -> bytes | None:
        """The model that computes the answer, serialized; None where there is none."""
        return None if self.back is None else self.back.model

    @property
    def original(self) -> Sequence[str]:
        """Which tensors it needs of the original; none where that need not run."""
        return ()

    def current(self, source: str) -> Sequence[str]:
        """Return which tensors it needs of the pruned model, for a contraction that reads `source`."""
        return [source]

    @abstractmethod
    def terms(self, view: View) -> Terms:
        """Return what one chunk has to say; may be called from several threads."""


class Inputs(Question):
    """The moments of the input alone."""

    __slots__ = ()

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        return Terms(input=view.source, positions=view.drawn())


class Greatest(Question):
    """The largest value of each channel of the input."""

    __slots__ = ()
    step, sums = True, Peaks

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        return Terms(input=view.source)


@dataclass(frozen=True, slots=True, eq=False)
class _OfAim(Question):
    """About what `aim` makes of the original."""

    aim: Aim

    @property
    def original(self) -> Sequence[str]:
        """See `Question`."""
        return [self.aim.tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Aimed(_OfAim):
    """Moments against the aim; with `renew`, against what of it the activation behind can tell apart."""

    renew: bool = False
    with_gram: bool = True

    def current(self, source: str) -> Sequence[str]:
        """See `Question`."""
        beside = [self.aim.tensor] * self.renew + ([] if self.aim.other is None else [self.aim.other])
        return [*dict.fromkeys([source, *beside])]

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        aim, positions, source = self.aim, view.drawn(), view.source

        def here(tensor: Array) -> Array:
            return tensor if positions is None else at(tensor, positions)

        def counting(name: str) -> Array:
            return aim.counting(here(view.have[name]))

        wanted = aim.counting(view.cut(here(view.wanted[aim.tensor])))
        if self.renew:
            wanted = aim.seen(wanted, counting(aim.tensor))
        found = aim.target(wanted, None if aim.other is None else counting(aim.other))
        return Terms(input=source, target=found, positions=positions)


@dataclass(frozen=True, slots=True, eq=False)
class SentBack(_OfAim):
    """Moments of a producer against what the residual of its reader, which falls short of the aim, asks of it; and that residual."""

    step, residuals = True, True
    back: Adjoint
    with_gram: bool = True

    def current(self, source: str) -> Sequence[str]:
        """See `Question`."""
        return [*dict.fromkeys([source, self.aim.tensor, self.back.output, *self.back.beside])]

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        positions, residual = view.drawn(), view.residual(self.aim)
        target = view.sent_back(self.back, residual)
        target = target if positions is None else at(target, positions)
        return Terms(input=view.source, target=target, positions=positions, residual=residual)


@dataclass(frozen=True, slots=True, eq=False)
class Probed(_OfAim):
    """The gram of what residuals of random signs ask of a producer."""

    step, probe, sums = True, True, Collector
    back: Adjoint

    def current(self, source: str) -> Sequence[str]:
        """See `Question`."""
        return [*dict.fromkeys([self.back.output, *self.back.beside])]

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        shape = self.aim.counting(view.cut(view.wanted[self.aim.tensor])).shape
        return Terms(input=view.sent_back(self.back, view.shown(_signs(shape, view.number))))


@dataclass(frozen=True, slots=True, eq=False)
class Short(_OfAim):
    """The energy of what a contraction puts out short of its aim."""

    step, sums = True, Energies

    def current(self, source: str) -> Sequence[str]:
        """See `Question`."""
        return [self.aim.tensor]

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        return Terms(input=view.residual(self.aim))


@dataclass(frozen=True, slots=True, eq=False)
class Lost(Short):
    """That and the energy of the aim."""

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        wanted = view.cut(view.wanted[self.aim.tensor])
        size = self.aim.unscaled(self.aim.counting(wanted).astype(np.float32, copy=False))
        return Terms(input=view.residual(self.aim), target=view.shown(size))


def _signs(shape: Sequence[int], chunk: int) -> Array:
    """Random signs, the same for a chunk whenever they are asked for."""
    signs = np.random.default_rng([*shape, chunk]).integers(0, 2, shape, np.int8)
    return np.asarray(2.0 * signs.astype(np.float32) - np.float32(1.0), np.float32)
