import math

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_subprune.calibration.moments.accumulator import Collector
from onnx_subprune.calibration.moments.lags import LagPlan, usable
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.products import Lagging, Route, Unfolding, route
from onnx_subprune.calibration.moments.unfold import at, output_positions, rows, sample_positions, unfold
from onnx_subprune.graph.contractions.convolution import Convolution, Window
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.selection.linalg.summation import AT_WORK, CompensatedSum
from tests.calibration.moments.cases import CASES, Case, Float32

FIELDS = ("gram", "cross", "energy", "sum_input", "sum_target")


def routes(contraction: Kernel, x: Float32) -> list[Route]:
    found: list[Route] = [Unfolding(contraction)]
    if isinstance(contraction, Convolution) and usable(shape := contraction.windows(x.shape[2:])):
        found.append(Lagging(contraction, LagPlan(shape)))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_route_gives_the_products_of_the_unfolded_input(case: Case) -> None:
    x, w, b = case.data()
    y, contraction = case.run(x, w, b), case.contraction
    B, T = (array.astype(np.float64) for array in (unfold(contraction, x), rows(contraction, y)))
    for way in routes(contraction, x):
        found = way.products(x, y, with_gram=True)
        assert found.count == B.shape[1]
        assert found.gram is not None
        np.testing.assert_allclose(
            way.gram(found.gram, B.shape[2]), np.einsum("gnp,gnq->gpq", B, B), rtol=1e-6, atol=1e-4
        )
        np.testing.assert_allclose(found.cross, np.einsum("gnp,gnm->gpm", B, T), atol=1e-3)
        np.testing.assert_allclose(found.energy, (T**2).sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.sum_input, B.sum(axis=1), atol=1e-4)
        np.testing.assert_allclose(found.sum_target, T.sum(axis=1), atol=1e-3)


@pytest.mark.parametrize(
    "case",
    [Case("Conv", (24, 4, 30, 30), (5, 4, 3, 3), {"pads": [1, 1, 1, 1]}), Case("Gemm", (20000, 6), (6, 5))],
    ids=str,
)
def test_blocks_worked_on_side_by_side_give_the_same_bytes(case: Case) -> None:
    x, w, b = case.data()
    y, contraction = case.run(x, w, b), case.contraction
    for way in routes(contraction, x):
        alone, both = (way.products(x, y, with_gram=True, threads=threads) for threads in (1, 2))
        assert alone.count == both.count
        for name in FIELDS:
            assert getattr(alone, name).tobytes() == getattr(both, name).tobytes()
            assert name == "sum_input" or getattr(alone, name).dtype == np.float64  # of several blocks


def collected(contraction: Kernel, x: Float32, y: Float32, order: list[int], size: int = 2) -> Moments:
    collector = Collector(contraction)
    for chunk in order:
        part = slice(chunk * size, (chunk + 1) * size)
        collector.add(x[part], y[part])
    return collector.moments()


SOME = [
    Case("Conv", (12, 4, 8, 7), (5, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (12, 6, 9, 7), (6, 1, 3, 3), {"pads": [1, 1, 1, 1], "group": 6}),
    Case("Conv", (12, 4, 8, 7), (5, 4, 3, 3), {"strides": [2, 2]}),
    Case("Conv", (12, 4, 30, 20), (5, 4, 1, 1)),
    Case("ConvTranspose", (12, 4, 4, 5), (4, 3, 3, 3), {"strides": [2, 2]}),
    Case("Gemm", (12, 6), (6, 5)),
]


@pytest.mark.parametrize("case", SOME, ids=str)
def test_the_order_of_chunks_and_their_split_over_shards_do_not_change_a_byte(case: Case) -> None:
    x, w, b = case.data()
    x = x * np.exp(3 * np.random.default_rng(1).standard_normal((len(x), *(1,) * (x.ndim - 1)))).astype(np.float32)
    y = case.run(x, w, b)
    wanted = collected(case.contraction, x, y, [0, 1, 2, 3, 4, 5])
    left, right = Collector(case.contraction), Collector(case.contraction)
    for chunk in (4, 0, 3):
        left.add(x[2 * chunk : 2 * chunk + 2], y[2 * chunk : 2 * chunk + 2])
    for chunk in (5, 1, 2):
        right.add(x[2 * chunk : 2 * chunk + 2], y[2 * chunk : 2 * chunk + 2])
    left = Collector.restore(case.contraction, left.state())
    left.merge(right)
    for found in (left.moments(), collected(case.contraction, x, y, [3, 5, 1, 0, 4, 2])):
        assert found.count == wanted.count
        for name in FIELDS:
            assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes()


@pytest.mark.parametrize("case", SOME, ids=str)
def test_moments_of_disjoint_data_add_up_to_those_of_the_union(case: Case) -> None:
    x, w, b = case.data()
    y = case.run(x, w, b)
    whole, parts = (
        collected(case.contraction, x, y, [0], size=12),
        collected(case.contraction, x, y, [0], size=5) + collected(case.contraction, x[5:], y[5:], [0], size=7),
    )
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(parts, name), getattr(whole, name), atol=1e-4 * np.abs(getattr(whole, name)).max()
        )


