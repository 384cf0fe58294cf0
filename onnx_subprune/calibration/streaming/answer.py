"""What one chunk has to say to an `Ask`: input, target and positions of a contraction, from what both models have there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.moments.unfold import at
from onnx_subprune.calibration.streaming.kept import Left
from onnx_subprune.calibration.streaming.original import Original
from onnx_subprune.calibration.streaming.product import Product
from onnx_subprune.calibration.streaming.request import Ask, What, drawn
from onnx_subprune.calibration.streaming.runner import Read
from onnx_subprune.calibration.streaming.settings import Running
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.calibration.streaming.target import GRADIENT
from onnx_subprune.graph.contractions.recurrent import data_beside
from onnx_subprune.runtime.piecewise import piecewise
from onnx_subprune.runtime.threads import threads_each


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """The pruned model, and the original, in front of the contraction that is asked about."""

    current: Stream
    original: Beside | None
    running: Running
    visible: Visible


class Answers:
    """Terms for `ask`, of `chunks`, `side` of them side by side. shape: that of the input of a chunk, () where it does not matter."""

    def __init__(self, ask: Ask, pair: Pair, chunks: Sequence[int], side: int, shape: Sequence[int]) -> None:
        self._ask, self._shape, self._visible = ask, shape, pair.visible
        self._threads = threads_each(pair.running.threads, side)
        self._have = pair.current.reader(_names(ask), chunks, side)
        self._wanted: Read | None = None
        self._left: Left | None = None
        if ask.aim is not None:
            assert pair.original is not None, "the original model does not run alongside"
            self._wanted = pair.original.stream.reader([ask.aim.tensor, *_beside(ask)], chunks, side)
            self._left = pair.original.model.left.get(ask.aim.tensor)
        self._session = None
        if ask.back is not None:
            self._session = pair.running.open(ask.back.model, side)

    def terms(self, chunk: int, number: int) -> Terms:
        """Return those of a chunk, which has that number in the whole data, of positions that are not hidden; may be called from several threads."""
        found = self._terms(chunk, number)
        source, target = self._visible.rows(self._ask.kernel, chunk, found.input, found.target)
        assert source is not None
        return replace(found, input=source, target=target)

    def _terms(self, chunk: int, number: int) -> Terms:
        ask, have = self._ask, self._have(chunk)
        read = {} if self._wanted is None else self._wanted(chunk)
        wanted = None if self._wanted is None or ask.aim is None else read[ask.aim.tensor]
        if ask.aim is not None and ask.aim.product is not None and wanted is not None:
            return self._of_product(ask.aim.product, have, read, wanted)
        if ask.what is What.RESIDUAL:
            return Terms(input=self._residual(chunk, have, wanted))
        if ask.what is What.PEAKS:
            return Terms(input=ask.source(have[ask.input]))
        if ask.what is What.LOSS:
            assert wanted is not None, "a loss is short of an aim"
            return Terms(
                input=self._residual(chunk, have, wanted), target=self._visible.shown(chunk, self._size(wanted))
            )
        if ask.what is What.PROBE:
            assert wanted is not None, "what is sent back is short of an aim"
            signs = self._visible.shown(chunk, _signs(self._aimed(wanted).shape, number))
            return Terms(input=self._sent_back(have, signs))
        positions, source = drawn(ask, self._shape, number), ask.source(have[ask.input])
        if ask.back is None:
            return Terms(input=source, target=self._target(have, wanted, positions), positions=positions)
        residual = self._residual(chunk, have, wanted)
        target = self._sent_back(have, residual)
        target = target if positions is None else at(target, positions)
        return Terms(input=source, target=target, positions=positions, residual=residual)

    def _of_product(
        self, product: Product, have: Mapping[str, Array], read: Mapping[str, Array], wanted: Array
    ) -> Terms:
        """Terms for gates, which are computed."""
        ask = self._ask
        if ask.what is What.LOSS:
            return Terms(input=product.residual(wanted, have[ask.input]), target=product.size(wanted))
        assert ask.what is What.MOMENTS, "gates have moments and losses"
        source = self._cut(wanted) if product.forced else have[ask.input]
        if (beside := product.beside) is not None:
            data = have[beside.tensor]
            if product.resets:
                target = product.candidate(wanted, read[beside.tensor], source)
                return Terms(input=data_beside(data, product.kernel.backwards), target=target)
            rows = beside.rows(product.kernel, source, data)
            return Terms(input=rows, target=product.whole(wanted, read[beside.tensor]))
        return Terms(input=ask.source(source), target=product.target(wanted))

    def _cut(self, wanted: Array) -> Array:
        """What the pruned model has of the original's tensor."""
        return wanted if self._left is None else wanted.take(self._left[1], axis=self._left[0])

    def _aimed(self, wanted: Array) -> Array:
        """What counts of the original's tensor, which the pruned model may have less of."""
        return self._ask.output(self._cut(wanted))

    def _by_samples(self, work: Callable[..., Array], *arrays: Array) -> Array:
        """Do `work`, some samples at a time where the first axis is none of channels."""
        axes = {self._ask.axis} if self._left is None else {self._ask.axis, self._left[0]}
        if {axis % arrays[0].ndim for axis in axes} & {0}:
            return work(*arrays)
        return piecewise(work, *arrays, threads=self._threads)

    def _target(self, have: Mapping[str, Array], wanted: Array | None, positions: Int64 | None) -> Array | None:
        """What the contraction should put out for one chunk."""
        ask, aim = self._ask, self._ask.aim
        if aim is None or wanted is None:
            return None

        def here(tensor: Array) -> Array:
            return tensor if positions is None else at(tensor, positions)

        def target(wanted: Array, *rest: Array) -> Array:
            value, others = self._aimed(here(wanted)), iter(rest)
            if ask.renew:
                value = aim.seen(value, ask.output(here(next(others))))
            return aim.target(value, None if aim.other is None else ask.output(here(next(others))), ask.axis)

        beside = [aim.tensor] * ask.renew + ([] if aim.other is None else [aim.other])
        return self._by_samples(target, wanted, *(have[name] for name in beside))

    def _residual(self, chunk: int, have: Mapping[str, Array], wanted: Array | None) -> Array:
        """What the contraction puts out short of its aim, as far as the activation behind can tell."""
        ask, aim = self._ask, self._ask.aim
        assert aim is not None, "a residual is short of an aim"
        assert wanted is not None

        def residual(wanted: Array, current: Array) -> Array:
            return aim.residual(self._aimed(wanted), ask.output(current), ask.axis)

        return self._visible.shown(chunk, self._by_samples(residual, wanted, have[aim.tensor]))

    def _size(self, wanted: Array) -> Array:
        """The aim in the terms of the output."""
        aim = self._ask.aim
        assert aim is not None
        return aim.unscaled(self._aimed(wanted).astype(np.float32, copy=False), self._ask.axis)

    def _sent_back(self, have: Mapping[str, Array], residual: Array) -> Array:
        back = self._ask.back
        assert self._session is not None
        assert back is not None, "nothing is sent back"
        return self._session.run(back.feeds(have, residual), [GRADIENT])[GRADIENT]


