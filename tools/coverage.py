"""How much of real networks can be pruned, and why the rest cannot.

    python tools/coverage.py [MODEL.onnx ...] [--packages] [--backbones] [--torch] [--transformers] [--share 0.3]

For each model: groups, the share of parameters and multiply-accumulates that depends on the width of a group, the share of multiply-accumulates in layers
whose own outputs can go (those that give an output of the model are left out: classes, a vocabulary), what is gone when every group loses `--share` of its
channels (at random, no refit), the deviation of slicing from masking, seconds of the trace, and the reasons for what stays, with the share of the contractions'
output channels that each keeps.

--packages  ONNX files of Python packages, those that are installed: rapidocr-onnxruntime, silero-vad, magika, nudenet
--backbones the skeleton networks inside the `onnx` package, with weights drawn at random, at half of the channels
--torch     exports of the architectures in `tools/architectures.py`; needs PyTorch
--transformers  those of `tools/transformer_models.py`, at half of the channels; needs PyTorch, timm and transformers
"""

import argparse
import importlib.util
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune.errors import SubpruneError
from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.tracing.trace import trace

PACKAGES = {
    "rapidocr_onnxruntime": "models/*.onnx",
    "silero_vad": "data/*.onnx",
    "magika": "models/*/*.onnx",
    "nudenet": "*.onnx",
}


def packages() -> Iterator[tuple[str, Path]]:
    """Yield the ONNX files of the packages that are installed, without importing these."""
    for name, pattern in PACKAGES.items():
        spec = importlib.util.find_spec(name)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).glob(pattern)):
                yield path.stem, path


def backbones() -> Iterator[tuple[str, ModelProto]]:
    """Yield the skeleton networks of the `onnx` package."""
    from tests.networks.backbones import FOLDER, backbone  # noqa: PLC0415 - the tests are not there in an installed package

    for path in sorted(FOLDER.glob("light_*.onnx")):
        name = path.stem.removeprefix("light_")
        yield name, backbone(name)


