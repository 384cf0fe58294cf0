"""Heads in another basis: the same function, and what is left of fewer numbers is the best that so many can be."""

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune import Channels, Gates, WeightNorm, prune
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.errors import NotFiniteError
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning import preparation
from onnx_subprune.reconstruction.bases import sites
from onnx_subprune.reconstruction.head_factors import factors, wins
from onnx_subprune.reconstruction.products import visible_rows
from onnx_subprune.runtime.session import Session
from tests.graph.test_fused_operators import ROWS
from tests.networks.check import feeds_of
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS


def moments(seed: int, heads: int = 2, width: int = 5) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((heads, 40, width)) * 0.5 ** np.arange(width)
    rows = rows @ np.random.default_rng(seed + 1).standard_normal((heads, width, width))
    return np.asarray(rows.transpose(0, 2, 1) @ rows)


def lost(left: np.ndarray, right: np.ndarray, kept: np.ndarray) -> float:
    gone = np.eye(left.shape[1]) - kept
    return float(np.sum((gone.transpose(0, 2, 1) @ left @ gone) * right))


def test_bases_are_inverse_to_one_another_and_their_first_numbers_lose_the_tail_of_the_spectrum():
    left, right = moments(1), moments(3)
    found = factors(left, right)
    np.testing.assert_allclose(found.left @ found.right.transpose(0, 2, 1), [np.eye(5)] * 2, atol=1e-8)
    spectrum = np.sqrt(np.sort(np.abs(np.linalg.eigvals(left @ right)))[:, ::-1])
    for count in range(1, 5):
        best = np.sum(spectrum[:, count:] ** 2)
        assert lost(left, right, found.kept(count)) == pytest.approx(best, rel=1e-3, abs=1e-5 * np.sum(spectrum**2))


def test_dead_numbers_come_last_and_stay_what_they_are():
    left, right = moments(1), moments(3)
    left[:, 2], left[:, :, 2] = 0, 0
    right[1, 0], right[1, :, 0] = 0, 0
    found = factors(left, right)
    for basis in (found.left, found.right):
        np.testing.assert_array_equal(basis[0, :, 4], np.eye(5)[2])
        np.testing.assert_array_equal(basis[1, :, 3:], np.eye(5)[:, [0, 2]])
        assert not basis[:, 2, :3].any()
    np.testing.assert_allclose(found.left @ found.right.transpose(0, 2, 1), [np.eye(5)] * 2, atol=1e-8)


@pytest.mark.parametrize("refitted", [False, True])
def test_a_basis_that_says_nothing_about_other_samples_is_not_taken(refitted):
    plain = [np.diag([9.0, 4.0, 1.0, 0.1, 0.01])[None]] * 2
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    mixed = [(turned @ part @ turned.T) for part in plain]
    assert wins([(mixed[0], mixed[1])] * 2, refitted=refitted)
    noise = [1e-3 * moments(seed, heads=1) for seed in (5, 7)]
    assert not wins([(plain[0] + noise[0], plain[1]), (plain[0] + noise[1], plain[1])], refitted=refitted)


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if "-attention-" in p.name], ids=lambda p: p.name)
def test_only_what_nothing_tells_apart_may_be_turned(pattern):
    graph = trace(network := load(pattern.model(17)))
    form = pattern.name.removeprefix("separate-attention-")
    expected = {"2": 2, "split": 2, "merged": 2, "packed-attention-slice-4-computed": 0}  # whole heads go there
    assert len(sites(network, graph)) == expected.get(form, 2 if form.startswith("packed-") else 1)


