"""Operators that attention is fused into, each as runtimes and exporters write it: heads go, or the reason says why they stay."""

from collections.abc import Callable

import numpy as np
import pytest

from onnx_subprune import Channels, Gates, prune
from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.network import load
from onnx_subprune.graph.operators import attribute
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of, weigh
from tests.networks.net import FLOAT, Net

HEADS, DIM, WIDTH = 4, 8, 12
OWN = {"domain": "com.microsoft"}


def net(opset: int = 17) -> tuple[Net, str]:
    made = Net(opset)
    made.domains["com.microsoft"] = 1
    return made, made.input(("N", 5, WIDTH))


def apart(n: Net, x: str, *widths: int, bias: bool = True) -> list[str]:
    return [n.linear(x, WIDTH, width, bias=bias) for width in widths]


def ended(n: Net, y: str, width: int) -> Net:
    n.output(n.linear(y, width, 3), 3)
    return n


def multi_head(*, biased: bool = False, value: int = DIM, added: tuple[int, ...] = ()) -> Net:
    n, x = net()
    wide = HEADS * DIM
    parts = apart(n, x, wide, wide, HEADS * value, bias=not biased)
    more = [n.weight(2 * wide + HEADS * value)] if biased else []
    more += ["", "", n.weight(*added)] if added else []
    return ended(n, n("MultiHeadAttention", *parts, *more, num_heads=HEADS, **OWN), HEADS * value)


def packed_in_the_operator(*, sizes: bool = False) -> Net:
    n, x = net()
    wide, value = HEADS * DIM, HEADS * (6 if sizes else DIM)
    more = {"qkv_hidden_sizes": [wide, wide, value]} if sizes else {}
    weights = n.weight(WIDTH, 2 * wide + value), n.weight(2 * wide + value)
    return ended(n, n("Attention", x, *weights, num_heads=HEADS, **more, **OWN), value)


def grouped(*, rotated: bool = False) -> Net:
    n, x = net()
    q, k, v = apart(n, x, HEADS * DIM, 2 * DIM, 2 * DIM)
    if rotated:
        q, k = (turned(n, part, DIM, **OWN) for part in (q, k))
    lengths = n(
        "Add", n("Mul", n("Cast", n.dim(x, 0), to=6), n.constant(np.int32(0))), n.constant(np.array([4], np.int32))
    )
    lengths = n("Expand", lengths, n.dim(x, 0))
    made = n.add(
        "GroupQueryAttention",
        q,
        k,
        v,
        "",
        "",
        lengths,
        n.constant(np.array(5, np.int32)),
        outputs=3,
        num_heads=HEADS,
        kv_num_heads=2,
        **OWN,
    )
    return ended(n, made[0], HEADS * DIM)