def exports(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield exports of the architectures written in PyTorch."""
    from tools.architectures import export_all  # noqa: PLC0415 - needs PyTorch

    yield from export_all(folder)


def transformers(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield exports of transformers by both exporters; print what an exporter cannot do."""
    from tools.transformer_models import export_all  # noqa: PLC0415 - needs PyTorch, timm and transformers

    for name, path in export_all(folder):
        if isinstance(path, Path):
            yield name, path
        else:
            print(f"{name:<34} not exported: {path[:100]}")


def own(network: Network, graph: ChannelGraph) -> float:
    """Return the share of multiply-accumulates in layers whose own outputs can go, of those that give no output of the model."""
    widths = {c.node: graph.observation.shapes[c.output.tensor][c.output.index] for c in graph.contractions}
    stay: Counter[str] = Counter()
    for pinned in graph.pinned:
        stay[pinned.node] += pinned.width
    last = {pinned.node for pinned in graph.pinned if pinned.reason.endswith("is an output of the model")}
    items = [item for item in layers(network, graph).items if item.macs and item.node not in last]
    free = [
        item.macs * (1 - min(stay[item.node] / widths[item.node], 1.0) if item.node in widths else item.reason is None)
        for item in items
    ]
    return sum(free) / max(sum(item.macs for item in items), 1.0)


def kept(graph: ChannelGraph, share: float) -> dict[str, list[int]]:
    """Return supports without `share` of the channels of each group, drawn at random, equally from every cell."""
    rng = np.random.default_rng(0)
    supports = {}
    for group in graph.groups:
        cell = group.width // group.step
        count = max(1, round(cell * (1 - share)))
        chosen = [rng.choice(np.flatnonzero(group.cells == c), count, replace=False) for c in range(group.step)]
        supports[group.name] = sorted(np.concatenate(chosen).tolist())
    return supports


def feeds(network: Network, graph: ChannelGraph) -> dict[str, np.ndarray]:
    """Return random inputs with the sizes at which the model was observed."""
    rng = np.random.default_rng(0)
    made = {}
    for value in network.inputs:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        drawn = rng.standard_normal(graph.observation.shapes[value.name])
        made[value.name] = np.asarray(np.zeros_like(drawn) if dtype.kind in "iub" else drawn).astype(dtype)
    return made


def unsaturated(network: Network) -> Network:
    """Return the network without the Sigmoid or Softmax that makes an output: saturated by noise, it magnifies rounding errors."""
    proto = ModelProto()
    proto.CopyFrom(network.given)
    for output in proto.graph.output:
        node = network.nodes[network.producer[output.name]] if output.name in network.producer else None
        if (
            node is not None
            and node.op_type in ("Sigmoid", "Softmax", "LogSoftmax")
            and node.input[0] in network.producer
        ):
            output.name = node.input[0]
    return Network(proto, network.folder)


def reasons(graph: ChannelGraph) -> list[str]:
    """Return the reasons, nodes' names taken out, with the share of output channels that each keeps; the largest first."""
    total = sum(graph.observation.shapes[c.output.tensor][c.output.index] for c in graph.contractions)
    counts: Counter[str] = Counter()
    for pinned in graph.pinned:
        text = re.sub(r"\S+ \(", "(", pinned.reason)
        text = re.sub(r"'[^']*'", "it", text)
        counts[re.sub(r" at \S+$", "", re.sub(r"^\S+ is grouped", "a Conv is grouped", text))] += pinned.width
    return [f"{width / total:6.1%}  {text}" for text, width in counts.most_common()]


def line(name: str, model: ModelProto | Path, share: float) -> str:
    """Return the report on one model."""
    start = time.perf_counter()
    network = unsaturated(load(model))
    graph = trace(network)
    seconds = time.perf_counter() - start
    cost = costs(network, graph)
    zero = {group.name: 0 for group in graph.groups}
    supports = kept(graph, share)
    widths = {name: len(support) for name, support in supports.items()}
    deviation = law(network, graph, supports, feeds(network, graph)) if supports else 0.0
    numbers = []
    for of in (cost.params, cost.macs):
        full = max(of({}), 1.0)
        numbers += [1 - of(zero) / full, 1 - of(widths) / full]
    head = f"{name:<34} {len(network.nodes):>5} {len(graph.groups):>6} {numbers[0]:>8.1%} {numbers[2]:>8.1%} {own(network, graph):>8.1%}"
    head += f" {numbers[1]:>8.1%} {numbers[3]:>8.1%}"
    return "\n".join([f"{head} {deviation:>8.1e} {seconds:>6.2f}", *(f"      {text}" for text in reasons(graph)[:6])])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--packages", action="store_true")
    parser.add_argument("--backbones", action="store_true")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument(
        "--share", type=float, default=None, help="share of channels to remove (0.3; 0.5 for the backbones)"
    )
    args = parser.parse_args()
    head = ("nodes", "groups", "params", "macs", "own", "-params", "-macs", "law", "s")
    print(f"{'model':<34} {head[0]:>5} {head[1]:>6} " + " ".join(f"{h:>8}" for h in head[2:8]) + f" {head[8]:>6}")
    with tempfile.TemporaryDirectory() as folder:
        sources: list[tuple[Iterator[tuple[str, ModelProto | Path]], float]] = [
            (iter([(p.stem, p) for p in args.models]), 0.3)
        ]
        sources += [(packages(), 0.3)] if args.packages else []
        sources += [(backbones(), 0.5)] if args.backbones else []
        sources += [(exports(Path(folder)), 0.3)] if args.torch else []
        sources += [(transformers(Path(folder)), 0.5)] if args.transformers else []
        for source, share in sources:
            for name, model in source:
                try:
                    print(line(name, model, share if args.share is None else args.share), flush=True)
                except SubpruneError as error:
                    print(f"{name:<34} refused: {error}", flush=True)


if __name__ == "__main__":
    main()
