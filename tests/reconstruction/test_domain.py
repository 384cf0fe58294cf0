"""Refits that leave the domain of what follows are taken back."""

import numpy as np
import pytest

from onnx_subprune import (
    RULES,
    Asymmetric,
    BudgetError,
    Channels,
    Gates,
    Layerwise,
    Macs,
    MarginalCost,
    Refined,
    Refit,
    Resources,
    Sequential,
    collect,
    prune,
    prune_collected,
)
from onnx_subprune.graph.network import load
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.domains import within_domains
from onnx_subprune.pruning.preparation import prepare
from onnx_subprune.pruning.prune import meet
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.reconstruction.domain import partial_behind
from onnx_subprune.runtime.progress import silent
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net

ANY = Gates(accept_any=True)
ONE = Resources(threads=1, trials=0, shifts=False, holdout=0)


def of_powers():
    """Squares of 12 projections, summed by two, and the logarithm of that."""
    net = Net(seed=2)
    spread = net("MatMul", net.input(["n", 8]), net.weight(8, 12))
    spread = net("Mul", spread, net("Sigmoid", net("Mul", spread, net.constant(np.float32(8)))))
    pairs = net.constant(np.kron(np.eye(6), np.ones((2, 1))).astype(np.float32))
    power = net("Gemm", net("Mul", spread, spread), pairs, net.constant(np.full(6, 1e-6, np.float32)))
    net.output(net.dense(net.relu(net.dense(net("Log", power), 6, 16)), 16, 3), 2)
    return net.model()


def test_what_is_not_defined_everywhere_is_found_behind_a_layer():
    network = load(of_powers())
    graph = trace(network)
    found = [partial_behind(network, item, list(graph.contractions)) for item in graph.contractions]
    assert [[*ends.values()] for ends in found] == [[], ["Log"], [], []]


def test_the_logarithm_of_a_refitted_power_is_a_number_and_the_report_says_what_was_kept():
    x = np.random.default_rng(0).standard_normal((128, 8)).astype(np.float32)
    kept = []
    for budget in (Channels(0.6), Macs(0.8)):
        found = prune(of_powers(), x, budget=budget, round_to=1, resources=ONE)
        assert all(np.isfinite(value).all() for value in Session(found.model).run({"x": x}).values())
        kept += [note for note in found.report.notes if "keeps its old weights" in note]
    assert all("Log" in note for note in kept)
    assert kept


def of_differences(behind):
    """Squares: six that hardly vary, less six that vary, and an operator that is defined for positive numbers alone."""
    net = Net(seed=2)
    first = net.weight(8, 12)
    steady = np.arange(12) < 6
    net.weights[first] = np.where(steady, 0.1, 1.0).astype(np.float32) * net.weights[first]
    spread = net("Gemm", net.input(["n", 8]), first, net.constant(np.where(steady, 2.0, 0.0).astype(np.float32)))
    signs = np.where(steady, 1.0, -1.0)[:, None] * np.ones((12, 4))
    power = net(
        "Gemm",
        net("Mul", spread, spread),
        net.constant(signs.astype(np.float32)),
        net.constant(np.full(4, 1e-3, np.float32)),
        name="power",
    )
    net.output(net.dense(net.relu(net.dense(net(behind, power), 4, 16)), 16, 3), 2)
    return net.model()


def drawn(model):
    """Inputs for which the model is a number."""
    x = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)
    with np.errstate(all="ignore"):
        y = next(iter(Session(model).run({"x": x}).values()))
    return x[np.isfinite(y).all(axis=1)][:96]


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("refit", [None, Refit()], ids=["no refit", "refit"])
@pytest.mark.parametrize("behind", ["Log", "Sqrt"])
def test_groups_stay_whole_where_what_follows_would_be_no_number_whatever_the_weights(behind, formulation, refit):
    model = of_differences(behind)
    x = drawn(model)
    common = {"round_to": 1, "resources": ONE, "formulation": formulation, "refit": refit, "gates": ANY}
    found = prune(model, x, budget=Channels(0.2), **common)
    assert np.isfinite(next(iter(Session(found.model).run({"x": x}).values()))).all()
    first = found.report.groups[0]
    told = f"{first.name} keeps all 12 channels: with fewer {behind} behind power puts out something else than finite numbers"
    assert (first.width == (12, 12)) == (refit is None) == (told in found.report.notes)


