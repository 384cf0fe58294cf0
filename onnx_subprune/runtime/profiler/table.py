"""The table of a model: what each of its layers takes, and what layers of their shapes take at a grid of widths.

The model runs with onnxruntime's profile, once without optimizations, which tells the shapes, and then as it is, which tells what each layer
takes with all that is fused into it; and without the profile, which tells what noting that down takes. For every distinct shape of a layer a
model of convolutions or products side by side is timed, one for each pair of input and output widths.
"""

import json
import platform
import re
import statistics
from collections.abc import Mapping, Sequence

import onnxruntime as ort

from .grids import measured, without
from .model import Model, Node
from .runs import Feeds, Row, Runs, least

VERSION = 3
"""Of the table."""
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MORE = 8
"""Passes that grids may take together beside the fewest runs of each."""
BATCHES = 320
"""Runs of the model that all together may take, in milliseconds of one, where nobody says how many: 20 passes over 512 samples in batches of 32."""
FACTOR = 1.5
"""How far a layer's time in the model may be from what it takes alone, beside what is usual for the model."""
INTS = ("kernel_shape", "strides", "dilations", "pads", "output_padding")
EXPLAINED = 0.5
"""This share at least of a run's time must be in its profile, and of the layers, on other providers than the processor: kernels that start elsewhere, or are
the whole model, tell nothing."""


def _source(model: Model, makers: Mapping[str, Node], name: str) -> tuple[str, Node | None]:
    """The plain name of a node of the optimized model, and the node of the model that it is called after, or whose tensor."""
    labels = {node.label: node for node in model.nodes}
    plain = re.sub(r"/\w+Fusion/?$", "", name.removesuffix("_nchwc").removeprefix("fused "))
    return plain, labels.get(plain) or makers.get(plain)


def _owner(model: Model, makers: Mapping[str, Node], name: str) -> str | None:
    """The layer of the model that a node of the optimized one stands for; what lies in blocks is called after the tensor that it makes."""
    plain, node = _source(model, makers, name)
    while node is not None and node.op not in LAYERS and plain != name and node.inputs:
        node = makers.get(node.inputs[0])
    return node.label if node is not None and node.op in LAYERS else None


def _place(model: Model, makers: Mapping[str, Node], event: Row) -> tuple[str, tuple[int, ...]]:
    """The tensor that a node makes which is no layer, "" where the node is not in the model, and the shape of the first."""
    node = _source(model, makers, event["name"])[1]
    return (node.outputs[0] if node is not None else ""), tuple(next(iter(event["outputs"]), ()))


def shape_of(node: Node, event: Row, weights: Mapping[str, Sequence[int]]) -> Row | None:
    """Return what tells layers of one shape from others: `read` and `written` are its widths; None where the second input is no constant matrix or kernel."""
    if node.inputs[0] in weights or node.inputs[1] not in weights:
        return None
    data, weight, made = event["inputs"][0], list(weights[node.inputs[1]]), event["outputs"]
    if node.op in ("Gemm", "MatMul"):
        if len(weight) != 2 or len(data) < 2 or any(node.attributes.get("transA", ())):
            return None
        turned = any(node.attributes.get("transB", ()))
        read, written = (weight[1], weight[0]) if turned else (weight[0], weight[1])
        return {"op": "MatMul", "rows": [*data[:-1]], "read": read, "written": written}
    groups = (node.attributes.get("group") or [1])[0]
    options = {name: node.attributes[name] for name in INTS if node.attributes.get(name)}
    own = groups > 1 and weight[1] == 1 and weight[0] == groups
    kind = {"op": node.op, "options": options, "rows": [data[0]], "map": data[2:], "kernel": weight[2:]}
    return {**kind, "groups": "own" if own else groups, "read": data[1], "written": made[0][1]}


