"""What runs of different sizes are fed: one array a run, such as sentences of any length, or graphs of any number of nodes."""

from collections.abc import Sequence

import numpy as np

from onnx_subprune._typing import Array


class Ragged:
    """The values of one input in several runs, of one type and number of axes, but of different sizes.

    Behaves like an array whose first axis counts runs, as far as some of them are taken: by a slice; what one is fed by `run`.
    """

    def __init__(self, values: Sequence[Array]) -> None:
        self.values = tuple(values)

    def __len__(self) -> int:
        return len(self.values)

    def run(self, number: int) -> Array:
        """Return what one run is fed."""
        return self.values[number]

    def __getitem__(self, which: slice) -> "Ragged":
        return Ragged(self.values[which])

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of runs, and the largest size of each axis."""
        return (len(self.values), *(max(sizes) for sizes in zip(*(value.shape for value in self.values), strict=True)))

    @property
    def ndim(self) -> int:
        """The number of axes, with the one that counts runs."""
        return 1 + self.values[0].ndim

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type of all values."""
        return self.values[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(value.nbytes for value in self.values)
