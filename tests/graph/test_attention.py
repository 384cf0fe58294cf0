"""Attention is shown as what it is: heads, numbers of Q and K and of V, and what of these can go."""

import pytest

from onnx_subprune.graph.attention import attention_lines
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from tests.graph.test_fused_operators import ROWS
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS

QKV = "numbers of q and k, numbers of v can go"
SHOWN = {
    "attention-of-one-head": f"attention: 1 head of 12, q/k 12, v 12; {QKV}",
    "packed-attention-split-3-computed": "attention: 3 heads of 4, q/k 4, v 4; heads can go",
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
