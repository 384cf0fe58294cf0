"""What a pruning run reports; the JSON follows report.json of the interface."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from onnx_subprune._version import __version__
from onnx_subprune.evaluation.layers import LayerTime
from onnx_subprune.evaluation.measures import Fidelity
from onnx_subprune.evaluation.report.finetuning import finetuning_dict
from onnx_subprune.evaluation.timing import Timing
from onnx_subprune.graph.channels import Pinned
from onnx_subprune.reconstruction.finetuning.settings import FineTuned
from onnx_subprune.reconstruction.settings import Refitted

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Change:
    """A cost before and after."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """After / before."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True, slots=True)
class Resized:
    """Attention, or a recurrent layer, at `node`: its sizes in words."""

    node: str
    kind: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """One group: kept channels, conditioning, its error curve where one was measured, and how its consumers did."""

    name: str
    width: tuple[int, int]
    kept: tuple[int, ...]
    error: float
    conditioning: float | None
    data: float | None
    """How much of what was known of channels together came from the data; see `Choice`."""
    curve: tuple[tuple[int, ...], tuple[float, ...]] | None
    consumers: tuple[Refitted, ...]
    basis: bool = False
    """True if the channels are those of another basis than the model's, or a head's: `kept` counts from the one that matters most."""
    gone: str | None = None
    """The block that its layers went with, in words: no channel is left then."""


class Costed(Protocol):
    """Something with costs before and after."""

    @property
    def params(self) -> Change:
        """Parameters."""

    @property
    def macs(self) -> Change:
        """Multiply-accumulates."""

    @property
    def size(self) -> Change:
        """Bytes."""

    @property
    def latency(self) -> Change:
        """Milliseconds."""

    @property
    def latency_ratios(self) -> tuple[float, float, float]:
        """Quartiles of the ratio of latencies."""

    @property
    def latency_batch(self) -> int | None:
        """Samples in a run."""

    @property
    def latency_single(self) -> Timing | None:
        """The same of one sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """All that a run tells; `Report` prints and writes it."""

    model: Mapping[str, str]
    data: Mapping[str, str | int]
    settings: Mapping[str, str | float | int | bool | None]
    environment: Mapping[str, str]
    params: Change
    macs: Change
    size: Change
    latency: Change | None
    latency_ratios: tuple[float, float, float] | None = None
    """Quartiles of the pruned model's time in units of the original's, over rounds that ran both."""
    latency_batch: int | None = None
    """Samples in a run of which that is the latency."""
    latency_single: Timing | None = None
    """The same of runs of one sample; None where the batch is one, or the model takes no other number than the batch."""
    groups: tuple[GroupReport, ...]
    pinned: tuple[Pinned, ...]
    fidelity: Fidelity | None
    deviation: float
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What the user should know before the result is used: shown whatever else is not."""
    composites: tuple[Resized, ...] = ()
    """Attention and recurrent layers."""
    layers: tuple[LayerTime, ...] = ()
    """Milliseconds of each layer before and after."""
    metric: Change | None = None
    """The user's own metric, higher is better."""
    finetuning: FineTuned | None = None
    command: Sequence[str] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values."""
        return {
            "schema": SCHEMA,
            "version": __version__,
            "command": list(self.command),
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "model": dict(self.model),
            "data": dict(self.data),
            "cost": {
                "params": asdict(self.params),
                "macs": asdict(self.macs),
                "bytes": asdict(self.size),
                "latency_ms": asdict(self.latency) if self.latency else None,
            },
            "latency_ratios": list(self.latency_ratios) if self.latency_ratios else None,
            "latency_batch": self.latency_batch,
            "latency_single": asdict(self.latency_single) if self.latency_single else None,
            "groups": [_group(group) for group in self.groups],
            "pinned": [
                {"node": p.node, "tensor": p.axis.tensor, "axis": p.axis.index, "width": p.width, "reason": p.reason}
                for p in self.pinned
            ],
            "fidelity": fidelity_dict(self.fidelity) if self.fidelity else None,
            "metric": asdict(self.metric) if self.metric else None,
            "finetuning": finetuning_dict(self.finetuning) if self.finetuning else None,
            "deviation": self.deviation,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "composites": [asdict(item) for item in self.composites],
            "layers": [asdict(layer) for layer in self.layers],
            "seconds": dict(self.seconds),
        }


def fidelity_dict(fidelity: Fidelity) -> dict[str, object]:
    """Return a fidelity as plain values."""
    found: dict[str, object] = {
        "samples": fidelity.samples,
        "held_out": fidelity.held_out,
        "outputs": {name: asdict(item) for name, item in fidelity.outputs.items()},
    }
    if fidelity.accuracy is not None:
        found["accuracy"] = {"before": fidelity.accuracy[0], "after": fidelity.accuracy[1]}
    return found


def _group(group: GroupReport) -> dict[str, object]:
    curve = None if group.curve is None else {"widths": list(group.curve[0]), "error": list(group.curve[1])}
    return {
        "name": group.name,
        "width": {"before": group.width[0], "after": group.width[1]},
        "kept": list(group.kept),
        "basis": group.basis,
        "gone": group.gone,
        "error": group.error,
        "conditioning": group.conditioning,
        "data": group.data,
        "curve": curve,
        "consumers": [
            {**asdict(item), "expected_error": item.expected_error, "expected_with_twice": item.expected_with_twice}
            for item in group.consumers
        ],
    }


def latency_name(batch: int | None) -> str:
    """Return what the latency of runs of so many samples is called."""
    return "latency (ms)" if batch is None else f"latency (ms), batch {batch}"


def latency_words(change: Change, ratios: tuple[float, float, float] | None) -> str:
    """Return how much of the latency is left, with the quartiles of the ratio over rounds that ran both models back to back."""
    if ratios is None:
        return f"{100 * change.ratio:.1f} %"
    low, middle, high = ratios
    spread = f"{100 * low:.0f} to {100 * high:.0f} %"
    return f"not measurable here ({spread})" if low <= 1.0 <= high else f"{100 * middle:.1f} % ({spread})"
