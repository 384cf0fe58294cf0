"""Files that are written: checked before any work, put in place whole or not at all.

Nothing is overwritten unless that is asked for, and then only a regular file, which keeps its mode bits. Links are not followed;
devices, pipes and folders are refused. What a command reads is never written to.
"""

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path

from onnx_subprune.errors import OutputError

ROOM = 1 << 16
"""Bytes that a folder for temporary files should have left."""


def free_path(path: Path, *, force: bool) -> None:
    """Raise OutputError if `path` cannot be written.

    That is: it exists and `force` is false, it is no regular file, or its folder is missing or not writable.
    """
    try:
        there = path.lstat()
    except FileNotFoundError:
        there = None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)}); choose another name") from error
    if there is not None:
        if stat.S_ISDIR(there.st_mode):
            raise OutputError(f"{path}: is a folder; name a file")
        if stat.S_ISLNK(there.st_mode):
            raise OutputError(
                f"{path}: is a link, which is not followed; name a file, for example the one it points to"
            )
        if not stat.S_ISREG(there.st_mode):
            raise OutputError(f"{path}: is a device, pipe or socket; name a file")
        if not force:
            raise OutputError(f"{path}: exists already; choose another name, or overwrite it with --force")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({reason(error)}); choose another folder") from error


def check_apart(outputs: Mapping[str, Path | None], reads: Iterable[Path]) -> None:
    """Raise OutputError if two outputs are one file, or one is among `reads`, whatever the paths look like.

    outputs: by what the user calls them; None for one that is not asked for.
    """
    read = list(reads)
    seen: dict[str, Path] = {}
    for name, path in outputs.items():
        if path is None:
            continue
        for other in read:
            if _same(path, other):
                raise OutputError(
                    f"{path}: {name} is a file that is read here{_called(path, other)}, and would be lost; choose another name"
                )
        for former, other in seen.items():
            if _same(path, other):
                raise OutputError(f"{path}: {former} and {name} are one file; choose different names")
        seen[name] = path


def _same(one: Path, other: Path) -> bool:
    try:
        if os.path.realpath(one) == os.path.realpath(other):
            return True
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there
        return False


def _called(path: Path, other: Path) -> str:
    return "" if str(path) == str(other) else f" ({other})"


@contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, where files are made that will be put in place; OutputError where the system refuses something."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onnx-subprune-") as temporary:
            yield Path(temporary)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)}); choose another folder") from error


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a temporary folder; OutputError where there is no room in it, whatever it is that fails then."""
    where = f"temporary files cannot be written to {tempfile.gettempdir()}"
    advice = "set TMPDIR to a folder with more room"
    try:
        temporary = tempfile.TemporaryDirectory(prefix="onnx-subprune-")
    except OSError as error:
        raise OutputError(f"{where} ({reason(error)}): {advice}") from error
    with temporary as folder:
        try:
            yield Path(folder)
        except Exception as error:
            try:
                (Path(folder) / "room").write_bytes(bytes(ROOM))
            except OSError as refusal:
                raise OutputError(f"{where} ({reason(refusal)}): {advice}") from error
            raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which is put in the place of `path` where the context ends well; otherwise nothing changes. OutputError."""
    with workshop(path) as folder:
        new = folder / path.name
        yield new
        put(new, path)


def put(new: Path, path: Path) -> None:
    """Put the finished file `new` in the place of `path`, at once; what is there gives its mode bits. OSError."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    try:
        there = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(there.st_mode):
            raise OSError("something else than a file has come in its place")
        os.chmod(new, stat.S_IMODE(there.st_mode))
    os.replace(new, path)


def json_text(value: object) -> str:
    """Return plain values as a file of JSON; numbers that are not finite, which JSON does not have, are null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def reason(error: Exception) -> str:
    """Return what the system says, without numbers and names."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
