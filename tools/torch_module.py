"""An ONNX classifier as a PyTorch module, so that tools for PyTorch can prune it: convolutions and dense layers become modules.

Knows what the classifiers of the comparison are made of; any other operator is a NotImplementedError that names it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from onnx import NodeProto
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune.graph.network import Network
from onnx_subprune.graph.operators import attribute


class Module(nn.Module):
    """Runs the nodes of `network`; layers are called as the nodes, with / and . replaced."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        (self.input,) = [value.name for value in network.inputs]
        self.nodes = [
            (label, node) for label, node in zip(network.labels, network.nodes, strict=True) if self._runs(node)
        ]
        self.layers = nn.ModuleDict({plain(label): layer for label, node in self.nodes if (layer := self._layer(node))})

    def forward(self, x: Tensor) -> Tensor:
        """Return the first output of the model, for a batch."""
        found = {self.input: x}
        for label, node in self.nodes:
            if plain(label) in self.layers:
                found[node.output[0]] = self.layers[plain(label)](found[node.input[0]])
            else:
                found[node.output[0]] = self._operator(node)(*[self._value(found, name) for name in node.input])
        return found[self.network.outputs[0]]

    def producers_of_output(self) -> list[nn.Module]:
        """Return the last layer: its rows are the classes."""
        return [list(self.layers.values())[-1]]

    def _runs(self, node: NodeProto) -> bool:
        """False for constants, and for the sizes that a Reshape to (batch, everything else) is told."""
        sizes = {"Shape", "Gather", "Unsqueeze"}
        about = node.op_type in sizes or (node.op_type == "Concat" and self._reads_sizes(node, sizes))
        return node.output[0] not in self.network.constants and not about

    def _reads_sizes(self, node: NodeProto, sizes: set[str]) -> bool:
        made = [self.network.producer[name] for name in node.input if name in self.network.producer]
        return any(self.network.nodes[index].op_type in sizes for index in made)

    def _value(self, found: Mapping[str, Tensor], name: str) -> Tensor | np.ndarray | None:
        if name in found:
            return found[name]
        return np.array(self.network.array(name)) if name in self.network.constants else None

    def _layer(self, node: NodeProto) -> nn.Module | None:
        """The node as a layer with its weights; None for operators without any."""
        weights = [torch.tensor(np.array(self.network.array(n))) for n in node.input[1:] if n in self.network.constants]
        if node.op_type == "Conv":
            made, read, *kernel = weights[0].shape
            groups = int(attribute(node, "group", 1))
            pads = list(attribute(node, "pads", [0] * 2 * len(kernel)))
            if len(kernel) != 2 or pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
                raise NotImplementedError(f"{node.name}: Conv with pads {pads}")
            settings = {
                "stride": tuple(attribute(node, "strides", [1, 1])),
                "padding": tuple(pads[:2]),
                "groups": groups,
            }
            settings["dilation"] = tuple(attribute(node, "dilations", [1, 1]))
            return _filled(nn.Conv2d(read * groups, made, tuple(kernel), bias=len(weights) > 1, **settings), weights)
        if node.op_type == "Gemm":
            weights[0] = weights[0] if attribute(node, "transB", 0) else weights[0].T
            if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1:
                raise NotImplementedError(f"{node.name}: Gemm with transA, alpha or beta")
            return _filled(nn.Linear(weights[0].shape[1], weights[0].shape[0], bias=len(weights) > 1), weights)
        if node.op_type == "BatchNormalization":
            layer = nn.BatchNorm2d(len(weights[0]), eps=float(attribute(node, "epsilon", 1e-5)))
            layer.running_mean, layer.running_var = weights[2], weights[3]
            return _filled(layer, weights[:2])
        return None

    def _operator(self, node: NodeProto) -> Callable[..., Tensor]:
        if node.op_type not in OPERATORS:
            raise NotImplementedError(f"{node.name or node.output[0]}: {node.op_type} is not translated to PyTorch")
        return OPERATORS[node.op_type](node)


def plain(label: str) -> str:
    """Return a label as a name that PyTorch allows."""
    return label.replace("/", "_").replace(".", "_")


def _filled(layer: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
    for name, value in zip(("weight", "bias"), weights, strict=False):
        getattr(layer, name).data = value.clone()
    return layer


def _pool(pool: Callable[..., Tensor]) -> Callable[[NodeProto], Callable[..., Tensor]]:
    def made(node: NodeProto) -> Callable[..., Tensor]:
        kernel, pads = attribute(node, "kernel_shape"), attribute(node, "pads", [0, 0, 0, 0])
        strides = attribute(node, "strides", [1, 1])
        return lambda x: pool(
            x, tuple(kernel), tuple(strides), tuple(pads[:2]), ceil_mode=bool(attribute(node, "ceil_mode", 0))
        )

    return made


def _sliced(x: Tensor, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray, steps: np.ndarray) -> Tensor:
    for start, end, axis, step in zip(*(part.tolist() for part in (starts, ends, axes, steps)), strict=True):
        x = x[(slice(None),) * axis + (slice(start, None if end >= 2**31 - 1 else end, step),)]
    return x


def _padded(x: Tensor, pads: np.ndarray, *rest: np.ndarray | None) -> Tensor:
    half = len(pads) // 2
    return F.pad(x, [int(size) for axis in reversed(range(half)) for size in (pads[axis], pads[half + axis])])


OPERATORS: Mapping[str, Callable[[NodeProto], Callable[..., Tensor]]] = {
    "Add": lambda node: lambda a, b: a + b,
    "AveragePool": _pool(F.avg_pool2d),
    "Concat": lambda node: lambda *parts: torch.cat(parts, int(attribute(node, "axis"))),
    "Flatten": lambda node: lambda x: torch.flatten(x, 1),
    "GlobalAveragePool": lambda node: lambda x: F.adaptive_avg_pool2d(x, 1),
    "Identity": lambda node: lambda x: x,
    "MaxPool": _pool(F.max_pool2d),
    "Pad": lambda node: _padded,
    "Relu": lambda node: F.relu,
    "Reshape": lambda node: lambda x, shape: torch.flatten(x, 1),
    "Slice": lambda node: _sliced,
}
