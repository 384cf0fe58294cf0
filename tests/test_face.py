"""What a user imports: arguments of every kind that is taken, one clear error for the others, and results that show themselves."""

import doctest
import importlib
import inspect
import json
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_subprune as face
from onnx_subprune import ArgumentTypeError, Channels, Gates, Macs, OptionError, Resources, compare, prune
from onnx_subprune.calibration.data.reading import open_data
from onnx_subprune.graph.network import load, ports
from tests.small import fill

CHEAP = Resources(trials=0, shifts=False, threads=1)
X = "calibration.npz"


@pytest.fixture(scope="module")
def _folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("face")
    fill(path)
    return path


@pytest.fixture(autouse=True)
def here(_folder, monkeypatch):
    monkeypatch.chdir(_folder)
    return _folder


@pytest.fixture(scope="module")
def result(_folder):
    return prune(_folder / "model.onnx", _folder / X, budget=Channels(0.5), resources=CHEAP)


def array():
    return np.load(X)["input"]


class Reader:
    """As onnxruntime's CalibrationDataReader."""

    def __init__(self):
        self.left = list(array())

    def get_next(self):
        return {"input": self.left.pop(0)[None]} if self.left else None


class Loader:
    """As torch's DataLoader over a data set of inputs alone: tuples, which can be gone through again and again."""

    def __iter__(self):
        return ((array()[place : place + 16],) for place in range(0, 64, 16))


