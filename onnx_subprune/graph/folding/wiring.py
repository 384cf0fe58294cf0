"""The nodes of a model while some are replaced: who makes and who reads what, at every moment."""

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_subprune._typing import Float32, Float64
from onnx_subprune.graph.names import fresh
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.order import captured, rewritten


class Wiring:
    """Nodes by place; None where one is gone. Bodies are not looked into: what they read is kept.

    gone: the first outputs of nodes that are no more, in the order in which they went.
    """

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._model = model
        self.nodes: list[NodeProto | None] = [None for _ in graph.node]
        self.gone: list[str] = []
        given = {value.name for value in graph.input}
        self._constants = {item.name: item for item in graph.initializer if item.name not in given}
        self._kept = {value.name for value in graph.output}
        self._taken = given | self._constants.keys()
        self._made: dict[str, Float32] = {}
        self._producer: dict[str, int] = {}
        self._readers: dict[str, list[int]] = {}
        for at, node in enumerate(graph.node):
            self._taken.update((*node.input, *node.output))
            self._kept.update(captured(node))
            if key_of(node) == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
            self._put(at, node)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a constant of 32-bit floating-point numbers that lies in the model; None for what is none."""
        if name in self._made:
            return self._made[name].shape
        tensor = self._constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return tuple(tensor.dims)

    def value(self, name: str) -> Float64 | None:
        """Return such a constant."""
        if self.shape(name) is None:
            return None
        found = self._made[name] if name in self._made else numpy_helper.to_array(self._constants[name])
        return found.astype(np.float64)

    def maker(self, name: str) -> int | None:
        """Return the place of the node that makes a tensor."""
        return self._producer.get(name)

    def readers(self, name: str) -> Sequence[int]:
        """Return the places of the nodes that read a tensor, as often as they do; none where others may read it too."""
        return () if name in self._kept else tuple(self._readers.get(name, ()))

    def reader(self, name: str) -> int | None:
        """Return the place of the only node that reads a tensor."""
        found = self.readers(name)
        return found[0] if len(found) == 1 else None

    def constant(self, stem: str, value: Float64) -> str:
        """Return the name of a new constant."""
        name = fresh(self._taken, stem)
        self._made[name] = value.astype(np.float32)
        return name

    def name(self, stem: str) -> str:
        """Return a name that nothing has yet."""
        return fresh(self._taken, stem)

    def replace(self, at: int, node: NodeProto | None) -> None:
        """Put a node in the place of another one, or nothing."""
        old = self.nodes[at]
        if old is not None:
            for name in old.input:
                self._readers[name].remove(at)
            for name in old.output:
                if self._producer.get(name) == at:
                    del self._producer[name]
            if node is None:
                self.gone.append(old.output[0])
        self._put(at, node)

    def model(self) -> ModelProto:
        """Return the model as it is now."""
        left = [node for node in self.nodes if node is not None]
        read = {name for node in left for name in node.input}
        constants = [numpy_helper.from_array(value, name) for name, value in self._made.items() if name in read]
        return rewritten(self._model, left, constants)

    def _put(self, at: int, node: NodeProto | None) -> None:
        self.nodes[at] = node
        if node is not None:
            for name in node.input:
                self._readers.setdefault(name, []).append(at)
            for name in node.output:
                self._producer[name] = at
