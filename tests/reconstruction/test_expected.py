"""What the errors of two halves say of samples that were not seen, and of more of them."""

import numpy as np
import pytest

from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.reconstruction.fit import fit
from onnx_subprune.reconstruction.settings import Refitted
from tests.reconstruction.test_fit import moments_of

COLUMNS, TARGETS, HIDDEN = 24, 40, 32


def world(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that say some of what the targets hang on."""
    mixed, made = (
        np.random.default_rng(place).standard_normal(shape)
        for place, shape in ((0, (HIDDEN, COLUMNS)), (1, (HIDDEN, TARGETS)))
    )
    hidden = np.random.default_rng(seed).standard_normal((samples, HIDDEN))
    return hidden @ mixed, hidden @ made


def fitted(samples: int) -> tuple[Refitted, float]:
    """A fit, and its error on a great many other samples."""
    halves = Halves.of([moments_of(*world(samples // 2, seed)) for seed in (2, 3)])
    prior = np.zeros((1, COLUMNS, TARGETS))
    found = fit(halves, prior, np.ones(COLUMNS, bool), free_bias=False, strengths=(1e-9,))
    told = Refitted(
        node="layer",
        fitted_error=found.fitted_error,
        heldout_error=found.heldout_error,
        plain_error=found.plain_error,
        refitted=found.refitted,
        rows=samples,
        columns=COLUMNS,
    )
    return told, moments_of(*world(20000, 4)).error(found.weights)


@pytest.mark.parametrize("samples", [128, 256, 512])
def test_the_error_on_others_is_foretold_and_that_with_twice_as_many(samples):
    (told, true), (_, later) = fitted(samples), fitted(2 * samples)
    assert told.expected_error == pytest.approx(true, rel=0.1)
    assert told.expected_with_twice == pytest.approx(later, rel=0.1)
    assert told.heldout_error > true > told.fitted_error
