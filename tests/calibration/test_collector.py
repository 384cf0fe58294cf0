import numpy as np
import pytest

from onnx_subprune.calibration.collector import Collector
from onnx_subprune.calibration.contraction import CONVOLUTIONS, Contraction
from onnx_subprune.calibration.lags import LagPlan, usable
from onnx_subprune.calibration.moments import Moments
from onnx_subprune.calibration.routes import Lagging, Route, Unfolding
from onnx_subprune.calibration.unfold import rows, unfold
from onnx_subprune.calibration.windows import windows

from .cases import CASES, Case, Float32

FIELDS = ("gram", "cross", "energy", "sum_input", "sum_target")


def routes(contraction: Contraction, x: Float32) -> list[Route]:
    found: list[Route] = [Unfolding(contraction)]
    if contraction.kind in CONVOLUTIONS and usable(shape := windows(contraction, x.shape[2:])):
        found.append(Lagging(contraction, LagPlan(shape)))
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_route_gives_the_products_of_the_unfolded_input(case: Case) -> None:
    x, w, b = case.data()
    y, contraction = case.run(x, w, b), case.contraction
    B, T = (array.astype(np.float64) for array in (unfold(contraction, x), rows(contraction, y)))
    for route in routes(contraction, x):
        found = route.products(x, y, with_gram=True)
        assert found.count == B.shape[1]
        assert found.gram is not None
        np.testing.assert_allclose(route.gram(found.gram), np.einsum("gnp,gnq->gpq", B, B), atol=1e-4)
        np.testing.assert_allclose(found.cross, np.einsum("gnp,gnm->gpm", B, T), atol=1e-3)
        np.testing.assert_allclose(found.energy, (T**2).sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.sum_input, B.sum(axis=1), atol=1e-4)
        np.testing.assert_allclose(found.sum_target, T.sum(axis=1), atol=1e-3)
