"""What operator a node is, and its attributes."""

from typing import Any

import onnx
from onnx import NodeProto

STANDARD = ("", "ai.onnx")
"""Names of the domain of the standard operators."""


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return the value of an attribute, `default` where it is absent."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the values of all attributes by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def key_of(node: NodeProto) -> str:
    """Return the operator of a node as rules and tables name it: "Relu", and with its domain "com.microsoft.QuickGelu"."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def set_input(node: NodeProto, slot: int, name: str) -> None:
    """Make `name` input `slot` of a node; inputs in front of it that it does not have are left out."""
    node.input.extend([""] * (slot + 1 - len(node.input)))
    node.input[slot] = name
