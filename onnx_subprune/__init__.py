"""Make an ONNX model smaller with a few hundred unlabelled inputs."""

from onnx_subprune._version import __version__
from onnx_subprune.allocation import Channels, Latency, Macs, MarginalCost, Params, Threshold, Uniform
from onnx_subprune.budgeting import MaxDrop
from onnx_subprune.collected import collect, prune_collected
from onnx_subprune.comparison import Comparison, compare
from onnx_subprune.errors import (
    BudgetError,
    DataError,
    ModelError,
    OptionError,
    OutputError,
    SubpruneError,
    VerificationError,
)
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.trace import trace
from onnx_subprune.metric import Accuracy, Validation
from onnx_subprune.pipeline import Pruned, prune, sensitivity
from onnx_subprune.resources import Resources
from onnx_subprune.selection import (
    ActivationNorm,
    Backward,
    Forward,
    InterpolativeDecomposition,
    LayerGreedyFS,
    LayerSampling,
    Random,
    Refined,
    Shapley,
    Taylor,
    Wanda,
    WeightNorm,
)
from onnx_subprune.statistics import merge
from onnx_subprune.task import Asymmetric, Layerwise, Refit, Sequential

__all__ = [
    "RULES",
    "Accuracy",
    "ActivationNorm",
    "Asymmetric",
    "Backward",
    "BudgetError",
    "Channels",
    "Comparison",
    "DataError",
    "Forward",
    "InterpolativeDecomposition",
    "Latency",
    "LayerGreedyFS",
    "LayerSampling",
    "Layerwise",
    "Macs",
    "MarginalCost",
    "MaxDrop",
    "ModelError",
    "OptionError",
    "OutputError",
    "Params",
    "Pruned",
    "Random",
    "Refined",
    "Refit",
    "Resources",
    "Sequential",
    "Shapley",
    "SubpruneError",
    "Taylor",
    "Threshold",
    "Uniform",
    "Validation",
    "VerificationError",
    "Wanda",
    "WeightNorm",
    "__version__",
    "collect",
    "compare",
    "merge",
    "prune",
    "prune_collected",
    "sensitivity",
    "trace",
]
