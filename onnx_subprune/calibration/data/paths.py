"""Which files words of the command line are read from."""

from collections.abc import Iterator
from pathlib import Path

from onnx_subprune.calibration.data.script import script_named


def source_files(source: str | None) -> Iterator[Path]:
    """Yield the files that data, labels or a script are read from: `x.npz`, `x.npz:KEY`, `script.py[:function]`, or all in a folder.

    What a script reads in its turn is not known.
    """
    if source is None:
        return
    path = Path(source)
    named = script_named(source)
    if named is not None:
        yield named[0]
    if path.is_dir():
        yield from _numbers_in(path)
        for folder in path.glob("test_data_set_*"):
            yield from folder.glob("*.pb")
        return
    yield path
    file, _, key = source.rpartition(":")
    if file and key:
        yield Path(file)


def _numbers_in(folder: Path) -> Iterator[Path]:
    for suffix in ("*.npz", "*.npy"):
        yield from folder.glob(suffix)
