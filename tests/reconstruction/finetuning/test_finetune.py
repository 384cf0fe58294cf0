"""The loop on tiny networks: a student that is like the original but for noise finds back to it."""

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper, parser

from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.shifts import MIRRORED
from onnx_subprune.errors import OptionError
from onnx_subprune.graph.gradients.tape import NoGradientError
from onnx_subprune.graph.gradients.training import weight_in
from onnx_subprune.pruning.finetuning import with_weights
from onnx_subprune.reconstruction.finetuning.finetune import Tuning, finetuned, surely
from onnx_subprune.reconstruction.finetuning.goals import classified
from onnx_subprune.reconstruction.finetuning.settings import FineTune
from onnx_subprune.reconstruction.finetuning.teacher import Goal, Teacher
from onnx_subprune.runtime.progress import silent
from onnx_subprune.runtime.session import Runnable, Session

CONVS = """
<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2, 6, 6] image) => (float[n, 4] y) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w_6_2_3_3, b_6)
    r = Relu (a)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    y = Gemm (f, v_6_4, c_4)
}"""


def model_of(text: str, seed: int = 0) -> ModelProto:
    model = parser.parse_model(text)
    made = {name for node in model.graph.node for name in node.output} | {item.name for item in model.graph.input}
    rng = np.random.default_rng(seed)
    for name in dict.fromkeys(name for node in model.graph.node for name in node.input if name not in made):
        shape = [int(size) for size in name.split("_")[1:]]
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return model


def disturbed(model: ModelProto, by: float) -> ModelProto:
    found, rng = ModelProto(), np.random.default_rng(9)
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        value = numpy_helper.to_array(tensor)
        noise = (by * rng.standard_normal(value.shape)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value + noise, tensor.name))
    return found


def images(samples: int, seed: int) -> Calibration:
    array = np.random.default_rng(seed).standard_normal((samples, 2, 6, 6)).astype(np.float32)
    return Calibration(arrays={"image": array}, chunk=8)


def tuned(original: ModelProto, student: ModelProto, settings: FineTune, moved: tuple[str, ...] = ()):
    tuning = Tuning(Runnable(student), Runnable(original), images(40, 1), images(20, 2), moved, 1)
    return finetuned(tuning, settings, silent)


@pytest.mark.parametrize("moved", [(), ("image",)], ids=["as they are", "moved"])
def test_a_disturbed_model_finds_back_and_is_better_on_samples_that_nobody_saw(moved):
    original = model_of(CONVS)
    student = disturbed(original, 0.02)
    found, weights = tuned(original, student, FineTune(steps=200, batch=8), moved)
    assert found.kept
    assert found.loss[1] < found.loss[0] / 4
    other = ModelProto()
    other.CopyFrom(student)
    for tensor in other.graph.initializer:
        assert weights[tensor.name].shape == tuple(tensor.dims)
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    feeds = {"image": images(30, 3).all_of("image")}
    truth, before, after = (Session(item).run(feeds)["y"] for item in (original, student, other))
    assert np.linalg.norm(after - truth) < 0.6 * np.linalg.norm(before - truth)
    assert found.steps == 200
    assert found.backward_passes == 200
    assert found.moved == bool(moved)
    assert not found.labels


@pytest.mark.parametrize("symmetric", [True, False])
def test_images_are_mirrored_where_the_original_hardly_sees_it(symmetric):
    original = model_of(CONVS)
    for tensor in original.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim == 4:
            turned = (value + value[..., ::-1]) / 2 if symmetric else value
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), tensor.name))
    goals = [Goal("y", "y")]
    teacher = Teacher(Session(original), images(40, 1), goals, ("image",), 8)
    places, before = np.arange(8), teacher.moves
    teacher.mirror(places)
    assert (len(teacher.moves) > len(before)) == symmetric
    fed = teacher.feeds(places, MIRRORED)["image"]
    assert np.array_equal(fed, teacher.feeds(places)["image"][..., ::-1])
    still = Teacher(Session(original), images(40, 1), goals, (), 8)
    still.mirror(places)
    assert len(still.moves) == 1


def test_labels_pull_beside_what_the_original_says():
    """The original is wrong about half of the samples: with labels the student is right more often than without."""
    original = model_of(CONVS)
    truth = model_of(CONVS)
    for tensor in truth.graph.initializer:
        if tensor.name.startswith("c_"):
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32([0, 3, 0, 0]), tensor.name)
            )
    data = images(80, 1), images(40, 2)
    labels = tuple(Session(truth).run({"image": part.all_of("image")})["y"].argmax(axis=1) for part in data)
    right = []
    for told in (None, (labels[0], labels[1])):
        tuning = Tuning(Runnable(disturbed(original, 0.05)), Runnable(original), *data, (), 1, labels=told)
        _, weights = finetuned(tuning, FineTune(steps=300, batch=8), silent)
        tuned_model = with_weights(disturbed(original, 0.05), weights)
        feeds = {"image": images(200, 3).all_of("image")}
        chosen, wanted = (Session(item).run(feeds)["y"].argmax(axis=1) for item in (tuned_model, truth))
        right.append(float(np.mean(chosen == wanted)))
    assert right[1] > right[0]


