"""The rooms import only downwards, and each library has one door."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnx_subprune"
LAYERS = {
    **dict.fromkeys(("errors", "_version", "handover", "mapping", "wire"), 0),
    **dict.fromkeys(("runtime", "timing", "selection", "allocation"), 1),
    **dict.fromkeys(("graph", "data", "script", "sources"), 2),
    **dict.fromkeys(("calibration", "slicing", "surgery", "masking", "output", "restriction", "augmentation"), 3),
    **dict.fromkeys(
        (
            "verification",
            "task",
            "asking",
            "choosing",
            "joint",
            "layer",
            "pairing",
            "presliced",
            "refitting",
            "state",
            "walk",
            "reconstruction",
            "sensitivity",
            "metric",
            "measurement",
            "budgeting",
            "resources",
        ),
        4,
    ),
    **dict.fromkeys(("statistics", "probing"), 4),
    **dict.fromkeys(("pipeline", "report", "comparison", "collected"), 5),
    **dict.fromkeys(("cli", "integrations", "__main__", "__init__"), 6),
}
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
def test_a_module_imports_only_from_its_own_or_a_lower_layer(path):
    for name in imported(path):
        if name.startswith("onnx_subprune."):
            assert LAYERS[name.split(".")[1]] <= LAYERS[room(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_mathematics_knows_no_onnx_and_onnxruntime_has_one_door(path):
    roots = {name.split(".")[0] for name in imported(path)}
    if room(path) in ("selection", "allocation"):
        assert not roots & {"onnx", "onnxruntime", "onnx_graphsurgeon"}
        other = {"selection": "allocation", "allocation": "selection"}[room(path)]
        assert not any(name.startswith(f"onnx_subprune.{other}") for name in imported(path))
    if room(path) != "runtime":
        assert "onnxruntime" not in roots
