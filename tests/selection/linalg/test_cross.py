"""What is kept of C in an elimination is what eliminating it in full gives."""

import numpy as np
import pytest

from onnx_subprune.selection.linalg.cross import Cross


@pytest.mark.parametrize("block", [1, 3])
def test_the_cross_is_worth_what_it_is_after_every_update(block):
    generator = np.random.default_rng(0)
    channels, targets, steps = 60, 7, 45
    full = generator.standard_normal((channels * block, targets))
    cross = Cross(full.copy(), block)
    for step in range(steps):
        own = slice(step * block, (step + 1) * block)
        root, update = generator.standard_normal((block, block)), generator.standard_normal((block, len(full))) / 3
        full -= update.T @ (root.T @ full[own])
        full[own] = 0.0
        cross.eliminate(own, root, update)
        np.testing.assert_allclose(cross.outer(), products(full, block), rtol=1e-9, atol=1e-9 * np.sum(full**2))
    cross.shrink(np.arange(steps * block, channels * block))
    np.testing.assert_allclose(cross.outer(), products(full[steps * block :], block), rtol=1e-9)


def products(matrix, block):
    """C_I C_I' of every channel."""
    blocks = matrix.reshape(-1, block, matrix.shape[1])
    return blocks @ blocks.transpose(0, 2, 1)


@pytest.mark.parametrize("block", [1, 2])
def test_energies_that_fall_by_cancellation_keep_their_digits(block):
    generator = np.random.default_rng(1)
    direction = generator.standard_normal(5)
    full = np.outer(np.arange(1.0, 9.0), direction) + 1e-6 * generator.standard_normal((8, 5))
    cross = Cross(full.copy(), block)
    root, update = np.eye(block)[:, :1], np.arange(1.0, 9.0)[None]
    full -= update.T @ full[:1]
    full[:block] = 0.0
    cross.eliminate(slice(0, block), root, update)
    np.testing.assert_allclose(cross.outer(), products(full, block), rtol=1e-9, atol=1e-21)