def turned(n: Net, x: str, dim: int, **own: object) -> str:
    angles = np.arange(5)[:, None] * 0.3 ** np.arange(dim // 2)
    caches = [n.constant(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
    if own:
        return n("RotaryEmbedding", x, n.constant(np.zeros(1, np.int64)), *caches, **own)
    rows = [n.unsqueeze(cache, 0) for cache in caches]
    batch = n.concat(n.dim(x, 0), n.constant(np.array([1, 1])), axis=0)
    return n("RotaryEmbedding", x, *(n("Tile", row, batch) for row in rows), num_heads=HEADS)


def standard(*, groups: int = HEADS, rotated: bool = False, masked: bool = False, causal: int = 0) -> Net:
    n, x = net(23)
    q, k, v = apart(n, x, HEADS * DIM, groups * DIM, groups * DIM)
    if rotated:
        q, k = (turned(n, part, DIM) for part in (q, k))
    mask = [n.weight(1, HEADS, 5, 5)] if masked else []
    y = n("Attention", q, k, v, *mask, q_num_heads=HEADS, kv_num_heads=groups, is_causal=causal)
    return ended(n, y, HEADS * DIM)


def standard_of_four_axes(groups: int = HEADS) -> Net:
    """Heads on an axis; fewer ones of K and V are repeated before, as PyTorch exports decoders from opset 23 on."""
    n, x = net(23)
    made = apart(n, x, HEADS * DIM, groups * DIM, groups * DIM)
    parts = [n("Transpose", n.reshape(part, 0, 5, -1, DIM), perm=[0, 2, 1, 3]) for part in made]
    if groups < HEADS:
        repeated = n.concat(n.dim(x, 0), n.constant(np.array([groups, HEADS // groups, 5, DIM])), axis=0)
        parts[1:] = [n.reshape(n("Expand", n.unsqueeze(part, 2), repeated), 0, HEADS, 5, DIM) for part in parts[1:]]
    y = n.reshape(n("Transpose", n("Attention", *parts), perm=[0, 2, 1, 3]), 0, 5, HEADS * DIM)
    return ended(n, y, HEADS * DIM)


def multiplied(*, turn: tuple[int, int] = (0, 0)) -> Net:
    """Products of activations, the scale in one of them, that turn what they read."""
    n, x = net()
    q, k, v = (n.reshape(part, 0, 5, HEADS, DIM) for part in apart(n, x, *[HEADS * DIM] * 3))
    q = n("Transpose", q, perm=[0, 2, 3, 1] if turn[0] else [0, 2, 1, 3])
    k = n("Transpose", k, perm=[0, 2, 1, 3] if turn[1] else [0, 2, 3, 1])
    scores = n("FusedMatMul", q, k, alpha=0.35, transA=turn[0], transB=turn[1], **OWN)
    y = n("FusedMatMul", n("Softmax", scores, axis=-1), n("Transpose", v, perm=[0, 2, 1, 3]), **OWN)
    return ended(n, n.reshape(n("Transpose", y, perm=[0, 2, 1, 3]), 0, 5, HEADS * DIM), HEADS * DIM)


ROWS: dict[str, tuple[Callable[[], Net], tuple[int, ...]]] = {
    "MultiHeadAttention": (multi_head, (4,)),
    "MultiHeadAttention, biases inside": (lambda: multi_head(biased=True), (4,)),
    "MultiHeadAttention, other numbers of V": (lambda: multi_head(value=5), (4,)),
    "MultiHeadAttention, scores of each head added": (lambda: multi_head(added=(1, HEADS, 5, 5)), (4,)),
    "com.microsoft.Attention": (packed_in_the_operator, (4,)),
    "com.microsoft.Attention, sizes spelled out": (lambda: packed_in_the_operator(sizes=True), (4,)),
    "GroupQueryAttention": (grouped, (2,)),
    "GroupQueryAttention, RotaryEmbedding": (lambda: grouped(rotated=True), (2,)),
    "Attention of three axes": (standard, (4,)),
    "Attention of three axes, causal, grouped": (lambda: standard(groups=2, causal=1), (2,)),
    "Attention of three axes, RotaryEmbedding, mask": (lambda: standard(rotated=True, masked=True), (4,)),
    "Attention of four axes": (standard_of_four_axes, (8, 8)),
    "Attention of four axes, heads repeated": (lambda: standard_of_four_axes(groups=2), (8, 8)),
    "FusedMatMul": (multiplied, (8, 8)),
    "FusedMatMul, queries turned": (lambda: multiplied(turn=(1, 0)), (8, 8)),
    "FusedMatMul, keys turned": (lambda: multiplied(turn=(0, 1)), (8, 8)),
}


@pytest.mark.parametrize("row", ROWS)
def test_heads_of_fused_attention_go(row):
    build, widths = ROWS[row]
    network = load(build().model())
    graph = trace(network)
    assert tuple(sorted(group.width for group in graph.groups)) == widths
    feeds = feeds_of(network, 3, 1)
    for seed in (0, 1):
        assert law(network, graph, supports_of(graph, seed), feeds) < 1e-5
    supports = supports_of(graph, 0, share=0.5)
    foretold, measured = weigh(network, graph, supports, apply(network, graph, Plan(supports=supports)))
    assert foretold == measured


@pytest.mark.parametrize("row", ["com.microsoft.Attention", "Attention of four axes"])
def test_models_with_fused_attention_are_pruned_and_refitted(row):
    model = ROWS[row][0]().model()
    network = load(model)
    data, unseen = feeds_of(network, 48, 2), feeds_of(network, 24, 3)
    options = {"budget": Channels(0.5), "round_to": 1, "gates": Gates(accept_any=True)}
    results = [prune(model, data, **options, **more).model for more in ({}, {"refit": None})]
    reference, *found = (Session(m).run(unseen)[network.outputs[0]] for m in (model, *results))
    errors = [np.linalg.norm(out - reference) for out in found]
    assert errors[0] < 0.95 * errors[1]


def test_scores_are_divided_by_what_they_were_when_numbers_of_queries_and_keys_go():
    network = load(standard_of_four_axes().model())
    graph = trace(network)
    name = next(group.name for group in graph.groups if group.product is not None)
    small = load(apply(network, graph, Plan(supports={name: (0, 3, 4)})))
    node = next(node for node in small.nodes if node.op_type == "Attention")
    assert attribute(node, "scale") == pytest.approx(DIM**-0.5)


def test_heads_are_counted_anew():
    for row, kept in (("com.microsoft.Attention, sizes spelled out", (0, 2)), ("GroupQueryAttention", (1,))):
        network = load(ROWS[row][0]().model())
        graph = trace(network)
        small = load(apply(network, graph, Plan(supports={graph.groups[0].name: kept})))
        node = next(node for node in small.nodes if "Attention" in node.op_type)
        assert attribute(node, "num_heads") == 2
        if node.op_type == "Attention":
            assert attribute(node, "qkv_hidden_sizes") == [2 * DIM, 2 * DIM, 12]
        else:
            assert attribute(node, "kv_num_heads") == 1


def feed_forward(gelu: str, norm: str) -> Net:
    n, x = net()
    h = n("MatMul", x, n.weight(WIDTH, 16))
    h = n(gelu, h, n.weight(16), **OWN) if gelu != "QuickGelu" else n(gelu, h, **OWN)
    y = n("MatMul", h, n.weight(16, WIDTH))
    scales = [n.weight(WIDTH, positive=True)] + ([n.weight(WIDTH)] * 2 if norm == "SkipLayerNormalization" else [])
    if norm == "SimplifiedLayerNormalization":
        y = n(norm, n("Add", y, x), scales[0], axis=-1, epsilon=1e-5)
    else:
        y, _, _, total = n.add(norm, y, x, *scales, outputs=4, epsilon=1e-5, **OWN)
        n.nodes[-1].output[1], n.nodes[-1].output[2] = "", ""
        y = n("Add", y, total)
    return ended(n, y, WIDTH)


@pytest.mark.parametrize("gelu", ["BiasGelu", "FastGelu", "QuickGelu"])
@pytest.mark.parametrize(
    "norm", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"]
)
def test_feed_forward_units_go_between_fused_operators(gelu, norm):
    network = load(feed_forward(gelu, norm).model())
    graph = trace(network)
    assert [group.width for group in graph.groups] == [16]
    assert law(network, graph, supports_of(graph, 0), feeds_of(network, 3, 1)) < 1e-5
    assert any("is an input of the model" in item.reason for item in graph.pinned)


def test_what_is_kept_between_runs_is_left_alone():
    n, x = net()
    parts = apart(n, x, *[HEADS * DIM] * 3)
    made = n.add("MultiHeadAttention", *parts, outputs=3, num_heads=HEADS, **OWN)
    for name in made[1:]:
        n.output(name, 4, FLOAT)
    graph = trace(ended(n, made[0], HEADS * DIM).model())
    assert not graph.groups
    assert any("past keys and values are left alone" in item.reason for item in graph.pinned)
