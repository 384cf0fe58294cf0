"""What a user imports: arguments of every kind that is taken, one clear error for the others, and results that show themselves."""

import doctest
import importlib
import inspect
from dataclasses import replace
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
    "min_width": (("model.onnx", X), {"min_width": 0.5}, "number of channels"),
    "round_to": (("model.onnx", X), {"round_to": 2.5}, "number of channels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_another_type_is_one_type_error_that_says_what_is_taken(name):
    places, words, says = WRONG[name]
    with pytest.raises(TypeError) as told:
        prune(*places, **words)
    assert isinstance(told.value, ArgumentTypeError)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


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
    evil = replace(result.report, notes=("<script>",))
    assert "<script>" not in evil._repr_html_()


PUBLIC = [name for name in face.__all__ if inspect.isfunction(getattr(face, name))]
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