def _steadied(times: Mapping[str, float], keys: Mapping[str, str], alone: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds of each layer, without what other work on the machine added: layers of one shape take as long as the shortest of them.

    What a layer takes in the model and alone should differ by about the same factor everywhere; it does by at most `FACTOR` more or less.
    """
    shortest = {key: min(times[label] for label in times if keys[label] == key) for key in set(keys.values())}
    ratios = {key: shortest[key] / alone[key] for key in shortest if alone[key] > 0.0}
    usual = statistics.median(ratios.values()) if ratios else 1.0
    low, high = usual / FACTOR, usual * FACTOR
    return {
        label: alone[key] * min(max(ratios[key], low), high) if key in ratios else times[label]
        for label, key in keys.items()
    }


def table_of(model: Model, fed: Feeds, runs: Runs, *, block: int = 16, most: float = BATCHES) -> Row:
    """Return the table of a model: milliseconds of every layer in it, of the rest, and of each distinct shape at a grid of widths.

    most: in how many runs' time; beyond the fewest, which take some 30, nothing is timed for longer or again. What is fixed lies between the nodes; all
    together is what a run without the profile takes. Raises ValueError where the profile does not tell
    what the layers take, as on providers that run the model as one piece.
    """
    makers = {name: node for node in model.nodes for name in node.outputs}
    labels = {node.label: node for node in model.nodes}
    found: dict[str, Row] = {}
    for event in runs.profiled(model.text, fed, plain=True):
        node = labels.get(event["name"])
        if node is not None and node.op in LAYERS and (shape := shape_of(node, event, model.weights)) is not None:
            found[node.label] = shape
    events = runs.profiled(model.text, fed)
    wall, spent = runs.shortest(model.text, fed), min(map(sum, zip(*(event["all"] for event in events), strict=False)))
    noted, node_alone, run_alone = least(runs)
    overhead = max(0.0, noted - node_alone)
    times = dict.fromkeys(found, 0.0)
    rest, seen, others = 0.0, set[str](), dict[tuple[str, tuple[int, ...]], float]()
    for event in events:
        owner = _owner(model, makers, event["name"])
        if owner in times:
            seen.add(owner)
            times[owner] += without(event["ms"], overhead)
        else:
            rest += without(event["ms"], overhead)
            place = _place(model, makers, event)
            others[place] = others.get(place, 0.0) + without(event["ms"], overhead)
    if len(runs.providers) > 1 and (spent < EXPLAINED * wall or len(seen) < EXPLAINED * len(times)):
        raise ValueError("the profile does not tell its layers apart; time whole models there (`prune --latency`)")
    inside = rest + sum(times.values())
    fixed = min(max(0.0, wall - inside), len(events) * node_alone + run_alone)
    distinct = {json.dumps(shape, sort_keys=True): shape for shape in found.values()}
    grids = dict[str, Row]()
    for key, shape in distinct.items():
        share = max(0.0, most * wall - runs.spent) / (len(distinct) - len(grids))
        grids[key] = measured(shape, block, runs, overhead, MORE * wall / 1e3 / len(distinct), share)
    numbers = {key: number for number, key in enumerate(grids)}
    keys = {label: json.dumps(shape, sort_keys=True) for label, shape in found.items()}
    times = _steadied(times, keys, {key: grid["ms"][-1][-1] for key, grid in grids.items()})
    inside = rest + sum(times.values())
    scale = (wall - fixed) / inside if inside > 0.0 else 1.0
    times, rest = {label: ms * scale for label, ms in times.items()}, rest * scale
    return {
        "version": VERSION,
        "machine": f"{platform.machine()} {platform.processor()} {platform.node()}".strip(),
        "onnxruntime": ort.__version__,
        "threads": runs.threads,
        "providers": [name for name, _ in runs.providers],
        "block": block,
        "shapes": [{**distinct[key], **grid} for key, grid in grids.items()],
        "layers": {label: {"shape": numbers[key], "ms": times[label]} for label, key in keys.items()},
        "rest": rest,
        "others": [
            {"tensor": name, "shape": list(sizes), "ms": ms * scale} for (name, sizes), ms in others.items() if ms
        ],
        "fixed": fixed,
        "total": fixed + rest + sum(times.values()),
    }
