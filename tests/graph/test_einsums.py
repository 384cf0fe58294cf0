"""Einsum with weights of several axes, and of two activations: written out as products, and pruned as those."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_subprune import Channels, Gates, Resources, prune
from onnx_subprune.graph.costs.layers import layers
from onnx_subprune.graph.einsums import unfolded
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.dead import doomed, killed
from tests.networks.net import Net

HEADS, SIZE, WIDTH, LENGTH = 2, 4, 10, 5
SIZES = {"a": 3, "b": 5, "c": 6, "d": 2, "e": 4, "f": 7, "g": 8}
WRITTEN = (
    "abc,cde->abde",
    "abc,dec->abde",
    "abc,cd->adb",
    "cde,abc->abde",
    "abde,dec->abc",
    "abde,cde->abc",
    "adbe,dec->abc",
    "abc,cde->dabe",
    "abcd,cdef->abef",
    "aecd,abcd->acbe",
    "acbe,aecd->abcd",
    "abc,adc->abd",
    "abc,adc->adb",
    "abc,ced->abde",
    "abcd,dbe->ace",
)
LEFT = (
    "abc,cd->abd",
    "abcd,ced->abe",
    "abc,dc->abd",
    "ab,bcd->a",
    "...c,cde->...de",
    "aab,bc->ac",
)


def letters(term):
    return [SIZES[letter] for letter in term.replace("...", "ab")]


def einsum(equation, *, constant, opset=17):
    """The operation alone; constant: the operand that has letters the other lacks and no batch is a weight of the file."""
    n = Net(opset, seed=1)
    names = []
    for place, term in enumerate(equation.partition("->")[0].split(",")):
        weight = constant and "a" not in term and "..." not in term
        names.append(n.weight(*letters(term)) if weight else n.input(letters(term), f"x{place}"))
    n.output(n("Einsum", *names, equation=equation), len(equation.partition("->")[2].replace("...", "ab")))
    return n.model()


def runs_alike(one, other):
    random = np.random.default_rng(0)
    feeds = {
        v.name: random.standard_normal([d.dim_value for d in v.type.tensor_type.shape.dim]).astype(np.float32)
        for v in one.graph.input
    }
    for ours, theirs in zip(Session(one).run(feeds).values(), Session(other).run(feeds).values(), strict=True):
        assert ours.shape == theirs.shape
        assert np.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("equation", WRITTEN)
def test_a_product_is_written_out_and_puts_out_the_same(equation):
    model = einsum(equation, constant=True)
    before = model.SerializeToString()
    found = unfolded(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(found, full_check=True)
    operators = [node.op_type for node in found.graph.node]
    assert operators.count("MatMul") == 1
    assert "Einsum" not in operators
    runs_alike(model, found)


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize(
    ("equation", "operators"),
    [
        ("abc->acb", {"Transpose"}),
        ("abcd,ab->abcd", {"Mul", "Unsqueeze"}),
        ("ba,abcd->acbd", {"Mul", "Unsqueeze", "Transpose"}),
        ("abc,abc->abc", {"Mul"}),
        ("abc,ab->ac", {"MatMul", "Unsqueeze", "Squeeze", "Transpose"}),
        ("ab,abc->ac", {"MatMul", "Unsqueeze", "Squeeze"}),
        ("abc,abc->ab", {"MatMul", "Unsqueeze", "Squeeze"}),
        ("ab,b->ab", {"Mul", "Unsqueeze"}),
        ("abc,->abc", {"Mul", "Unsqueeze"}),
        ("abc,bc->ab", {"MatMul", "Transpose", "Unsqueeze", "Squeeze"}),
        ("abc,adc->dba", {"MatMul", "Transpose"}),
    ],
)
def test_what_is_an_operator_of_its_own_is_written_as_that(equation, operators, opset):
    model = einsum(equation, constant=False, opset=opset)
    found = unfolded(model)
    assert {node.op_type for node in found.graph.node} == operators
    onnx.checker.check_model(found, full_check=True)
    runs_alike(model, found)


@pytest.mark.parametrize("equation", LEFT)
def test_what_is_no_such_product_stays(equation):
    model = einsum(equation, constant=True)
    assert unfolded(model) is model


def test_a_weight_of_two_products_stays_one():
    n = Net(seed=1)
    x, y, w = n.input([3, 5, 6]), n.input([3, 5, 6], "z"), n.weight(6, 2, 4)
    for source in (x, y):
        n.output(n("Einsum", source, w, equation="abc,cde->abde"), 4)
    model = n.model()
    found = unfolded(model)
    assert [list(t.dims) for t in found.graph.initializer if t.name == w] == [[6, 8]]
    assert "Einsum" not in {node.op_type for node in found.graph.node}
    runs_alike(model, found)
    other = n("Einsum", n.weight(4, 7), w, equation="ef,cde->cdf")
    n.output(other, 3)
    assert unfolded(n.model()).graph.initializer[0].dims == model.graph.initializer[0].dims


@pytest.mark.parametrize("inside", [True, False])
def test_a_weight_that_others_read_keeps_its_shape(inside):
    n = Net(seed=1)
    x, w = n.input(["N", 5, 6]), n.weight(6, 2, 4)
    n.output(n("Einsum", x, w, equation="abc,cde->abde"), 4)
    if inside:
        bodies = (
            helper.make_graph(
                [helper.make_node("Shape", [w], ["s"])], side, [], [helper.make_tensor_value_info("s", 7, [3])]
            )
            for side in ("then", "else")
        )
        branches = dict(zip(("then_branch", "else_branch"), bodies, strict=True))
        n.output(n("If", n.constant(np.array(True)), **branches), 1, onnx.TensorProto.INT64)
    else:
        n.output(n("ReduceSum", w), 3)
    model = n.model()
    assert unfolded(model) is model


def attention():
    """As Keras' MultiHeadAttention is exported, in a residual stream, with an MLP behind it."""
    n = Net(seed=1)
    h = n("Add", n("MatMul", n.input(("N", LENGTH, 8)), n.weight(8, WIDTH)), n.weight(WIDTH))

    def heads():
        return n("Add", n("Einsum", h, n.weight(WIDTH, HEADS, SIZE), equation="abc,cde->abde"), n.weight(HEADS, SIZE))

    q, k, v = heads(), heads(), heads()
    scores = n("Einsum", k, n("Mul", q, n.constant(np.float32(0.5))), equation="aecd,abcd->acbe")
    mixed = n("Einsum", n("Softmax", scores, axis=-1), v, equation="acbe,aecd->abcd")
    h = n(
        "Add", h, n("Add", n("Einsum", mixed, n.weight(HEADS, SIZE, WIDTH), equation="abcd,cde->abe"), n.weight(WIDTH))
    )
    h = n("Add", h, n("MatMul", n.relu(n("MatMul", h, n.weight(WIDTH, 12))), n.weight(12, WIDTH)))
    n.output(n("MatMul", n("ReduceMean", h, axes=[1], keepdims=0), n.weight(WIDTH, 3)), 2)
    return n.model()