def test_a_budget_that_only_such_widths_would_meet_is_refused_with_that_reason():
    model = of_differences("Log")
    job, found, _ = within_domains(*asked(model, Channels(0.2)))
    assert found.widths[job.rooms[0].name] == 12

    def narrow(job):
        if job.rooms[0].choices[0] > 3:
            raise BudgetError("too much")
        return Allocated(widths={room.name: room.choices[0] for room in job.rooms})

    with pytest.raises(BudgetError, match=r"too much \(.*keeps at least 7 of 12 channels: with fewer Log"):
        within_domains(asked(model, Channels(0.2))[0], narrow)


def asked(model, budget):
    """A job without a refit, and what finds its widths."""
    settings = Settings(
        budget=budget,
        formulation=Asymmetric(),
        selector=Refined(),
        allocator=MarginalCost(),
        exclude=(),
        only=(),
        round_to=1,
        target=None,
        min_width=None,
        refit=None,
        rules=RULES,
        resources=ONE,
        progress=silent,
    )
    return prepare(model, drawn(model), settings)[0], meet


def test_without_data_what_may_leave_its_domain_is_warned_of(tmp_path):
    model = of_differences("Log")
    collect(model, drawn(model), tmp_path / "s.npz")
    common = {"round_to": 1, "refit": None}
    warned = prune_collected(model, tmp_path / "s.npz", budget=Channels(0.2), **common).report.warnings
    assert any("Log behind power: not defined everywhere" in warning for warning in warned)
    first = trace(model).groups[0].name
    whole = prune_collected(model, tmp_path / "s.npz", budget=Channels(0.2), exclude=[first], **common).report.warnings
    assert not any("not defined everywhere" in warning for warning in whole)


BEHIND = {
    "the mean of anything": (lambda net, x: net("ReduceMean", x, axes=[1]), ["Log"]),
    "the sum of anything": (lambda net, x: net("ReduceSum", x, net.constant(np.array([1]))), ["Log"]),
    "the mean of squares": (lambda net, x: net("ReduceMean", net("Mul", x, x), axes=[1]), []),
    "the sum of powers": (
        lambda net, x: net("ReduceSum", net("Pow", x, net.constant(np.float32(2))), net.constant(np.array([1]))),
        [],
    ),
    "odd powers": (lambda net, x: net("ReduceMean", net("Pow", x, net.constant(np.float32(3))), axes=[1]), ["Log"]),
    "a root": (lambda net, x: net("Abs", net("Pow", x, net.constant(np.float32(0.5)))), ["Pow", "Log"]),
    "a norm": (lambda net, x: net("ReduceL2", x, axes=[1]), []),
    "its size": (lambda net, x: net("Cast", net("Shape", x), to=1), []),
}


@pytest.mark.parametrize("name", BEHIND)
def test_averages_are_as_positive_as_what_they_take(name):
    between, expected = BEHIND[name]
    net = Net(opset=17, seed=2)
    net.output(net("Log", between(net, net("MatMul", net.input(["n", 8]), net.weight(8, 12)))), 2)
    network = load(net.model())
    contractions = list(trace(network).contractions)
    assert [*partial_behind(network, contractions[0], contractions).values()] == expected


def test_a_refit_that_leaves_or_nearly_leaves_the_domain_alone_or_with_its_producer_is_taken_back():
    net = Net(seed=3)
    squares = net.relu(net.conv(net.input(["n", 3, 8, 8]), 16, 3))
    power = net("Mul", squares, squares)
    net.width[power] = 16
    bank = net.conv(power, 24, w=net.weight(24, 16, 1, 1, positive=True), bias=False)
    root = net("Pow", bank, net.constant(np.float32(0.3)))
    net.width[root] = 24
    net.head(net.relu(net.conv(root, 12)))
    model, random = net.model(), np.random.default_rng(0)
    others = random.standard_normal((128, 3, 8, 8)).astype(np.float32)
    for _ in range(2):
        x = random.standard_normal((36, 3, 8, 8)).astype(np.float32)
        small = prune(model, x, budget=Channels(0.4), resources=ONE, gates=ANY).model
        assert all(np.isfinite(value).all() for value in Session(small).run({"x": others}).values())
