"""Measurements of this machine that are kept for the next run, in the user's cache: nothing is lost where there is none, or it is deleted."""

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from onnx_subprune.errors import OutputError
from onnx_subprune.runtime.files import json_text, replacing

FRESH = 30 * 24 * 3600.0
"""Seconds for which a measurement holds: kernels of the system, clocks and what else runs change."""
VARIABLE = "ONNX_SUBPRUNE_CACHE"
"""Names another folder; empty: nothing is kept."""
IDENTIFYING = ("model name", "Model", "Hardware", "CPU implementer", "CPU part")
"""What Linux calls the kind of a processor, depending on the architecture."""


def cache_folder() -> Path | None:
    """Return the folder of the user's cache by the rule of the platform, which need not be there; None where nothing is to be kept."""
    if (own := os.environ.get(VARIABLE)) is not None:
        return Path(own) if own else None
    with contextlib.suppress(RuntimeError):  # no home
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "onnx-subprune"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "onnx-subprune" / "Cache"
        base = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "onnx-subprune"
    return None


@cache
def processor() -> str:
    """Return the kind of the processor and how many of it there are; machines of one kind take the same time."""
    kinds = dict[str, None]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in IDENTIFYING:
                kinds[value.strip()] = None
    return " ".join(
        [platform.system(), platform.machine(), *(kinds or {platform.processor(): None}), str(os.cpu_count())]
    )


def recalled(kind: str, key: Mapping[str, object]) -> Any | None:
    """Return what was kept under `key`, if it is fresh and can be read."""
    if (path := _path(kind, key)) is None:
        return None
    try:
        if not 0.0 <= time.time() - path.stat().st_mtime < FRESH:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found["value"] if isinstance(found, dict) and found.get("key") == _plain(key) else None


def keep(kind: str, key: Mapping[str, object], value: object) -> None:
    """Keep `value`, plain values, under `key`; what is not fresh any more goes. Nothing happens where the cache cannot be written."""
    if (path := _path(kind, key)) is None:
        return
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.write_text(json_text({"key": _plain(key), "value": value}), encoding="utf-8")
        for other in path.parent.glob(f"{kind}-*.json"):
            if time.time() - other.stat().st_mtime >= FRESH:
                other.unlink(missing_ok=True)


def _path(kind: str, key: Mapping[str, object]) -> Path | None:
    folder = cache_folder()
    digest = hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()
    return None if folder is None else folder / f"{kind}-{digest[:32]}.json"


def _plain(key: Mapping[str, object]) -> object:
    """The key as JSON gives it back."""
    return json.loads(json.dumps(key))
