"""All that `from onnx_subprune import ...` gives; loaded when the first of it is asked for."""

from onnx_subprune.allocation import Allocator, Channels, Latency, Macs, MarginalCost, Params, Threshold, Uniform
from onnx_subprune.calibration.data.carried import carried
from onnx_subprune.calibration.files import merge
from onnx_subprune.errors import (
    ArgumentTypeError,
    BudgetError,
    ClusterError,
    DataError,
    FidelityError,
    ModelError,
    OptionError,
    OutputError,
    SubpruneError,
    VerificationError,
)
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.metric import Accuracy, Validation
from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule, Scope
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.apply import apply_recipe
from onnx_subprune.pruning.budgets.budget import MaxDrop
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.compare import Comparison, compare
from onnx_subprune.pruning.prune import prune
from onnx_subprune.pruning.prune_from_moments import prune_collected
from onnx_subprune.pruning.recipe import Recipe
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.sensitivity import sensitivity
from onnx_subprune.reconstruction.finetuning.settings import FineTune
from onnx_subprune.reconstruction.settings import Asymmetric, Layerwise, Refit, Sequential
from onnx_subprune.selection import (
    ActivationNorm,
    Backward,
    Forward,
    InterpolativeDecomposition,
    LayerGreedyFS,
    LayerSampling,
    Random,
    Refined,
    Selector,
    Shapley,
    Taylor,
    Wanda,
    WeightNorm,
)

__all__ = [
    "RULES",
    "Accuracy",
    "ActivationNorm",
    "Allocator",
    "ArgumentTypeError",
    "Asymmetric",
    "Backward",
    "BudgetError",
    "Channels",
    "ClusterError",
    "Comparison",
    "DataError",
    "FidelityError",
    "FineTune",
    "Forward",
    "Gates",
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
    "Recipe",
    "Refined",
    "Refit",
    "Report",
    "Resources",
    "Rule",
    "Scope",
    "Selector",
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
    "apply_recipe",
    "carried",
    "collect",
    "compare",
    "merge",
    "prune",
    "prune_collected",
    "sensitivity",
    "trace",
]
