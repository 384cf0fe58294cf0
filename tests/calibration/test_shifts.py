"""Images moved by a pixel: which inputs are images, where copies go, and when they are made unasked."""

import numpy as np
import pytest

from onnx_subprune import Channels, Params, Resources, prune, sensitivity
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.shifts import MIRRORED, MOVES, Copies, alike, few_samples, moved, shifted
from onnx_subprune.calibration.shifts import images as images_of
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.trials import trials_of
from tests.conftest import MODELS
from tests.networks.net import Net

LENET, DENSE, RESNET = (MODELS / f"{name}_fashion.onnx" for name in ("lenet", "lenet_300_100", "resnet"))


def of(samples, chunk):
    x = np.arange(samples * 12, dtype=np.float32).reshape(samples, 1, 3, 4)
    return Calibration(arrays={"image": x, "other": np.arange(samples)[:, None]}, chunk=chunk)


def test_a_move_repeats_the_border():
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    assert moved(x, 0, 1).tolist() == [[[[0, 0, 1], [3, 3, 4]]]]
    assert moved(x, -1, 0).tolist() == [[[[3, 4, 5], [3, 4, 5]]]]
    assert np.array_equal(moved(x, 0, 0), x)


@pytest.mark.parametrize(("samples", "even"), [(8, 8), (10, 8), (14, 12), (3, 0)])
def test_a_copy_lies_in_the_same_half_as_its_original(samples, even):
    data = of(samples, 2)
    found = shifted(data, ("image",))
    assert found.samples == samples + even * len(MOVES)
    halves = {}
    for number, chunk in enumerate(found.chunks()):
        for origin in chunk["other"].ravel():
            halves.setdefault(int(origin), set()).add(number % 2)
    assert all(len(half) == 1 for half in halves.values())


def test_other_inputs_go_along_unmoved():
    data = of(4, 2)
    found = shifted(data, ("image",))
    for copy, move in enumerate(MOVES, 1):
        rows = slice(4 * copy, 4 * copy + 4)
        assert np.array_equal(found.arrays["other"][rows], data.arrays["other"])
        assert np.array_equal(found.arrays["image"][rows], moved(data.arrays["image"], *move))


def test_what_convolutions_read_are_images():
    assert images_of(load(LENET)) == ("input",)
    assert images_of(load(RESNET)) == ("input",)
    assert images_of(load(DENSE)) == ()


def test_images_may_be_padded_first_and_asked_for_their_size():
    n = Net()
    x = n.input(["N", 3, 8, 8])
    n.output(n("Shape", x), kind=7)
    n.output(n.conv(n("Pad", x, n.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1]))), 4, 3))
    assert images_of(load(n.model())) == ("x",)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_input_that_something_else_reads_is_none(elsewhere):
    n = Net()
    x = n.input(["N", 3, 8, 8])
    y = n.conv(n("Relu", n("Mul", x, n.constant(np.float32(2)))), 4, 3)
    y = n("Add", n("ReduceMean", y), n("ReduceMean", x)) if elsewhere else y
    n.output(y)
    assert images_of(load(n.model())) == (() if elsewhere else ("x",))


def test_copies_are_made_where_samples_are_few_and_a_pass_is_short(images):
    data = Calibration(arrays={"input": images[:128]}, chunk=32)
    for path, expected in ((LENET, 5 * 128), (RESNET, 128), (DENSE, 128)):
        network = load(path)
        graph = trace(network)
        assert Copies(network, graph, 1e6, None, never)(data).samples == expected, path.name
        assert Copies(network, graph, 1e9, None, never)(data).samples == 128
        assert Copies(network, graph, 1e6, False, never)(data).samples == 128
    network = load(RESNET)
    assert Copies(network, trace(network), 1e9, True, never)(data).samples == 5 * 128


def never(names):
    return False


