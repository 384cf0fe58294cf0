"""Attention is shown as what it is: heads, numbers of Q and K and of V, and what of these can go."""

import numpy as np
import pytest

from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.attention import attention_lines
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from tests.graph.test_fused_operators import ROWS
from tests.networks.check import feeds_of, supports_of
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS, turned

QKV = "numbers of q and k, numbers of v can go"
SHOWN = {
    "attention-of-one-head": f"attention: 1 head of 12, q/k 12, v 12; {QKV}",
    "packed-attention-split-3-computed": f"attention: 3 heads of 4, q/k 4, v 4; {QKV}",
    "separate-attention-2": f"attention: 2 heads of 6, q/k 6, v 6; {QKV}",
    "separate-attention-normed": "attention: 2 heads of 4, q/k 4, v 4; numbers of v can go",
    "separate-attention-turned": f"attention: 2 heads of 6, q/k 6, v 6; {QKV}",
}
FUSED = {
    "MultiHeadAttention, other numbers of V": "attention: 4 heads of 5, q/k 8, v 5; heads can go",
    "com.microsoft.Attention, sizes spelled out": "attention: 4 heads of 6, q/k 8, v 6; heads can go",
    "GroupQueryAttention": "attention: 4 heads of 8 (2 of k and v), q/k 8, v 8; heads can go",
    "Attention of three axes": "attention: 4 heads of 8, q/k 8, v 8; heads can go",
    "Attention of four axes": f"attention: 4 heads of 8, q/k 8, v 8; {QKV}",
    "Attention of four axes, heads repeated": f"attention: 4 heads of 8 (2 of k and v), q/k 8, v 8; {QKV}",
}


@pytest.mark.parametrize("name", [*SHOWN, *FUSED])
def test_attention_is_shown_with_its_heads(name):
    model = ROWS[name][0]().model() if name in FUSED else next(p for p in PATTERNS if p.name == name).model(17)
    network = load(model)
    assert attention_lines(network, trace(network)) == [{**SHOWN, **FUSED}[name]]


def test_attention_of_one_kind_is_one_line_and_a_softmax_of_its_own_is_none():
    n = Net()
    x = n.input(("N", 5, 8))
    for _ in range(2):
        q, k, v = (n.linear(x, 8, 8) for _ in range(3))
        scores = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 2, 1])), axis=-1)
        x = n("Softmax", n.linear(n("MatMul", scores, v), 8, 8), axis=-1)
    n.output(x, 3)
    network = load(n.model())
    assert attention_lines(network, trace(network)) == [f"2 x attention: 1 head of 8, q/k 8, v 8; {QKV}"]


def grouped(heads: int, groups: int, dim: int, *, rotated: bool) -> Net:
    """As PyTorch exports decoders: no biases, heads of K and V repeated for all queries that they serve, positions rotated before."""
    n = Net()
    x = n.input(("N", 5, 8))
    parts = [n.linear(x, 8, width * dim, bias=False) for width in (heads, groups, groups)]
    q, k, v = [n("Transpose", n.reshape(part, 0, 5, -1, dim), perm=[0, 2, 1, 3]) for part in parts]
    if rotated:
        q, k = turned(n, q, dim), turned(n, k, dim)
    shape = n.concat(n.dim(x, 0), n.constant(np.array([groups, heads // groups, 5, dim])), axis=0)
    k, v = [n.reshape(n("Expand", n.unsqueeze(part, 2), shape), 0, heads, 5, dim) for part in (k, v)]
    scores = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    y = n.reshape(n("Transpose", n("MatMul", scores, v), perm=[0, 2, 1, 3]), 0, 5, heads * dim)
    n.output(n.linear(y, heads * dim, 3, bias=False), 3)
    return n


@pytest.mark.parametrize(("rotated", "widths"), [(False, (6, 6)), (True, (3, 6))])
def test_numbers_of_grouped_heads_go(rotated, widths):
    network = load(grouped(4, 2, 6, rotated=rotated).model())
    graph = trace(network)
    assert tuple(sorted(group.width for group in graph.groups)) == widths
    assert attention_lines(network, graph) == [f"attention: 4 heads of 6 (2 of k and v), q/k 6, v 6; {QKV}"]
    for seed in (0, 1):
        assert law(network, graph, supports_of(graph, seed, share=0.5), feeds_of(network, 3, 1)) < 1e-5


def test_where_there_are_more_heads_than_numbers_equally_many_of_each_group_go():
    network = load(grouped(8, 2, 4, rotated=False).model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [4]
    assert {part.positions.shape[1] for part in graph.groups[0].slices if part.axis.use is not None} == {8}
    assert law(network, graph, supports_of(graph, 0, share=0.5), feeds_of(network, 3, 1)) < 1e-5
