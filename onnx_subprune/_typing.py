"""The arrays that functions take and return."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
"""Of whatever type a model's tensor has."""

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
Weights = NDArray[np.float64] | NDArray[np.float32]
"""Of a contraction as a matrix, (groups, columns, outputs); float32 where a copy would be too large."""
