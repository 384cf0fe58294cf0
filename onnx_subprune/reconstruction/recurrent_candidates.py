"""R and W of a recurrent layer while they are refitted, and what is fitted for the candidates of a GRU put into them."""

from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Mask
from onnx_subprune.reconstruction.fit import Fit
from onnx_subprune.reconstruction.recurrent_gates import together


@dataclass(frozen=True, slots=True, eq=False)
class GateWeights:
    """R, (d, p, m), and W, (1, p', d m), where that is fitted as well."""

    units: Fit
    data: Fit | None

    def with_data_candidates(self, found: Fit, rows: Mask) -> "GateWeights":
        """Return these with what was fitted for W alone, (d, p', m / 3), in the gates `rows`, (m,)."""
        assert self.data is not None, "W is fitted"
        each = np.tile(rows, len(self.units.weights))
        weights, bias = self.data.weights.copy(), self.data.bias
        weights[:, :, each] = together(found.weights)
        if bias is not None and found.bias is not None:
            bias = np.array(bias)
            bias[:, each] = found.bias.reshape(1, -1)
        return GateWeights(self.units, replace(self.data, weights=weights, bias=bias, refitted=True))

    def with_candidates(self, found: Fit, rows: Mask) -> "GateWeights":
        """Return these with what was fitted for R and, behind it, W, (d, p + p', m / 3); the bias is R's, but for what W's own adds."""
        assert self.data is not None, "W is fitted"
        count, each = self.units.weights.shape[1], np.tile(rows, len(self.units.weights))
        weights, inputs = self.units.weights.copy(), self.data.weights.copy()
        weights[:, :, rows] = found.weights[:, :count]
        inputs[:, :, each] = together(found.weights[:, count:])
        bias, own = self.units.bias, self.data.bias
        if bias is not None and own is not None and found.bias is not None:
            bias = np.array(bias)
            bias[:, rows] = found.bias - own.reshape(bias.shape)[:, rows]
        refitted = self.units.refitted or found.refitted
        return GateWeights(
            replace(self.units, weights=weights, bias=bias, refitted=refitted), replace(self.data, weights=inputs)
        )
