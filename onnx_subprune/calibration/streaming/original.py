"""The model that the pruned one is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration.streaming.kept import Left
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Original:
    """rows: what is left of the outputs of weights, on their own axis.

    left: of tensors that are smaller in the pruned model. places: the position here for each position there; empty where they are the same.
    """

    network: Network
    left: Mapping[str, Left] = field(default_factory=dict)
    places: tuple[int, ...] = ()
    rows: Mapping[Use, NDArray[np.int64]] = field(default_factory=dict)

    def place(self, position: int) -> int:
        """Return where the original is when the pruned model is at `position`."""
        return self.places[position] if self.places else position
