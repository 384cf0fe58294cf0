"""What a command reads and writes: checked together before any work; JSON and HTML files beside the terminal's tables."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnx_subprune.allocation.widths import GroupSensitivity
from onnx_subprune.calibration.data.paths import source_files
from onnx_subprune.calibration.files.file import StatisticsFile
from onnx_subprune.cli.groups import STDOUT
from onnx_subprune.evaluation.report import Part, Report
from onnx_subprune.evaluation.report.extra import need_extra
from onnx_subprune.evaluation.report.map import Block
from onnx_subprune.evaluation.report.table import number
from onnx_subprune.evaluation.report.values import Change
from onnx_subprune.graph.save import INLINE, side_path, written_bytes
from onnx_subprune.graph.tensors import model_files
from onnx_subprune.pruning.recipe import Recipe
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.runtime.files import check_apart, free_path, json_text, replacing


@contextmanager
def guarded(
    outputs: Mapping[str, Path | None],
    *,
    models: Iterable[Path],
    sources: Iterable[str | None] = (),
    force: bool,
) -> Iterator[None]:
    """Check before the work in the context what it reads and writes; where it fails, note on the error which outputs it wrote all the same.

    outputs: by what the user calls them; large weights may go beside OUTPUT. sources: data, labels and scripts. Raises OutputError if
    something that is read would be harmed, if two outputs are one file, or if one cannot be written (see `free_path`).
    """
    models = list(models)
    reads = [file for model in models for file in model_files(model)]
    heavy = len(reads) > len(models) or any(_size(path) > INLINE for path in models)
    reads += [file for source in sources for file in source_files(source)]
    named = {name: path for name, path in outputs.items() if path not in (None, STDOUT)}
    output = named.get("OUTPUT")
    beside = {"OUTPUT.data": side_path(output)} if output is not None and output.name else {}
    check_apart({**named, **beside}, reads)
    for path in (*named.values(), *(beside.values() if heavy else ())):
        free_path(path, force=force)
    if "--report" in named:
        need_extra()
    before = {path: _state(path) for path in (*named.values(), *beside.values())}
    try:
        yield
    except BaseException as error:
        new = [str(path) for path in before if _state(path) != before[path]]
        if new:
            error.add_note(f"{', '.join(new)} {'was' if len(new) == 1 else 'were'} written")
        raise


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells a file apart from another in its place."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def written(texts: Mapping[Path | None, Callable[[], str]]) -> Iterator[None]:
    """Make the texts, run what the context holds, and put the files in place if that ends well; else none of them appears.

    What goes to `STDOUT` is printed then.
    """
    shown: list[str] = []
    with ExitStack() as stack:
        for path, text in texts.items():
            if path == STDOUT:
                shown.append(text())
            elif path is not None:
                stack.enter_context(replacing(path)).write_text(text(), encoding="utf-8")
        yield
    sys.stdout.write("".join(shown))


def placed(result: Pruned, output: Path) -> Pruned:
    """Return the same with the bytes that its files at `output` will have in the report."""
    report = result.report
    size = Change(report.size.before, written_bytes(result.model, output, side_file=result.side_file))
    return replace(result, report=replace(report, size=size))


def save(result: Pruned, output: Path, *, force: bool, **files: Path | None) -> None:
    """Write the model of a run, and its report to the `files` json, html and recipe that are given: all of them, or none."""
    report = result.report
    makers = {
        "json": lambda: json_text({**report.to_dict(), "command": sys.argv[1:]}),
        "html": lambda: report_text(report),
        "recipe": lambda: json_text(Recipe.of(report).to_dict()),
    }
    with written({path: makers[kind] for kind, path in files.items()}):
        result.save(output, force=force)


def moments_dict(path: Path) -> dict[str, Any]:
    """Return what a file of moments says about itself, as plain values."""
    with StatisticsFile(path) as file:
        header = file.header
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "model": header.model,
        "data": header.data,
        "samples": header.settings.samples,
        "shard": None if header.shard is None else [header.shard[0] + 1, header.shard[1]],
        "layers": [{"node": use.node, "input": use.slot} for use in header.settings.weights],
        "passes": len(header.settings.passes),
        "shapes": asdict(header.settings.shapes),
    }


def moments_line(found: Mapping[str, Any]) -> str:
    """Return the same in a line, from `moments_dict`."""
    part = "all" if found["shard"] is None else "shard {} of {} of".format(*found["shard"])
    layers, size = len(found["layers"]), number(found["bytes"])
    return f"{found['file']}: moments of {part} {found['samples']} samples at {layers} layers, {size} bytes"


def report_text(report: Report) -> str:
    """Return a run as HTML."""
    from onnx_subprune.evaluation.report.html import report_html  # noqa: PLC0415 - an extra

    return report_html(report)


def parts_text(title: str, parts: Sequence[Part], drawn: Sequence[Block] = ()) -> str:
    """Return tables and sentences as HTML, with the map of a network."""
    from onnx_subprune.evaluation.report.html import parts_html  # noqa: PLC0415 - an extra

    return parts_html(title, parts, drawn=drawn)


def sensitivities_text(found: Sequence[GroupSensitivity], model: str) -> str:
    """Return sensitivities as HTML."""
    from onnx_subprune.evaluation.report.html import sensitivity_html  # noqa: PLC0415 - an extra

    return sensitivity_html(found, model)
