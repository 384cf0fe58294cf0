"""Cholesky factorizations beside which other threads run: SciPy's own functions (1.17) hold the interpreter as long as they take.

That is a sixth of the processor time of a prune of VGG-11 (64 samples).
The same LAPACK, by the addresses that SciPy gives to compiled code (`scipy.linalg.cython_lapack`); its own functions where these are not
what they are known to be. The module of addresses is loaded alone: all of `scipy.linalg` takes a tenth of a second, which is more than all
factorizations of a small network do. All matrices are symmetric, so that C order and Fortran order are the same matrix.
"""

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from onnx_subprune._typing import Float64

PART, LARGE = 128, 256
"""Columns of a right-hand side that are solved for at a time, where the matrix has so many rows."""
ADDRESSES = "scipy.linalg.cython_lapack"
NUMBERS = "__pyx_t_5scipy_6linalg_13cython_lapack_d *"
SIGNATURES = {
    "dpotrf": f"void (char *, int *, {NUMBERS}, int *, int *)",
    "dpotri": f"void (char *, int *, {NUMBERS}, int *, int *)",
    "dpotrs": f"void (char *, int *, int *, {NUMBERS}, int *, {NUMBERS}, int *, int *)",
}


def cholesky(matrix: Float64, *, overwrite: bool = False) -> Float64:
    """Return the lower factor, in Fortran order, with anything above its diagonal; LinAlgError if there is none.

    overwrite: `matrix`, in C order, may be lost.
    """
    factor = matrix.T if overwrite and matrix.flags.c_contiguous else np.array(matrix.T, np.float64, order="F")
    if len(factor) and (place := _call("dpotrf", factor)):
        raise np.linalg.LinAlgError(f"row {place} makes the matrix indefinite")
    return factor


def inverted(factor: Float64) -> Float64:
    """Return the lower triangle of the inverse in place of what `cholesky` returned."""
    if len(factor):
        _call("dpotri", factor)
    return factor


def solved(factor: Float64, right: Float64, threads: int = 1) -> Float64:
    """Return the solution X of A X = B, in Fortran order, for the factor of A and B (p, m).

    Many columns are solved for in parts, side by side with 2 or more `threads`; the parts do not depend on them.
    """
    found = np.array(right, np.float64, order="F")
    if not found.size:
        return found
    if right.shape[1] < 2 * PART or len(factor) < LARGE:
        _call("dpotrs", factor, found)
        return found
    parts = [found[:, start : start + PART] for start in range(0, right.shape[1], PART)]
    if threads < 2:
        for part in parts:
            _call("dpotrs", factor, part)
        return found
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda part: _call("dpotrs", factor, part), parts):
            pass
    return found


def _call(name: str, factor: Float64, right: Float64 | None = None) -> int:
    """Run a routine on arrays in Fortran order, in place; return what it says."""
    for array in (
        factor,
        factor if right is None else right,
    ):  # by their addresses: anything else would be written over
        assert array.dtype == np.float64, "LAPACK takes float64"
        assert array.flags.f_contiguous, "LAPACK takes Fortran order"
        assert len(array) == len(factor), "the rows do not match"
    routine = _ROUTINES[name]
    if routine is None:
        return _by_scipy(name, factor, right)
    size, info = ctypes.c_int(len(factor)), ctypes.c_int(0)
    order = ctypes.addressof(size)
    if right is None:
        routine(b"L", order, factor.ctypes.data, order, ctypes.addressof(info))
    else:
        count = ctypes.c_int(right.shape[1])
        sides = (factor.ctypes.data, order, right.ctypes.data, order)
        routine(b"L", order, ctypes.addressof(count), *sides, ctypes.addressof(info))
    return info.value


def _by_scipy(name: str, factor: Float64, right: Float64 | None) -> int:
    if right is not None:
        right[...], info = scipy.linalg.lapack.dpotrs(factor, right, lower=True)
    elif name == "dpotrf":
        factor[...], info = scipy.linalg.lapack.dpotrf(factor, lower=True, clean=False)
    else:
        factor[...], info = scipy.linalg.lapack.dpotri(factor, lower=True)
    return int(info)


def _capsules() -> dict[str, Any]:
    """What SciPy gives to compiled code, by name; whoever imports the module by itself afterwards finds it as ever."""
    if ADDRESSES in sys.modules:
        return getattr(sys.modules[ADDRESSES], "__pyx_capi__", {})
    try:
        folder = Path(scipy.__file__).with_name("linalg")
        spec = FileFinder(str(folder), (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(ADDRESSES)
        assert spec is not None, "SciPy is no folder of files"
        assert spec.loader is not None, "it is compiled"
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except (AssertionError, ImportError):
        module = import_module(ADDRESSES)
    else:
        sys.modules.pop(ADDRESSES, None)  # its package is not there yet
    return getattr(module, "__pyx_capi__", {})


def _routine(name: str, capsules: dict[str, Any]) -> Callable[..., None] | None:
    """The LAPACK routine of that name; None if SciPy does not give its address, or it takes other arguments."""
    capsule, signature = capsules.get(name), SIGNATURES[name].encode()
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    if capsule is None or name_of(capsule) != signature:
        return None
    arguments = [ctypes.c_void_p] * SIGNATURES[name].count("*")
    return ctypes.CFUNCTYPE(None, *arguments)(address_of(capsule, signature))


_CAPSULES = _capsules()
_ROUTINES = {name: _routine(name, _CAPSULES) for name in SIGNATURES}
