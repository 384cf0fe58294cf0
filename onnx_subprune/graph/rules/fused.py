"""Operators that runtimes fuse attention and what is around it into: whole heads go, and what is pointwise or a normalisation is as it is elsewhere.

Heads lie one behind the other on an axis; `num_heads` counts them. Keys and values of grouped heads go with all of their queries. What is kept between
runs (past keys and values) and packed inputs are left alone.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from onnx_subprune._typing import Int64
from onnx_subprune.graph.channels import Product
from onnx_subprune.graph.rules.elementwise import broadcast, broadcasting, pointwise
from onnx_subprune.graph.rules.normalization import trailing
from onnx_subprune.graph.rules.vocabulary import Patch, Resizing, Rule, Scope, UnknownError


def _refuse(scope: Scope, slots: Sequence[int], outputs: Sequence[int], what: str) -> None:
    """Raise where one of these inputs or outputs is used."""
    made = any(which < len(scope.node.output) and scope.node.output[which] for which in outputs)
    if made or any(scope.has(slot) for slot in slots):
        raise UnknownError(f"its {what} are left alone")


def _positions(scope: Scope, slot: int) -> None:
    """Samples and positions of an input and of the output are the same."""
    for axis in (0, 1):
        scope.tie(scope.input(slot, axis), scope.output(axis))


def _heads(scope: Scope, parts: Sequence[Int64], heads: int) -> Int64:
    """Tie the numbers of each of so many heads in all `parts`; return a coordinate of each head, (heads,)."""
    first = parts[0].reshape(heads, -1)[:, 0]
    for part in parts:
        if len(part) % heads:
            raise UnknownError("its width is no multiple of its heads")
        scope.tie(part.reshape(heads, -1), first[:, None])
    return first


def _added(scope: Scope, slot: int, first: Int64) -> None:
    """What is added to the scores, (1 or samples, 1 or heads, queries, keys)."""
    if scope.has(slot) and len(scope.shape(slot)) == 4 and scope.shape(slot)[1] > 1:
        ids = scope.input(slot, 1)
        scope.tie(ids.reshape(len(first), -1), first[:, None])


def multi_head_attention(scope: Scope) -> None:
    """com.microsoft.MultiHeadAttention of three inputs of heads side by side, with or without biases."""
    _refuse(scope, (6, 7, 8, 9), (1, 2, 3), "past keys and values")
    if not (scope.has(1) and scope.has(2)) or any(len(scope.shape(slot)) != 3 for slot in range(3)):
        raise UnknownError("its inputs are packed")
    heads = scope.integer("num_heads", 1)
    parts = [scope.input(slot, -1) for slot in range(3)]
    first = _heads(scope, [*parts, scope.output(-1)], heads)
    _positions(scope, 0)
    if scope.has(3):
        scope.tie(scope.input(3, 0), np.concatenate(parts))
    _added(scope, 5, first)


def fused_attention(scope: Scope) -> None:
    """com.microsoft.Attention: the layer that makes Q, K and V is part of it."""
    _refuse(scope, (4, 6), (1,), "past keys and values")
    if not scope.constant(1) or not scope.has(1):
        raise UnknownError("its weights are computed")
    heads, sizes = scope.integer("num_heads", 1), _widths(scope)
    columns = scope.input(1, 1)
    parts = np.split(columns, np.cumsum(sizes)[:2])
    first = _heads(scope, [*parts, scope.output(-1)], heads)
    _positions(scope, 0)
    if scope.has(2):
        scope.tie(scope.input(2, 0), columns)
    _added(scope, 5, first)


def _widths(site: Scope | Resizing) -> tuple[int, ...]:
    """How many numbers Q, K and V have."""
    return site.integers("qkv_hidden_sizes") or (site.shape(1)[1] // 3,) * 3


def resize_fused_attention(site: Resizing) -> Patch:
    """Count the heads that are left, and the numbers of each part."""
    kept = site.kept_in(1, 1)
    if kept is None:
        return Patch()
    bounds = np.cumsum((0, *_widths(site)))
    left = [int(np.sum((kept >= start) & (kept < stop))) for start, stop in pairwise(bounds.tolist())]
    heads = site.integer("num_heads", 1)
    return Patch(attributes={"num_heads": left[0] * heads // _widths(site)[0], "qkv_hidden_sizes": left})


def grouped_attention(scope: Scope) -> None:
    """com.microsoft.GroupQueryAttention: heads of keys go with all queries that they serve."""
    heads, groups = scope.integer("num_heads", 1), scope.integer("kv_num_heads", 1)
    if not (scope.has(1) and scope.has(2)):
        raise UnknownError("its inputs are packed")
    _refuse(scope, (12, 13), (3,), "quantized keys and values, and scores,")
    parts = [scope.input(slot, -1) for slot in range(3)]
    first = _heads(scope, [*parts, scope.output(-1)], groups)
    _positions(scope, 0)
    for slot in (3, 4):
        if scope.has(slot):
            scope.tie(scope.input(slot, 1), first)
    for which in (1, 2):
        if which < len(scope.node.output) and scope.node.output[which]:
            scope.tie(scope.output(1, which), first)
    _added(scope, 10, first)
    if scope.has(11):
        scope.tie(scope.input(11, 0).reshape(groups, heads // groups), first[:, None])


def rotary_embedding(scope: Scope) -> None:
    """Rotated positions, of (samples, heads, positions, numbers) or of heads side by side."""
    rank = len(scope.out_shape())
    for axis in range(rank - 1):
        scope.tie(scope.input(0, axis), scope.output(axis))
    if rank == 3:
        _heads(scope, [scope.input(0, -1), scope.output(-1)], _rotated_heads(scope))


def _rotated_heads(site: Scope | Resizing) -> int:
    """How many heads lie side by side."""
    cache = 2 if site.node.domain == "com.microsoft" else 1
    return site.integer("num_heads", 0) or max(1, site.shape(0)[-1] // (2 * site.shape(cache)[-1]))


def resize_rotary(site: Resizing) -> Patch:
    """Count the heads that are left, where they are spelled out."""
    kept, spelled = site.kept_in(0, -1), site.integer("num_heads", 0)
    if kept is None or len(site.out_shape()) != 3 or not spelled:
        return Patch()
    return Patch(attributes={"num_heads": len(kept) * spelled // site.shape(0)[-1]})


def attention(scope: Scope) -> None:
    """ai.onnx Attention: heads on an axis of their own, whose numbers may go, or side by side."""
    _refuse(scope, (4, 5, 6), (1, 2, 3), "past keys and values, and scores,")
    wide = len(scope.shape(0)) == 4
    if wide:
        queries, keys, values, made = scope.input(0, 1), scope.input(1, 1), scope.input(2, 1), scope.output(1)
        groups = len(keys)
        for axis in (0, 2):
            scope.tie(scope.input(0, axis), scope.output(axis))
        scope.tie(scope.input(2, 3), scope.output(3))
        if scope.beyond is not None:
            scope.tie(scope.input(0, 3), scope.input(1, 3))
            scope.multiply(Product(node=scope.label, left=scope.in_axis(0, 3), right=scope.in_axis(1, 3)))
    else:
        queries, keys, values, made = *(scope.input(slot, -1) for slot in range(3)), scope.output(-1)
        groups = scope.integer("kv_num_heads", 1)
        _positions(scope, 0)
    first = _heads(scope, [keys, values, queries, made], groups)
    if scope.has(3) and len(scope.shape(3)) == 4 and scope.shape(3)[1] > 1:
        scope.tie(scope.input(3, 1).reshape(groups, -1), first[:, None])


def resize_attention(site: Resizing) -> Patch:
    """Count the heads that are left; what the scores are divided by stays what it was."""
    last = site.shape(0)[-1]
    if len(site.shape(0)) == 3:
        return _counted(site, ("q_num_heads", "kv_num_heads"))
    spelled = any(item.name == "scale" for item in site.node.attribute)
    return Patch(attributes={} if spelled or site.kept_in(0, 3) is None else {"scale": float(last) ** -0.5})


def _counted(site: Resizing, names: Sequence[str]) -> Patch:
    """Count the heads that are left of those that are side by side."""
    found = {}
    for slot, name in enumerate(names):
        kept = site.kept_in(slot, -1)
        if kept is not None:
            found[name] = len(kept) * site.integer(name, 1) // site.shape(slot)[-1]
    return Patch(attributes=found)


def fused_matmul(scope: Scope) -> None:
    """A product of two activations, either of which may be turned, times a number: as MatMul."""
    turned = [scope.integer(name, 0) for name in ("transA", "transB")]
    if scope.integer("transBatchA", 0) or scope.integer("transBatchB", 0):
        raise UnknownError("it turns batches")
    if scope.constant(0) or scope.constant(1) or any(len(scope.shape(slot)) < 2 for slot in (0, 1)):
        raise UnknownError("one of its inputs is constant")
    rows, columns = -1 if turned[0] else -2, -2 if turned[1] else -1
    left, right = -3 - rows, -3 - columns
    scope.tie(scope.input(0, rows), scope.output(-2))
    scope.tie(scope.input(1, columns), scope.output(-1))
    broadcast(scope, [0, 1], leading=2)
    if scope.beyond is not None:
        scope.tie(scope.input(0, left), scope.input(1, right))
        scope.multiply(Product(node=scope.label, left=scope.in_axis(0, left), right=scope.in_axis(1, right)))


def skip_normalization(scope: Scope) -> None:
    """SkipLayerNormalization: the sum of two streams is normalised over the last axis, whose channels go (`spelling`); it comes out too."""
    for axis in range(len(scope.out_shape()) - 1):
        ids = scope.input(0, axis)
        for which, name in enumerate(scope.node.output):
            if name and scope.shape_of(name) == scope.out_shape():
                scope.tie(ids, scope.output(axis, which))
        if scope.shape(1) == scope.shape(0):
            scope.tie(ids, scope.input(1, axis))


def embedding_normalization(scope: Scope) -> None:
    """EmbedLayerNormalization: samples and positions of the ids stay what they are."""
    _positions(scope, 0)


MS = "com.microsoft."
RULES = {
    "Attention": Rule(attention, resize_attention),
    "RotaryEmbedding": Rule(rotary_embedding, resize_rotary),
    f"{MS}MultiHeadAttention": Rule(multi_head_attention, lambda site: _counted(site, ("num_heads",))),
    f"{MS}Attention": Rule(fused_attention, resize_fused_attention),
    f"{MS}GroupQueryAttention": Rule(grouped_attention, lambda site: _counted(site, ("num_heads", "kv_num_heads"))),
    f"{MS}RotaryEmbedding": Rule(rotary_embedding, resize_rotary),
    f"{MS}FusedMatMul": Rule(fused_matmul),
    **dict.fromkeys((f"{MS}Gelu", f"{MS}QuickGelu"), Rule(pointwise)),
    **dict.fromkeys((f"{MS}BiasGelu", f"{MS}FastGelu"), Rule(broadcasting)),
    **dict.fromkeys(("SimplifiedLayerNormalization", f"{MS}SimplifiedLayerNormalization"), Rule(trailing)),
    **dict.fromkeys((f"{MS}SkipLayerNormalization", f"{MS}SkipSimplifiedLayerNormalization"), Rule(skip_normalization)),
    f"{MS}EmbedLayerNormalization": Rule(embedding_normalization),
}
