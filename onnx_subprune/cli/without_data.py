"""What `onnx-subprune prune` cannot do from moments, without data."""

from collections.abc import Sequence
from pathlib import Path

from onnx_subprune.errors import OptionError
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.metric import Metric
from onnx_subprune.pruning.arguments import finetune_of
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.reconstruction.finetuning.settings import FineTune


def finetune_on(finetune: str | None, seed: int, statistics: Path | None) -> FineTune | None:
    """Return how the result is fine-tuned; OptionError without data."""
    if finetune is not None and statistics is not None:
        raise OptionError("--finetune runs the models on --data; with --statistics nothing is run")
    return finetune_of(finetune, seed)


def layerwise_only(
    formulation: str | None,
    resources: Resources,
    data: str | None,
    scheduler: str | None,
    metric: Metric | None,
    gates: Gates,
    constants: Sequence[str] | None,
    carry: Sequence[str] | None,
) -> None:
    """Raise OptionError for what needs data, and cannot be with moments."""
    if gates.asked:
        raise OptionError(
            "--accept-any, --min-agreement, --max-error: with --statistics there are no data to judge the result on"
        )
    if constants:
        raise OptionError("--set: with --statistics nothing is run; give it to `collect`")
    if carry:
        raise OptionError("--carry: with --statistics nothing is run; give it to `collect`")
    if data is not None:
        raise OptionError("--data and --statistics: give one of them")
    if formulation not in (None, "layerwise"):
        raise OptionError(
            f"--formulation {formulation} runs the models on --data; from --statistics only layerwise is possible"
        )
    if resources.samples is not None:
        raise OptionError("--samples: the moments are of all samples that were collected; give it to `collect`")
    if resources.holdout is not None:
        raise OptionError(
            "--holdout: the moments are of all samples that were collected, and there are no others to judge the result on"
        )
    if scheduler is not None:
        raise OptionError("--scheduler runs the models on --data; with --statistics nothing is run")
    if metric is not None:
        raise OptionError("a metric (--labels, --validate) is measured on --data; with --statistics nothing is run")