def _names(ask: Ask) -> list[str]:
    """What is needed of the pruned model."""
    aim, names = ask.aim, list[str]()
    gates = aim is not None and aim.product is not None
    if ask.what in (What.MOMENTS, What.PEAKS) or gates:
        names += [ask.input, *_beside(ask)]
    if aim is None or gates:
        return names
    if aim.other is not None and ask.back is None and ask.what is What.MOMENTS:
        names.append(aim.other)
    if ask.what in (What.RESIDUAL, What.LOSS) or (ask.what is What.MOMENTS and (ask.renew or ask.back is not None)):
        names.append(aim.tensor)
    if ask.back is not None:
        names += [ask.back.output, *ask.back.beside]
    return [*dict.fromkeys(names)]


def _beside(ask: Ask) -> list[str]:
    """What gates follow from beside the tensor that they are a product of."""
    product = None if ask.aim is None else ask.aim.product
    return [] if product is None or product.beside is None else [product.beside.tensor]


def _signs(shape: Sequence[int], chunk: int) -> Array:
    """Random signs, the same for a chunk whenever they are asked for."""
    signs = np.random.default_rng([*shape, chunk]).integers(0, 2, shape, np.int8)
    return np.asarray(2.0 * signs.astype(np.float32) - np.float32(1.0), np.float32)