@pytest.mark.parametrize("last", ["y = Sigmoid (z)", "y = Identity (z)", "y = Softmax <axis = -1> (z)"])
def test_labels_are_for_classes(last):
    model = model_of(CONVS.replace("y = Gemm (f, v_6_4, c_4)", f"z = Gemm (f, v_6_4, c_4) {last}"))
    shapes = {"y": np.zeros((8, 4), np.float32)}
    found = classified(model, shapes, [np.array([0, 3])])
    assert found == (Goal("y", "z", 1.0, labels=True) if "Softmax" in last else None)
    assert classified(model_of(CONVS), shapes, [np.array([0, 3])]) == Goal("y", "y", 1.0, labels=True)
    assert classified(model_of(CONVS), shapes, [np.array([0, 4])]) is None


def test_a_model_that_does_what_the_original_does_stays_as_it_is():
    original = model_of(CONVS)
    found, weights = tuned(original, original, FineTune(steps=25))
    assert not found.kept
    assert weights == {}
    assert found.loss[0] == found.loss[1] < 1e-9


def test_the_divergence_from_a_softmax_is_nothing_for_the_same_model_and_falls_for_others():
    text = CONVS.replace("y = Gemm (f, v_6_4, c_4)", "z = Gemm (f, v_6_4, c_4)  y = Softmax <axis = -1> (z)")
    original = model_of(text)
    same, _ = tuned(original, original, FineTune(steps=25))
    assert abs(same.loss[0]) < 1e-5
    found, _ = tuned(original, disturbed(original, 0.05), FineTune(steps=200, batch=8))
    assert found.loss[1] < found.loss[0] / 2


def test_the_same_seed_gives_the_same_weights():
    original = model_of(CONVS)
    runs = [tuned(original, disturbed(original, 0.05), FineTune(steps=30, seed=seed))[1] for seed in (1, 1, 2)]
    assert all(np.array_equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not np.array_equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_gains_of_single_samples_are_no_gains():
    few = np.zeros(64)
    few[:2] = 1.0, -0.5
    assert not surely(few)
    assert surely(np.linspace(-0.5, 1.0, 64))
    assert not surely(np.zeros(64))


def test_a_limit_of_time_is_kept_to():
    original = model_of(CONVS)
    told = []
    tuning = Tuning(Runnable(disturbed(original, 0.05)), Runnable(original), images(40, 1), images(20, 2), (), 1)
    found, _ = finetuned(tuning, FineTune(seconds=0.3), lambda *step: told.append(step))
    assert 0 < found.seconds < 3
    assert found.steps > 0
    assert told[-1] == ("fine-tuning", 1, 1)


def test_an_operator_without_gradient_is_named():
    original = model_of(CONVS.replace("y = Gemm (f, v_6_4, c_4)", "z = Gemm (f, v_6_4, c_4)  y = Celu (z)"))
    with pytest.raises(NoGradientError, match=r"y \(Celu\) has no gradient here"):
        tuned(original, original, FineTune(steps=5))


def test_weights_in_front_of_such_an_operator_stay_and_the_others_are_learned():
    original = model_of(CONVS.replace("r = Relu (a)", "r = Celu (a)"))
    found, weights = tuned(original, disturbed(original, 0.02), FineTune(steps=60, batch=8))
    assert set(weights) == {"v_6_4", "c_4"}
    assert found.left == 2
    assert found.because is not None
    assert "(Celu)" in found.because
    assert found.loss[1] < found.loss[0]


def test_weights_in_constants_are_learned_as_well():
    original = model_of(CONVS)
    student = disturbed(original, 0.05)
    held = [tensor for tensor in student.graph.initializer if tensor.name != "b_6"]
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in held]
    nodes = [*constants, *student.graph.node]
    other = ModelProto()
    other.CopyFrom(student)
    for repeated, values in ((other.graph.node, nodes), (other.graph.initializer, [student.graph.initializer[1]])):
        del repeated[:]
        repeated.extend(values)
    assert other.graph.initializer[0].name == "b_6"
    settings = FineTune(steps=30, batch=8)
    (_, first), (_, second) = (tuned(original, item, settings) for item in (student, other))
    assert first.keys() == second.keys()
    assert all(np.allclose(first[name], second[name], atol=1e-5) for name in first)
    written = with_weights(other, second)
    values = [tensor for node in written.graph.node if (tensor := weight_in(node)) is not None]
    for name, tensor in zip([tensor.name for tensor in held], values, strict=True):
        assert np.array_equal(numpy_helper.to_array(tensor), second[name])


def test_batches_are_smaller_where_memory_is():
    original = model_of(CONVS)
    data = [
        Tuning(Runnable(original), Runnable(original), images(40, 1), images(20, 2), (), 1, size) for size in (1, 10**9)
    ]
    batches = [finetuned(item, FineTune(steps=2, batch=16), silent)[0].batch for item in data]
    assert batches == [1, 16]


def test_a_fixed_batch_is_kept():
    text = CONVS.replace("n, ", "8, ")
    original = model_of(text)
    data = [Calibration(arrays={"image": images(count, count).all_of("image")}, chunk=8, fixed=8) for count in (40, 16)]
    tuning = Tuning(Runnable(disturbed(original, 0.05)), Runnable(original), *data, ("image",), 1)
    found, _ = finetuned(tuning, FineTune(steps=60), silent)
    assert found.batch == 8
    assert found.loss[1] < found.loss[0]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"seconds": 0.0}, {"batch": 0}, {"seconds": float("nan")}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError):
        FineTune(**wrong)