@pytest.mark.parametrize("case", SOME, ids=str)
def test_the_error_of_float32_products_stays_below_its_bound(case: Case) -> None:
    x, w, b = case.data()
    x += 3.0  # a mean, so that nothing cancels
    y = case.run(x, w, b)
    B, T = (array.astype(np.float64) for array in (unfold(case.contraction, x), rows(case.contraction, y)))
    found = collected(case.contraction, x, y, list(range(6)))
    bound = (
        32 * np.finfo(np.float32).eps
    )  # blocks of 4096 rows, summed by tens inside of BLAS; the worst case is 4096 eps
    for name, left, right in (("gram", B, B), ("cross", B, T)):
        exact = np.einsum("gnp,gnq->gpq", left, right)
        size = np.einsum("gnp,gnq->gpq", np.abs(left), np.abs(right))
        assert np.all(np.abs(getattr(found, name) - exact) <= bound * size + 1e-30)


def test_a_new_target_is_collected_without_the_gram_and_positions_restrict_rows() -> None:
    case = SOME[0]
    x, w, b = case.data()
    y = case.run(x, w, b)
    positions = sample_positions(56, 20, np.random.default_rng(0))
    assert positions is not None
    assert sample_positions(56, 56, np.random.default_rng(0)) is None
    assert output_positions(case.contraction, x.shape) == 56
    whole, again = (
        Collector(case.contraction, sampled=True),
        Collector(case.contraction, with_gram=False, sampled=True),
    )
    whole.add(x, at(y, positions), positions)
    again.add(x, at(y, positions), positions)
    chosen = (np.arange(12)[:, None] * 56 + positions).ravel()
    B, T = (array[0].astype(np.float64)[chosen] for array in (unfold(case.contraction, x), rows(case.contraction, y)))
    found = whole.moments()
    assert found.count == len(chosen)
    np.testing.assert_allclose(found.gram[0], B.T @ B, atol=1e-3)
    np.testing.assert_allclose(found.cross[0], B.T @ T, atol=1e-3)
    np.testing.assert_allclose(found.sum_input[0], B.sum(axis=0), atol=1e-3)
    assert again.moments().cross.tobytes() == found.cross.tobytes()
    assert again.moments().gram.shape == (found.gram.shape[0], 0, 0)


def test_a_compensated_sum_does_not_depend_on_the_order_of_its_summands() -> None:
    generator = np.random.default_rng(0)
    size = np.exp(4 * generator.standard_normal((40, 1)))
    values = (generator.standard_normal((40, 20_000)) * size).astype(np.float32)
    values[20:] = -values[:20]  # all but everything cancels
    values[0] += 1e-3
    sums = []
    for order in (np.arange(40), np.arange(40)[::-1], generator.permutation(40)):
        one = CompensatedSum()
        for value in values[order]:
            one.add(value)
        sums.append(one.total())
    assert sums[0].tobytes() == sums[1].tobytes() == sums[2].tobytes()
    exact = [math.fsum(column) for column in values[:, :50].T.tolist()]
    np.testing.assert_array_equal(sums[0][:50], exact)


SUMMANDS = {
    "alike": lambda generator, shape: generator.uniform(1.0, 100.0, shape),
    "of all sizes": lambda generator, shape: (
        generator.standard_normal(shape) * np.exp(12 * generator.standard_normal(shape))
    ),
    "mostly zeros": lambda generator, shape: generator.standard_normal(shape) * (generator.uniform(size=shape) < 1e-3),
    "zeros": lambda generator, shape: np.zeros(shape) * generator.choice([-1.0, 1.0], shape),
    "denormal": lambda generator, shape: 1e-44 * generator.integers(-3, 4, shape),
    "growing": lambda generator, shape: 4.0 ** np.arange(shape[0])[:, None] * generator.uniform(1.0, 2.0, shape),
    "one infinite": lambda generator, shape: np.where(np.arange(shape[1]) == 7, np.inf, generator.uniform(size=shape)),
}


