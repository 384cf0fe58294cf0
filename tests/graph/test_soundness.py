"""Models that are damaged, or made to do harm: one line each, soon, and nothing but ModelError."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune import Channels, prune
from onnx_subprune.cli import run
from onnx_subprune.errors import ModelError
from onnx_subprune.graph import feeds
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tensors import MOST_AXES
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.collect import collect
from onnx_subprune.pruning.sensitivity import sensitivity

X = np.random.default_rng(1).standard_normal((16, 12)).astype(np.float32)


def network():
    """x (N, 12) - MatMul w0 - Relu - MatMul w1 - Add b1 - Relu - MatMul w2 - y (N, 4)."""
    generator = np.random.default_rng(0)
    names = [("MatMul", "x w0", "a"), ("Relu", "a", "b"), ("MatMul", "b w1", "c"), ("Add", "c b1", "d")]
    names += [("Relu", "d", "e"), ("MatMul", "e w2", "y")]
    nodes = [helper.make_node(op, inputs.split(), [output]) for op, inputs, output in names]
    shapes = {"w0": (12, 16), "w1": (16, 16), "b1": (16,), "w2": (16, 4)}
    weights = [numpy_helper.from_array(generator.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 12), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def weight(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def with_dims(*dims):
    def change(model):
        del weight(model, "w1").dims[:]
        weight(model, "w1").dims.extend(dims)

    return change


def with_type(kind):
    def change(model):
        weight(model, "w1").data_type = kind

    return change


def cycle(model):
    model.graph.node[0].input[0] = "e"


def loop(model):
    model.graph.node[1].input[0] = "b"


def cycle_through_a_body(model):
    body = helper.make_graph(
        [helper.make_node("Relu", ["e"], ["e1"])], "t", [], [helper.make_tensor_value_info("e1", 1, None)]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[4].CopyFrom(helper.make_node("If", ["yes"], ["e"], then_branch=body, else_branch=body))


def split_in_more_than_it_says(model):
    model.graph.node.append(helper.make_node("Split", ["b"], ["p", "q", "r"], axis=1, num_outputs=2))


def two_producers(model):
    model.graph.node.insert(3, helper.make_node("Relu", ["b"], ["c"]))


def produced_input(model):
    model.graph.node.insert(3, helper.make_node("Relu", ["b"], ["x"]))


def produced_weight(model):
    model.graph.node.insert(3, helper.make_node("Relu", ["b"], ["w2"]))


def two_weights(model):
    model.graph.initializer.append(model.graph.initializer[0])


def fewer_numbers(model):
    tensor = weight(model, "b1")
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 15)


def attribute_without_bytes(model):
    value = TensorProto(name="value", data_type=TensorProto.FLOAT, dims=[16])
    del model.graph.initializer[2]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["b1"], value=value))


def huge_input(*dims):
    def change(model):
        model.graph.node[0].CopyFrom(helper.make_node("ReduceSum", ["x"], ["x1"]))
        model.graph.node.insert(1, helper.make_node("Mul", ["x1", "w1"], ["a"]))
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, dims))

    return change


def input_of_no_type(model):
    model.graph.input[0].type.tensor_type.elem_type = 99


def calls(bodies, first, inputs=("d",)):
    """The Relu in front of the last layer becomes a call of the function `first`; bodies: what each function calls, one after the other."""

    def change(model):
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        for name, called in bodies.items():
            names = ["p", *(f"t{number}" for number in range(len(called) - 1)), "q"]
            nodes = [
                helper.make_node(op, [names[i]], [names[i + 1]], domain="" if op == "Relu" else "local")
                for i, op in enumerate(called)
            ]
            model.functions.append(helper.make_function("local", name, ["p"], ["q"], nodes, opsets))
        model.graph.node[4].CopyFrom(helper.make_node(first, list(inputs), ["e"], domain="local"))
        model.opset_import.append(opsets[1])

    return change


def exploding(depth):
    bodies = {f"F{number}": [f"F{number + 1}"] * 2 for number in range(depth)}
    return calls(bodies | {f"F{depth}": ["Relu"]}, "F0")


def exploding_in_bytes(model):
    exploding(14)(model)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(1 << 18, np.float32)))
    model.functions[-1].node.insert(0, constant)


SPOILED = {
    "cycle": (cycle, "cycle: node 0"),
    "node that reads itself": (loop, "cycle: node 1"),
    "cycle through a body": (cycle_through_a_body, "cycle: node 4"),
    "two producers": (two_producers, "'c' has two producers, node 2 (MatMul) and node 3 (Relu)"),
    "an input is produced": (produced_input, "'x' has two producers, an input of the model"),
    "a weight is produced": (produced_weight, "'w2' has two producers, an initializer"),
    "two weights of one name": (two_weights, "'w0' is an initializer twice"),
    "dims and bytes": (
        with_dims(16, 17),
        "weight 'w1' has the dimensions [16, 17], which take 1088 bytes, but it has 1024",
    ),
    "dims of a gigabyte": (with_dims(16384, 16384), "weight 'w1'"),
    "dims of 2^64": (with_dims(2**62, 4), "weight 'w1'"),
    "negative dims": (with_dims(-1, 16), "cannot be negative"),
    "negative dims whose product is right": (with_dims(-16, -16), "cannot be negative"),
    "too many dims": (with_dims(*[1] * MOST_AXES, 16, 16), "dimensions: more than"),
    "type of no name": (with_type(99), "element type 99"),
    "no type": (with_type(0), "element type 0"),
    "fewer numbers than dims": (fewer_numbers, "take 16 numbers, but it has 15"),
    "constant without bytes": (attribute_without_bytes, "take 16 numbers, but it has 0"),
    "input of terabytes": (huge_input("N", 2**40), "x 1099511627776, more than 128 MB"),
    "input beyond counting": (huge_input(2**31, 2**31), "input 'x' is declared as"),
    "input of a million samples": (huge_input(2**20, 40), "input 'x' is declared as"),
    "input of no type": (input_of_no_type, "input 'x' has the element type 99"),
    "input without a type": (lambda model: model.graph.input[0].type.Clear(), "input 'x' has no type"),
    "node without an output": (lambda model: model.graph.node[-1].ClearField("output"), "has no output"),
    "split in more than it says": (split_in_more_than_it_says, "'Split' has 3 outputs, but says num_outputs=2"),
    "function that calls itself": (calls({"F": ["F"]}, "F"), "a function calls itself: local.F"),
    "functions that call each other": (calls({"F": ["G"], "G": ["F"]}, "F"), "a function calls itself"),
    "too many inputs of a function": (calls({"F": ["Relu"]}, "F", "ddd"), "with 3 inputs, but it has 1"),
    "2^24 nodes": (exploding(24), "expand to 50,331,646 nodes"),
    "2^200 nodes": (exploding(200), "expand to"),
    "2^34 bytes": (exploding_in_bytes, "2 GB"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_no_model_is_refused_in_one_line_that_says_where(name):
    change, says = SPOILED[name]
    model = network()
    change(model)
    with pytest.raises(ModelError) as caught:
        trace(model)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_sound_model_and_one_that_reuses_functions_within_reason_pass():
    trace(network())
    model = network()
    exploding(6)(model)
    assert len(trace(model).groups) == 2


@pytest.mark.parametrize("what", ["tensor", "weight", "node", "operator", "domain", "output", "dimension", "function"])
def test_names_that_are_not_text_are_refused(tmp_path, what):
    model = network()
    calls({"F": ["Relu"]}, "F")(model)
    if what == "tensor":
        model.graph.node[1].output[0] = model.graph.node[2].input[0] = "QQQQ"
    elif what == "weight":
        model.graph.initializer[0].name = model.graph.node[0].input[1] = "QQQQ"
    elif what == "node":
        model.graph.node[2].name = "QQQQ"
    elif what == "operator":
        model.graph.node[1].op_type = "QQQQ"
    elif what == "domain":
        model.graph.node[1].domain = "QQQQ"
    elif what == "output":
        model.graph.output[0].name = model.graph.node[5].output[0] = "QQQQ"
    elif what == "dimension":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "QQQQ"
    else:
        model.functions[0].name = model.graph.node[4].op_type = "QQQQ"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"QQQQ", b"\xe0\x80\xf2a"))
    with pytest.raises(ModelError, match=r"is not text \(UTF-8\)"):
        load(path)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-1"},
        {"offset": "abc"},
        {"offset": ""},
        {"offset": "9" * 23},
        {"offset": "100000"},
        {"offset": "\u0664"},
        {"offset": "0", "length": "4"},
        {"offset": "0", "length": "-1"},
        {"offset": "0", "length": "abc"},
        {"offset": "0", "length": "9" * 23},
        {"location": "w\0.bin"},
        {"location": ""},
        {"location": "."},
        {"location": "../w.bin"},
        {"location": "/w.bin"},
        {"location": "elsewhere"},
        {"dims": [2**62, 4]},
        {"dims": [10**9, 16]},
        {"dims": [-1, 16]},
        {"dims": [1] * 100},
    ],
    ids=str,
)
def test_side_files_that_cannot_be_are_refused(tmp_path, entries):
    model = network()
    tensor = weight(model, "w0")
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        if key == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            tensor.external_data.add(key=key, value=value)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_constants_of_nodes_that_lie_in_a_side_file_leave_with_the_model(tmp_path):
    model = network()
    value = TensorProto(name="value", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="c.bin")
    bias = numpy_helper.to_array(weight(model, "b1"))
    (tmp_path / "c.bin").write_bytes(bias.tobytes())
    del model.graph.initializer[2]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["b1"], value=value))
    onnx.save(model, tmp_path / "m.onnx")
    network_read = load(tmp_path / "m.onnx")
    assert np.array_equal(network_read.array("b1"), bias)
    assert not network_read.nodes[0].attribute[0].t.external_data


@pytest.mark.parametrize("name", ["w1", "b1", "w2"])
def test_a_weight_that_is_no_number_is_named_before_any_data_are_blamed(tmp_path, name):
    model = network()
    array = numpy_helper.to_array(weight(model, name)).copy()
    array.reshape(-1)[5] = np.nan
    weight(model, name).CopyFrom(numpy_helper.from_array(array, name))
    for verb in (
        lambda: prune(model, X, budget=Channels(0.5)),
        lambda: sensitivity(model, X),
        lambda: collect(model, X, tmp_path / "s.npz"),
    ):
        with pytest.raises(ModelError, match=rf"weight '{name}' of .* holds NaN"):
            verb()


def test_an_infinite_weight_is_named_but_infinities_of_masks_are_meant():
    model = network()
    array = numpy_helper.to_array(weight(model, "b1")).copy()
    array[5] = -np.inf  # Relu makes 0 of it
    weight(model, "b1").CopyFrom(numpy_helper.from_array(array, "b1"))
    trace(model)
    weight(model, "w2").CopyFrom(numpy_helper.from_array(np.full((16, 4), np.inf, np.float32), "w2"))
    with pytest.raises(ModelError, match=r"weight 'w2' of .* holds infinity"):
        prune(model, X, budget=Channels(0.5))


def test_names_that_look_like_markup_or_control_characters_are_printed_as_they_are(tmp_path, capsys):
    model = network()
    for node, name in zip(model.graph.node, ("[bold]b", "ü", "[/red]", "a\nb", "n" * 5000, "\x1b[31mred"), strict=True):
        node.name = name
    onnx.save(model, tmp_path / "m.onnx")
    assert run(["inspect", str(tmp_path / "m.onnx")]) == 0
    text = capsys.readouterr().out
    assert "[bold]b" in text
    assert "\x1b[31m" not in text


def test_a_large_declared_batch_is_made_up_once_at_a_time(monkeypatch):
    model, made = network(), list[int]()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 64
    whole = feeds.made_up_example
    monkeypatch.setattr(
        "onnx_subprune.graph.observing.made_up_example", lambda *given: made.append(given[1]) or whole(*given)
    )
    trace(model)
    assert len(made) <= 2


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (helper.make_node("If", [], ["y"]), "has 0 inputs, and If at least 1"),
        (helper.make_node("Loop", ["x", "x"], ["y"]), "lacks the attribute 'body'"),
        (helper.make_node("Gather", ["e"], ["y"]), "has 1 inputs, and Gather at least 2"),
        (helper.make_node("Shape", ["e"], ["y"], start="first"), "its attribute 'start' is of another type"),
    ],
    ids=["an If without a condition", "a Loop without a body", "a Gather without places", "a word for a number"],
)
def test_nodes_that_lack_what_their_operators_need_are_named_before_anything_is_read_of_them(broken, said):
    model = network()
    model.graph.node[-1].CopyFrom(broken)
    with pytest.raises(ModelError, match=said):
        load(model)


@pytest.mark.parametrize("opset", [-(2**31), 0, 10**6])
def test_opsets_that_there_are_not_are_left_to_the_runtime(opset):
    model = network()
    model.opset_import[0].version = opset
    with pytest.raises(ModelError):
        prune(model, X, budget=Channels(0.5))
