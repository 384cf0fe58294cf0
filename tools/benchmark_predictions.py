"""What tables of layers predict for whole models at several widths, beside what these take.

    python tools/benchmark_predictions.py models/resnet_fashion.onnx other.onnx@2 [--json FILE]

For each model, run on 8 samples or as many as stand behind @, a table is made here (one thread), all groups are cut to the multiples nearest to the
fractions of their widths, and the smaller models take turns with the original; a round's ratio is of processor time, and the median of the rounds
counts. Printed is what the whole takes in units of the original, predicted and measured, and how far the prediction is off.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnx_subprune.graph.costs.milliseconds import milliseconds
from onnx_subprune.graph.costs.tables import made_here
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.latency import first_channels
from onnx_subprune.pruning.budgets.rounding import rounding_of
from onnx_subprune.runtime.blocks import convolution_block
from onnx_subprune.runtime.session import Runnable, Session

FRACTIONS = (0.75, 0.5, 0.25)
BATCH = 8
"""Samples of a run, of models that take any number."""
SIZE = 1 << 21
"""Bytes of inputs that a run has at most."""
Row = dict[str, float | str]


def rows(path: Path, seconds: float, batch: int) -> list[Row]:
    """Predictions and measurements of one model."""
    network = load(path)
    graph = trace(network, rows=True)
    feeds = repeated(network, graph.observation.example.feeds, batch, graph.observation.rows)
    block = convolution_block()
    model = Runnable(network.given, network.folder)
    spent = milliseconds(network, graph, made_here(model, feeds, threads=1, block=block))
    rounding = rounding_of("auto", None, size=False)
    rooms = rounding.rooms(graph, min_width=1)
    sessions, predicted = [model.session(threads=1)], []
    for fraction in FRACTIONS:
        widths = {
            room.name: min(room.choices, key=lambda width, room=room: abs(width - fraction * room.width))
            for room in rooms
        }
        supports = {name: first_channels(graph.group(name), width) for name, width in widths.items()}
        smaller = apply(network, graph, Plan(supports=supports))
        sessions.append(Runnable(smaller, network.folder).session(threads=1))
        predicted.append(spent(widths) / spent({}))
    measured = ratios(sessions, feeds, seconds)
    return [
        {
            "model": path.parent.name if path.stem == "model" else path.stem,
            "width": fraction,
            "ms": spent({}),
            "predicted": guess,
            "measured": found,
            "off": guess / found - 1.0,
        }
        for fraction, guess, found in zip(FRACTIONS, predicted, measured, strict=True)
    ]


def repeated(
    network: Network, feeds: Mapping[str, np.ndarray], batch: int, counted: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The feeds with `batch` samples, as far as the model takes any number and they are small enough."""
    size = sum(array.nbytes for array in feeds.values())
    free = all(
        isinstance(port.shape[0] if port.shape else 1, str | None)
        for port in Session(network.given, folder=network.folder).inputs
    )
    samples = max((len(array) for array in feeds.values() if array.ndim), default=1)
    wanted = max(1, min(batch, SIZE * samples // max(size, 1)))
    if not free:
        return dict(feeds)
    return {
        name: np.concatenate([array] * -(-wanted // samples))[:wanted] if counted.get(name) else array
        for name, array in feeds.items()
    }


def ratios(sessions: Sequence[Session], feeds: Mapping[str, np.ndarray], seconds: float) -> list[float]:
    """The median ratio of processor time of each session but the first to the first, in turns of two runs, of which the second counts.

    The first finds the caches full of the other models.
    """
    for session in sessions:
        session.run(feeds)
    rounds, end = list[list[float]](), time.perf_counter() + seconds
    while len(rounds) < 9 or (time.perf_counter() < end and len(rounds) < 400):
        step = -1 if len(rounds) % 2 else 1
        rounds.append([[spent(session, feeds) for _ in range(2)][1] for session in sessions[::step]][::step])
    return [statistics.median(each[place] / each[0] for each in rounds) for place in range(1, len(sessions))]


def spent(session: Session, feeds: Mapping[str, np.ndarray]) -> float:
    start = time.process_time()
    session.run(feeds)
    return time.process_time() - start


def markdown(found: Sequence[Row]) -> str:
    lines = ["| network | ms | width | predicted | measured | off |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['ms']:.3g} | {row['width']} | {row['predicted']:.3f} | {row['measured']:.3f} | {row['off']:+.1%} |"
        for row in found
    ]
    near = sum(abs(float(row["off"])) <= 0.1 for row in found)
    return "\n".join([*lines, "", f"{near} of {len(found)} are within 10 %."])


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL[@BATCH]")
    parser.add_argument("--seconds", type=float, default=4.0, help="that the models of one network take turns for")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    found: list[Row] = []
    for words_of_model in given.models:
        path, _, batch = words_of_model.partition("@")
        new = rows(Path(path), given.seconds, int(batch or BATCH))
        found += new
        print(
            *(f"{row['model']} {row['width']} {row['predicted']:.3f} {row['measured']:.3f}" for row in new),
            sep="\n",
            file=sys.stderr,
        )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main(sys.argv[1:])