@pytest.mark.parametrize("size", [0, 1, 2 * AT_WORK + 5])
@pytest.mark.parametrize("kind", SUMMANDS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_merged_sums_have_the_bits_of_sums_of_all(kind: str, size: int) -> None:
    generator = np.random.default_rng(size)
    values = SUMMANDS[kind](generator, (20, max(size, 8)))[:, :size].astype(np.float32)
    whole, parts = CompensatedSum(), [CompensatedSum() for _ in range(4)]
    for number, value in enumerate(values[:18]):
        whole.add(value)
        parts[number // 6].add(value)
    *others, merged = parts  # the last is empty
    merged.merge(CompensatedSum())
    for part in others:
        merged.merge(part)
    for value in values[18:]:
        whole.add(value)
        merged.add(value)
    assert whole.total().tobytes() == merged.total().tobytes()
    assert others[0].total().tobytes() == sum_of(values[:6]).tobytes()  # as it was


def sum_of(values: Float32) -> NDArray[np.float64]:
    found = CompensatedSum()
    for value in values:
        found.add(value)
    return found.total()


def test_lags_are_chosen_where_they_pay() -> None:
    same = Case("Conv", (1, 64, 56, 56), (64, 64, 3, 3), {"pads": [1, 1, 1, 1]}).contraction
    strided = Case("Conv", (1, 64, 56, 56), (64, 64, 3, 3), {"strides": [2, 2]}).contraction
    assert isinstance(route(same, (1, 64, 56, 56)), Lagging)
    assert isinstance(route(strided, (1, 64, 56, 56)), Unfolding)


@pytest.mark.parametrize("case", [SOME[1], SOME[2], SOME[4]], ids=str)
def test_sampled_positions_are_rows_of_the_unfolded_input(case: Case) -> None:
    x, *_ = case.data()
    total = output_positions(case.contraction, x.shape)
    positions = sample_positions(total, total // 3, np.random.default_rng(1))
    assert positions is not None
    whole = unfold(case.contraction, x)
    chosen = (np.arange(len(x))[:, None] * total + positions).ravel()
    np.testing.assert_array_equal(unfold(case.contraction, x, positions), whole[:, chosen])


def test_each_strip_beside_a_long_kernel_costs_the_pixels_that_a_smaller_one_has_not():
    kernel = next(case for case in CASES if case.weight == (4, 3, 17)).contraction
    plan = LagPlan(kernel.windows((30,)))
    strips = [step for step in plan.steps if plan.boxes[step.box].intervals != (None,)]
    assert len(strips) > 50
    assert {plan.pixels(step.intervals) for step in strips} == {1}
    places = [step.box for step in plan.steps]
    assert all(step.onto is None or step.onto in places[:at] for at, step in enumerate(plan.steps))


@pytest.mark.parametrize(("sizes", "taps", "channels"), [((9,), 5, 35), ((6, 7), 3, 4), ((4,), 9, 2)])
def test_a_gram_of_lags_is_the_signed_sum_of_its_products_whatever_strip_it_lies_in(sizes, taps, channels) -> None:
    offsets = tuple(range(-(taps // 2), taps - taps // 2))
    windows = tuple(Window(size=size, input_dilation=1, out=size, step=1, offsets=offsets) for size in sizes)
    plan = LagPlan(windows)
    parts = np.random.default_rng(0).standard_normal((len(plan.boxes), 2, channels, channels))
    everywhere = [not any(box.lag) and set(box.intervals) == {None} for box in plan.boxes]
    parts[everywhere] += 1e3 * np.eye(channels)  # no column is nothing but rounding
    count = len(plan.taps)
    gram = plan.gram(parts).reshape(2, channels, count, channels, count)
    for (i, j), terms in plan._planned[1].items():
        found = np.zeros((2, channels, channels))
        for sign, box in terms:
            found += sign * parts[box]
        np.testing.assert_array_equal(gram[:, :, i, :, j], found)
        if i != j:
            np.testing.assert_array_equal(gram[:, :, j, :, i], found.transpose(0, 2, 1))
