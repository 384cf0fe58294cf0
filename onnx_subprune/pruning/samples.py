"""Which samples are for what: to fit to, to choose widths by where a metric does, and to judge the result on.

No sample is for two of these, unless there are too few, or the user wants it so (`holdout=0`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.calibration.data.holdout import Holdout, count_of, split
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.evaluation.metric import Judging

Augment = Callable[[Calibration], Calibration]
"""Adds moved copies to samples, where that is wanted."""
Rarity = Callable[[Calibration, Calibration], Int64]
"""From samples to fit to and held-out ones to those of the latter, by place, that show what the former do not."""
ATTEMPTS = 3
"""How often others are held out in place of those."""
QUARTER = 4
"""A metric that chooses widths without samples of its own does so by a quarter of those to fit to, while candidates are fitted to the others."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """The data. used: what the result is fitted to; fitted: the same with moved copies where there are any.

    judged: what the result is judged on; `held_out` is True if nothing was fitted to it, nor chosen by it.
    chosen: what a metric chooses widths by. candidates: what candidates are fitted to meanwhile, with copies; None where that is `fitted`.
    spare: how many samples the user leaves, which could be fitted to. tuning: what fine-tuning chooses its state by: nothing else is done with these;
    None where nothing is fine-tuned, or samples are too few. places: where those that are fitted to and those lie in the data, for their labels.
    """

    used: Calibration
    fitted: Calibration
    judged: Judging
    held_out: bool
    chosen: Judging
    candidates: Calibration | None
    spare: int
    tuning: Calibration | None = None
    places: tuple[Int64, Int64] | None = None

    @property
    def shifts(self) -> bool:
        """True if there are moved copies."""
        return self.fitted.samples > self.used.samples


def samples_of(
    given: Calibration,
    rest: Calibration | None,
    holdout: Holdout,
    augment: Augment,
    rare: Rarity,
    *,
    chooses: bool,
    tunes: bool = False,
) -> Samples:
    """Share out the samples `given` to fit to, and the `rest` that the user leaves for judging, if any.

    holdout: see `Resources`. rare: tells which held-out samples the fit would miss; others near them are held out instead. chooses: a metric
    chooses the widths. tunes: the result is fine-tuned, which takes as many samples again from those to fit to.
    Raises OptionError where nothing would be left to fit to.
    """
    spare = rest.samples if rest is not None else 0
    total = given.samples + spare
    apart = _for_tuning(given) if tunes else None
    tuning, kept, tuned = (None, None, None) if apart is None else (given.at(apart[1]), *apart)
    if rest is not None and rest.samples >= count_of(given.samples):
        used = given if kept is None else given.at(kept)
        fitted = augment(used)
        places = np.arange(given.samples, total, dtype=np.int64)
        every = Judging(rest, places, total)
        if holdout == 0 or (holdout is None and not chooses):
            judged = chosen = every
        else:
            others, held = split(rest, holdout)
            judged, chosen = (Judging(rest.at(part), places[part], total) for part in (held, others))
        return Samples(
            used=used,
            fitted=fitted,
            judged=judged,
            held_out=True,
            chosen=chosen,
            candidates=None,
            spare=spare,
            tuning=tuning,
            places=None if kept is None or tuned is None else (kept, tuned),
        )
    whole, kept = given, np.arange(given.samples, dtype=np.int64) if kept is None else kept
    given = whole if len(kept) == whole.samples else whole.at(kept)
    left, held = _without_rare(given, *split(given, holdout), rare)
    used = given.at(left) if len(held) else given
    judged = Judging(given.at(held), kept[held], total) if len(held) else Judging(used, kept[left], total)
    chosen, candidates = Judging(used, kept[left], total), None
    count = used.samples // QUARTER
    if chooses and used.fixed is None and count:
        before, behind = split(used, count)
        chosen, candidates = Judging(used.at(behind), kept[left[behind]], total), augment(used.at(before))
    return Samples(
        used=used,
        fitted=augment(used),
        judged=judged,
        held_out=len(held) > 0,
        chosen=chosen,
        candidates=candidates,
        spare=spare,
        tuning=tuning,
        places=None if tuned is None else (kept[left] if len(held) else kept, tuned),
    )


def _for_tuning(given: Calibration) -> tuple[Int64, Int64] | None:
    """The places of the samples to fit to, and of those that fine-tuning chooses by; None where there are too few."""
    others, held = split(given, None)
    return (others, held) if len(held) else None


def _without_rare(given: Calibration, left: Int64, held: Int64, rare: Rarity) -> tuple[Int64, Int64]:
    """Fit to the samples that show what no other does, and hold out others near them, or fewer, where those are rare too.

    Where every sample shows something that no other does, half of them are held out all the same: the result is judged on samples, not on one or two.
    """
    kept, least = set[int](), (len(held) + 1) // 2
    for _ in range(ATTEMPTS if given.fixed is None and not given.runs else 0):
        found = held[rare(given.at(left), given.at(held))] if len(held) else held
        if not len(found):
            break
        kept.update(found.tolist())
        held = np.setdiff1d(held, found)
        free = [place for place in left.tolist() if place not in kept]
        near = (
            [min(free, key=lambda place: abs(place - lost)) for lost in found.tolist()] if len(free) > len(held) else []
        )
        held = np.union1d(held, np.asarray(near, np.int64))
        left = np.setdiff1d(np.arange(given.samples, dtype=np.int64), held)
    else:
        if kept and len(held):
            held = np.delete(held, rare(given.at(left), given.at(held))[: len(held) - least])
            left = np.setdiff1d(np.arange(given.samples, dtype=np.int64), held)
    return left, held
