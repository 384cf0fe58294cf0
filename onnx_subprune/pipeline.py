"""The whole story: trace, allocate, walk, cut, verify, report."""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from onnx import ModelProto
from onnx.helper import tensor_dtype_to_np_dtype
from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Allocator, Channels, Curve, Latency, Macs, MarginalCost, Multilinear, Params, Room, proportional
from onnx_subprune.calibration.fidelity import Fidelity, Runnable, fidelity
from onnx_subprune.calibration.stream import Running
from onnx_subprune.data import Calibration, Source, open_data
from onnx_subprune.errors import BudgetError, OptionError
from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Pinned
from onnx_subprune.graph.cost import Costs, costs
from onnx_subprune.graph.model import Network, load
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.site import Rule
from onnx_subprune.graph.trace import trace
from onnx_subprune.output import free_path, save_model, side_file_wanted
from onnx_subprune.reconstruction import Asymmetric, Formulation, Layerwise, Reconstruction, Refit, Task, Watch, reconstruct
from onnx_subprune.report.model import Change, GroupReport, Report
from onnx_subprune.runtime import Port, environment, latency
from onnx_subprune.selection import Forward, Selector
from onnx_subprune.sensitivity import GroupSensitivity, sensitivities
from onnx_subprune.surgery import Plan, apply
from onnx_subprune.verification import verify

