"""The door to onnxruntime: what runs, what is observed, and how failures read."""

import subprocess
import sys
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from onnx_subprune.calibration.data.samples import Calibration, chunk_size
from onnx_subprune.calibration.streaming.settings import new_session
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluation.latency import raced
from onnx_subprune.evaluation.timing import latency, latency_ratio
from onnx_subprune.graph.order import captured
from onnx_subprune.runtime.observing import SMALL, observe, observe_shapes
from onnx_subprune.runtime.session import UNSAFE, Port, Session, environment
from tests.networks.net import Net

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3)).astype(np.float32)
X = RNG.standard_normal((5, 4)).astype(np.float32)


def parsed(text: str, opset: int = 17, **weights: np.ndarray) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> net {text}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def small() -> ModelProto:
    return parsed(
        "(float[N, 4] x) => (float[N, 3] y) { h = MatMul(x, w) s = Shape(h) g = Greater(h, h) r = Relu(h) y = Neg(r) }",
        w=WEIGHT,
    )


def in_side_file(folder) -> ModelProto:
    onnx.save(small(), folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return onnx.load(folder / "m.onnx", load_external_data=False)


def test_a_session_tells_names_shapes_and_types_and_gives_outputs_by_name():
    session = Session(small())
    assert session.inputs == (Port("x", ("N", 4), np.dtype(np.float32)),)
    assert session.outputs == (Port("y", ("N", 3), np.dtype(np.float32)),)
    found = session.run({"x": X})
    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], -np.maximum(X @ WEIGHT, 0), atol=1e-5)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("threads", [None, 1, 2])
def test_settings_do_not_change_what_is_computed(optimize, threads):
    found = Session(small(), optimize=optimize, threads=threads).run({"x": X}, ["y"])["y"]
    np.testing.assert_allclose(found, -np.maximum(X @ WEIGHT, 0), atol=1e-5)


def test_outputs_are_written_where_they_are_to_lie():
    session = Session(small())
    whole = np.full((len(X) + 2, 3), 7.0, np.float32)
    session.fill({"x": X}, {"y": whole[1:-1]})
    assert np.array_equal(whole[1:-1], session.run({"x": X})["y"])
    assert np.all(whole[[0, -1]] == 7.0)


@pytest.mark.parametrize("nodes", [("Identity", "x"), ("Flatten", "x"), ("Identity", "w"), ("Dropout", "x")])
def test_what_onnxruntime_need_not_compute_is_written_too(nodes):
    op, source = nodes
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, [source], ["y"])],
        "passed on",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(WEIGHT, "w")],
    )
    session = Session(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    wanted = session.run({"x": X})["y"]
    found = np.full(wanted.shape, 7.0, np.float32)
    session.fill({"x": X}, {"y": found})
    assert np.array_equal(found, wanted)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(ModelError):
        Session(small()).fill({"x": X}, {"y": np.zeros((len(X) + 1, 3), np.float32)})


def test_a_model_runs_from_memory_from_a_path_and_from_bytes_alike(tmp_path):
    onnx.save(small(), tmp_path / "m.onnx")
    models = (small(), tmp_path / "m.onnx", small().SerializeToString())
    first, *others = (Session(model).run({"x": X})["y"] for model in models)
    assert all(np.array_equal(first, other) for other in others)


def test_side_file_weights_are_found_in_their_folder_whatever_the_working_folder(tmp_path, monkeypatch):
    model = in_side_file(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = Session(small()).run({"x": X})["y"]
    assert np.array_equal(Session(model, folder=tmp_path).run({"x": X})["y"], expected)
    assert np.array_equal(Session(tmp_path / "m.onnx", folder=tmp_path).run({"x": X})["y"], expected)
    np.testing.assert_allclose(observe(model, {"x": X}, ["h"], tmp_path)["h"], X @ WEIGHT, atol=1e-5)
    assert observe_shapes(model, {"x": X}, tmp_path)["h"].shape == (5, 3)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(Session(model, folder=tmp_path / "elsewhere" / "..").run({"x": X})["y"], expected)


def test_a_missing_side_file_is_a_model_error_that_names_it(tmp_path):
    model = in_side_file(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        Session(model, folder=tmp_path)


def test_a_session_prints_nothing(capfd):
    Session(small(), optimize=False).run({"x": X})
    with pytest.raises(ModelError):
        Session(parsed("(float[N] x) => (float[N] y) { y = Nonsense(x) }"))
    with pytest.raises(ModelError):
        Session(mismatched()).run({"x": np.ones((2, 5), np.float32)})
    assert capfd.readouterr() == ("", "")


def mismatched() -> ModelProto:
    return parsed("(float[N, M] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=WEIGHT)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (parsed("(float[N] x) => (float[N] y) { y = Nonsense(x) }"), "Nonsense"),
        (parsed("(float[N] x) => (float[N] y) { y = Relu(z) }"), "z"),
        (ModelProto(), "graph"),
        (b"junk", "cannot load"),
        (b"", "cannot load"),
    ],
    ids=["operator", "input", "empty", "junk", "nothing"],
)
def test_a_model_that_onnxruntime_refuses_is_one_line(model, says):
    with pytest.raises(ModelError, match=says) as caught:
        Session(model)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_or_broken_file_is_a_model_error_that_names_it(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for name in ("missing.onnx", "junk.onnx"):
        with pytest.raises(ModelError, match=name):
            Session(tmp_path / name)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"z": X},
        {"x": X, "z": X},
        {"x": X[:, :3]},
        {"x": X[0]},
        {"x": X.astype(np.float64)},
    ],
    ids=["none", "other name", "one too many", "shape", "rank", "type"],
)
def test_feeds_that_do_not_fit_are_a_data_error_of_one_line(feeds):
    with pytest.raises(DataError, match="on these inputs") as caught:
        Session(small()).run(feeds)
    assert "\n" not in str(caught.value)


