"""What is written is counted, and held against the budget."""

import numpy as np
import onnx
import pytest

from onnx_subprune import Macs, Params, compare, prune
from onnx_subprune.allocation import Channels, Factor, Multilinear, Room, Term
from onnx_subprune.errors import BudgetError
from onnx_subprune.evaluation.report import inspection_table, text_of
from onnx_subprune.evaluation.report.inspection import inspection_dict
from onnx_subprune.graph.costs.costs import Costs, costs
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.written import Count, check_budget
from tests.networks.net import Net

COST = Multilinear(terms=(Term(1.0, (Factor(40, {"g": 1}),)),), full={"g": 60})
PRICE = Costs(params=COST, macs=COST, work=COST, folded=0.0)
ROOMS = [Room("g", 60, 1, 1, 1)]


def without_biases():
    """Layers that have no biases: refits add some."""
    net = Net()
    x = net.input(("N", 6))
    for reads, makes in ((6, 12), (12, 12), (12, 4)):
        x = net("Gemm", x, net.weight(makes, reads), transB=1)
        x = net.relu(x) if makes > 4 else x
    net.output(x, 2)
    return net.model()


@pytest.mark.parametrize("budget", [Params(0.5), Params(0.9), Macs(0.5)])
def test_inspect_prune_and_compare_say_what_the_file_has(budget):
    model, data = without_biases(), np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
    result = prune(model, data, budget=budget, round_to=1)
    held = [
        sum(int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        for proto in (model, result.model)
    ]
    report, compared = result.report, compare(model, result.model, data)
    assert (report.params.before, report.params.after) == tuple(held)
    assert report.params == compared.params
    assert report.macs == compared.macs
    changed = report.params if isinstance(budget, Params) else report.macs
    assert changed.ratio <= budget.fraction
    for proto, which in ((model, "before"), (result.model, "after")):
        network = load(proto)
        graph = trace(network)
        said = inspection_dict(network, graph, costs(network, graph))
        assert said["params"] == getattr(report.params, which)
        assert said["macs"] == getattr(report.macs, which)


def test_a_missed_budget_is_an_error_that_names_the_least():
    before, after = Count(params=100, macs=100.0), Count(params=51, macs=60.0)
    with pytest.raises(BudgetError, match=r"0.51 of the parameters.*the least is 0.41"):
        check_budget(Params(0.5), before, after, ROOMS, PRICE)
    with pytest.raises(BudgetError, match=r"0.6 of the multiply-accumulates"):
        check_budget(Macs(0.5), before, after, ROOMS, PRICE)
    check_budget(Params(0.51), before, after, ROOMS, PRICE)
    check_budget(Macs(0.6), before, after, ROOMS, PRICE)
    check_budget(Channels(0.1), before, after, ROOMS, PRICE)


def test_inspect_names_layers_that_stay_with_the_reason_and_begins_with_what_can_get_smaller():
    net = Net()
    x = net.relu(net("Gemm", net.input((7, 6)), net.weight(24, 6), transB=1))
    x = net("Gemm", x, net.weight(8, 24), transB=1)
    x = net("Reshape", x, net.constant(np.array([7, 1, 8])))
    net.output(net("Einsum", x, net.weight(8, 1, 5), equation="abi,ibj->abj", name="mixed"), 3)
    network = load(net.model())
    graph = trace(network)
    said = inspection_dict(network, graph, costs(network, graph))
    held, mixed = 24 * 6 + 8 * 24 + 8 * 5, 8 * 5
    assert said["staying"] == [
        {
            "node": "mixed",
            "op": "Einsum",
            "params": mixed,
            "macs": mixed,
            "reason": "its indices are not those of a product with a constant matrix",
        }
    ]
    assert said["smaller"] == {"params": pytest.approx(1 - mixed / held), "macs": pytest.approx(1 - mixed / held)}
    text = text_of(inspection_table(network, graph, costs(network, graph)))
    assert text.startswith("89 % of the parameters and 89 % of the MACs lie in layers that can get smaller")
    assert "mixed" in text