Budget = Macs | Params | Channels | Latency
Model = ModelProto | str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """How much of the data and of the machine may be used.

    samples: the first so many for calibration (None: all; fidelity is measured on the rest where there is one). batch_size: at most
    so many samples in one run. threads: None for all cores. memory: bytes of activations to hold before they go to disk
    (None: a quarter of the machine's).
    """

    samples: int | None = None
    batch_size: int = 32
    threads: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """A smaller model and the report on it."""

    model: ModelProto
    report: Report
    folder: Path | None
    side_file: bool

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the model to `path` (and `path`.data for large weights), whole or not at all; OutputError if that fails."""
        free_path(Path(path), force=force)
        save_model(self.model, self.folder, Path(path), side_file=self.side_file)


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def prune(
    model: Model,
    data: Source,
    *,
    budget: Budget = Macs(0.5),
    formulation: Formulation = Asymmetric(),
    selector: Selector = Forward(),
    allocator: Allocator = MarginalCost(),
    exclude: Sequence[str] = (),
    only: Sequence[str] = (),
    round_to: int = 1,
    min_width: int = 1,
    refit: Refit | None = Refit(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
) -> Pruned:
    """Make `model` smaller, so that it meets `budget` and its outputs on `data` change as little as possible.

    exclude, only: patterns (globs) of node, group or weight names, or "op:Conv". round_to: widths are multiples of this. refit: None keeps
    the weights as they are. Nothing passed in is changed. Raises SubpruneError and its kinds.
    """
    clock, start = time.perf_counter, time.perf_counter()
    network = load(model)
    graph = restricted(trace(network, rules=rules), network, only=only, exclude=exclude)
    price = costs(network, graph)
    calibration, rest = open_data(data, ports(network), samples=resources.samples)
    traced = clock()
    task = Task(
        network=network,
        graph=graph,
        data=calibration,
        widths={},
        formulation=formulation,
        selector=selector,
        refit=refit,
        running=Running(batch_size=resources.batch_size, threads=resources.threads),
        memory=memory_of(resources),
        watch=progress,
        clock=clock,
    )
    with threadpool_limits(resources.threads):
        widths, felt = _allocated(task, budget, allocator, price, round_to=round_to, min_width=min_width)
        allocated = clock()
        done = reconstruct(replace(task, widths=widths))
    rebuilt = clock()
    plan = Plan(supports={name: choice.support for name, choice in done.choices.items()}, weights=done.weights)
    small = apply(network, graph, plan, rules=rules)
    deviation = verify(network, graph, plan, small, next(calibration.chunks()))
    judged = rest if rest is not None else calibration
    faithful = fidelity(
        Runnable(network.proto, network.folder), Runnable(small, network.folder), judged, threads=resources.threads
    )
    seconds = {
        "trace": traced - start,
        "sensitivity": allocated - traced,
        **done.seconds,
        "verify": clock() - rebuilt,
        "total": clock() - start,
    }
    report = _report(network, graph, price, widths, done, felt, faithful, deviation, seconds, calibration, model, small)
    settings = _settings(budget, formulation, selector, allocator, refit, round_to, min_width, resources, exclude, only)
    side_file = side_file_wanted(small) or side_file_wanted(network.proto)
    return Pruned(model=small, report=replace(report, settings=settings), folder=network.folder, side_file=side_file)


def sensitivity(
    model: Model,
    data: Source,
    *,
    selector: Selector = Forward(),
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
) -> tuple[GroupSensitivity, ...]:
    """Return how far the outputs of `model` move on `data` when one group alone gets narrower, its consumers refitted."""
    network = load(model)
    graph = trace(network, rules=rules)
    calibration, _ = open_data(data, ports(network), samples=resources.samples)
    task = Task(
        network=network,
        graph=graph,
        data=calibration,
        widths={},
        formulation=Asymmetric(),
        selector=selector,
        refit=Refit(),
        running=Running(batch_size=resources.batch_size, threads=resources.threads),
        memory=memory_of(resources),
        watch=progress,
        clock=time.perf_counter,
    )
    with threadpool_limits(resources.threads):
        found = sensitivities(task, rooms_of(graph, round_to=1, min_width=1))
    return tuple(found[group.name] for group in graph.groups)


def model_bytes(model: ModelProto) -> int:
    """Return the size of a model in bytes, side files included."""
    return model.ByteSize() + sum(
        int(entry.value) for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "length"
    )


def measured_latency(original: Runnable, pruned: Runnable, data: Calibration, threads: int | None = None) -> tuple[float, float]:
    """Return the median milliseconds that each model takes for one chunk of the data, measured in turns."""
    feeds = next(data.chunks())
    before, after = latency([original.session(threads=threads), pruned.session(threads=threads)], feeds, seconds=0.5)
    return before, after


def ports(network: Network) -> list[Port]:
    """Return the inputs that data must be given for."""
    found = []
    for value in network.inputs:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value or dim.dim_param or None for dim in kind.shape.dim)
        found.append(Port(value.name, shape, tensor_dtype_to_np_dtype(kind.elem_type)))
    return found


def memory_of(resources: Resources) -> int:
    """Return the bytes of activations that may be held: as given, or a quarter of the machine's memory."""
    if resources.memory is not None:
        return resources.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def restricted(graph: ChannelGraph, network: Network, *, only: Sequence[str], exclude: Sequence[str]) -> ChannelGraph:
    """Return `graph` without the groups that `exclude` names or `only` does not; OptionError for a pattern without a match."""
    names = {group.name: _names_of(group, network) for group in graph.groups}
    everything = set().union(*names.values(), *({c.node, c.weight_tensor, f"op:{c.op}"} for c in graph.contractions))
    for option, patterns in (("--only", only), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in everything):
                raise OptionError(f"{option} {pattern!r} matches no group, node or weight; `inspect` lists them")

    def hit(group: ChannelGroup, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns for name in names[group.name])

    left = [group for group in graph.groups if (not only or hit(group, only)) and not hit(group, exclude)]
    gone = [group for group in graph.groups if group not in left]
    if not left:
        raise OptionError("nothing is left to prune: " + (f"{len(gone)} groups are excluded" if gone else "see the reasons in `inspect`"))
    pinned = [
        Pinned(node=node, axis=contraction.output, width=group.width, reason="it is excluded by an option")
        for group in gone
        for node in group.producers
        for contraction in graph.contractions
        if contraction.node == node
    ]
    return replace(graph, groups=tuple(left), pinned=(*graph.pinned, *pinned))


