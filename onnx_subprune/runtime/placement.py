"""Where a model really runs, and what each execution provider is good for: found out on a few samples, beside the processor."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.errors import ModelError
from onnx_subprune.runtime.files import scratch
from onnx_subprune.runtime.profiling import node_events
from onnx_subprune.runtime.providers import PROCESSOR, Provider, named, note, started
from onnx_subprune.runtime.session import Runnable

ROUNDING, ROUGH = 1e-4, 0.1
"""How far outputs may be from the processor's, relative to the largest, for a provider to decide, and to take part in calibration at all."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Providers that models are timed on, that run the calibration data, and whose outputs decide; () for the processor."""

    timed: tuple[Provider, ...] = ()
    calibrated: tuple[Provider, ...] = ()
    judged: tuple[Provider, ...] = ()

    @property
    def deciding(self) -> "Placement":
        """The placement of a run whose outputs decide."""
        return Placement(self.judged, self.judged, self.judged)

    def __str__(self) -> str:
        """Return what runs where, for a report."""
        stages = {"latency": self.timed, "calibration": self.calibrated, "sensitivities": self.judged}
        found: dict[str, list[str]] = {}
        for stage, providers in stages.items():
            found.setdefault(named(providers), []).append(stage)
        return "; ".join(f"{', '.join(names)} on {place}" for place, names in found.items())


ON_PROCESSOR = Placement()


def placed(
    model: Runnable, feeds: Mapping[str, Array], providers: Sequence[Provider], threads: int | None
) -> Placement:
    """Return what of `providers` is used for what, after a run on `feeds` on them and one on the processor; a note says where they are not used.

    Raises OptionError for options that a provider does not take, ModelError where the model does not run on the processor.
    """
    there = started(providers)
    for item in providers:
        if item not in there:
            note(f"{item.short} is installed and could not be started here: the processor runs what it should")
    if not there:
        return ON_PROCESSOR
    expected = model.on(()).session(threads=threads).run(feeds)
    try:
        found, nodes = _run(model.on(there), feeds, threads)
    except ModelError as error:
        note(f"{named(there)} does not run this model: the processor does ({error})")
        return ON_PROCESSOR
    left = nodes.pop(PROCESSOR, Counter())
    if not nodes:
        note(f"{named(there)} runs no operator of this model: the processor runs all of it")
        return ON_PROCESSOR
    if left:
        most = ", ".join(f"{count} {op}" for op, count in left.most_common(3))
        note(f"{named(there)} does not take all of this model: the processor runs {left.total()} of its nodes ({most})")
    return trusted(there, _distance(found, expected))


def trusted(there: tuple[Provider, ...], distance: float) -> Placement:
    """Return what providers are used for whose outputs are so far from the processor's; a note says what they are not used for."""
    if distance <= ROUNDING:
        return Placement(there, there, there)
    far = f"the outputs on {named(there)} are {distance:.2g} of the largest value from the processor's"
    if distance <= ROUGH:
        note(f"{far}: sensitivities, which decide, are measured on the processor")
        return Placement(there, there)
    note(f"{far}: it is timed there, and all else is run on the processor")
    return Placement(there)


def _run(
    model: Runnable, feeds: Mapping[str, Array], threads: int | None
) -> tuple[dict[str, Array], dict[str, Counter[str]]]:
    """Outputs, and operators of the nodes that each provider ran."""
    with scratch() as folder:
        session = model.session(threads=threads, profile=folder / "profile")
        outputs = session.run(feeds)
        events = node_events(json.loads(session.end_profiling().read_text(encoding="utf-8")))
    nodes: dict[str, Counter[str]] = {}
    for _, event in events:
        nodes.setdefault(event["args"].get("provider", ""), Counter())[event["args"].get("op_name", "")] += 1
    return outputs, nodes


def _distance(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The largest difference of an output, relative to its largest value; infinite where shapes differ, or other integers come out."""
    worst = 0.0
    for name, reference in expected.items():
        value = found[name]
        if value.shape != reference.shape or (reference.dtype.kind != "f" and not np.array_equal(value, reference)):
            return np.inf
        if reference.dtype.kind == "f" and reference.size:
            ours, theirs = value.astype(np.float64), reference.astype(np.float64)
            if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
                return np.inf
            kept = np.isfinite(theirs)
            scale = float(np.max(np.abs(theirs[kept]), initial=1e-30))
            worst = max(worst, float(np.max(np.abs(ours[kept] - theirs[kept]), initial=0.0)) / scale)
    return worst
