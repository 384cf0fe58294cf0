"""Outputs whose rows stand in the order of scores, compared by what the rows are chosen from; see `graph.ranking`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx import ModelProto, ValueInfoProto

from onnx_subprune.graph.observation import Observation
from onnx_subprune.runtime.session import Runnable


@dataclass(frozen=True, slots=True)
class Shown:
    """The original and its pruned self with such tensors among their outputs, and the outputs that these stand for."""

    models: tuple[Runnable, Runnable]
    left_out: frozenset[str] = frozenset()


def with_fronts(original: Runnable, pruned: Runnable, seen: Observation) -> Shown:
    """Return both models as they are to be compared: as they are where no output is ranked, or where one of them has not these tensors."""
    first, second = (_shown(item, seen.fronts) if seen.ranked else None for item in (original, pruned))
    if first is None or second is None:
        return Shown((original, pruned))
    return Shown((first, second), frozenset(seen.ranked))


def _shown(item: Runnable, names: Sequence[str]) -> Runnable | None:
    model = item.model if isinstance(item.model, ModelProto) else None
    if model is None or not {name for node in model.graph.node for name in node.output}.issuperset(names):
        return None
    found = ModelProto()
    found.CopyFrom(model)
    found.graph.output.extend(ValueInfoProto(name=name) for name in names)
    return replace(item, model=found)
