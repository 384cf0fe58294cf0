"""The rooms import only downwards, without circles, each library has one door, and nothing is too long."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "onnx_subprune"
ROOT = {"__init__.py", "__main__.py", "_version.py", "_typing.py", "errors.py"}
GROUND = ("errors", "_version", "_typing")
DOORS = ("cli", "integrations", "__main__", "__init__")
ORDER = (
    GROUND,
    ("selection", "allocation", "runtime"),
    ("graph",),
    ("calibration",),
    ("reconstruction",),
    ("evaluation",),
    ("pruning",),
    DOORS,
)
INSIDE = {
    "selection": (("selection/linalg",), ("selection",)),
    "runtime": (("runtime/profiler", "runtime"),),
    "graph": (
        ("graph",),
        ("graph/contractions", "graph/folding"),
        ("graph/rules",),
        ("graph/tracing",),
        ("graph/surgery", "graph/costs", "graph/gradients"),
    ),
    "calibration": (
        ("calibration/data", "calibration/moments"),
        ("calibration/streaming",),
        ("calibration/files", "calibration/dask", "calibration"),
    ),
    "reconstruction": (("reconstruction/producers", "reconstruction/finetuning"), ("reconstruction",)),
    "evaluation": (("evaluation",), ("evaluation/report",)),
    "pruning": (("pruning/budgets",), ("pruning",)),
}
"""What lies in a room, from below; sub-rooms side by side do not know each other."""
FLOOR = {name: number for number, names in enumerate(ORDER) for name in names}
LEVEL = {name: level for floors in INSIDE.values() for level, names in enumerate(floors) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES, BODY, PARAMETERS = 250, 60, 8
VERBS = {"pruning/prune.py", "pruning/prune_from_moments.py", "pruning/collect.py", "pruning/compare.py"}
"""What users call: one parameter an option. So do the commands of `cli`."""
FLOORS, CHAIN = 10, 22

each = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@cache
def known(path: Path) -> frozenset[Path]:
    """The modules of the package that one imports."""
    found = set()
    for name in imported(path):
        place = PACKAGE.parent.joinpath(*name.split("."))
        found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    inner = {file.parent for file in found if file.name != "__init__.py"}
    # `from room import module` names the room's __init__ too, which it does not use
    return frozenset(found - {path} - {file for file in found if file.name == "__init__.py" and file.parent in inner})


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def corner(path: Path) -> str:
    return "/".join(path.relative_to(PACKAGE).parts[:-1]) or room(path)


@each
def test_a_module_imports_only_from_its_own_or_a_lower_room(path):
    for other in known(path):
        assert FLOOR[room(other)] <= FLOOR[room(path)], f"{path.name} imports {other}"
        if FLOOR[room(other)] == FLOOR[room(path)] and room(path) not in (*GROUND, *DOORS):
            assert room(other) == room(path), f"{path.name} imports {other}"


@each
def test_a_module_imports_only_from_its_own_or_a_lower_part_of_its_room(path):
    mine = corner(path)
    for other in known(path):
        if room(other) == room(path) and corner(other) != mine:
            assert LEVEL[corner(other)] < LEVEL[mine], f"{path.name} imports {other}"


def test_every_part_of_a_room_has_its_place():
    assert {corner(path) for path in MODULES} == {*LEVEL, "allocation", *GROUND, *DOORS}


@each
def test_the_mathematics_knows_no_onnx_and_onnxruntime_has_one_door(path):
    roots = {name.split(".")[0] for name in imported(path)}
    if room(path) in ("selection", "allocation"):
        assert not roots & {"onnx", "onnxruntime", "onnx_graphsurgeon"}
    if room(path) != "runtime":
        assert "onnxruntime" not in roots


def test_nothing_but_the_doors_stands_at_the_root():
    assert {path.name for path in PACKAGE.glob("*.py")} == ROOT


@each
def test_nothing_is_too_long_and_nothing_asks_for_too_much(path):
    assert len(path.read_text().splitlines()) <= LINES
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
        assert body[-1].end_lineno - body[0].lineno < BODY, node.name
        public = str(path.relative_to(PACKAGE)) in VERBS or node.name.endswith("_command")
        arguments = [item.arg for item in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        assert public or len([name for name in arguments if name not in ("self", "cls")]) <= PARAMETERS, node.name


def depths(below) -> dict:
    """The longest way down from each key of `below`, which says what stands right below it; AssertionError for a circle."""
    found, open_ = {}, set()

    def depth(key) -> int:
        assert key not in open_, f"a circle through {key}"
        if key not in found:
            open_.add(key)
            found[key] = 1 + max((depth(other) for other in below[key]), default=0)
            open_.remove(key)
        return found[key]

    for key in below:
        depth(key)
    return found


def test_the_house_has_few_floors_no_circle_and_short_chains():
    """Floors are of rooms and their parts, which stand on the ground of errors and types; the doors are one."""
    assert max(depths({path: known(path) for path in MODULES}).values()) <= CHAIN

    def name(path: Path) -> str:
        return "doors" if room(path) in DOORS else corner(path)

    rooms: dict[str, set[str]] = {}
    for path in MODULES:
        if room(path) not in GROUND:
            others = {name(other) for other in known(path) if room(other) not in GROUND}
            rooms.setdefault(name(path), set()).update(others - {name(path)})
    assert max(depths(rooms).values()) <= FLOORS
