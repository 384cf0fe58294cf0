"""The options of `onnx-subprune prune` alone."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from onnx_subprune.cli.groups import BUDGET, DATA, GATES, QUALITY, RESOURCES, SPEED, WHERE, multiple, share, times
from onnx_subprune.pruning.arguments import AllocatorName, FormulationName, SelectorName

Names = Annotated[list[str] | None, Parameter(negative="")]
StatisticsOption = Annotated[
    Path | None,
    Parameter(
        group=DATA,
        help="In place of --data: moments of the original model, from `collect` and `merge`. Then the formulation is layerwise, "
        "widths follow from the errors of each layer alone, and fidelity is not measured.",
    ),
]
SchedulerOption = Annotated[
    str | None,
    Parameter(
        group=RESOURCES,
        help="Run the models on --data on the workers of dask.distributed whose scheduler is here, for example tcp://host:8786. The result "
        "is the same.",
    ),
]
MacsOption = Annotated[
    float | None,
    Parameter(
        group=BUDGET,
        converter=share,
        help="Keep at most this fraction of the multiply-accumulates: 0.5 or 50%, which it is if no budget is given.",
    ),
]
ParamsOption = Annotated[
    float | None, Parameter(group=BUDGET, converter=share, help="Keep at most this fraction of the parameters.")
]
ChannelsOption = Annotated[
    float | None,
    Parameter(group=BUDGET, converter=share, help="Keep this fraction of every group, without allocation."),
]
LatencyOption = Annotated[
    float | None,
    Parameter(
        group=BUDGET, converter=share, help="Take at most this fraction of the original's latency, measured here."
    ),
]
SpeedupOption = Annotated[
    float | None,
    Parameter(
        group=BUDGET,
        converter=times,
        help="Be so many times as fast as the original, measured here: 2 is --latency 0.5.",
    ),
]
TableOption = Annotated[
    str | None,
    Parameter(
        group=SPEED,
        help="With --latency or --speedup: a table of `onnx-subprune profile` from the machine that the model is for; nothing is measured here then, "
        "nor taken from the user's cache, which keeps the tables that are made here.",
    ),
]
MeasureOption = Annotated[
    str | None,
    Parameter(
        group=SPEED,
        help="With --latency or --speedup: a command that prints the milliseconds of a model, for example 'ssh pi bench.sh {model}', in place of "
        "measuring here.",
    ),
]
MaxDropOption = Annotated[
    float | None,
    Parameter(
        group=BUDGET,
        converter=share,
        help="Make the smallest model whose metric drops by at most this: 0.01 or 1% is one point of accuracy.",
    ),
]
LabelsOption = Annotated[
    str | None,
    Parameter(
        group=DATA, help="y.npy or x.npz:key, one integer a sample of DATA: measure the accuracy before and after."
    ),
]
ValidateOption = Annotated[
    str | None,
    Parameter(
        group=DATA, help="script.py:function, which takes the path of a model and returns a metric; higher is better."
    ),
]
FormulationOption = Annotated[
    FormulationName | None,
    Parameter(
        group=QUALITY,
        help="Where inputs and targets of the refit come from: asymmetric, the default, repairs the errors of earlier layers.",
    ),
]
SelectorOption = Annotated[
    SelectorName,
    Parameter(group=QUALITY, help="How the channels of a group are chosen."),
]
AllocationOption = Annotated[
    AllocatorName,
    Parameter(
        group=QUALITY,
        help="How the budget is shared out among the groups; threshold is the paper's own and needs a metric.",
    ),
]
RefitOption = Annotated[
    bool,
    Parameter(
        group=QUALITY,
        name="--refit",
        negative="--no-refit",
        help="Refit the weights of the layers that read pruned channels.",
    ),
]
FinetuneOption = Annotated[
    str | None,
    Parameter(
        group=QUALITY,
        help="Distil the original into the result on the same inputs: a number of steps, such as 2000, or a time, such as 5min. An eighth of the samples "
        "chooses the state that is kept; where none is better than the refitted weights, these stay. No labels are "
        "needed; with --labels these count beside what the original says.",
    ),
]
ExcludeOption = Annotated[
    Names, Parameter(group=WHERE, help="Leave these alone: node, group or weight names, globs, or op:Conv; repeatable.")
]
OnlyOption = Annotated[Names, Parameter(group=WHERE, help="Prune only these; repeatable.")]
RoundToOption = Annotated[
    int | Literal["auto"],
    Parameter(
        group=SPEED,
        converter=multiple,
        help="Make every new width a multiple of N, for kernels that work on N channels at once; 1 for any width. The default, auto, takes "
        "what --target likes for each group of channels, and any width with --params. Groups of at most N channels, which have no smaller "
        "multiple, get N/2, N/4 ...; --min-width N forbids that. Whole residual, attention and feed-forward "
        "blocks may go as well, unless --min-width is given. "
        "With --macs the work of such kernels is bounded too, to about the same fraction, so that the result can be narrower than the "
        "multiply-accumulates alone ask for; --channels keeps at least its fraction.",
    ),
]
TargetOption = Annotated[
    Literal[
        "cpu-avx512",
        "cpu-avx2",
        "arm64",
        "tensorrt-fp16",
        "tensorrt-int8",
        "qnn",
        "coreml",
        "webgpu",
        "none",
    ]
    | None,
    Parameter(group=SPEED, help="Machine that the model is for (this one); none: any width, for size alone."),
]
MinWidthOption = Annotated[
    int | None,
    Parameter(
        group=SPEED,
        help="Leave at least so many channels in a group; 0 lets whole residual, attention and feed-forward blocks go, 1 forbids it. "
        "[default: 0 with rounded widths or --latency, else 1]",
    ),
]
SamplesOption = Annotated[
    int | None, Parameter(group=DATA, help="Use the first N samples; fidelity is then measured on the others.")
]
SeedOption = Annotated[
    int,
    Parameter(group=QUALITY, help="For the selectors that draw at random, and the order of the samples in --finetune."),
]
MemoryOption = Annotated[
    str | None,
    Parameter(
        group=RESOURCES,
        help="Memory to aim at, for example 4G (a quarter of the machine): activations that do not fit go to disk.",
    ),
]
PositionsOption = Annotated[
    int | None,
    Parameter(
        group=RESOURCES,
        help="Refit convolutions (asymmetric) on N drawn output positions of a sample, where there are 3 N or more (128 rows a column).",
    ),
]
TrialsOption = Annotated[
    int | None,
    Parameter(
        group=QUALITY,
        help="Try N ways to share out a budget, fitted on three quarters of the samples and judged on the rest (up to 24 in small networks, "
        "more the deeper the cut; 4 in those of more than 12 groups or with residual additions, and under --latency).",
    ),
]
AcceptAnyOption = Annotated[
    bool, Parameter(group=GATES, negative="", help="Write the result even if it is no better than a constant.")
]
MinAgreementOption = Annotated[
    float | None,
    Parameter(
        group=GATES,
        converter=share,
        help="Write nothing, and exit with 1, if an output agrees with the original's for a smaller share of the samples. Gates judge the share as "
        "it is printed, not the spread beside it: leave room for that where few samples are held out.",
    ),
]
MaxErrorOption = Annotated[
    float | None,
    Parameter(
        group=GATES,
        converter=share,
        help="Write nothing, and exit with 1, if an output has a larger relative error (as it is printed, not the spread beside it).",
    ),
]
