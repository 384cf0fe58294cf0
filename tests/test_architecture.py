"""The rooms import only downwards, and each library has one door."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnx_subprune"
ROOT = {"__init__.py", "__main__.py", "_version.py", "_typing.py", "errors.py"}
ORDER = (
    ("errors", "_version", "_typing"),
    ("selection", "allocation", "runtime"),
    ("graph",),
    ("calibration",),
    ("reconstruction",),
    ("evaluation",),
    ("pruning",),
    ("cli", "integrations", "__main__", "__init__"),
)
FLOOR = {name: number for number, names in enumerate(ORDER) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_or_a_lower_room(path):
    for name in imported(path):
        if name.startswith("onnx_subprune."):
            assert FLOOR[name.split(".")[1]] <= FLOOR[room(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_mathematics_knows_no_onnx_and_onnxruntime_has_one_door(path):
    roots = {name.split(".")[0] for name in imported(path)}
    if room(path) in ("selection", "allocation"):
        assert not roots & {"onnx", "onnxruntime", "onnx_graphsurgeon"}
        other = {"selection": "allocation", "allocation": "selection"}[room(path)]
        assert not any(name.startswith(f"onnx_subprune.{other}") for name in imported(path))
    if room(path) != "runtime":
        assert "onnxruntime" not in roots


def test_nothing_but_the_doors_stands_at_the_root():
    assert {path.name for path in PACKAGE.glob("*.py")} == ROOT


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_of_a_floor_does_not_know_its_neighbours(path):
    for name in imported(path):
        if name.startswith("onnx_subprune.") and FLOOR[name.split(".")[1]] == FLOOR[room(path)] not in (
            0,
            len(ORDER) - 1,
        ):
            assert name.split(".")[1] == room(path), f"{path.name} imports {name}"
