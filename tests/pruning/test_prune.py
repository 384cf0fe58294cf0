"""The Python interface on the sample models."""

import numpy as np
import onnx
import pytest

from onnx_subprune import (
    Asymmetric,
    Backward,
    Channels,
    Forward,
    Gates,
    Layerwise,
    Macs,
    MarginalCost,
    Params,
    Random,
    Refined,
    Refit,
    Resources,
    Sequential,
    Uniform,
    prune,
    sensitivity,
)
from onnx_subprune.calibration.data.samples import Calibration, chunk_size
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.pruning.cut import judged_of
from onnx_subprune.runtime.session import Session
from tests.conftest import MODELS

LENET, DENSE, RESNET = (MODELS / f"{name}_fashion.onnx" for name in ("lenet", "lenet_300_100", "resnet"))


@pytest.fixture(scope="module")
def test_set():
    with np.load(MODELS / "fashion_test.npz") as archive:
        return archive["input"][:1000], np.load(MODELS / "fashion_test_labels.npy")[:1000]


def accuracy(model, test_set):
    inputs, labels = test_set
    return float(np.mean(Session(model).run({"input": inputs})["logits"].argmax(axis=1) == labels))


class Reader:
    """As onnxruntime's CalibrationDataReader is written."""

    def __init__(self, images):
        self.left = [{"input": images[i : i + 10]} for i in range(0, len(images), 10)]

    def get_next(self):
        return self.left.pop(0) if self.left else None


def test_every_source_of_the_same_samples_gives_the_same_model(tmp_path, few):
    np.save(tmp_path / "x.npy", few)
    (tmp_path / "folder").mkdir()
    for number, part in enumerate(np.split(few, 4)):
        np.savez(tmp_path / "folder" / f"{number}.npz", input=part)
    for number, part in enumerate(np.split(few, 4)):
        folder = tmp_path / "sets" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(part).SerializeToString())
    (tmp_path / "feed.py").write_text(
        "import numpy as np, pathlib\n"
        "x = np.load(pathlib.Path(__file__).with_name('x.npy'))\n"
        "def batches():\n    for i in range(0, 64, 5):\n        yield {'input': x[i : i + 5]}\n"
    )
    sources = [
        few,
        {"input": few},
        [{"input": part} for part in np.array_split(few, 7)],
        Reader(few),
        tmp_path / "x.npy",
        tmp_path / "folder",
        tmp_path / "sets",
        f"{tmp_path / 'feed.py'}:batches",
    ]
    models = [prune(LENET, source, budget=Channels(0.5)).model.SerializeToString() for source in sources]
    assert all(model == models[0] for model in models)


def test_a_model_in_memory_is_not_changed_and_gives_the_same_result(few):
    proto = onnx.load(LENET)
    before = proto.SerializeToString()
    ours, theirs = (prune(model, few, budget=Macs(0.6)) for model in (proto, LENET))
    assert proto.SerializeToString() == before
    assert ours.model == theirs.model
    assert ours.model.graph.input == proto.graph.input
    assert ours.model.opset_import == proto.opset_import