def _names_of(group: ChannelGroup, network: Network) -> set[str]:
    producers = {name for node in group.producers for name in (node, f"op:{network.node(node).op_type}", *network.node(node).input[1:2])}
    return {group.name, *producers}


def rooms_of(graph: ChannelGraph, *, round_to: int, min_width: int) -> list[Room]:
    """Return the widths that each group may have."""
    if round_to < 1 or min_width < 1:
        raise OptionError("--round-to and --min-width are at least 1")
    return [
        Room(group.name, group.width, int(np.lcm(group.step, round_to)), min(max(min_width, 1), group.width))
        for group in graph.groups
    ]


def _allocated(
    task: Task, budget: Budget, allocator: Allocator, price: Costs, *, round_to: int, min_width: int
) -> tuple[dict[str, int], Mapping[str, GroupSensitivity]]:
    rooms = rooms_of(task.graph, round_to=round_to, min_width=min_width)
    if isinstance(budget, Channels):
        return proportional(rooms, budget.fraction), {}
    if isinstance(budget, Latency):
        raise BudgetError("a latency budget is not available yet: use --macs, which latency follows closely with --round-to 16")
    cost: Multilinear = price.macs if isinstance(budget, Macs) else price.params
    felt = sensitivities(task, rooms) if isinstance(allocator, MarginalCost) else {}
    curves: dict[str, Curve] = {name: item.output for name, item in felt.items()}
    return dict(allocator.allocate(rooms, curves, cost, budget.fraction * cost({}))), felt


def _report(
    network: Network,
    graph: ChannelGraph,
    price: Costs,
    widths: Mapping[str, int],
    done: Reconstruction,
    felt: Mapping[str, GroupSensitivity],
    faithful: Fidelity,
    deviation: float,
    seconds: Mapping[str, float],
    data: Calibration,
    model: Model,
    small: ModelProto,
) -> Report:
    refits = {item.node: item for item in done.refits}
    groups = []
    for group in graph.groups:
        choice = done.choices.get(group.name)
        curve = felt[group.name].output if group.name in felt else None
        groups.append(
            GroupReport(
                name=group.name,
                width=(group.width, len(choice.support) if choice else group.width),
                kept=choice.support if choice else tuple(range(group.width)),
                error=choice.error if choice else 0.0,
                curve=(curve.widths, curve.errors) if curve else None,
                consumers=tuple(refits[c.node] for c in group.consumers if c.node in refits),
            )
        )
    path = str(model) if not isinstance(model, ModelProto) else "(in memory)"
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest() if not isinstance(model, ModelProto) else ""
    return Report(
        model={"path": path, "sha256": digest},
        data={"samples": data.samples, "sha256": data.sha256()},
        settings={},
        environment=environment(),
        params=Change(price.params({}), price.params(widths)),
        macs=Change(price.macs({}), price.macs(widths)),
        size=Change(model_bytes(network.proto), model_bytes(small)),
        latency=Change(*measured_latency(Runnable(network.proto, network.folder), Runnable(small, network.folder), data)),
        groups=tuple(groups),
        pinned=graph.pinned,
        fidelity=faithful,
        deviation=deviation,
        seconds=seconds,
        notes=("local functions were inlined",) if network.inlined else (),
    )


def _settings(
    budget: Budget,
    formulation: Formulation,
    selector: Selector,
    allocator: Allocator,
    refit: Refit | None,
    round_to: int,
    min_width: int,
    resources: Resources,
    exclude: Sequence[str],
    only: Sequence[str],
) -> dict[str, str | float | int | bool | None]:
    return {
        "budget": str(budget),
        "formulation": type(formulation).__name__,
        "selector": str(selector),
        "allocator": str(allocator),
        "refit": str(refit) if refit is not None else None,
        "round_to": round_to,
        "min_width": min_width,
        "exclude": " ".join(exclude),
        "only": " ".join(only),
        **{name: value for name, value in asdict(resources).items() if name == "samples"},
        "layerwise": isinstance(formulation, Layerwise),
    }
