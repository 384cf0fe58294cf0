"""What operator a node is, and its attributes."""

from typing import Any

import onnx
from onnx import NodeProto

STANDARD = ("", "ai.onnx")
"""Names of the domain of the standard operators."""
NO_CONSTANTS = ("Bernoulli", "Multinomial", "Optional", "Random", "Sequence")
"""What the names of operators begin with that draw their output, or make no tensor, also where they read no input of the model."""


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return the value of an attribute, `default` where it is absent."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def integer(node: NodeProto, name: str, default: int) -> int:
    """Return the value of an attribute that is an integer."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the values of all attributes by name."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def key_of(node: NodeProto) -> str:
    """Return the operator of a node as rules and tables name it: "Relu", and with its domain "com.microsoft.QuickGelu"."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def biased(node: NodeProto) -> list[NodeProto]:
    """Return a node as runtimes take it: a MatMul with a third input, the bias that its place has none for, is a MatMul and a sum."""
    if node.op_type != "MatMul" or node.domain or len(node.input) < 3:
        return [node]
    product, bias, made = NodeProto(), node.input[2], node.output[0]
    product.CopyFrom(node)
    del product.input[2:]
    product.output[0] = f"{made}/unbiased"
    return [product, onnx.helper.make_node("Add", [product.output[0], bias], [made])]


def set_input(node: NodeProto, slot: int, name: str) -> None:
    """Make `name` input `slot` of a node; inputs in front of it that it does not have are left out."""
    node.input.extend([""] * (slot + 1 - len(node.input)))
    node.input[slot] = name


def whole_shape(node: NodeProto | None) -> bool:
    """True for a Shape of all axes; some exporters write down that it starts at the first."""
    return node is not None and node.op_type == "Shape" and all(i.name == "start" and not i.i for i in node.attribute)
