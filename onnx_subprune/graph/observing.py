"""Shapes as they are when the model runs: inference leaves them unknown in common exports, so the model is run twice.

The first run is on the data, where there are any: then sizes are theirs. The second run has other contents, another batch size and, where the model
takes it, other free dimensions: an axis whose size differs is *varying*, and so is an element of a shape-like value that differs.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from onnx_subprune.errors import DataError, ModelError, SubpruneError
from onnx_subprune.graph.example import Example, Feeds
from onnx_subprune.graph.feeds import FREE_SIZES, invented, made_up_example, open_sizes, others
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.observation import Observation
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.ranking import fronts
from onnx_subprune.graph.rows import rows_of
from onnx_subprune.runtime.observing import Observed, Observer

ARRAYS = frozenset(
    np.dtype(name)
    for name in (
        "float16",
        "float32",
        "float64",
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
)
"""Element types that leave a run as they are."""
SHAPED_BY_CONTENT = frozenset({"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "TopK", "Unique"})
"""Operators whose results have sizes, or hold positions, that depend on more than the sizes of their inputs."""


FOLDED = (4, 3, 8)
"""Samples a run that are tried where fewer do not run: a model may take several at once for one, as a picture and its mirror images."""


def observe(
    network: Network, example: Example | None = None, *, rows: bool = False, constants: Feeds = MappingProxyType({})
) -> Observation:
    """Run `network` on `example`, or on made-up inputs of the declared types and shapes; ModelError if it does not run at all.

    rows: find out about them, which takes two more runs. constants: values of inputs where there is no example.
    """
    observer = Observer(network.proto, network.folder)
    first, used = _first_run(network, example, observer, constants)
    settled = all(seen.value is None for seen in first.values())
    second = _second_run(network, used, observer, settled=settled, real=example is not None)
    shapes = {name: seen.shape for name, seen in first.items()}
    values = {name: seen.value for name, seen in first.items() if seen.value is not None}
    varying, varying_axes = {}, {}
    for name, seen in first.items():
        other = second.get(name, seen)
        if len(other.shape) == len(seen.shape):
            varying_axes[name] = frozenset(
                i for i, (a, b) in enumerate(zip(seen.shape, other.shape, strict=True)) if a != b
            )
        else:
            varying_axes[name] = frozenset(range(len(seen.shape)))
        if seen.value is not None:
            same = other.value is not None and other.value.shape == seen.value.shape
            varying[name] = seen.value != other.value if same else np.ones(seen.value.shape, bool)
    judged = _judged(network, first)
    ends = dict.fromkeys([*judged, *(name for name in network.outputs if name not in network.constants)])
    chosen_from = {end: fronts(network, end, lambda name: _floating(first, name)) for end in ends}
    return Observation(
        shapes=shapes,
        values=values,
        varying=varying,
        other_shapes={name: seen.shape for name, seen in second.items()},
        varying_axes=varying_axes,
        batch=used.samples,
        example=used,
        rows=_rows(network, used, first, observer) if rows else {},
        invented=invented(network, constants) if example is None else {},
        opaque=frozenset(name for name in network.producer if name not in first or first[name].dtype not in ARRAYS),
        judged=tuple(dict.fromkeys(name for output in judged for name in chosen_from[output] or (output,))),
        ranked={output: names for output in network.outputs if (names := chosen_from.get(output))},
    )


def _first_run(
    network: Network, example: Example | None, observer: Observer, constants: Feeds
) -> tuple[Mapping[str, Observed], Example]:
    trials: Iterable[Example]
    if example is not None:
        trials = [example, example.first(1)] if example.free and example.samples > 1 else [example]
    else:
        frees = FREE_SIZES if invented(network, constants) else FREE_SIZES[:1]
        batches = (2, 1) if made_up_example(network, 1, FREE_SIZES[0], constants).free else (1,)
        sizes = [(batch, free) for batch in batches for free in frees]
        sizes += [(batch, frees[0]) for batch in FOLDED if len(batches) > 1]
        # one after the other: an input may be declared so large that two of them take all memory
        trials = (made_up_example(network, batch, free, constants) for batch, free in sizes)
    problem: SubpruneError | None = None
    for trial in trials:
        try:
            return observer(trial.feeds), trial
        except SubpruneError as error:
            problem = problem or error
    if example is not None:
        raise DataError(f"the model does not run on the data: {problem}") from problem
    advice = "; give --data, whose sizes are then taken" if invented(network) else ""
    raise ModelError(
        f"the model does not run on inputs of its declared types and shapes{advice}: {problem}"
    ) from problem


def _second_run(
    network: Network, example: Example, observer: Observer, *, settled: bool, real: bool
) -> Mapping[str, Observed]:
    """Other contents and sizes; if these can differ from one another (height and width), they do.

    settled: nothing that was computed could be a size or a position, so that a model with fixed inputs needs no second run.
    """
    if settled and not open_sizes(network) and not any(key_of(node) in SHAPED_BY_CONTENT for node in network.nodes):
        return {}
    for feeds in others(network, example, real=real):
        try:
            return observer(feeds)
        except SubpruneError:
            continue
    raise ModelError("the model does not run twice on inputs like these: its result depends on more than their shapes")


def _judged(network: Network, seen: Mapping[str, Observed]) -> tuple[str, ...]:
    """See `Observation`; class ids tell little of how much the scores that they are chosen by have changed."""
    outputs = [name for name in network.outputs if name not in network.constants]
    if any(_floating(seen, name) for name in outputs):
        return tuple(outputs)
    found, waiting = dict[str, None](), list(outputs)
    passed = set(waiting)
    while waiting:
        place = network.producer.get(waiting.pop(0))
        if place is None or key_of(network.nodes[place]) in ("Shape", "Size"):
            continue
        for name in network.reads[place]:
            if _floating(seen, name) and name not in network.constants:
                found[name] = None
            elif name not in passed:
                passed.add(name)
                waiting.append(name)
    return tuple(found) or tuple(outputs)


def _floating(seen: Mapping[str, Observed], name: str) -> bool:
    return name in seen and seen[name].dtype.kind == "f"


def _rows(network: Network, example: Example, two: Mapping[str, Observed], observer: Observer) -> Mapping[str, int]:
    """See `rows_of`."""
    if not example.free or example.samples != 2:
        return {}
    each = (example.first(1).feeds, example.second().feeds)
    try:
        one = observer(each[0])
    except SubpruneError:
        return {}
    return rows_of(network, example.feeds, each, (two, one))


def made_before(network: Network, names: Sequence[str], position: int) -> list[str]:
    """Return those of the tensors that nodes before `position` make, or that are inputs."""
    return [name for name in names if network.producer.get(name, -1) < position]