def test_a_node_that_fails_is_a_model_error_that_names_it():
    with pytest.raises(ModelError, match="MatMul"):
        Session(mismatched()).run({"x": np.ones((2, 5), np.float32)})


def test_too_little_memory_is_said_with_what_to_do():
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 46]), "size"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["huge"]))
    model.graph.output.append(helper.make_tensor_value_info("huge", TensorProto.FLOAT, None))
    with pytest.raises(ModelError, match="too little memory"):
        Session(model, optimize=False).run({"x": X})


def test_an_unknown_output_is_a_model_error():
    with pytest.raises(ModelError, match="nope"):
        Session(small()).run({"x": X}, ["nope"])
    with pytest.raises(ModelError, match="nope"):
        observe(small(), {"x": X}, ["nope"])


def test_weights_beyond_the_limit_of_the_format_are_refused_with_advice(monkeypatch):
    monkeypatch.setattr("onnx_subprune.runtime.weights.LIMIT", 100)
    for open_ in (Session, lambda model: observe_shapes(model, {"x": X})):
        with pytest.raises(ModelError, match="save it with its weights in a side file"):
            open_(small())


def test_intermediate_tensors_are_observed_without_declared_types_and_without_changing_the_model():
    model = small()
    before = model.SerializeToString(deterministic=True)
    found = observe(model, {"x": X}, ["h", "y", "s", "h"])
    assert list(found) == ["h", "y", "s"]
    np.testing.assert_allclose(found["h"], X @ WEIGHT, atol=1e-5)
    assert found["s"].tolist() == [5, 3]
    observe_shapes(model, {"x": X})
    assert model.SerializeToString(deterministic=True) == before


def test_inputs_and_weights_are_observed_too():
    found = observe(small(), {"x": X}, ["x", "w"])
    assert np.array_equal(found["x"], X)
    assert np.array_equal(found["w"], WEIGHT)


