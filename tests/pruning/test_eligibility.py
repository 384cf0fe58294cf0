"""What the user's patterns name."""

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.eligibility import restricted
from tests.networks.net import Net


def network():
    """Three layers; the weight of the first reaches it turned and cast, that of the second passed on, and its bias cast."""
    n = Net()
    n.weights["W"] = n.rng.standard_normal((8, 6)).astype(np.float16)
    n.weights["V"] = n.rng.standard_normal((8, 7)).astype(np.float32)
    n.weights["bias"] = n.rng.standard_normal(7).astype(np.float16)
    x = n.relu(n("MatMul", n.input(["N", 6]), n("Transpose", n("Cast", "W", to=onnx.TensorProto.FLOAT)), name="first"))
    x = n("Add", n("MatMul", x, n("Identity", "V"), name="second"), n("Cast", "bias", to=onnx.TensorProto.FLOAT))
    n.output(n("MatMul", n.relu(x), n.weight(7, 3, name="U")), 2)
    return load(n.model())


@pytest.mark.parametrize(
    ("pattern", "group"), [("W", "first"), ("V", "second"), ("bias", "second"), ("first", "first"), ("?ias", "second")]
)
def test_a_layer_goes_by_the_names_of_its_constants_in_the_file(pattern, group):
    found = network()
    graph = trace(found)
    assert [item.name for item in graph.groups] == ["first", "second"]
    assert [item.name for item in restricted(graph, found, only=[pattern], exclude=[]).groups] == [group]
    assert group not in [item.name for item in restricted(graph, found, only=[], exclude=[pattern]).groups]


def test_a_weight_whose_outputs_stay_anyway_is_known_and_others_are_not():
    found = network()
    graph = trace(found)
    assert len(restricted(graph, found, only=[], exclude=["U"]).groups) == 2
    with pytest.raises(OptionError, match="'Q' matches no group, node or weight"):
        restricted(graph, found, only=[], exclude=["Q"])


def test_embeddings_and_scales_are_names_of_the_channels_that_they_make():
    n = Net()
    x = n("Gather", n.weight(20, 8, name="table"), n.input(["N", 5], kind=onnx.TensorProto.INT64))
    x = n.relu(n("Mul", x, n.weight(8, name="scale")))
    x = n("MatMul", n.relu(n("MatMul", x, n.weight(8, 6), name="layer")), n.weight(6, 3))
    n.output(x, 3)
    found = load(n.model())
    graph = trace(found)
    assert sorted(group.width for group in graph.groups) == [6, 8]
    for pattern in ("table", "scale"):
        assert [group.width for group in restricted(graph, found, only=[pattern], exclude=[]).groups] == [8]


def test_where_no_channels_are_free_the_largest_layers_are_named_with_their_reasons():
    n = Net()
    x = n.input(["N", 6])
    for number, width in enumerate((6, 4, 9, 8)):
        n.output(n("MatMul", x, n.weight(6, width), name=f"layer{number}"), 2)
    found = load(n.model())
    text = (
        r"prune: layer2 stays, '.*' is an output of the model; layer3 stays, .*; layer0 stays, .*; `inspect` lists all"
    )
    with pytest.raises(OptionError, match=text):
        restricted(trace(found), found, only=[], exclude=[])
