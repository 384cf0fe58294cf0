"""What one chunk has to say to an `Ask`: input, target and positions of a contraction, from what both models have there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_subprune.calibration.adjoint import GRADIENT
from onnx_subprune.calibration.ask import Ask, What, drawn
from onnx_subprune.calibration.original import Original
from onnx_subprune.calibration.running import Running
from onnx_subprune.calibration.stream import Read, Stream
from onnx_subprune.calibration.unfold import at

Array = NDArray[np.generic]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """Input, target and output positions of a chunk; None: no target, all positions. residual: of the reader that sends something back."""

    input: Array
    target: Array | None = None
    positions: Int64 | None = None
    residual: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """The original where it runs alongside."""

    model: Original
    stream: Stream

    def reader(self, names: Sequence[str], side: int) -> Read:
        """Return what reads tensors of a chunk as they should be in the pruned model; see `Stream.reader`."""
        read = self.stream.reader(names, side)
        return lambda chunk: {name: self.model.narrowed(name, array) for name, array in read(chunk).items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """The pruned model, and the original, in front of the contraction that is asked about."""

    current: Stream
    original: Beside | None
    running: Running


class Answers:
    """Terms for `ask`, of `side` chunks side by side. shape: that of the input of a chunk, () where it does not matter."""

    def __init__(self, ask: Ask, pair: Pair, side: int, shape: Sequence[int]) -> None:
        self._ask, self._shape = ask, shape
        self._have = pair.current.reader(_names(ask), side)
        self._wanted = None
        if ask.aim is not None:
            assert pair.original is not None, "the original model does not run alongside"
            self._wanted = pair.original.reader([ask.aim.tensor], side)
        self._session = None
        if ask.back is not None:
            self._session = pair.running.open(ModelProto.FromString(ask.back.model), side)

    def terms(self, chunk: int, number: int) -> Terms:
        """Return those of a chunk, which has that number in the whole data; may be called from several threads."""
        ask, have = self._ask, self._have(chunk)
        wanted = {} if self._wanted is None else self._wanted(chunk)
        if ask.what is What.RESIDUAL:
            return Terms(input=_residual(ask, have, wanted))
        if ask.what is What.PROBE:
            assert ask.aim is not None, "what is sent back is short of an aim"
            return Terms(input=self._sent_back(have, _signs(ask.output(wanted[ask.aim.tensor]).shape, number)))
        positions, source = drawn(ask, self._shape, number), ask.source(have[ask.input])
        if ask.back is None:
            return Terms(input=source, target=_target(ask, have, wanted, positions), positions=positions)
        residual = _residual(ask, have, wanted)
        target = self._sent_back(have, residual)
        target = target if positions is None else at(target, positions)
        return Terms(input=source, target=target, positions=positions, residual=residual)

    def _sent_back(self, have: Mapping[str, Array], residual: Array) -> Array:
        back = self._ask.back
        assert self._session is not None
        assert back is not None, "nothing is sent back"
        return self._session.run(back.feeds(have[back.output], residual), [GRADIENT])[GRADIENT]


def _names(ask: Ask) -> list[str]:
    """What is needed of the pruned model."""
    aim, names = ask.aim, list[str]()
    if ask.what is What.MOMENTS:
        names.append(ask.input)
    if aim is None:
        return names
    if aim.other is not None and ask.back is None and ask.what is What.MOMENTS:
        names.append(aim.other)
    if ask.what is What.RESIDUAL or (ask.what is What.MOMENTS and (ask.renew or ask.back is not None)):
        names.append(aim.tensor)
    if ask.back is not None:
        names.append(ask.back.output)
    return [*dict.fromkeys(names)]


def _target(ask: Ask, have: Mapping[str, Array], wanted: Mapping[str, Array], positions: Int64 | None) -> Array | None:
    """What the contraction should put out for one chunk."""
    aim = ask.aim
    if aim is None:
        return None

    def rows_of(tensor: Array) -> Array:
        return ask.output(tensor if positions is None else at(tensor, positions))

    value = rows_of(wanted[aim.tensor])
    if ask.renew:
        value = aim.seen(value, rows_of(have[aim.tensor]))
    return aim.target(value, None if aim.other is None else rows_of(have[aim.other]), ask.axis)


def _residual(ask: Ask, have: Mapping[str, Array], wanted: Mapping[str, Array]) -> Array:
    """What the contraction puts out short of its aim, as far as the activation behind can tell."""
    aim = ask.aim
    assert aim is not None, "a residual is short of an aim"
    current: Float32 = ask.output(have[aim.tensor]).astype(np.float32, copy=False)
    wish: Float32 = ask.output(wanted[aim.tensor]).astype(np.float32, copy=False)
    if aim.flat is not None:
        wish = aim.seen(wish, current)
    residual: Float32 = wish - current
    if np.any(aim.scale != 1.0):
        shape = [-1 if axis == ask.axis else 1 for axis in range(current.ndim)]
        residual = residual / aim.scale.astype(np.float32).reshape(shape)
    return residual


def _signs(shape: Sequence[int], chunk: int) -> Array:
    """Random signs, the same for a chunk whenever they are asked for."""
    signs = np.random.default_rng([*shape, chunk]).integers(0, 2, shape, np.int8)
    return np.asarray(2.0 * signs.astype(np.float32) - np.float32(1.0), np.float32)
