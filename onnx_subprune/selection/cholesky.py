"""Cholesky factorizations beside which other threads run: SciPy's own functions hold the interpreter as long as they take.

The same LAPACK, by the addresses that SciPy gives to compiled code (`scipy.linalg.cython_lapack`); its own functions where these are not
what they are known to be. All matrices are symmetric, so that C order and Fortran order are the same matrix.
"""

import ctypes
from collections.abc import Callable

import numpy as np
import scipy.linalg.lapack
from numpy.typing import NDArray
from scipy.linalg import cython_lapack

Array = NDArray[np.float64]
Routine = Callable[[Array], int]
"""Changes a matrix in Fortran order in place, its lower triangle; returns what LAPACK says."""

NUMBER = "__pyx_t_5scipy_6linalg_13cython_lapack_d"
SIGNATURE = f"void (char *, int *, {NUMBER} *, int *, int *)"


def cholesky(matrix: Array, *, overwrite: bool = False) -> Array:
    """Return the lower factor, in Fortran order, with anything above its diagonal; LinAlgError if there is none.

    overwrite: `matrix`, in C order, may be lost.
    """
    factor = matrix.T if overwrite and matrix.flags.c_contiguous else np.array(matrix.T, np.float64, order="F")
    if len(factor) and (place := _potrf(factor)):
        raise np.linalg.LinAlgError(f"row {place} makes the matrix indefinite")
    return factor


def inverted(factor: Array) -> Array:
    """Return the lower triangle of the inverse in place of what `cholesky` returned."""
    if len(factor):
        _potri(factor)
    return factor


def _routine(name: str, otherwise: Routine) -> Routine:
    """The LAPACK routine that takes uplo, n, a, lda and info."""
    capsule = getattr(cython_lapack, "__pyx_capi__", {}).get(name)
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    if capsule is None or name_of(capsule) != SIGNATURE.encode():
        return otherwise
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)(address_of(capsule, name_of(capsule)))

    def run(matrix: Array) -> int:
        size, info = ctypes.c_int(len(matrix)), ctypes.c_int(0)
        call(b"L", ctypes.addressof(size), matrix.ctypes.data, ctypes.addressof(size), ctypes.addressof(info))
        return info.value

    return run


def _scipy_potrf(matrix: Array) -> int:
    found, info = scipy.linalg.lapack.dpotrf(matrix, lower=True, clean=False, overwrite_a=True)
    matrix[...] = found
    return int(info)


def _scipy_potri(matrix: Array) -> int:
    found, info = scipy.linalg.lapack.dpotri(matrix, lower=True, overwrite_c=True)
    matrix[...] = found
    return int(info)


_potrf, _potri = _routine("dpotrf", _scipy_potrf), _routine("dpotri", _scipy_potri)