def test_attention_of_keras_is_pruned_whole_and_exactly_where_half_is_dead():
    network = Network(attention())
    graph = trace(network)
    assert sorted(group.width for group in graph.groups) == [SIZE, SIZE, WIDTH, 12]
    assert layers(network, graph).smaller[1] == pytest.approx(1.0)
    x = np.random.default_rng(0).standard_normal((16, LENGTH, 8)).astype(np.float32)
    half = killed(network, graph, doomed(graph), {"x": x})
    found = prune(half, x, budget=Channels(0.5), resources=Resources(threads=1), gates=Gates(accept_any=True))
    assert found.report.params.after < 0.6 * found.report.params.before
    for ours, theirs in zip(
        Session(found.model).run({"x": x}).values(), Session(half).run({"x": x}).values(), strict=True
    ):
        assert np.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("equation", "shape"),
    [("abc,cde->abde", (6, 8)), ("abc,cde->abde", (6, 0, 4)), ("abc", (6, 2, 4)), (b"ab\xff,cde->abde", (6, 2, 4))],
)
def test_what_is_damaged_is_left_to_who_checks_models(equation, shape):
    n = Net(seed=1)
    n.output(n("Einsum", n.input([3, 5, 6]), n.weight(*shape), equation=equation), 4)
    model = n.model()
    assert unfolded(model) is model
    del model.graph.node[0].input[1:]
    assert unfolded(model) is model