def test_mirrored_copies_are_made_of_large_images_where_the_model_hardly_sees_them():
    """The second layer has 128 x 64 rows, but those of one image are like each other."""
    pictures = np.random.default_rng(0).normal(size=(128, 3, 64, 64)).astype(np.float32)
    n = Net()
    x = n.relu(n.conv(n.input(["N", 3, 64, 64], "input"), 64, 3, stride=8))
    n.output(n.conv(x, 64, 3), 4)
    network = load(n.model())
    graph, data = trace(network), Calibration(arrays={"input": pictures}, chunk=32)
    for answer, expected in ((True, 256), (False, 128)):
        copies = Copies(network, graph, 1e8, None, lambda names, answer=answer: answer and names == ("input",))
        assert copies(data).samples == expected
        assert copies.moves == ((MIRRORED,) if answer else ())
        assert copies(data.take(64)).samples == expected // 2
    turned = Copies(network, graph, 1e8, None, lambda names: True)(data).all_of("input")[128:]
    assert np.array_equal(turned, pictures[..., ::-1])
    assert Copies(network, graph, 1e10, None, lambda names: True)(data).samples == 128
    small = Calibration(arrays={"input": np.ascontiguousarray(pictures[:, :, :32])}, chunk=32)
    assert Copies(network, graph, 1e8, None, lambda names: True)(small).samples == 128
    assert few_samples(network, graph, 128, 2, alike=True)
    assert not few_samples(network, graph, 5_000, 2, alike=True)


def test_outputs_are_alike_that_differ_by_less_than_a_quarter_of_what_they_vary_by():
    seen = np.random.default_rng(0).normal(size=(400, 3))
    noise = np.random.default_rng(1).normal(size=(400, 3))
    assert alike([seen], [seen + 0.4 * noise])
    assert not alike([seen, seen], [seen, seen + 0.6 * noise])
    assert not alike([seen], [seen[:7]])
    number = np.float32(3.0)
    assert alike([seen, number], [seen, number])
    assert not alike([seen, number], [seen, number + 1])


def test_enough_samples_need_no_copies():
    network = load(LENET)
    graph = trace(network)
    assert few_samples(network, graph, 512, 5)
    assert not few_samples(network, graph, 20_000, 5)


def test_pruning_says_whether_it_moved_images(images):
    few = images[:64]
    with_copies = prune(LENET, few, budget=Channels(0.5), resources=Resources(shifts=True))
    without = prune(LENET, few, budget=Channels(0.5), resources=Resources(shifts=False))
    assert with_copies.report.settings["shifts"] is True
    assert without.report.settings["shifts"] is False
    assert with_copies.report.data == without.report.data
    assert with_copies.model.SerializeToString() != without.model.SerializeToString()


def test_samples_that_the_trials_judge_by_are_not_fitted():
    data = of(256, 32)
    trials = trials_of(data, 1.0, 4, fraction=0.5, layers=(), most=6, augment=lambda part: shifted(part, ("image",)))
    fitted, judged = (set(part.arrays["other"].ravel().tolist()) for part in (trials.fitted, trials.judged))
    assert fitted | judged == set(range(256))
    assert not fitted & judged
    assert (trials.most, trials.cheap) == (6, True)


@pytest.mark.parametrize(
    ("samples", "macs", "groups", "layers", "fraction", "expected", "streams"),
    [
        (512, 1e5, 12, (), 0.5, 24, False),
        (512, 1e5, 13, (), 0.5, 4, False),
        (512, 1e8, 4, (), 0.5, 0, False),
        (512, 1e8, 13, (), 0.5, 4, False),
        (223, 1e5, 4, (), 0.5, 0, False),
        (512, 1e5, 12, 8 * (64,), 0.7, 0, False),
        (512, 1e5, 12, 8 * (64,), 0.4, 2, False),
        (512, 1e5, 12, 8 * (64,), 0.1, 12, False),
        (512, 1e5, 12, (4000,), 0.7, 0, False),
        (512, 1e5, 12, (), 0.5, 24, True),
        (512, 1e8, 4, (), 0.5, 4, True),
        (56, 1e5, 12, (), 0.5, 4, True),
        (23, 1e5, 12, (), 0.5, 0, True),
        (56, 1e5, 12, 99 * (64,), 0.5, 0, True),
        (512, 1e5, 13, 99 * (64,), 0.5, 2, True),
    ],
)
def test_widths_are_tried_unasked_where_that_is_quick_and_tells_something(
    samples, macs, groups, layers, fraction, expected, streams
):
    trials = trials_of(
        of(samples, 32),
        macs,
        groups,
        streams=streams,
        fraction=fraction,
        layers=layers,
        most=None,
        augment=lambda part: part,
    )
    assert (trials.most if trials else 0) == expected


def test_trials_find_widths_within_the_budget(images):
    tried = prune(LENET, images[:64], budget=Params(0.4), resources=Resources(trials=4))
    assert tried.report.params.after <= 0.4 * tried.report.params.before


def test_sensitivities_are_those_of_the_same_samples(images):
    with_copies, without = (sensitivity(LENET, images[:32], resources=Resources(shifts=s)) for s in (True, False))
    assert [a.output.errors for a in with_copies] != [b.output.errors for b in without]
