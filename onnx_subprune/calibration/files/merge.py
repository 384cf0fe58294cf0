"""Merging: the shards' sums, added in the order of the shards, one contraction at a time."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

from onnx_subprune.calibration.files.file import StatisticsFile, writing
from onnx_subprune.calibration.files.header import Header, Settings, named
from onnx_subprune.calibration.files.sums import Sums
from onnx_subprune.errors import DataError, typed
from onnx_subprune.runtime.files import check_apart, free_path


@typed("shards", "output", "force")
def merge(shards: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], *, force: bool = False) -> Header:
    """Write the moments of all `shards`, in any order, to `output`: the file is the one that a single shard would have given.

    Parameters
    ----------
    shards
        What `collect` wrote: every shard once.
    output
        Where the merged file goes; it appears whole or not at all.
    force
        Overwrite what is there.

    Returns
    -------
    The header of the merged file.

    Raises
    ------
    DataError
        If the shards do not belong together, or are not all there.
    OutputError
        If `output` cannot be written.

    Examples
    --------
    >>> from onnx_subprune import collect, merge
    >>> for shard in (1, 2):
    ...     collect("model.onnx", "calibration.npz", f"{shard}.npz", shard=(shard, 2), force=True)
    >>> merge(["2.npz", "1.npz"], "all.npz", force=True).settings.samples
    64

    """
    paths, path = [Path(item) for item in shards], Path(output)
    check_apart({"the merged file": path}, paths)
    free_path(path, force=force)
    with ExitStack() as stack:
        files = _ordered([stack.enter_context(StatisticsFile(item)) for item in paths])
        header = files[0].header
        for file in files[1:]:
            header = header.added(file.header)
        header = replace(header, shard=None)
        with writing(path) as out:
            out.header(header)
            for number in range(len(header.settings.weights)):
                for half in range(header.halves):
                    total = Sums()
                    for file in files:
                        _add(total, file, number, half)
                    out.sums(number, half, total)
    return header


def _add(total: Sums, file: StatisticsFile, number: int, half: int) -> None:
    try:
        total.add(file.state(number, half))
    except ValueError as error:
        raise DataError(f"{file.path}: {error}; collect this shard again") from error


def _ordered(files: Sequence[StatisticsFile]) -> list[StatisticsFile]:
    """The files by number of their shard; DataError if they are not all the shards of one whole."""
    if not files:
        raise DataError("no files: name the files of all shards")
    first, seen = files[0], dict[int, StatisticsFile]()
    if first.header.shard is None and len(files) == 1:
        return [first]
    for file in files:
        _same(first, file)
        if file.header.shard is None:
            raise DataError(f"{file.path}: holds all shards already: there is nothing to merge it with")
        index, _ = file.header.shard
        if index in seen:
            raise DataError(
                f"{seen[index].path} and {file.path}: both are shard {named(file.header.shard)}: leave one of them out"
            )
        seen[index] = file
    assert first.header.shard is not None
    count = first.header.shard[1]
    missing = [named((index, count)) for index in range(count) if index not in seen]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"shard {', '.join(missing[:5])}{more} missing: collect what is missing, and name the files of all shards"
        )
    return [seen[index] for index in sorted(seen)]


def _same(first: StatisticsFile, other: StatisticsFile) -> None:
    one, two = first.header, other.header
    if one.model != two.model:
        raise DataError(f"{first.path} and {other.path}: moments of different models cannot be added")
    differing = [
        item.name for item in fields(Settings) if getattr(one.settings, item.name) != getattr(two.settings, item.name)
    ]
    if differing:
        name = differing[0]
        text = "" if name == "weights" else f" ({getattr(one.settings, name)} and {getattr(two.settings, name)})"
        raise DataError(
            f"{first.path} and {other.path}: collected with different {name}{text}: collect all shards of one data set in one way"
        )
    if one.shard is not None and two.shard is not None and one.shard[1] != two.shard[1]:
        raise DataError(
            f"{first.path} and {other.path}: shards of {one.shard[1]} and of {two.shard[1]}: cut all data in one way"
        )
