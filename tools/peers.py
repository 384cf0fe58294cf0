"""Rows of other tools, where they are installed: `pip install onnx-subprune[bench]`, and PyTorch for Torch-Pruning.

Both take a share of channels to remove; for a budget in multiply-accumulates or parameters the share is searched, so that the
result is the largest below the budget. Neither fine-tunes here. What they cannot do (leave layers alone, reach a budget) is an error.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import Channels, Params
from onnx_subprune.graph.costs.costs import costs
from onnx_subprune.graph.costs.count import parameters
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tools.rows import Arrays, Budget, Case, Outcome, Row, outcome, scorer_of

if TYPE_CHECKING:
    from tools.torch_module import Module

GRID = tuple(share / 20 for share in range(1, 20))
ROUNDS = 8
CALIBRATION_BATCH = 32


def peers() -> dict[str, Row]:
    """Return the rows of the tools that are installed."""
    rows: dict[str, Row] = {}
    if importlib.util.find_spec("onnxsim"):
        rows["onnxsim, L2 norm"] = Onnxsim(wanda=False)
        rows["onnxsim, wanda"] = Onnxsim(wanda=True)
    if importlib.util.find_spec("torch_pruning") and importlib.util.find_spec("torch"):
        rows["Torch-Pruning, L2 norm by group"] = TorchPruning(across=False)
        rows["Torch-Pruning, L2 norm, global"] = TorchPruning(across=True)
    return rows


@dataclass(frozen=True)
class Priced:
    """A pruned model with its multiply-accumulates and parameters."""

    model: object
    macs: float
    params: float


def within(make: Callable[[float], Priced], full: Priced, budget: Budget) -> Priced:
    """Return what the smallest share of removed channels that meets `budget` makes of the model."""
    if isinstance(budget, Channels):
        return make(1.0 - budget.fraction)

    def cost(priced: Priced) -> float:
        return priced.params / full.params if isinstance(budget, Params) else priced.macs / full.macs

    low, least = 0.0, 1.0
    for high in GRID:  # near all channels the tools leave layers whole again: not monotone
        best = make(high)
        least = min(least, cost(best))
        if cost(best) <= budget.fraction:
            break
        low = high
    else:
        raise ValueError(f"keeps {100 * least:.0f} % at least")
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        found = make(middle)
        if cost(found) <= budget.fraction:
            high, best = middle, found
        else:
            low = middle
    return best


@dataclass(frozen=True, kw_only=True)
class Onnxsim:
    """`apply_structured_pruning`, or with calibration data `apply_structured_wanda_pruning`, after `simplify`."""

    wanda: bool
    draws: bool = False

    @property
    def reads(self) -> bool:
        """True for wanda."""
        return self.wanda

    def __call__(self, case: Case, budget: Budget, seed: int) -> Outcome:
        """See `Row`; the tool cannot be told which layers to leave alone: `only` is not looked at."""
        best, full = self.smaller(case.model, case.data, budget)
        assert isinstance(best.model, ModelProto)
        return outcome(Session(best.model, threads=1), best.macs / full.macs)

    def smaller(self, path: Path, data: Arrays, budget: Budget) -> tuple[Priced, Priced]:
        """Return the largest model below the budget, and the whole one."""
        import onnxsim  # noqa: PLC0415 - an extra

        simple, _ = onnxsim.simplify(onnx.load(path))
        feeds = [
            {name: array[start : start + CALIBRATION_BATCH] for name, array in data.items()}
            for start in range(0, len(next(iter(data.values()))), CALIBRATION_BATCH)
        ]

        def make(share: float) -> Priced:
            if self.wanda:
                return priced(onnxsim.apply_structured_wanda_pruning(simple, calibration_data=feeds, sparsity=share))
            return priced(onnxsim.apply_structured_pruning(simple, sparsity=share))

        full = priced(simple)
        return within(make, full, budget), full


def priced(model: ModelProto) -> Priced:
    """Return an ONNX model with what it costs."""
    network = load(model)
    return Priced(model, costs(network, trace(network)).macs({}), parameters(network))


@dataclass(frozen=True, kw_only=True)
class TorchPruning:
    """`BasePruner` with `GroupMagnitudeImportance` (L2) on the ONNX model rebuilt as a PyTorch module; the classes are left alone.

    across: channels of all layers compete; else every group loses the same share.
    """

    across: bool
    draws: bool = False
    reads: bool = False

    def __call__(self, case: Case, budget: Budget, seed: int) -> Outcome:
        """See `Row`. Of `only` the names of layers are looked at."""
        import torch  # noqa: PLC0415 - an extra
        import torch_pruning  # noqa: PLC0415 - an extra

        from tools.torch_module import Module  # noqa: PLC0415 - needs PyTorch

        network = load(case.model)
        example = torch.tensor(np.array(next(iter(case.data.values()))[:1]))
        self._check(Module(network).eval(), case)

        def make(share: float) -> Priced:
            module = Module(network).eval()
            pruner = torch_pruning.pruner.BasePruner(
                module,
                example,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                global_pruning=self.across,
                pruning_ratio=share,
                ignored_layers=[*module.producers_of_output(), *_unnamed(module, case.only)],
            )
            pruner.step()
            return Priced(module, *torch_pruning.utils.count_ops_and_params(module, example))

        full = make(0.0)
        best = within(make, full, budget)

        def score(inputs: Arrays) -> np.ndarray:
            with torch.no_grad():
                return np.asarray(best.model(torch.tensor(np.array(next(iter(inputs.values()))))).numpy())

        return Outcome(scorer=score, macs=best.macs / full.macs)

    def _check(self, module: Callable, case: Case) -> None:
        """Assert that the module computes what the ONNX model does."""
        import torch  # noqa: PLC0415 - an extra

        few = {name: array[:4] for name, array in case.data.items()}
        ours = scorer_of(Session(case.model))(few)
        with torch.no_grad():
            theirs = module(torch.tensor(np.array(next(iter(few.values()))))).numpy()
        assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-3), "the PyTorch module differs from the ONNX model"


def _unnamed(module: "Module", only: Sequence[str]) -> list[object]:
    """Layers whose node no pattern names."""
    from tools.torch_module import plain  # noqa: PLC0415 - needs PyTorch

    layers: Mapping[str, object] = module.layers
    labels = {plain(label): label for label, _ in module.nodes}
    return [layer for name, layer in layers.items() if only and not any(fnmatchcase(labels[name], p) for p in only)]
