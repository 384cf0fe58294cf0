"""Which channels to keep: pure mathematics on moments."""

from onnx_subprune.selection.backward import Backward
from onnx_subprune.selection.baselines import (
    ActivationNorm,
    InterpolativeDecomposition,
    LayerSampling,
    Random,
    Wanda,
    WeightNorm,
)
from onnx_subprune.selection.forward import Forward
from onnx_subprune.selection.linalg.ridge import Normal, Validation, cross_validated, pseudo_solve, ridge
from onnx_subprune.selection.output_loss import LayerGreedyFS, Probe, ProbingSelector, Shapley, Taylor
from onnx_subprune.selection.problem import Problem, Support
from onnx_subprune.selection.refined import Refined
from onnx_subprune.selection.selector import Choice, Selector, conditioning, mean_error, ranked

__all__ = [
    "ActivationNorm",
    "Backward",
    "Choice",
    "Forward",
    "InterpolativeDecomposition",
    "LayerGreedyFS",
    "LayerSampling",
    "Normal",
    "Probe",
    "ProbingSelector",
    "Problem",
    "Random",
    "Refined",
    "Selector",
    "Shapley",
    "Support",
    "Taylor",
    "Validation",
    "Wanda",
    "WeightNorm",
    "conditioning",
    "cross_validated",
    "mean_error",
    "pseudo_solve",
    "ranked",
    "ridge",
    "selectors",
]


def selectors(seed: int) -> dict[str, Selector | ProbingSelector]:
    """Return all selectors by the names that the command line has for them."""
    return {
        "refined": Refined(),
        "forward": Forward(),
        "backward": Backward(),
        "random": Random(seed),
        "weight-norm": WeightNorm(),
        "activation-norm": ActivationNorm(),
        "wanda": Wanda(),
        "interpolative": InterpolativeDecomposition(),
        "layer-sampling": LayerSampling(seed),
        "taylor": Taylor(),
        "layer-greedy-fs": LayerGreedyFS(),
        "shapley": Shapley(seed),
    }