CHAIN = """
import resource, numpy as np
from onnx import parser
from onnx_subprune.runtime.observing import observe_shapes
steps = " ".join(f"h{i + 1} = Relu(h{i})" for i in range(60))
model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net (float[N] h0) => (float[N] h60) {{ {steps} }}')
feeds = {"h0": np.ones(2**21, np.float32)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(observe_shapes(model, feeds)) == 61
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems count memory in other units")
def test_not_all_activations_are_alive_when_shapes_are_observed():
    done = subprocess.run([sys.executable, "-c", CHAIN], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 61 * 8 * 1024 / 3  # KiB; all 61 tensors of 8 MiB would be 488 MiB


def test_a_session_does_not_keep_the_serialized_weights():
    model = parsed("(float[N, 1024] x) => (float[N, 1024] y) { y = MatMul(x, w) }", w=np.eye(1024, dtype=np.float32))
    tracemalloc.start()
    session = Session(model)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2**20
    x = np.ones((2, 1024), np.float32)
    assert np.array_equal(session.run({"x": x})["y"], x)


@pytest.mark.parametrize("declared", [False, True], ids=["", "weights among the inputs"])
def test_large_weights_do_not_change_what_is_observed(declared):
    text = "(float[N, 100] x) => (float[N, 100] y) { h = MatMul(x, w) i = Gather(t, k) y = Add(h, h) }"
    w, t, k = np.eye(100, dtype=np.float32), np.arange(9000), np.array([7, 8999])
    model = parsed(text, w=w, t=t, k=k)
    if declared:
        model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [100, 100]))
    found = observe_shapes(model, {"x": np.ones((2, 100), np.float32)})
    assert found["h"].shape == (2, 100)
    assert found["i"].value.tolist() == [7, 8999]


def test_where_types_cannot_be_told_without_the_weights_they_are_told_with_them(monkeypatch):
    def refuse(model):
        return parsed("(float[N] x) => (float[N] y) { y = Nonsense(x) }")

    monkeypatch.setattr("onnx_subprune.runtime.observing._without_large_weights", refuse)
    assert observe_shapes(small(), {"x": X})["h"].shape == (5, 3)


def test_declared_shapes_that_have_gone_stale_do_no_harm():
    model = small()
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [7, 99]))
    assert observe(model, {"x": X}, ["h"])["h"].shape == (5, 3)
    assert observe_shapes(model, {"x": X})["h"].shape == (5, 3)


def test_observed_shapes_types_and_small_values_are_those_of_the_tensors_themselves():
    model, names = small(), ["h", "s", "g", "r", "y"]
    values = observe(model, {"x": X}, names)
    found = observe_shapes(model, {"x": X})
    assert set(found) == {"x", *names}
    for name in names:
        assert (found[name].shape, found[name].dtype) == (values[name].shape, values[name].dtype)
        if values[name].dtype.kind in "iub":
            assert np.array_equal(found[name].value, values[name])
        else:
            assert found[name].value is None


def test_integers_have_their_values_up_to_the_limit_of_small_tensors():
    model = parsed("(int64[N] x) => (int64[N] y) { y = Neg(x) }")
    for size, known in ((SMALL, True), (SMALL + 1, False)):
        found = observe_shapes(model, {"x": np.ones(size, np.int64)})
        assert [found[name].value is not None for name in ("x", "y")] == [known, known]


def test_scalars_and_empty_tensors_are_observed():
    model = parsed("(float[N] x) => (float y, int64[M] z) { y = ReduceSum<keepdims=0>(x) z = NonZero(x) }")
    found = observe_shapes(model, {"x": np.zeros(3, np.float32)})
    assert (found["y"].shape, found["z"].shape) == ((), (1, 0))


def test_sequences_and_optionals_are_left_out():
    text = """(float[N, 4] x) => (float[N, 4] y) {
        parts = SplitToSequence<axis=1>(x)  joined = ConcatFromSequence<axis=1>(parts)
        maybe = Optional(joined)  y = OptionalGetElement(maybe) }"""
    assert set(observe_shapes(parsed(text), {"x": X})) == {"x", "joined", "y"}


@pytest.mark.parametrize(
    ("kind", "name", "opset"),
    [
        (TensorProto.FLOAT16, "float16", 21),
        (TensorProto.BFLOAT16, "bfloat16", 21),
        (TensorProto.FLOAT8E4M3FN, "float8_e4m3fn", 21),
        (TensorProto.FLOAT8E4M3FN, None, 19),
        (TensorProto.STRING, "object", 21),
        (TensorProto.INT4, None, 21),
    ],
)
def test_rare_types_are_observed_where_onnxruntime_can_and_never_stop_the_rest(kind, name, opset):
    text = f"(float[N, 4] x) => (float[N, 4] y) {{ c = Cast<to={kind}>(x) y = Cast<to=1>(c) }}"
    found = observe_shapes(parsed(text, opset=opset), {"x": X})
    assert found["y"].shape == (5, 4)
    assert ("c" in found) == (name is not None)
    if name is not None:
        assert (found["c"].shape, found["c"].dtype) == ((5, 4), np.dtype(name))


def test_a_bfloat16_output_cannot_reach_numpy_and_says_so():
    model = parsed(f"(float[N] x) => (bfloat16[N] y) {{ y = Cast<to={TensorProto.BFLOAT16}>(x) }}")
    assert Session(model).outputs[0].dtype == np.dtype("bfloat16")
    with pytest.raises(ModelError, match="bfloat16"):
        Session(model).run({"x": X[0]})


def test_tensors_inside_local_functions_and_branches_stay_inside():
    text = """<ir_version: 10, opset_import: ["": 17, "local": 1]>
        net (float[N, 4] x, bool c) => (float[N, 4] y) {
            a = local.twice(x)
            y = If (c) <then_branch = yes () => (t) { t = Neg(a) }, else_branch = no () => (e) { e = Abs(a) }>
        }
        <opset_import: ["": 17], domain: "local"> twice (x) => (y) { h = Add(x, x) y = Identity(h) }"""
    found = observe_shapes(parser.parse_model(text), {"x": X, "c": np.array(True)})
    assert set(found) == {"x", "c", "a", "y"}


def test_a_model_without_standard_operators_is_observed():
    text = """<ir_version: 10, opset_import: ["com.microsoft": 1]>
        net (float[N, 4] x) => (float[N, 4] y) { h = com.microsoft.Gelu(x) y = com.microsoft.QuickGelu(h) }"""
    assert observe_shapes(parser.parse_model(text), {"x": X})["h"].shape == (5, 4)


def test_latencies_are_positive_one_a_session_and_their_ratio_tells_the_slower_model():
    big = parsed(
        "(float[N, 256] x) => (float[N, 256] y) { a = MatMul(x, w) b = MatMul(a, w) c = MatMul(b, w) y = MatMul(c, w) }",
        w=np.eye(256, dtype=np.float32),
    )
    little = parsed("(float[N, 256] x) => (float[N, 256] y) { y = Relu(x) }")
    slow, fast = Session(big, threads=1), Session(little, threads=1)
    feeds = {"x": np.ones((512, 256), np.float32)}
    times = latency([slow, fast], feeds, seconds=0.1)
    assert len(times) == 2
    assert all(time > 0 for time in times)
    assert latency_ratio(slow, fast, feeds, seconds=0.1) < 1 < latency_ratio(fast, slow, feeds, seconds=0.1)


def test_the_environment_names_what_a_result_depends_on():
    found = environment()
    assert set(found) == {"python", "platform", "onnx", "onnxruntime", "numpy", "scipy"}
    assert found["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("shape", "fixed", "count"),
    [
        ((100, 3, 8, 8), None, 25),
        ((100, 3, 224, 224), None, 3),
        ((5, 3, 1000, 1000), None, 1),
        ((32, 3, 224, 224), 8, 8),
    ],
)
def test_a_latency_is_that_of_a_chunk_or_of_less_where_samples_are_large(shape, fixed, count):
    array = np.zeros(shape, np.float32)
    data = Calibration(arrays={"x": array}, chunk=fixed or chunk_size(len(array), None), fixed=fixed)
    assert raced(data) == count


@pytest.mark.parametrize("kind", [onnx.AttributeProto.GRAPHS, onnx.AttributeProto.UNDEFINED])
def test_what_bodies_capture_is_found_with_and_without_the_type_of_the_attribute(kind):
    body = onnx.helper.make_graph([onnx.helper.make_node("Add", ["outer", "w"], ["y"])], "body", [], [])
    node = onnx.helper.make_node("Bodies", ["x"], ["y"], domain="some", alpha=1.0, bodies=[body])
    for item in node.attribute:
        item.type = kind if item.name == "bodies" else item.type
    assert set(captured(node)) == {"outer", "w"}


def test_an_output_that_is_an_input_at_once_is_written():
    node = helper.make_node("Relu", ["x"], ["y"])
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", ports[:1], ports)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    outputs = {name: np.full_like(x, np.nan) for name in "xy"}
    Session(model).fill({"x": x}, outputs)
    assert np.array_equal(outputs["x"], x)
    assert np.array_equal(outputs["y"], np.maximum(x, 0))


def test_parts_of_models_are_loaded_without_what_crashes():
    """A segmentation fault of onnxruntime 1.32 in parts of float16 encoders; no exception could tell of it."""
    net = Net()
    net.output(net("Relu", net.input(["N", 3])))
    found = new_session(net.model(), 1, None, ())
    options = found._session.get_session_options()
    assert options.get_session_config_entry("optimization.disable_specified_optimizers") == UNSAFE