def low_rank_attention(seed: int, heads: int = 2, *, tiled: bool = False) -> Net:
    """Two heads of K and of V for so many of Q; they need three numbers of six a head, mixed with the others."""
    net, rng, dim = Net(seed=seed), np.random.default_rng(seed), 6
    low = np.zeros((2, 8, 2 * dim), np.float32)
    for part in low:
        for head in range(2):
            part[:, head * dim : (head + 1) * dim] = rng.standard_normal((8, 3)) @ rng.standard_normal((3, dim))
    x = net.input(("N", 5, 8))
    weights = (net.weight(8, heads * dim), *map(net.constant, low))
    made = [net("Add", net("MatMul", x, w), net.weight(net.weights[w].shape[1])) for w in weights]
    counts = (heads, 2, 2)
    q, k, v = [
        net("Transpose", net.reshape(part, 0, 5, count, dim), perm=[0, 2, 1, 3])
        for part, count in zip(made, counts, strict=True)
    ]
    if heads > 2:  # as models with grouped heads repeat them
        k, v = (repeated(net, part, heads // 2, tiled=tiled) for part in (k, v))
    scores = net("MatMul", q, net("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net("Softmax", net("Div", scores, net.constant(np.array(4.0, np.float32))), axis=-1)
    y = net.reshape(net("Transpose", net("MatMul", scores, v), perm=[0, 2, 1, 3]), 0, 5, heads * dim)
    net.output(net.linear(y, heads * dim, 3), 3)
    return net


def repeated(net: Net, x: str, times: int, *, tiled: bool) -> str:
    """Every head so many times, one after another, or, tiled, all heads so many times."""
    shape = net.concat(net.dim(x, 0), net.constant(np.array([times, 2, 5, 6] if tiled else [2, times, 5, 6])), axis=0)
    return net.reshape(net("Expand", net.unsqueeze(x, 1 if tiled else 2), shape), 0, 2 * times, 5, 6)


@pytest.mark.parametrize("heads", [2, 4])
def test_heads_lose_what_they_do_not_need_whatever_basis_they_come_in(heads, monkeypatch):
    model = low_rank_attention(1, heads).model()
    network = load(model)
    data, unseen = feeds_of(network, 64, 2), feeds_of(network, 32, 3)
    reference = Session(model).run(unseen)[network.outputs[0]]

    def error() -> tuple[float, list[bool]]:
        found = prune(model, data, budget=Channels(0.5), round_to=1)
        out = Session(found.model).run(unseen)[network.outputs[0]]
        return float(np.linalg.norm(out - reference) / np.linalg.norm(reference)), [
            g.basis for g in found.report.groups
        ]

    turned, bases = error()
    assert turned < 1e-3
    assert bases == [True, True]
    monkeypatch.setattr(preparation, "turned", lambda task, rules: (task, frozenset()))
    subset, bases = error()
    assert subset > 30 * turned
    assert bases == [False, False]


@pytest.mark.parametrize("options", [{"refit": None}, {"selector": WeightNorm()}], ids=["no-refit", "published"])
def test_weights_that_stay_and_methods_of_others_keep_the_basis_of_the_model(options):
    model = low_rank_attention(1).model()
    found = prune(model, feeds_of(load(model), 16, 2), budget=Channels(0.5), round_to=1, **options)
    assert not any(group.basis for group in found.report.groups)


def test_groups_that_are_excluded_keep_their_weights():
    model = low_rank_attention(1).model()
    network = load(model)
    name = next(group.name for group in trace(network).groups if group.product is None)
    found = prune(model, feeds_of(network, 32, 2), budget=Channels(0.5), round_to=1, only=[name])
    assert [group.basis for group in found.report.groups] == [True]
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in m.graph.initializer} for m in (model, found.model)
    )
    same = [name for name in before if name in after and np.array_equal(before[name], after[name])]
    assert {
        network.node(label).input[1] for label in next(g for g in trace(network).groups if g.product).producers
    } <= set(same)


@pytest.mark.parametrize(
    ("row", "count"),
    [("FusedMatMul", 2), ("FusedMatMul, keys turned", 2), ("Attention of four axes", 2), ("MultiHeadAttention", 0)],
)
def test_bases_go_through_operators_that_products_are_fused_into(row, count):
    model = ROWS[row][0]().model()
    network = load(model)
    assert len(sites(network, trace(network))) == count
    found = prune(model, feeds_of(network, 32, 2), budget=Channels(0.75), round_to=1, gates=Gates(accept_any=True))
    assert found.report.deviation < 1e-4


def test_heads_that_are_repeated_in_another_order_keep_their_basis():
    model = low_rank_attention(1, 4, tiled=True).model()
    found = prune(model, feeds_of(load(model), 48, 2), budget=Channels(0.5), round_to=1, gates=Gates(accept_any=True))
    assert found.report.groups
    assert not any(group.basis for group in found.report.groups)


def test_hidden_positions_are_no_rows_of_keys():
    rng = np.random.default_rng(0)
    value, mask = rng.standard_normal((2, 4, 3)).astype(np.float32), np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    visible = Visible(Calibration(arrays={"mask": mask}, chunk=2), "mask")
    rows, shown = visible_rows(value, 2, visible, 0, centred_over=(1,))
    np.testing.assert_array_equal(shown[..., 0], mask)
    for sample, length in enumerate((3, 2)):
        own = value[sample, :length].astype(np.float64)
        np.testing.assert_allclose(rows[sample, :length], own - own.mean(axis=0))
        assert not rows[sample, length:].any()


def test_numbers_that_are_not_finite_have_no_basis():
    model = low_rank_attention(1).model()
    data = {name: value * np.float32(1e38) for name, value in feeds_of(load(model), 16, 2).items()}
    with pytest.raises(NotFiniteError, match="too large to be squared"):
        prune(model, data, budget=Channels(0.5), round_to=1)
