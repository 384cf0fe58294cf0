"""Factorizations in place, by LAPACK's own addresses or by SciPy's functions."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onnx_subprune.selection.linalg import lapack as module
from onnx_subprune.selection.linalg.lapack import cholesky, inverted, solved


def gram(size: int) -> np.ndarray:
    rows = np.random.default_rng(size).standard_normal((2 * size + 1, size))
    return rows.T @ rows


@pytest.fixture(params=["addresses", "functions"])
def way(request, monkeypatch):
    if request.param == "functions":
        monkeypatch.setattr(module, "_ROUTINES", dict.fromkeys(module.SIGNATURES))
    else:
        assert all(module._ROUTINES.values()), "SciPy's addresses have changed"


@pytest.mark.parametrize("size", [0, 1, 7, 200])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_factor_and_the_inverse_are_those_of_the_matrix(way, size, overwrite):
    matrix = gram(size)
    given = matrix.copy()
    factor = cholesky(given, overwrite=overwrite)
    lower = np.tril(factor)
    np.testing.assert_allclose(lower @ lower.T, matrix, atol=1e-9 * max(size, 1))
    if not overwrite:
        np.testing.assert_array_equal(given, matrix)
    inverse = np.tril(inverted(factor))
    np.testing.assert_allclose(inverse + np.tril(inverse, -1).T, np.linalg.inv(matrix), atol=1e-9)


def test_an_indefinite_matrix_has_no_factor(way):
    matrix = gram(5)
    matrix[3, 3] = -1.0
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(matrix)


def test_factors_side_by_side_are_those_one_after_the_other():
    matrices = [gram(size) for size in (90, 120, 150, 180)]
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(cholesky, matrices)]
    for factor, matrix in zip(found, matrices, strict=True):
        np.testing.assert_array_equal(np.tril(factor), np.tril(cholesky(matrix)))


@pytest.mark.parametrize(("size", "count"), [(0, 3), (5, 0), (40, 3), (300, 600), (300, 130)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_solutions_solve_and_do_not_depend_on_the_threads(way, size, count, order):
    matrix, right = gram(size), np.random.default_rng(1).standard_normal((size, count))
    given = np.array(right, order=order)
    found = [solved(cholesky(matrix), given, threads) for threads in (1, 2, 3)]
    np.testing.assert_allclose(matrix @ found[0], right, atol=1e-8)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(given, right)


def test_a_routine_that_is_not_as_expected_is_left_to_scipy(monkeypatch):
    monkeypatch.setitem(module.SIGNATURES, "dpotrf", "void (char *, long *)")
    monkeypatch.setitem(module.SIGNATURES, "dzzzzz", "void (char *, long *)")
    assert module._routine("dpotrf", module._CAPSULES) is None
    assert module._routine("dzzzzz", module._CAPSULES) is None


def test_without_its_file_the_addresses_come_from_the_package(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, module.ADDRESSES, raising=False)
    monkeypatch.setattr(module.scipy, "__file__", str(tmp_path / "__init__.py"))
    assert set(module.SIGNATURES) <= set(module._capsules())


def test_all_of_scipy_is_not_loaded_for_three_routines_and_is_whole_afterwards():
    script = (
        "import sys, onnx_subprune.cli, onnx_subprune.selection.linalg.lapack as ours\n"
        "assert 'scipy.linalg' not in sys.modules and 'scipy.sparse' not in sys.modules\n"
        "import scipy.linalg.cython_lapack\n"
        "assert set(ours.SIGNATURES) <= set(scipy.linalg.cython_lapack.__pyx_capi__)\n"
        "assert all(ours._ROUTINES.values()) and scipy.linalg.inv([[2.0]]) == 0.5\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
