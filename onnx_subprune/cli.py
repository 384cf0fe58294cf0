"""The command line: maps words to values, calls the API, prints. No logic."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from onnx_subprune._version import __version__
from onnx_subprune.allocation import Allocator, Channels, Macs, MarginalCost, Params, Uniform
from onnx_subprune.comparison import compare as compare_models
from onnx_subprune.errors import OptionError, OutputError, SubpruneError, VerificationError
from onnx_subprune.graph.cost import costs
from onnx_subprune.graph.model import load
from onnx_subprune.graph.trace import trace
from onnx_subprune.output import free_path
from onnx_subprune.pipeline import Budget, Resources, prune, sensitivity
from onnx_subprune.report import fidelity_table, inspection_table, report_table
from onnx_subprune.report.inspection import inspection_dict
from onnx_subprune.report.table import comparison_table, sensitivity_table
from onnx_subprune.selection import selectors
from onnx_subprune.task import Asymmetric, Formulation, Layerwise, Refit, Sequential, Watch

app = App(
    name="onnx-subprune",
    version=__version__,
    help="Make an ONNX model smaller and faster with a few hundred unlabelled inputs.",
    help_epilogue="Example: onnx-subprune prune model.onnx small.onnx --data calibration.npz --macs 0.5",
    result_action="return_value",
)

FORMULATIONS: dict[str, Formulation] = {
    "asymmetric": Asymmetric(),
    "sequential": Sequential(),
    "layerwise": Layerwise(),
}
ALLOCATIONS: dict[str, Allocator] = {"sensitivity": MarginalCost(), "uniform": Uniform()}

DataOption = Annotated[
    str,
    Parameter(
        name="--data",
        help="Inputs, preprocessed as the model wants them: x.npz (one array an input), x.npy, a folder of those, a folder of "
        "test_data_set_*/input_*.pb, or script.py[:function] yielding dictionaries of arrays.",
    ),
]
JsonOption = Annotated[Path | None, Parameter(name="--json", help="Write the result to this JSON file too.")]
Names = Annotated[list[str] | None, Parameter(negative="")]


@app.command(name="prune")
def prune_command(  # noqa: PLR0913 - one argument an option
    model: Path,
    output: Path,
    *,
    data: DataOption,
    macs: Annotated[
        float | None,
        Parameter(help="Keep at most this fraction of the multiply-accumulates (0.5 if no budget is given)."),
    ] = None,
    params: Annotated[float | None, Parameter(help="Keep at most this fraction of the parameters.")] = None,
    channels: Annotated[float | None, Parameter(help="Keep this fraction of every group, without allocation.")] = None,
    formulation: Annotated[
        Literal["asymmetric", "sequential", "layerwise"],
        Parameter(
            help="Where inputs and targets of the refit come from: asymmetric repairs the errors of earlier layers."
        ),
    ] = "asymmetric",
    selector: Annotated[
        Literal[
            "refined",
            "forward",
            "backward",
            "random",
            "weight-norm",
            "activation-norm",
            "wanda",
            "interpolative",
            "layer-sampling",
        ],
        Parameter(help="How the channels of a group are chosen."),
    ] = "forward",
    allocation: Annotated[
        Literal["sensitivity", "uniform"], Parameter(help="How the budget is shared out among the groups.")
    ] = "sensitivity",
    refit: Annotated[
        bool,
        Parameter(
            name="--refit", negative="--no-refit", help="Refit the weights of the layers that read pruned channels."
        ),
    ] = True,
    exclude: Annotated[
        Names, Parameter(help="Leave these alone: node, group or weight names, globs, or op:Conv; repeatable.")
    ] = None,
    only: Annotated[Names, Parameter(help="Prune only these; repeatable.")] = None,
    round_to: Annotated[
        int, Parameter(help="Make every new width a multiple of this: 8 or 16 suits most hardware.")
    ] = 1,
    min_width: Annotated[int, Parameter(help="Leave at least so many channels in a group.")] = 1,
    samples: Annotated[
        int | None, Parameter(help="Use the first N samples; fidelity is then measured on the others.")
    ] = None,
    batch_size: Annotated[int, Parameter(help="Run at most N samples at once. The result does not depend on it.")] = 32,
    seed: Annotated[int, Parameter(help="For the selectors that draw at random.")] = 0,
    threads: Annotated[
        int | None, Parameter(help="Threads of onnxruntime and of the linear algebra (all cores).")
    ] = None,
    memory: Annotated[
        str | None,
        Parameter(help="Activations to hold before they go to disk, for example 4G (a quarter of the machine)."),
    ] = None,
    json_file: JsonOption = None,
    force: Annotated[bool, Parameter(negative="", help="Overwrite OUTPUT.")] = False,
    quiet: Annotated[bool, Parameter(negative="", help="Print nothing but errors.")] = False,
) -> None:
    """Make MODEL smaller and write the result to OUTPUT.

    Parameters
    ----------
    model
        The ONNX model; it is not changed.
    output
        Where the smaller model goes; large weights go to OUTPUT.data.

    """
    free_path(output, force=force)
    _free_json(json_file)
    with _Bar(quiet=quiet) as watch:
        result = prune(
            model,
            data,
            budget=_budget(macs, params, channels),
            formulation=FORMULATIONS[formulation],
            selector=selectors(seed)[selector],
            allocator=ALLOCATIONS[allocation],
            refit=Refit() if refit else None,
            exclude=tuple(exclude or ()),
            only=tuple(only or ()),
            round_to=round_to,
            min_width=min_width,
            resources=_resources(samples, batch_size, threads, memory),
            progress=watch,
        )
    result.save(output, force=force)
    _write_json(json_file, {**result.report.to_dict(), "command": sys.argv[1:]})
    if not quiet:
        Console().print(report_table(result.report))


@app.command(name="inspect")
def inspect_command(model: Path, *, json_file: JsonOption = None) -> None:
    """Show what can be pruned in MODEL, and why the rest stays.

    Parameters
    ----------
    model
        The ONNX model.

    """
    _free_json(json_file)
    network = load(model)
    graph = trace(network)
    price = costs(network, graph)
    _write_json(json_file, inspection_dict(graph, price))
    Console().print(inspection_table(graph, price))


@app.command(name="sensitivity")
def sensitivity_command(
    model: Path,
    *,
    data: DataOption,
    samples: int | None = None,
    threads: int | None = None,
    json_file: JsonOption = None,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show how far the output of MODEL moves when one group alone gets narrower.

    Parameters
    ----------
    model
        The ONNX model.
    samples
        Use the first N samples.
    threads
        Threads of onnxruntime and of the linear algebra (all cores).
    quiet
        Print no progress.

    """
    _free_json(json_file)
    with _Bar(quiet=quiet) as watch:
        found = sensitivity(model, data, resources=_resources(samples, 32, threads, None), progress=watch)
    _write_json(
        json_file,
        {item.name: dict(zip(map(str, item.output.widths), item.output.errors, strict=True)) for item in found},
    )
    Console().print(sensitivity_table(found))


