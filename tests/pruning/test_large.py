"""Models with large weights in side files: the same results, with fewer copies of the weights."""

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, Resources, prune
from onnx_subprune.evaluation.verification import deviation
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.large import write_products


@pytest.fixture
def model(tmp_path):
    write_products(tmp_path / "model.onnx", depth=4, width=48)
    return tmp_path / "model.onnx"


@pytest.fixture
def data():
    return np.random.default_rng(1).standard_normal((96, 48)).astype(np.float32)


def test_what_large_models_take_instead_gives_the_same_bytes(model, data, tmp_path, monkeypatch):
    prune(model, data, budget=Channels(0.5)).save(tmp_path / "plain.onnx")
    monkeypatch.setattr("onnx_subprune.evaluation.verification.LARGE", 1000)
    monkeypatch.setattr("onnx_subprune.graph.save.SETTLED", 1000)
    found = prune(model, data, budget=Channels(0.5))
    assert found.folder != tmp_path
    assert any(found.folder.iterdir())
    assert found.report.deviation < 1e-5
    found.save(tmp_path / "apart.onnx")
    (one, other) = ((tmp_path / f"{name}.onnx.data").read_bytes() for name in ("plain", "apart"))
    assert one == other
    folder = found.folder
    del found
    assert not folder.exists()


def test_a_wrong_slice_is_noticed_step_by_step_too(model, data, monkeypatch):
    monkeypatch.setattr("onnx_subprune.evaluation.verification.LARGE", 1000)
    network = load(model)
    graph = trace(network)
    plan, other = (Plan(supports={graph.groups[1].name: range(start, start + 24)}) for start in (0, 5))
    feeds = {"input": data[:8]}
    assert deviation(network, graph, plan, apply(network, graph, plan), feeds) < 1e-5
    assert deviation(network, graph, plan, apply(network, graph, other), feeds) > 0.01


@pytest.mark.parametrize("folded", [False, True])
def test_weights_that_are_handed_over_by_address_count_like_those_inside(folded, monkeypatch):
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((64, 64)).astype(np.float32)
    text = (
        "<ir_version: 8, opset_import: ['': 13]> g (float[n, 64] x) => (float[n, 64] y) { t = Transpose(w) y = MatMul(x, t) }"
        if folded
        else "<ir_version: 8, opset_import: ['': 13]> g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }"
    )
    model = onnx.parser.parse_model(text.replace("'", '"'))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "read by nobody"))
    feeds = {"x": generator.standard_normal((5, 64)).astype(np.float32)}
    inside = Session(model, threads=1).run(feeds)["y"]
    monkeypatch.setattr("onnx_subprune.runtime.weights.HELD", 0)
    monkeypatch.setattr("onnx_subprune.runtime.weights.SIZABLE", 0)
    assert Session(model, threads=1).run(feeds)["y"].tobytes() == inside.tobytes()
    monkeypatch.setattr("onnx_subprune.runtime.session.LARGE", 0)
    np.testing.assert_allclose(Session(model, threads=1).run(feeds)["y"], inside, atol=1e-4)


def flat_model(channels=24, size=4, wide=20):
    """Conv to Flatten to Gemm: a layer of channels * size^2 inputs."""
    generator = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["": 13]> g (float[n, 3, 4, 4] x) => (float[n, 6] y) {
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w0)  r = Relu(c)  f = Flatten(r)
        h = Gemm<transB = 1>(f, w1, b1)  a = Relu(h)  y = Gemm(a, w2) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (
        ("w0", (channels, 3, 3, 3)),
        ("w1", (wide, channels * size**2)),
        ("b1", (wide,)),
        ("w2", (wide, 6)),
    ):
        value = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


IMAGES = np.random.default_rng(2).standard_normal((96, 3, 4, 4)).astype(np.float32)


def test_weights_that_are_handed_over_by_address_give_the_same_pruned_model(monkeypatch):
    inside = prune(flat_model(), IMAGES, budget=Channels(0.5)).model
    monkeypatch.setattr("onnx_subprune.runtime.weights.HELD", 0)
    monkeypatch.setattr("onnx_subprune.runtime.weights.SIZABLE", 0)
    assert prune(flat_model(), IMAGES, budget=Channels(0.5)).model == inside


def test_a_layer_with_more_inputs_than_samples_is_pruned_from_its_rows_for_every_batch_size(monkeypatch):
    monkeypatch.setattr("onnx_subprune.graph.contractions.product.WIDE", 100)
    results = [
        prune(flat_model(), IMAGES, budget=Channels(0.5), round_to=1, resources=resources)
        for resources in (
            Resources(),
            Resources(batch_size=5),
            Resources(batch_size=64, threads=1),
            Resources(memory=4096),
        )
    ]
    assert len({result.model.SerializeToString() for result in results}) == 1
    assert all(group.width[1] * 2 == group.width[0] for group in results[0].report.groups)
    refit = {item.node: item for group in results[0].report.groups for item in group.consumers}
    assert all(item.heldout_error <= item.plain_error for item in refit.values())


def test_a_layer_with_too_many_inputs_is_left_alone_only_where_its_gram_would_be_needed(monkeypatch):
    monkeypatch.setattr("onnx_subprune.graph.contractions.product.WIDE", 100)
    monkeypatch.setattr("onnx_subprune.calibration.moments.limits.COLUMNS", 300)
    widths = [
        prune(flat_model(), np.tile(IMAGES, (count, 1, 1, 1)), budget=Channels(0.5)).report.groups for count in (1, 6)
    ]
    assert [len(groups) for groups in widths] == [2, 1]


def test_large_samples_run_in_pieces_and_give_the_same_bytes(monkeypatch):
    whole = prune(flat_model(), IMAGES, budget=Channels(0.5)).model.SerializeToString()
    monkeypatch.setattr("onnx_subprune.calibration.streaming.runner.PIECE", 5 * IMAGES[0].nbytes)
    assert prune(flat_model(), IMAGES, budget=Channels(0.5)).model.SerializeToString() == whole
