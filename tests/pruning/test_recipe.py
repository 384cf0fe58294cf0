"""Recipes: the same channels of another checkpoint."""

import json

import numpy as np
import onnx
import pytest

from onnx_subprune import Channels, OptionError, Recipe, Resources, apply_recipe, compare, prune
from onnx_subprune.cli import run
from tests.networks.net import Net
from tests.small import fill

CHEAP = Resources(threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe")
    fill(path)
    model = onnx.load(path / "model.onnx")  # as if it had been trained on
    rng = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        other = (value * (1 + 0.02 * rng.standard_normal(value.shape))).astype(value.dtype)
        tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
    onnx.save(model, path / "tuned.onnx")
    return path


@pytest.fixture(scope="module")
def first(folder):
    return prune(folder / "model.onnx", folder / "calibration.npz", budget=Channels(0.5), resources=CHEAP)


def kept(result):
    return {group.name: group.kept for group in result.report.groups}


def test_a_recipe_cuts_the_same_channels_of_another_checkpoint_and_data_make_up_for_them(folder, first):
    recipe = Recipe.of(first.report)
    sliced = apply_recipe(folder / "tuned.onnx", recipe)
    fitted = apply_recipe(folder / "tuned.onnx", recipe, folder / "calibration.npz", resources=CHEAP)
    assert kept(sliced) == kept(fitted) == kept(first)
    errors = [
        compare(folder / "tuned.onnx", found.model, folder / "test.npz", threads=1).fidelity.outputs["logits"]
        for found in (sliced, fitted)
    ]
    assert errors[1].relative_error < 0.2 * errors[0].relative_error
    assert sliced.report.macs == fitted.report.macs == first.report.macs
    assert sliced.report.fidelity is None
    assert fitted.report.fidelity.held_out


def test_weights_that_are_only_sliced_are_those_of_the_checkpoint(folder, first):
    small = apply_recipe(folder / "tuned.onnx", Recipe.of(first.report)).model
    whole = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(folder / "tuned.onnx").graph.initializer}
    rows = list(kept(first)["conv2"])
    columns = list(kept(first)["conv1"])
    node = next(node for node in small.graph.node if node.name == "conv2")
    found = next(onnx.numpy_helper.to_array(t) for t in small.graph.initializer if t.name == node.input[1])
    original = next(node for node in onnx.load(folder / "tuned.onnx").graph.node if node.name == "conv2").input[1]
    np.testing.assert_array_equal(found, whole[original][rows][:, columns])


def test_a_recipe_survives_its_file(first, tmp_path):
    recipe = Recipe.of(first.report)
    recipe.to_json(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json").to_dict() == recipe.to_dict()


def damaged(change):
    def make(found):
        change(found)
        return json.dumps(found)

    return make


DAMAGED = {
    "no JSON": lambda found: "this is none",
    "a list": lambda found: "[]",
    "schema": damaged(lambda found: found.update(schema=99)),
    "no groups": damaged(lambda found: found.pop("groups")),
    "twice": damaged(lambda found: found["groups"][0].update(kept=[0, 0])),
    "beyond": damaged(lambda found: found["groups"][0].update(kept=[99])),
    "no numbers": damaged(lambda found: found["groups"][0].update(kept=["a"])),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_recipe_is_one_line(first, tmp_path, name):
    path = tmp_path / "recipe.json"
    path.write_text(DAMAGED[name](Recipe.of(first.report).to_dict()))
    with pytest.raises(OptionError, match="recipe") as told:
        Recipe.read(path)
    assert "\n" not in str(told.value)


def test_a_recipe_of_another_architecture_is_refused(first):
    net = Net()
    net.head(net.relu(net.conv(net.input(["n", 3, 8, 8], "input"), 12, 3, name="conv1")))
    with pytest.raises(OptionError, match="another architecture"):
        apply_recipe(net.model(), Recipe.of(first.report))


def test_both_commands(folder, tmp_path, capsys):
    tokens = ["--data", str(folder / "calibration.npz"), "--quiet", "--threads", "1"]
    recipe, model, tuned = str(tmp_path / "recipe.json"), str(folder / "model.onnx"), str(folder / "tuned.onnx")
    assert run(["prune", model, str(tmp_path / "a.onnx"), *tokens, "--channels", "50%", "--recipe", recipe]) == 0
    assert run(["apply", tuned, recipe, str(tmp_path / "b.onnx"), *tokens]) == 0
    assert run(["apply", tuned, recipe, str(tmp_path / "c.onnx")]) == 0
    assert "not refitted" in capsys.readouterr().out
    assert run(["apply", tuned, recipe, recipe, "--force"]) == 2
    shapes = [
        [list(tensor.dims) for tensor in onnx.load(tmp_path / f"{name}.onnx").graph.initializer] for name in "abc"
    ]
    assert sorted(shapes[0]) == sorted(shapes[1]) == sorted(shapes[2])
