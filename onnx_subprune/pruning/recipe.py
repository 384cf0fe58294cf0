"""Recipes: which channels a run kept, to cut the same ones from another checkpoint of the same architecture (`apply`)."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx_subprune._version import __version__
from onnx_subprune.errors import OptionError, typed
from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.runtime.files import json_text, replacing

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A group that got narrower. basis: its channels are those of another basis than the model's; gone: see `GroupReport`, which tells of both."""

    name: str
    width: int
    kept: tuple[int, ...]
    basis: bool = False
    gone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which channels stay in each group that got narrower, where that came from, and with which settings."""

    groups: tuple[Kept, ...]
    model: Mapping[str, str]
    data: Mapping[str, str | int]
    settings: Mapping[str, str | float | int | bool | None]
    version: str = __version__

    @classmethod
    @typed("report")
    def of(cls, report: Report) -> "Recipe":
        """Return the recipe of a run."""
        narrower = [group for group in report.groups if group.width[1] < group.width[0]]
        return cls(
            groups=tuple(
                Kept(group.name, group.width[0], tuple(group.kept), group.basis, group.gone) for group in narrower
            ),
            model=report.model,
            data=report.data,
            settings=report.settings,
        )

    @classmethod
    @typed("path")
    def read(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Return the recipe in a file; OptionError if there is none."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA:
                raise OptionError(
                    f"{os.fspath(path)}: a recipe of schema {found['schema']}, this version reads {SCHEMA}"
                )
            groups = tuple(_kept(item) for item in found["groups"])
            parts = {name: dict(found[name]) for name in ("model", "data", "settings")}
            return cls(groups=groups, **parts, version=str(found["version"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = " ".join(str(getattr(error, "strerror", None) or error).split())[:160].lower()
            raise OptionError(f"{os.fspath(path)}: no recipe: {said}; `prune --recipe FILE` writes one") from error

    def to_dict(self) -> dict[str, object]:
        """Return the recipe as plain values."""
        return {
            "schema": SCHEMA,
            "version": self.version,
            "model": dict(self.model),
            "data": dict(self.data),
            "settings": dict(self.settings),
            "groups": [
                {
                    "name": item.name,
                    "width": item.width,
                    "kept": list(item.kept),
                    "basis": item.basis,
                    "gone": item.gone,
                }
                for item in self.groups
            ],
        }

    @typed("path")
    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe to `path`."""
        with replacing(Path(path)) as new:
            new.write_text(json_text(self.to_dict()), encoding="utf-8")


def _kept(item: Mapping[str, object]) -> Kept:
    name, width, kept = item["name"], item["width"], item["kept"]
    if not (isinstance(name, str) and isinstance(width, int) and isinstance(kept, list)):
        raise ValueError("a group needs a name, a width, and the channels that are kept")
    if not all(isinstance(place, int) and 0 <= place < width for place in kept) or sorted(set(kept)) != kept:
        raise ValueError(f"group {name!r} keeps channels that are not ascending numbers below its width {width}")
    gone = item.get("gone")
    return Kept(name, width, tuple(kept), bool(item.get("basis", False)), None if gone is None else str(gone))
