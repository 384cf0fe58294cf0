"""Operators are known by domain and name, nodes may read a constant in any slot."""

import numpy as np
import pytest

from onnx_subprune import RULES, Channels, prune
from onnx_subprune.calibration.streaming.submodel import Changed, part_of, slot_name
from onnx_subprune.evaluation.verification import law
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import load
from onnx_subprune.graph.operators import key_of
from onnx_subprune.graph.rules.elementwise import pointwise
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of, supports_of
from tests.networks.net import FLOAT, Net

STANDARD = {name: rule for name, rule in RULES.items() if "." not in name}
OURS = {**RULES, "com.microsoft.QuickGelu": Rule(pointwise)}
IMAGE = ("N", 3, 8, 8)


def gated(op: str = "QuickGelu"):
    """A convolution, the operator, a convolution."""
    net = Net()
    net.domains["com.microsoft"] = 1
    net.head(net(op, net.conv(net.input(IMAGE), 6, 3), domain="com.microsoft"))
    return net.model()


def test_an_operator_is_known_by_its_domain_and_name():
    node = gated().graph.node[1]
    assert key_of(node) == "com.microsoft.QuickGelu"
    node.domain = "ai.onnx"
    assert key_of(node) == "QuickGelu"


def test_an_operator_of_another_domain_has_no_rule_and_is_named_with_it():
    graph = trace(gated(), rules=STANDARD)
    assert not graph.groups
    assert any("com.microsoft.QuickGelu" in item.reason for item in graph.pinned)


def test_a_rule_of_the_user_for_another_domain_is_followed():
    network = load(gated())
    graph = trace(network, rules=OURS)
    assert [group.width for group in graph.groups] == [6]
    assert law(network, graph, supports_of(graph, 0), feeds_of(network, 2, 0)) < 1e-5
    data = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    result = prune(gated(), data, budget=Channels(0.5), round_to=1, rules=OURS)
    assert load(result.model).array("w_0").shape[0] == 3


def test_a_rule_for_a_standard_operator_says_nothing_of_its_namesake():
    assert "Gelu" in STANDARD
    graph = trace(gated("Gelu"), rules=STANDARD)
    assert not graph.groups
    assert any("com.microsoft.Gelu" in item.reason for item in graph.pinned)


@pytest.mark.parametrize("slot", [3, 5, 6, 7])
def test_constants_are_changed_in_whatever_slot_they_are_read(slot):
    """An LSTM has eight: its bias, lengths, initial states and peepholes."""
    net = Net()
    x = net.input((4, 2, 3))
    shapes = {1: (1, 20, 3), 2: (1, 20, 5), 3: (1, 40), 5: (1, 2, 5), 6: (1, 2, 5), 7: (1, 15)}
    names = [net.weight(*shapes[at]) if at in shapes else "" for at in range(1, 8)]
    y = net("LSTM", x, *names, hidden_size=5, name="lstm")
    net.output(y, 4, FLOAT)
    network = load(net.model())
    feeds, use = feeds_of(network, 2, 0), Use("lstm", slot)
    value = np.full(shapes[slot], 0.5, np.float32)
    changed = Changed(constants={use: value}, inputs={})
    found = Session(part_of(network, [0], feeds, [y], changed)).run(feeds)[y]
    net.weights[names[slot - 1]] = value
    expected = Session(net.model()).run(feeds)[y]
    np.testing.assert_array_equal(found, expected)
    assert slot_name(use) == f"lstm/override/{slot}"