class Tensor:
    """As an array of another library."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return self.value if dtype is None else self.value.astype(dtype)

    def __iter__(self):
        return (Tensor(item) for item in self.value)


def ir_model(path="model.onnx"):
    return pytest.importorskip("onnx_ir").load(path)


def ir_model_with_side_file():
    onnx.save(onnx.load("model.onnx"), "side.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return ir_model("side.onnx")


MODELS = {
    "path as text": lambda: "model.onnx",
    "path": lambda: Path("model.onnx"),
    "bytes": lambda: Path("model.onnx").read_bytes(),
    "ModelProto": lambda: onnx.load("model.onnx"),
    "onnx_ir": ir_model,
    "onnx_ir with a side file": ir_model_with_side_file,
}
DATA = {
    "path": lambda: X,
    "array": array,
    "array of another library": lambda: Tensor(array()),
    "dictionary": lambda: {"input": array()},
    "dictionary of tensors": lambda: {"input": Tensor(array())},
    "list of arrays": lambda: [array()[:32], array()[32:]],
    "list of dictionaries": lambda: [{"input": array()[:32]}, {"input": array()[32:]}],
    "generator": lambda: ({"input": array()[place : place + 1]} for place in range(64)),
    "factory": lambda: lambda: iter([array()]),
    "loader": Loader,
    "reader": Reader,
}
BUDGETS = [0.5, np.float64(0.5)]
NAMED = [
    {"formulation": "layerwise"},
    {"formulation": "sequential"},
    {"selector": "weight-norm"},
    {"selector": "random"},
    {"allocator": "uniform"},
    {"refit": False},
    {"exclude": "conv1"},
    {"only": ["conv*"]},
    {"target": "none"},
    {"round_to": 4},
]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_may_be_a_path_bytes_a_proto_or_an_ir_model(name, result):
    given = MODELS[name]()
    found = prune(given, X, budget=Channels(0.5), resources=CHEAP)
    assert [group.kept for group in found.report.groups] == [group.kept for group in result.report.groups]
    assert compare(given, found.model, "test.npz").macs.ratio == pytest.approx(result.report.macs.ratio)


@pytest.mark.parametrize("name", DATA)
def test_data_may_be_all_that_yields_arrays(name, result):
    given, rest = open_data(DATA[name](), ports(load("model.onnx")))
    assert given.sha256() == result.report.data["sha256"]
    assert rest is None
    if name == "loader":
        found = prune("model.onnx", DATA[name](), budget=Channels(0.5), resources=CHEAP)
        assert found.model.SerializeToString() == result.model.SerializeToString()


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_number_is_a_budget_of_multiply_accumulates(budget):
    report = prune("model.onnx", X, budget=budget, resources=CHEAP, allocator="uniform").report
    assert report.settings["budget"] == "Macs(fraction=0.5)"


@pytest.mark.parametrize("words", NAMED, ids=str)
def test_names_stand_for_values_as_on_the_command_line(words):
    found = prune("model.onnx", X, budget=Channels(0.5), resources=CHEAP, gates=Gates(accept_any=True), **words)
    assert found.report.macs.ratio < 0.9


WRONG = {
    "model": ((3, X), {}, "onnx_ir.Model"),
    "no data": (("model.onnx", None), {}, "CalibrationDataReader"),
    "bytes as data": (("model.onnx", b"data"), {}, "CalibrationDataReader"),
    "budget": (("model.onnx", X), {"budget": "half"}, "Macs(0.5)"),
    "budget's class": (("model.onnx", X), {"budget": Macs}, "the class Macs, not a value"),
    "formulation": (("model.onnx", X), {"formulation": 1}, "'asymmetric'"),
    "selector": (("model.onnx", X), {"selector": face.Forward}, "Forward()"),
    "allocator": (("model.onnx", X), {"allocator": 0.5}, "Uniform()"),
    "refit": (("model.onnx", X), {"refit": 3}, "Refit("),
    "exclude": (("model.onnx", X), {"exclude": [1]}, "'op:Conv'"),
    "metric": (("model.onnx", X), {"metric": "labels.npy"}, "Accuracy("),
    "gates": (("model.onnx", X), {"gates": 0.1}, "Gates("),
    "rules": (("model.onnx", X), {"rules": []}, "Rule("),
    "resources": (("model.onnx", X), {"resources": 64}, "Resources("),
    "progress": (("model.onnx", X), {"progress": True}, "a function"),
    "constants": (("model.onnx", X), {"constants": [1]}, "dictionary"),
    "rules' values": (("model.onnx", X), {"rules": {"Conv": 3}}, "Rule(...)"),
    "min_width": (("model.onnx", X), {"min_width": 0.5}, "a whole number or None"),
    "round_to": (("model.onnx", X), {"round_to": 2.5}, "a whole number or 'auto'"),
    "a truth value": (("model.onnx", X), {"round_to": True}, "a whole number or 'auto'"),
    "executor": (("model.onnx", X), {"executor": "tcp://host:8786"}, "Executor(...)"),
    "target": (("model.onnx", X), {"target": 64}, "a text or None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_another_type_is_one_type_error_that_says_what_is_taken(name):
    places, words, says = WRONG[name]
    with pytest.raises(TypeError) as told:
        prune(*places, **words)
    assert isinstance(told.value, ArgumentTypeError)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def collected():
    face.collect("model.onnx", X, "moments.npz", force=True, resources=CHEAP)
    return "moments.npz"


PUBLIC = [name for name in face.__all__ if inspect.isfunction(getattr(face, name))]
CALLS = {
    face.prune: lambda: ("model.onnx", X),
    face.sensitivity: lambda: ("model.onnx", X),
    face.compare: lambda: ("model.onnx", "model.onnx", X),
    face.collect: lambda: ("model.onnx", X, "new.npz"),
    face.merge: lambda: ([collected()], "all.npz"),
    face.prune_collected: lambda: ("model.onnx", collected()),
    face.apply_recipe: lambda: ("model.onnx", "recipe.json", X),
    face.carried: lambda: ("model.onnx", X, {}),
    face.trace: lambda: ("model.onnx",),
}
STRANGE = (object(), {1: 2}, 3 + 4j, range)
"""Of no type that anything takes; a dictionary and a class, which are data, in place of numbers and names."""


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_every_argument_of_every_function_says_what_types_it_takes(function, result):
    """One law for all functions: whatever is given, it is one line and a TypeError, and nothing has been done."""
    assert {item.__name__ for item in CALLS} == set(PUBLIC)
    face.Recipe.of(result.report).to_json("recipe.json")
    places = CALLS[function]()
    names = list(inspect.signature(function).parameters)
    for place, name in enumerate(names):
        for strange in STRANGE if name not in ("data", "shards", "constants", "carry") else STRANGE[::2]:
            given = [*places[:place], strange, *places[place + 1 :]] if place < len(places) else places
            with pytest.raises(ArgumentTypeError, match=r"^[^\n]* (of type|the class) [^\n]*: give ") as told:
                function(*given, **({name: strange} if place >= len(places) else {}))
            assert str(told.value).startswith(("model", "pruned") if name in ("original", "pruned") else name), name


def values():
    """The exported values that have arguments, with arguments that they take."""
    needed = {"fraction": 0.5, "drop": 0.5, "metric": face.Accuracy([0]), "labels": [0], "function": len, "tie": len}
    for name in face.__all__:
        kind = getattr(face, name)
        if is_dataclass(kind) and name not in ("Comparison", "Pruned", "Recipe", "Report", "Scope") and fields(kind):
            yield kind, {item.name: needed[item.name] for item in fields(kind) if item.default is MISSING}


@pytest.mark.parametrize(("kind", "needed"), [*values()], ids=lambda item: getattr(item, "__name__", ""))
def test_every_field_of_every_value_says_what_types_it_takes(kind, needed):
    kind(**needed)
    for item in fields(kind):
        for strange in STRANGE:
            with pytest.raises(ArgumentTypeError, match=f"{item.name} is .*: give "):
                kind(**{**needed, item.name: strange})


def test_numbers_of_numpy_and_lists_for_tuples_are_taken():
    assert Resources(samples=np.int32(3), holdout=np.float32(0.5), shifts=np.True_).samples == 3
    face.collect("model.onnx", X, "half.npz", shard=[1, 2], resources=CHEAP, force=np.bool_(True))
    assert face.Rule(len, spelled=[1]).spelled == [1]


@pytest.mark.parametrize("words", [{"samples": 0}, {"batch_size": 0}, {"threads": -1}, {"memory": 0}, {"trials": -1}])
def test_resources_that_make_no_sense_are_refused(words):
    with pytest.raises(OptionError, match="at least"):
        Resources(**words)


@pytest.mark.parametrize("words", [{"joint": -1}, {"rounds": -1}])
def test_refits_of_fewer_than_no_steps_are_refused(words):
    with pytest.raises(OptionError, match="at least 0"):
        face.Refit(**words)


def test_files_are_written_to_paths_alone(result):
    compared = compare("model.onnx", result.model, "test.npz")
    for write in (result.save, result.report.to_json, compared.to_json, face.Recipe.of(result.report).to_json):
        with pytest.raises(ArgumentTypeError, match="path is of type int: give a path"):
            write(3)
    compared.to_json("compared.json")
    assert set(json.loads(Path("compared.json").read_text())) == set(compared.to_dict())


@pytest.mark.parametrize(
    ("words", "meant"), [({"selector": "forwrd"}, "'forward'"), ({"formulation": "assymetric"}, "'asymmetric'")]
)
def test_a_name_that_is_misspelt_gets_a_suggestion(words, meant):
    with pytest.raises(OptionError, match=f"did you mean {meant}"):
        prune("model.onnx", X, **words)
    with pytest.raises(OptionError, match="did you mean 'conv2'"):
        prune("model.onnx", X, exclude="conv_2")


def test_results_show_themselves_as_text_and_in_a_notebook(result):
    assert str(result) == str(result.report)
    found = compare("model.onnx", result.model, "test.npz")
    for shown in (result, result.report, found):
        assert "multiply-accumulates" in str(shown)
        assert "logits" in str(shown)
        assert shown._repr_html_().startswith("<table>")
    poor = replace(result.report, warnings=("it is poor",))
    assert str(poor).startswith("warning: it is poor\n")
    assert poor._repr_html_().startswith("<p>warning: it is poor</p>")
    evil = replace(result.report, notes=("<script>",))
    assert "<script>" not in evil._repr_html_()


EXAMPLES = {name: getattr(face, name) for name in PUBLIC}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_says_what_it_takes_returns_and_raises(name):
    text = inspect.getdoc(EXAMPLES[name])
    for head in ("Parameters\n---", "Raises\n---", "Examples\n---"):
        assert head in text, head
    assert ("Returns\n---" in text) == (inspect.signature(EXAMPLES[name]).return_annotation is not None)
    for argument in inspect.signature(EXAMPLES[name]).parameters:
        assert argument in text, argument


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_every_public_function_runs(name, tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    function = EXAMPLES[name]
    module = importlib.import_module(function.__module__)
    found = doctest.DocTestFinder(recurse=False).find(function, name, module, globs={})
    assert found[0].examples
    assert doctest.DocTestRunner().run(found[0]).failed == 0


def test_everything_that_is_exported_is_there_and_is_explained():
    for name in face.__all__:
        assert name.startswith("_") or name == "RULES" or inspect.getdoc(getattr(face, name)), name