@app.command(name="compare")
def compare_command(
    original: Path,
    pruned: Path,
    *,
    data: DataOption,
    labels: str | None = None,
    threads: int | None = None,
    json_file: JsonOption = None,
) -> None:
    """Compare PRUNED with ORIGINAL: fidelity of the outputs, size, latency measured here.

    Parameters
    ----------
    original
        The model before pruning.
    pruned
        The model after pruning.
    labels
        y.npy or x.npz:key, one integer a sample: also compare accuracies.
    threads
        Threads of onnxruntime (all cores).

    """
    _free_json(json_file)
    found = compare_models(original, pruned, data, labels=labels, threads=threads)
    _write_json(json_file, found.to_dict())
    Console().print(comparison_table(found), fidelity_table(found.fidelity))


def _budget(macs: float | None, params: float | None, channels: float | None) -> Budget:
    given = [kind(value) for kind, value in ((Macs, macs), (Params, params), (Channels, channels)) if value is not None]
    if len(given) > 1:
        raise OptionError("more than one budget: give one of --macs, --params, --channels")
    return given[0] if given else Macs(0.5)


def _resources(samples: int | None, batch_size: int, threads: int | None, memory: str | None) -> Resources:
    for name, value in (("--samples", samples), ("--batch-size", batch_size), ("--threads", threads)):
        if value is not None and value < 1:
            raise OptionError(f"{name} {value}: at least 1")
    return Resources(samples=samples, batch_size=batch_size, threads=threads, memory=_bytes(memory))


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    body = text.upper().removesuffix("B")
    try:
        size = float(body[:-1]) * units[body[-1]] if body[-1:] in units else float(body)
    except ValueError as error:
        raise OptionError(f"--memory {text!r} is not a size: write it like 500M or 4G") from error
    if size <= 0:
        raise OptionError(f"--memory {text!r}: must be more than nothing")
    return int(size)


def _free_json(path: Path | None) -> None:
    if path is not None:
        free_path(path, force=True)


def _write_json(path: Path | None, value: object) -> None:
    if path is not None:
        try:
            path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


class _Bar:
    """A progress bar on stderr, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, int] = {}

    def __enter__(self) -> Watch:
        self._progress.start()
        return self._watch

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _watch(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done)  # type: ignore[arg-type]  # rich's TaskID is an int


def run(tokens: Sequence[str]) -> int:
    """Run the command line and return the exit status; errors are one line on stderr."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(f"{' '.join(str(error).split())} See `onnx-subprune {' '.join(tokens[:1])} --help`.", 2)
    except VerificationError as error:
        return _fail(str(error), 1)
    except SubpruneError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)
    except MemoryError:
        return _fail("out of memory: use fewer --samples or a smaller --memory", 2)
    return 0


def _fail(message: str, status: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return status


def main() -> None:
    """Entry point of the command."""
    sys.exit(run(sys.argv[1:]))
