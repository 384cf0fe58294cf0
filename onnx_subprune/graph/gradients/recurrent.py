"""Gradients of recurrent layers."""

from collections.abc import Callable, Mapping

from onnx_subprune.graph.gradients.tape import Call

Rule = Callable[[Call], list[str | None]]
RULES: Mapping[str, Rule] = {}
