"""Whether widths are tried, on which samples, and how many of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.graph.channels import ChannelGraph

TRIALS = 24
"""Widths that are tried unasked."""
STARTS = 4
"""Widths that are tried unasked in networks of many groups."""
PAIR = 2
"""The same where a walk is dear, as one of many small chunks through many layers."""
FEW = 192
"""Samples that are enough to tell two starts apart, of which three quarters are fitted."""
CHEAP = 5 * 10**9
"""Multiply-accumulates of a pass over all samples up to which that is done."""
PASSES, SECONDS = 60, 0.7
"""What trials may take that nobody asked for: passes over all samples, and seconds beside them, both of `RATE`. So many seconds where half is to be left,
else in the ratio of what goes to what is left: the deeper the cut, the less the sensitivities of single groups say of it."""
RATE = 2e10
"""Multiply-accumulates a second. It is counted, not measured: equal settings give equal models."""
RUNS, CALL = 8, 4e-3
"""Passes of a walk, and seconds that a layer costs a chunk beside its multiply-accumulates."""
ENOUGH = 224
"""Samples from which on that is done, what 256 leave beside those held out: a quarter of fewer tells two models hardly apart."""
LEAST = 24
"""Where there are streams: with them whole, or cut, a network may lose twice as much or half, which few samples tell."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """At most `most` walks on `fitted`, judged on `judged`, which share no sample. cheap: they run here, whatever runs the models else."""

    most: int
    cheap: bool
    fitted: Calibration
    judged: Calibration


def trials_of(
    data: Calibration,
    macs: float,
    groups: int,
    *,
    streams: bool = False,
    fraction: float,
    layers: Sequence[int],
    most: int | None,
    augment: Callable[[Calibration], Calibration],
) -> Trials | None:
    """Return what to try on; None for nothing.

    macs: of one sample. streams: there are some (see `streams_of`). fraction: of the cost that is to be left. layers: the columns of each. most: trials
    that are asked for; None: where samples are enough, as many as are cheap where a pass is short and every group can be moved both ways; the first
    ones alone, on `FEW` samples, where groups are many, whose sensitivities cost more. augment: adds moved copies to samples; not where starts alone
    are tried, which would take longer than all else.
    """
    whole = augment(data)
    cheap = macs * whole.samples <= CHEAP
    if most is None:

        def payable(samples: Calibration) -> int:
            price = walk_seconds(layers, macs * samples.samples, samples.chunk_count)
            seconds = PASSES * macs * samples.samples / RATE + SECONDS * (1.0 - fraction) / fraction
            return int(seconds / max(price, SECONDS / TRIALS))

        most = min(TRIALS, payable(whole)) if cheap else 0
        few = 2 * groups <= TRIALS and not (streams and (most < STARTS or data.samples < ENOUGH))
        if not few:
            augment = _as_they_are
            most = STARTS if payable(data) >= STARTS else PAIR
        if data.samples < (LEAST if streams and most == STARTS and not few else ENOUGH):
            most = 0
        data = data if few else data.take(min(data.samples, FEW))
    fitted, judged = data.take(data.samples * 3 // 4), data.rest(data.samples * 3 // 4)
    if most < 2 or judged is None or fitted.samples < data.samples // 2:
        return None
    return Trials(most=most, cheap=cheap, fitted=augment(fitted), judged=augment(judged))


def _as_they_are(data: Calibration) -> Calibration:
    return data


def walk_seconds(layers: Sequence[int], macs: float, chunks: int) -> float:
    """Return about what a walk takes through layers with so many columns. macs: of a pass over all samples, which are so many chunks."""
    solved = sum(float(columns) ** 3 for columns in layers)
    return (RUNS * macs + solved) / RATE + CALL * chunks * len(layers)


def streams_of(graph: ChannelGraph) -> frozenset[str]:
    """Return the groups that several layers add to, or that several read behind normalisations: what these lose goes on through all that follows."""
    return frozenset(
        group.name
        for group in graph.groups
        if len(group.producers) > 1 or (graph.normalized(group) and len(group.consumers) > 1)
    )
