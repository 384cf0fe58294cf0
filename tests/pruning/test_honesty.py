"""What is printed is true of other samples, and what is no better than a constant does not go out."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnx_subprune import (
    RULES,
    Accuracy,
    Asymmetric,
    Channels,
    FidelityError,
    Gates,
    Latency,
    Macs,
    MarginalCost,
    MaxDrop,
    OptionError,
    Random,
    Refined,
    Refit,
    Resources,
    Threshold,
    collect,
    prune,
    trace,
)
from onnx_subprune.allocation import Factor, Multilinear, Room, Term
from onnx_subprune.calibration.data.holdout import split
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.cli import run
from onnx_subprune.graph.network import load
from onnx_subprune.pruning.judgement import _next_share, duration, next_try, scarcity
from onnx_subprune.pruning.preparation import prepare
from onnx_subprune.pruning.rare import Rare
from onnx_subprune.pruning.samples import samples_of
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.reconstruction.settings import Refitted
from onnx_subprune.runtime.progress import silent
from onnx_subprune.runtime.session import Session
from tests.networks.net import Net

INPUTS, CLASSES = 24, 6


def network(offset=0.0, classes=CLASSES):
    """Two hidden layers of 48: many weights for few samples. Without an offset no class wins everywhere."""
    net = Net(17, seed=4)
    last, reads = net.input(("N", INPUTS)), INPUTS
    for width in (48, 48):
        made = net(
            "Add", net("MatMul", last, net.weight(reads, width)), net.constant(np.full(width, offset, np.float32))
        )
        last, reads = net("Tanh", made), width
    net.output(net("MatMul", last, net.weight(reads, classes)), 2)
    return net.model()


@pytest.fixture(scope="module")
def model():
    return network()


FRAIL = network(1.5, 1)
"""A regression. Most of what its hidden units put out is constant, so that dropping them without a refit ruins it."""


def draw(count, seed):
    return np.random.default_rng(seed).standard_normal((count, INPUTS)).astype(np.float32)


X = draw(96, 1)


def outputs(model, inputs):
    return next(iter(Session(model).run({"x": inputs}).values()))


def error(model, pruned, inputs):
    ours, theirs = outputs(model, inputs), outputs(pruned, inputs)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))


def only(report):
    return next(iter(report.fidelity.outputs.values()))


def test_the_printed_error_is_that_on_other_samples_and_without_a_holdout_it_is_not(model):
    found = prune(model, X, budget=Channels(0.5), gates=Gates(accept_any=True))
    true = error(model, found.model, draw(2000, 2))
    assert found.report.data["samples"], found.report.data["held_out"] == (80, 16)
    assert found.report.fidelity.held_out
    assert found.report.fidelity.samples == 16
    assert only(found.report).relative_error == pytest.approx(true, rel=0.25)
    fitted = prune(model, X, budget=Channels(0.5), resources=Resources(holdout=0), gates=Gates(accept_any=True))
    assert fitted.report.fidelity.held_out is False
    assert fitted.report.fidelity.samples == 96
    assert only(fitted.report).relative_error < 0.75 * error(model, fitted.model, draw(2000, 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": Macs(0.5)},
        {"budget": Macs(0.5), "resources": Resources(trials=3)},
        {"budget": MaxDrop(0.3, Accuracy(np.zeros(1, np.int64)))},
        {"budget": Macs(0.5), "allocator": Threshold(), "metric": True},
        {"budget": Channels(0.5), "resources": Resources(holdout=0.3)},
        {"budget": MaxDrop(0.3, Accuracy(np.zeros(1, np.int64))), "resources": Resources(samples=48)},
    ],
    ids=["sensitivity", "trials", "drop", "threshold", "a share", "drop on the rest"],
)
def test_samples_that_are_held_out_change_nothing_but_the_judgement(model, settings):
    labels = outputs(model, X).argmax(axis=1)
    resources = settings.get("resources", Resources())
    data = Calibration(arrays={"x": X}, chunk=12)
    first = resources.samples or 0
    held = first + split(data.rest(first) if first else data, resources.holdout)[1]

    def pruned(inputs, truth):
        metric = Accuracy(truth)
        given = {**settings, "gates": Gates(accept_any=True)}
        if isinstance(given["budget"], MaxDrop):
            given["budget"] = MaxDrop(given["budget"].drop, metric)
        if "metric" in given:
            given["metric"] = metric
        return prune(model, inputs, **given)

    other, wrong = X.copy(), labels.copy()
    other[held] = draw(len(held), 9)
    wrong[held] = (labels[held] + 1) % CLASSES
    ours, theirs = pruned(X, labels), pruned(other, wrong)
    assert ours.model == theirs.model
    assert ours.report.fidelity.samples == theirs.report.fidelity.samples == len(held)
    assert only(ours.report) != only(theirs.report)
    if "metric" in settings:
        assert ours.report.metric.before == 1.0
        assert theirs.report.metric.before < 0.5


def test_ruin_is_not_returned_unless_it_is_asked_for():
    ruin = {"budget": Channels(0.05), "selector": Random(0), "refit": None}
    with pytest.raises(FidelityError, match=r"no better than a constant|by chance.*--no-refit.*--accept-any"):
        prune(FRAIL, X, **ruin)
    found = prune(FRAIL, X, **ruin, gates=Gates(accept_any=True))
    assert len(found.report.warnings) == 1
    assert found.report.to_dict()["warnings"] == list(found.report.warnings)


def test_gates_are_for_pipelines(model):
    common = {"model": model, "data": X, "budget": Channels(0.3)}
    measured = only(prune(**common, gates=Gates(accept_any=True)).report)
    assert measured.agreement < 1.0
    passed = prune(**common, gates=Gates(min_agreement=measured.agreement, max_error=measured.relative_error))
    assert not passed.report.warnings
    with pytest.raises(FidelityError, match="--min-agreement is"):
        prune(**common, gates=Gates(min_agreement=min(1.0, measured.agreement + 0.01), accept_any=True))
    with pytest.raises(FidelityError, match=r"--max-error is .*keep more of the model"):
        prune(**common, gates=Gates(max_error=measured.relative_error * 0.99))


def job_of(model, **resources):
    settings = Settings(
        budget=Macs(0.5),
        formulation=Asymmetric(),
        selector=Refined(),
        allocator=MarginalCost(),
        exclude=(),
        only=(),
        round_to=1,
        target=None,
        min_width=None,
        refit=Refit(),
        rules=RULES,
        resources=Resources(**resources),
        progress=silent,
    )
    return prepare(model, X, settings)


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ((0.01, 0.04, 0.5, True), "relative error is 0.1 on samples that it was fitted to and 0.2 on others"),
        ((0.3, 0.3, 0.3, False), "refit does worse than none on samples that it was not fitted to"),
        ((0.01, 0.02, 0.5, True), None),
        ((0.0, 0.004, 0.5, True), None),
        ((0.004, 0.004, 0.004, False), None),
    ],
)
def test_few_samples_are_told_with_the_numbers_of_the_run(model, errors, told):
    job, samples = job_of(model, samples=70)
    layers = [item for item in job.task.graph.contractions if item.weight.node != job.network.labels[0]]
    fine = (0.001, 0.001, 0.001, True)
    names = ("fitted_error", "heldout_error", "plain_error", "refitted")
    refits = {
        layer.weight: Refitted(node=layer.node, **dict(zip(names, values, strict=True)))
        for layer, values in zip(layers, (fine, errors), strict=True)
    }
    note = scarcity(job, refits, 10.0, samples.spare)
    if told is None:
        assert note is None
    else:
        assert note == (
            f"few samples for this model: 70 samples give 70 rows for the 48 columns of {layers[1].node}, whose {told} (1 of 2 layers are like this); "
            "4 times as many take about 30 s more; DATA has 26 that --samples leaves"
        )


def test_what_few_samples_say_of_others_is_said(model):
    found = prune(model, X[:6], budget=Channels(0.9), gates=Gates(accept_any=True)).report
    assert found.fidelity.held_out is False
    assert any("too few to hold some out" in warning for warning in found.warnings)


def test_data_that_are_the_same_everywhere_are_warned_of(model):
    ones = np.ones_like(X[:32])
    for data, told in ((ones, True), (np.concatenate([ones[:16], X[:16]]), False)):
        found = prune(model, data, budget=Channels(0.9), resources=Resources(holdout=8), gates=Gates(accept_any=True))
        assert any("all samples of the data are the same" in warning for warning in found.report.warnings) == told


def test_a_sample_that_alone_shows_a_channel_alive_is_fitted_to_not_held_out():
    net = Net(17, seed=6)
    x = net.input(("N", 8))
    first = np.eye(8, 24, dtype=np.float32) + 0.1 * net.rng.standard_normal((8, 24)).astype(np.float32)
    first[:, 20:] = 0
    first[0, 20] = 1  # alive where the first input is positive
    hidden = net("Relu", net("MatMul", x, net.constant(first)))
    net.output(net("MatMul", hidden, net.weight(24, 3)), 2)
    model = net.model()
    inputs = np.random.default_rng(7).standard_normal((64, 8)).astype(np.float32)
    inputs[:, 0] = -np.abs(inputs[:, 0])
    given = Calibration(arrays={"x": inputs}, chunk=16)
    seldom = split(given)[1][5]
    inputs[seldom, 0] = 9
    graph, network = trace(model), load(model)
    samples = samples_of(given, None, None, lambda part: part, Rare(network, graph), chooses=False)
    assert seldom in samples.used.rows
    assert samples.judged.data.samples == 16
    assert len(np.union1d(samples.used.rows, samples.judged.places)) == 64
    found = prune(model, inputs, budget=Channels(0.875), gates=Gates(accept_any=True))
    assert 20 in found.report.groups[0].kept


def test_samples_that_all_show_something_of_their_own_are_held_out_all_the_same(monkeypatch):
    """Each of 64 samples alone shows a channel alive: 8 of the 16 that are to be held out stay, and the result is judged on them."""
    net = Net(seed=3)
    x = net.input(("N", 64))
    hidden = net(
        "Relu", net("Add", net("MatMul", x, net.constant(np.eye(64, dtype=np.float32))), net.constant(np.float32(-0.5)))
    )
    net.output(net("MatMul", hidden, net.weight(64, 5)), 2)
    model = net.model()
    given = Calibration(arrays={"x": np.eye(64, dtype=np.float32)}, chunk=16)
    graph, network = trace(model), load(model)
    rare = Rare(network, graph)
    run, looked_at = rare._session.run, []
    monkeypatch.setattr(
        rare,
        "_session",
        SimpleNamespace(run=lambda feeds, names: looked_at.append(len(feeds["x"])) or run(feeds, names)),
    )
    samples = samples_of(given, None, None, lambda part: part, rare, chooses=False)
    assert samples.judged.data.samples == len(split(given)[1]) // 2
    assert len(np.union1d(samples.used.rows, samples.judged.places)) == 64
    assert sum(looked_at) <= 64  # however often others are held out, no sample is run twice


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "a second"), (30.4, "30 s"), (119, "119 s"), (125, "2 min"), (9000, "2 h")]
)
def test_durations_are_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.fixture
def files(tmp_path, model):
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=X)
    return tmp_path


def command(files, *tokens):
    return run(
        ["prune", str(files / "m.onnx"), str(files / "o.onnx"), "--data", str(files / "x.npz"), "--quiet", *tokens]
    )


RUIN = ["--channels", "0.05", "--selector", "random", "--no-refit"]


def test_the_command_writes_no_ruin_and_warns_of_it_when_it_must(files, capsys):
    onnx.save(FRAIL, files / "m.onnx")
    assert command(files, *RUIN) == 1
    assert not (files / "o.onnx").exists()
    told = capsys.readouterr()
    assert told.err.startswith("error: output ")
    assert told.err.count("\n") == 1
    assert command(files, *RUIN, "--accept-any") == 0
    assert (files / "o.onnx").exists()
    told = capsys.readouterr()
    assert told.err.startswith("warning: output ")
    assert not told.out


@pytest.mark.parametrize("gate", [["--max-error", "0.001"], ["--min-agreement", "1"]])
def test_the_command_has_gates(files, capsys, gate):
    assert command(files, "--channels", "0.2", "--accept-any", *gate) == 1
    assert not (files / "o.onnx").exists()
    assert gate[0] in capsys.readouterr().err


def test_the_report_names_the_samples(files, capsys):
    def told(*tokens):
        tokens = ["prune", str(files / "m.onnx"), str(files / "o.onnx"), "--data", str(files / "x.npz"), *tokens]
        assert (
            run(
                [
                    *tokens,
                    "--force",
                    "--channels",
                    "0.9",
                    "--json",
                    str(files / "r.json"),
                    "--report",
                    str(files / "r.html"),
                ]
            )
            == 0
        )
        page, report = (files / "r.html").read_text(), json.loads((files / "r.json").read_text())
        return capsys.readouterr().out, page, report["fidelity"]["held_out"], report["data"]

    out, page, held, data = told()
    assert "16 held-out samples" in out
    assert "16 held-out samples" in page
    assert held
    assert data["held_out"] == 16
    out, page, held, data = told("--holdout", "0")
    assert "96 fitted samples" in out
    assert "96 fitted samples" in page
    assert not held
    assert data["held_out"] == 0
    out, *_ = told("--holdout", "0.5")
    assert "48 held-out samples" in out
    out, *_ = told("--samples", "64")
    assert "16 held-out samples" in out


def test_without_data_there_is_nothing_to_judge_on(files, capsys, model):
    collect(model, X, files / "s.npz")
    common = ["prune", str(files / "m.onnx"), str(files / "o.onnx"), "--statistics", str(files / "s.npz")]
    for tokens in (["--holdout", "8"], ["--max-error", "0.5"], ["--accept-any"]):
        assert run([*common, *tokens]) == 2
        assert tokens[0] in capsys.readouterr().err


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_labels_are_for_all_samples_however_few_are_fitted_to(model, tmp_path, save):
    save(tmp_path / "x.npz", x=draw(300, 1))
    labels = outputs(model, draw(300, 1)).argmax(axis=1)
    common = {"budget": Channels(0.6), "resources": Resources(samples=64), "gates": Gates(accept_any=True)}
    found = prune(model, tmp_path / "x.npz", **common, metric=Accuracy(labels)).report
    assert found.fidelity.samples == 236
    assert found.metric.before == 1.0


def test_a_holdout_that_leaves_nothing_is_refused(model):
    with pytest.raises(OptionError, match="none would be left"):
        prune(model, X, resources=replace(Resources(), holdout=96))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Macs(0.5), "--macs 0.75"),
        (Latency(0.5), "--latency 0.75"),
        (Latency(0.5, table="t.json"), "--latency 0.75"),
        (MaxDrop(0.1, Accuracy("y.npy")), "allow a smaller drop"),
    ],
    ids=str,
)
def test_the_advice_for_a_poor_result_is_about_the_budget_that_was_given(budget, said):
    assert said in next_try(SimpleNamespace(budget=budget, refit=Refit(), selector=Refined()), None)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "--macs 0.85"), (0.7, "--macs 0.85"), (0.913, "--macs 0.92"), (1.0, "no widths between these")],
)
def test_advice_names_a_budget_that_changes_something(share, said):
    settings = SimpleNamespace(budget=Macs(0.7), refit=Refit(), selector=Refined())
    assert said in next_try(settings, None, share)


@pytest.mark.parametrize(("kept", "share"), [({"a": 32}, 1.0), ({"a": 32, "b": 16}, 0.75), ({}, 1.0)])
def test_the_next_share_is_that_of_the_next_width_of_one_group(kept, share):
    """a has 64 channels in blocks of 32, b 32 in blocks of 16, with half of the cost each."""
    terms = [Term(0.5 / width, (Factor(0.0, {name: 1}),)) for name, width in (("a", 64), ("b", 32))]
    cost = Multilinear(terms=tuple(terms), full={"a": 64, "b": 32})
    rooms = [Room("a", 64, 32), Room("b", 32, 16)]
    done = SimpleNamespace(choices={name: SimpleNamespace(support=range(width)) for name, width in kept.items()})
    job = SimpleNamespace(price=SimpleNamespace(macs=cost), rooms=rooms)
    assert _next_share(job, done) == pytest.approx(share)
