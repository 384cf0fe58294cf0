"""An ONNX model as the profiler reads it: nodes under unique names, and the kinds and shapes of the inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .wire import fields, integers, number_of, text_of

KINDS = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}
"""NumPy's types by number of ONNX's."""


class Node:
    """A node of the model: its label (its name where that is unique, else operator and output), and what a layer needs of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.inputs, self.outputs, self.name, self.op = data, list[str](), list[str](), "", ""
        self.attributes: dict[str, list[int]] = {}
        self.label = ""
        self.tensor: bytes | None = None
        for field, value in fields(data):
            if isinstance(value, bytes) and field in (1, 2, 3, 4):
                text = value.decode()
                if field == 1:
                    self.inputs.append(text)
                elif field == 2:
                    self.outputs.append(text)
                else:
                    self.name, self.op = (text, self.op) if field == 3 else (self.name, text)
            elif field == 5 and isinstance(value, bytes):
                name, numbers = "", list[int]()
                for number, item in fields(value):
                    name = item.decode() if number == 1 and isinstance(item, bytes) else name
                    numbers += integers(item) if number in (3, 8) else []
                    self.tensor = item if number == 5 and isinstance(item, bytes) else self.tensor
                self.attributes[name] = numbers


class Model:
    """The serialized model with every node called by its label, its nodes, kinds and shapes of its inputs, and shapes of its weights."""

    def __init__(self, data: bytes, folder: Path | None) -> None:
        self.nodes, self.inputs, self.weights = list[Node](), dict[str, tuple[int, list[int]]](), dict[str, list[int]]()
        self.folder = folder
        parts = list(fields(data))
        graph = [item for field, part in parts if field == 7 and isinstance(part, bytes) for item in fields(part)]
        for field, value in graph:
            if field == 1 and isinstance(value, bytes):
                self.nodes.append(Node(value))
            elif field == 5 and isinstance(value, bytes):
                name, dims = _weight(value)
                self.weights[name] = dims
            elif field == 11 and isinstance(value, bytes):
                name, kind, dims = _port(value)
                self.inputs[name] = (kind, dims)
        self.inputs = {name: port for name, port in self.inputs.items() if name not in self.weights}
        self.weights |= {
            node.outputs[0]: _weight(node.tensor)[1] for node in self.nodes if node.op == "Constant" and node.tensor
        }
        names = [node.name for node in self.nodes]
        for place, node in enumerate(self.nodes):
            made = next((name for name in node.outputs if name), str(place))
            node.label = node.name if node.name and names.count(node.name) == 1 else f"{node.op}:{made}"
        rest = b"".join(_again(field, value) for field, value in graph if field != 1)
        named = b"".join(text_of(1, node.data, text_of(3, node.label)) for node in self.nodes)
        self.text = b"".join(_again(field, value) for field, value in parts if field != 7) + text_of(7, named, rest)

    def feeds(self, batch: int, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
        """Return noise (zeros for integers) of the declared shapes; an open first axis is the batch."""
        generator, found = np.random.default_rng(0), dict[str, np.ndarray]()
        for name, (kind, dims) in self.inputs.items():
            size = list(shapes.get(name, [batch if place == 0 and not dim else dim for place, dim in enumerate(dims)]))
            if not all(size):
                raise SystemExit(f"error: the size of input {name} is open: give it as --shape {name}=1,3,224,224")
            dtype = KINDS.get(kind, np.float32)
            noise = generator.standard_normal(size) if np.issubdtype(dtype, np.floating) else np.zeros(size)
            found[name] = noise.astype(dtype)
        return found


def _weight(data: bytes) -> tuple[str, list[int]]:
    """Name and sizes of a constant tensor."""
    name, dims = "", list[int]()
    for field, value in fields(data):
        dims += integers(value) if field == 1 else []
        name = value.decode() if field == 8 and isinstance(value, bytes) else name
    return name, dims


def _again(field: int, value: int | bytes) -> bytes:
    return number_of(field, value) if isinstance(value, int) else text_of(field, value)


def _port(data: bytes) -> tuple[str, int, list[int]]:
    """Name, kind and sizes of an input; 0 for an open size."""
    name, kind, dims = "", 1, list[int]()
    for field, value in fields(data):
        name = value.decode() if field == 1 and isinstance(value, bytes) else name
        tensor = dict(fields(value)).get(1) if field == 2 and isinstance(value, bytes) else None
        for number, item in fields(tensor) if isinstance(tensor, bytes) else ():
            kind = item if number == 1 and isinstance(item, int) else kind
            if number == 2 and isinstance(item, bytes):
                sizes = [
                    dict(fields(dim)).get(1, 0) for which, dim in fields(item) if which == 1 and isinstance(dim, bytes)
                ]
                dims = [size if isinstance(size, int) else 0 for size in sizes]
    return name, kind, dims
