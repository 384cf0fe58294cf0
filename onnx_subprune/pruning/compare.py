"""Original against pruned: fidelity, size, latency measured here."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from numpy.typing import ArrayLike

from onnx_subprune.calibration.data.carried import carried
from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.labels import read_labels
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.errors import DataError, ModelError, typed
from onnx_subprune.evaluation.fidelity import fidelity
from onnx_subprune.evaluation.fronts import Shown, with_fronts
from onnx_subprune.evaluation.gates import Gates, complaints, ruined
from onnx_subprune.evaluation.latency import measured_latency, raced, raced_feeds, single_latency
from onnx_subprune.evaluation.layers import LayerTime, layer_times
from onnx_subprune.evaluation.measures import Fidelity
from onnx_subprune.evaluation.parts import parts_of
from onnx_subprune.evaluation.report.extra import need_extra
from onnx_subprune.evaluation.report.sheet import Part, html_of, text_of
from onnx_subprune.evaluation.report.summary import summary
from onnx_subprune.evaluation.report.table import comparison_table, fidelity_table, layers_table
from onnx_subprune.evaluation.report.values import Change, fidelity_dict
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.graph.formats import Model
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.observation import Observation
from onnx_subprune.pruning.opening import check_repeats, opened
from onnx_subprune.pruning.resources import Resources, check_threads
from onnx_subprune.pruning.written import counted
from onnx_subprune.runtime.files import json_text, replacing
from onnx_subprune.runtime.session import Runnable


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare` finds."""

    fidelity: Fidelity
    params: Change
    macs: Change
    size: Change
    latency: Change
    latency_ratios: tuple[float, float, float]
    """Quartiles of the pruned model's time in units of the original's, over rounds that ran both."""
    latency_batch: int | None = None
    """Samples in a run of which that is the latency."""
    latency_single: Timing | None = None
    """The same of runs of one sample; None where the batch is one, or the model takes no other number than the batch."""
    layers: tuple[LayerTime, ...] = ()
    """Milliseconds of the original's layers, in both."""

    def __str__(self) -> str:
        """Return the tables that the command prints, behind warnings."""
        return text_of(self._told())

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        return html_of(self._told())

    def _told(self) -> tuple[Part, ...]:
        return (*(f"warning: {warning}" for warning in self.warnings), *self.parts())

    def parts(self) -> tuple[Part, ...]:
        """Return the comparison as tables."""
        layers = (layers_table(self.layers),) if self.layers else ()
        return comparison_table(self), *layers, *fidelity_table(self.fidelity)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth a warning: an output that is no better than a constant, or far from the original."""
        bad = ruined(self.fidelity)
        return (bad,) if bad is not None else tuple(complaints(self.fidelity, Gates()))

    def page(self, title: str) -> str:
        """Return the comparison as a page; needs the extra `report`."""
        from onnx_subprune.evaluation.report.html import parts_html  # noqa: PLC0415 - an extra

        return parts_html(title, (summary(self), *self.parts()), warnings=self.warnings)

    @typed("path")
    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison to `path` as one self-contained page; OptionError where the extra `report` is not installed."""
        need_extra()
        with replacing(Path(path)) as new:
            new.write_text(self.page("original and pruned"), encoding="utf-8")

    @typed("path")
    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the comparison to `path`."""
        with replacing(Path(path)) as new:
            new.write_text(json_text(self.to_dict()), encoding="utf-8")

    def to_dict(self) -> dict[str, object]:
        """Return the comparison as plain values."""
        named = {"params": self.params, "macs": self.macs, "bytes": self.size, "latency_ms": self.latency}
        return {
            "cost": {name: asdict(change) for name, change in named.items()},
            "latency_ratios": list(self.latency_ratios),
            "latency_batch": self.latency_batch,
            "latency_single": asdict(self.latency_single) if self.latency_single else None,
            "fidelity": fidelity_dict(self.fidelity),
            "layers": [asdict(layer) for layer in self.layers],
        }


@typed("threads", "constants", "providers", "carry")
def compare(
    original: Model,
    pruned: Model,
    data: Source,
    *,
    labels: str | os.PathLike[str] | ArrayLike | None = None,
    threads: int | None = None,
    providers: str | Sequence[str] = (),
    constants: Mapping[str, Constant] = MappingProxyType({}),
    carry: Mapping[str, str] = MappingProxyType({}),
) -> Comparison:
    """Compare two models on `data`: fidelity of the outputs, size, latency measured here.

    Parameters
    ----------
    original, pruned
        Models as in `prune`, with the same inputs and outputs.
    data, constants
        As in `prune`.
    labels
        "y.npy", "x.npz:key" or (samples,) integers: also compare accuracies.
    threads
        Threads of onnxruntime; None for all cores.
    providers
        Execution providers of onnxruntime to time the models on, as in `Resources`; all else is of the processor.
    carry
        Of a streaming model, for each input that is a state the output that is its next value: both models go through `data` in order, as in
        `carried`, each with its own states, as they will in use.

    Returns
    -------
    Costs before and after, quartiles of the ratio of latencies, and the fidelity of each output.

    Raises
    ------
    SubpruneError
        ModelError where the models have different inputs or outputs, DataError where the data do not fit.

    Examples
    --------
    >>> from onnx_subprune import compare
    >>> found = compare("model.onnx", "model.onnx", "calibration.npz")
    >>> found.macs.ratio, found.fidelity.outputs["logits"].relative_error
    (1.0, 0.0)

    """
    check_threads(threads)
    first, second = load(original), load(pruned)
    _same_ports(first, second)
    streams = [carried(model, data, carry, constants) if carry else data for model in (original, pruned)]
    given = opened(first, streams[0], constants=constants, rows=False)
    own = opened(second, streams[1], constants=constants, rows=False).calibration if carry else None
    samples = given.calibration
    check_repeats(first, samples)
    truth = read_labels(labels) if labels is not None else None
    if truth is not None and len(truth) < samples.samples:
        named = f"{labels}: " if isinstance(labels, (str, os.PathLike)) else ""
        raise DataError(f"{named}{len(truth)} labels for {samples.samples} samples")
    one, two = _runnable(first, original), _runnable(second, pruned)
    sizes = counted(first, given.graph), counted(second, given.graph)
    feeds, seen = raced_feeds(samples), given.graph.observation
    shown, places = _in_front(first, one, second, two, seen), parts_of(first, seen, (*first.outputs, *seen.fronts))
    timed = Resources(threads=threads, providers=providers).placement(one, feeds).timed
    found = measured_latency(one.on(timed), two.on(timed), samples, threads)
    return Comparison(
        fidelity=fidelity(*shown.models, samples, truth, threads, places, own, shown.left_out),
        params=Change(sizes[0].params, sizes[1].params),
        macs=Change(sizes[0].macs, sizes[1].macs),
        size=Change(first.size, second.size),
        latency=Change(found.before, found.after),
        latency_ratios=found.ratios,
        latency_batch=raced(samples),
        latency_single=single_latency(one.on(timed), two.on(timed), samples, threads),
        layers=layer_times(first, given.graph, two.on(timed), feeds, threads),
    )


def stream_fidelity(
    original: Model, pruned: Model, data: Source, carry: Mapping[str, str], constants: Mapping[str, Constant]
) -> Fidelity:
    """Return how faithful a streaming model is on `data` in order, each of the two with its own states; carry: see `carried`."""
    first, second = load(original), load(pruned)
    one, two = (
        opened(network, carried(model, data, carry, constants), constants=constants, rows=False)
        for network, model in ((first, original), (second, pruned))
    )
    found = fidelity(_runnable(first, original), _runnable(second, pruned), one.calibration, own=two.calibration)
    return found.on(held_out=False)


def _in_front(first: Network, one: Runnable, second: Network, two: Runnable, seen: Observation) -> Shown:
    """What is compared of both: files are read where outputs are ranked."""
    if not seen.ranked:
        return Shown((one, two))
    return with_fronts(Runnable(first.given, first.folder), Runnable(second.given, second.folder), seen)


def _runnable(network: Network, source: Model) -> Runnable:
    return Runnable(Path(source) if isinstance(source, (str, os.PathLike)) else network.given, network.folder)


def _same_ports(first: Network, second: Network) -> None:
    ours, theirs = ([v.name for v in n.inputs] + list(n.outputs) for n in (first, second))
    if ours != theirs:
        raise ModelError(
            f"the models have different inputs and outputs ({', '.join(ours)} and {', '.join(theirs)}): compare a model with its pruned self"
        )
