"""Methods of others that tools/published.py has: nothing changes where nothing has to go, costs are met, and what goes is made up for as they say."""

import numpy as np
import onnx
import pytest

from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net
from tools.published import METHODS, Transformer, compensated, regressed

HEADS, SIZE, WIDTH, HIDDEN = 3, 4, 8, 24


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    """A block of attention and feed-forward units, whose units are eight ones three times, ever smaller."""
    n = Net(seed=1)
    x = n.input(("N", 5, WIDTH))
    parts = [n.reshape(n.linear(x, WIDTH, HEADS * SIZE), 0, 5, HEADS, SIZE) for _ in range(3)]
    q, k, v = (n("Transpose", part, perm=[0, 2, 1, 3]) for part in parts)
    scores = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    y = n.reshape(n("Transpose", n("MatMul", scores, v), perm=[0, 2, 1, 3]), 0, 5, HEADS * SIZE)
    x = n("Add", x, n.linear(y, HEADS * SIZE, WIDTH))
    inner = n.rng.standard_normal((WIDTH, HIDDEN // 3)).astype(np.float32)
    hidden = n("Tanh", n("MatMul", x, n.constant(np.hstack([inner] * 3))))
    hidden = n("Mul", hidden, n.constant(np.repeat([1.0, 0.5, 0.1], HIDDEN // 3).astype(np.float32)))
    n.output(n("Add", x, n.linear(hidden, HIDDEN, WIDTH)), 3)
    path = tmp_path_factory.mktemp("published") / "block.onnx"
    onnx.save(n.model(), path)
    return path, {"x": np.random.default_rng(0).standard_normal((64, 5, WIDTH)).astype(np.float32)}


def error(model, path, data):
    ours, theirs = (next(iter(Session(each).run(data).values())) for each in (model, path))
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_published_methods_meet_a_budget_and_leave_a_model_alone_that_meets_it(block, method, kind):
    path, data = block
    model = Transformer(path, data, kind)
    same, kept = METHODS[method](model, 1.0)
    assert kept == 1.0
    assert error(same, path, data) < 1e-6
    changed, kept = METHODS[method](model, 0.7)
    assert 0.5 < kept <= 0.7
    assert 1e-3 < error(changed, path, data) < 1.0


def test_units_that_follow_from_others_are_made_up_for_by_regression_alone(block):
    path, data = block
    model = Transformer(path, data, "params")
    units = next(part for part in model.parts if len(part.units) == HIDDEN)
    changed = model.written({units.label: regressed(units, HIDDEN // 3)})
    assert error(changed, path, data) < 1e-2
    without = model.written({units.label: (np.diag(np.arange(HIDDEN) < 2 * HIDDEN // 3), None)})
    assert error(without, path, data) > 3e-2


def test_a_head_has_its_numbers_of_q_and_k_too(block):
    path, data = block
    model = Transformer(path, data, "macs")
    heads = next(part for part in model.parts if len(part.units) == HEADS)
    asked = {group.name for group in trace(load(path)).groups if group.product}
    assert heads.units.shape == (HEADS, SIZE)
    assert asked < {*heads.groups}


def test_logits_of_fewer_numbers_are_nearer_with_what_makes_up_for_the_others(block):
    path, data = block
    model = Transformer(path, data, "macs")
    (item,) = model.logits
    made = {count: compensated(item, count)[0] for count in (0, 2)}
    assert np.allclose(made[0], np.eye(SIZE))
    plain = np.where(made[2] != 0, np.eye(SIZE), 0.0)
    assert (np.count_nonzero(plain, axis=(1, 2)) == 2).all()

    def lost(matrix):
        gone = np.eye(SIZE) - matrix
        return np.sum((gone.transpose(0, 2, 1) @ item.asked @ gone) * item.keys)

    assert lost(made[2]) < lost(plain)