@pytest.mark.parametrize("model", [LENET, DENSE, RESNET], ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", [Macs, Params])
def test_a_budget_is_met_within_one_channel(model, kind, few):
    found = prune(
        model,
        few,
        budget=kind(0.5),
        allocator=Uniform(),
        refit=None,
        formulation=Layerwise(),
        gates=Gates(accept_any=True),
    )
    cost = found.report.macs if kind is Macs else found.report.params
    assert 0.4 < cost.ratio <= 0.5


def test_refitting_beats_slicing_and_choosing_beats_drawing(images, test_set):
    def left(selector, refit, formulation=Asymmetric()):
        found = prune(
            RESNET,
            images[:160],
            budget=Channels(0.5),
            selector=selector,
            refit=refit,
            formulation=formulation,
            gates=Gates(accept_any=True),
        )
        return accuracy(found.model, test_set)

    best = left(Forward(), Refit())
    assert best > left(Forward(), None) + 0.02
    assert best > left(Random(0), Refit())
    assert best > left(Forward(), Refit(), Layerwise())
    assert best > left(Forward(), Refit(), Sequential())
    assert best > 0.9


@pytest.mark.parametrize("selector", [Backward(), Refined()], ids=lambda s: type(s).__name__)
def test_other_selectors_keep_the_accuracy_too(selector, images, test_set):
    found = prune(RESNET, images[:256], budget=Macs(0.5), selector=selector, resources=Resources(trials=0))
    assert accuracy(found.model, test_set) > 0.91


def test_batch_normalization_takes_the_bias_up_so_that_no_parameter_is_added(images):
    found = prune(RESNET, images[:64], budget=Channels(0.9))
    counts = [
        sum(node.op_type == "Conv" and len(node.input) > 2 for node in m.graph.node)
        for m in (onnx.load(RESNET), found.model)
    ]
    assert counts[0] == counts[1]


def test_keeping_nearly_everything_changes_nearly_nothing(images, test_set):
    before, after = (
        accuracy(model, test_set) for model in (onnx.load(LENET), prune(LENET, images, budget=Macs(0.95)).model)
    )
    assert after >= before - 0.01


def test_a_small_memory_spills_and_gives_the_same_bytes(few):
    ours = prune(RESNET, few, budget=Channels(0.5), resources=Resources(memory=1 << 20))
    theirs = prune(RESNET, few, budget=Channels(0.5))
    assert ours.model.SerializeToString() == theirs.model.SerializeToString()


def test_widths_are_rounded_and_have_a_floor(few):
    found = prune(
        RESNET,
        few,
        budget=Macs(0.5),
        round_to=8,
        min_width=8,
        allocator=MarginalCost(),
        resources=Resources(trials=0),
    )
    assert all(group.width[1] % 8 == 0 for group in found.report.groups)
    assert found.report.macs.ratio <= 0.5


def test_samples_leave_the_rest_for_the_fidelity(images):
    report = prune(LENET, images, budget=Channels(0.5), resources=Resources(samples=128)).report
    assert report.data["samples"] == 128
    assert report.fidelity.samples == 384


def test_one_sample_is_enough_to_run(images):
    assert prune(LENET, images[:1], budget=Channels(0.5), round_to=1).report.macs.ratio < 0.5


def test_sensitivity_falls_with_the_width(images):
    for item in sensitivity(LENET, images[:128]):
        dense = item.output.errors
        assert dense[0] > dense[-1] >= 0
        assert list(item.output.widths) == sorted(item.output.widths)


def test_a_generator_that_yields_nothing_is_a_data_error():
    with pytest.raises(DataError, match="no samples"):
        prune(LENET, iter([]))


def test_refits_are_judged_on_samples_that_they_did_not_see(images):
    report = prune(LENET, images, budget=Channels(0.5)).report
    for group in report.groups:
        for consumer in group.consumers:
            assert consumer.heldout_error <= consumer.plain_error + 1e-12
            assert consumer.fitted_error <= consumer.heldout_error * 1.05


def test_a_layer_with_too_many_inputs_for_its_moments_keeps_them_and_the_rest_is_pruned():
    rng = np.random.default_rng(0)
    w1, w2 = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 1, 3, 3), (4, 8, 3, 3)))
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> wide (float[N, 1, 60, 60] x) => (float[N, 2] y) {'
        "a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) b = Conv<pads = [1, 1, 1, 1]>(r, w2) s = Relu(b) f = Flatten(s) y = Gemm(f, w3) }"
    )
    w3 = rng.normal(size=(4 * 3600, 2)).astype(np.float32)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(w, n) for n, w in {"w1": w1, "w2": w2, "w3": w3}.items()
    )
    images = rng.normal(size=(8, 1, 60, 60)).astype(np.float32)
    found = prune(model, images, budget=Channels(0.5))
    assert [group.width[1] for group in found.report.groups] == [4]
    assert any("14,400 inputs" in pinned.reason for pinned in found.report.pinned)
    with pytest.raises(OptionError, match="14,400 inputs"):
        prune(model, images, budget=Channels(0.5), only=["w2"])


@pytest.mark.parametrize("scale", [1e25, 1e39], ids=["squares overflow", "infinite"])
@pytest.mark.parametrize("selector", [Forward(), Backward(), Refined()], ids=["forward", "backward", "refined"])
@pytest.mark.filterwarnings("error", "ignore:overflow encountered in cast")
def test_activations_that_are_not_numbers_are_refused(few, scale, selector):
    model = onnx.load(LENET)
    first = next(t for t in model.graph.initializer if len(t.dims) == 4)
    weight = onnx.numpy_helper.to_array(first).astype(np.float64) * scale
    first.CopyFrom(onnx.numpy_helper.from_array(weight.astype(np.float32), first.name))
    with pytest.raises(
        ModelError, match=r"infinite, not a number, or too large|weight .0.weight. .* holds (NaN|infinity)"
    ):
        prune(model, few, budget=Channels(0.5), selector=selector)


@pytest.mark.parametrize(
    ("samples", "width", "fixed", "expected"),
    [(900, 8, 300, 300), (512, 3072, None, 256), (256, 1 << 17, None, 32), (40, 8, None, 40)],
)
def test_fidelity_is_measured_on_whole_batches(samples, width, fixed, expected):
    array = np.broadcast_to(np.float32(0), (samples, width))
    judged = judged_of(Calibration(arrays={"x": array}, chunk=chunk_size(samples, fixed, 4 * width), fixed=fixed))
    assert judged.samples == expected
    assert not fixed or all(len(chunk["x"]) == fixed for chunk in judged.chunks())
