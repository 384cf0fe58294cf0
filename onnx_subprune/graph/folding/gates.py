"""Activations that are spelled out, as one operator: y clip(x + c, 0, m) / m = y HardSigmoid(x), alpha = 1 / m, beta = c / m."""

from onnx import NodeProto, helper

from onnx_subprune.graph.folding.affine import LARGEST, affine_of
from onnx_subprune.graph.folding.wiring import Wiring
from onnx_subprune.graph.operators import attribute, key_of

CLOSE = 1e-6
"""How far a product with 1 / m may be from a division by m."""


def hard_sigmoid(wiring: Wiring, at: int) -> bool:
    """Make a HardSigmoid of the Clip at `at`, the sum in front of it, and the division by its bound behind, or behind the product with it.

    Return False where there is no such thing.
    """
    clip = wiring.nodes[at]
    bound = None if clip is None else _bound(wiring, clip)
    before = None if clip is None or bound is None else wiring.maker(clip.input[0])
    added = None if before is None else affine_of(wiring, before, 0)
    product = None if clip is None else wiring.reader(clip.output[0])
    if clip is None or bound is None or before is None or added is None or product is None:
        return False
    gated = wiring.nodes[product]
    assert gated is not None, "what reads is there"
    last: int | None = product
    other = ""
    if key_of(gated) == "Mul" and affine_of(wiring, product, 0) is None:
        other = next((name for name in gated.input if name != clip.output[0]), "")
        last = wiring.reader(gated.output[0]) if other else None
    divided = None if last is None else affine_of(wiring, last, 0)
    if last is None or divided is None or wiring.reader(clip.input[0]) != at:
        return False
    if added.scale != 1.0 or divided.shift != 0.0 or abs(divided.scale * bound - 1.0) > CLOSE:
        return False
    end = wiring.nodes[last]
    assert end is not None, "what reads is there"
    made = end.output[0]
    name = wiring.name(f"{made}_gate") if other else made
    gate = helper.make_node(
        "HardSigmoid", [added.data], [name], name=clip.name, alpha=1.0 / bound, beta=float(added.shift) / bound
    )
    wiring.replace(before, None)
    wiring.replace(product, None)
    wiring.replace(at, gate)
    if other:
        wiring.gone.append(clip.output[0])  # with a product runtimes take the two as one
        wiring.replace(last, helper.make_node("Mul", [other, name], [made], name=gated.name))
    return True


def _bound(wiring: Wiring, clip: NodeProto) -> float | None:
    """The upper bound of a Clip between 0 and a positive number; None for other nodes."""
    if key_of(clip) != "Clip":
        return None
    low, high = attribute(clip, "min"), attribute(clip, "max")
    if len(clip.input) == 3:
        found = [wiring.value(name) for name in clip.input[1:]]
        low, high = (float(value.reshape(())) if value is not None and value.size == 1 else None for value in found)
    return float(high) if isinstance(high, float) and low == 0.0 and 0.0 < high < LARGEST else None
