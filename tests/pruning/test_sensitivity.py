"""Sensitivities hold on samples that nothing was fitted to."""

from dataclasses import replace

import numpy as np
import pytest

from onnx_subprune import Resources, sensitivity
from onnx_subprune.allocation import Curve, Room
from onnx_subprune.pruning.budgets import effort, halved_trials
from onnx_subprune.pruning.budgets import sensitivity as module
from tests.networks.net import Net


@pytest.fixture(scope="module")
def network():
    net = Net(seed=4)
    hidden = net.dense(net.input(["n", 20]), 20, 48)
    net.output(net.dense(net.relu(hidden), 48, 6), 2)
    return net.model()


def curve(model, samples):
    x = np.random.default_rng(7).standard_normal((samples, 20)).astype(np.float32)
    found = sensitivity(model, x, resources=Resources(threads=1))[0].output
    return dict(zip(found.widths, found.errors, strict=True))


@pytest.mark.parametrize("samples", [32, 64])
def test_few_samples_promise_no_more_than_many(network, samples):
    few, many = curve(network, samples), curve(network, 4096)
    for width in (6, 12, 24, 42):
        assert few[width] > 0.6 * many[width]


def test_one_half_judges_where_a_batch_is_as_large_as_what_is_looked_at(monkeypatch):
    net = Net(seed=4)
    hidden = net.dense(net.input([256, 20]), 20, 48)
    net.output(net.dense(net.relu(hidden), 48, 6), 2)
    both = curve(net.model(), 1024)
    monkeypatch.setattr(halved_trials, "COSTLY", 48)

    one = curve(net.model(), 1024)

    assert one.keys() == both.keys()
    assert all(0.6 * both[width] < one[width] < 1.6 * both[width] for width in (6, 12, 24, 42))


def test_where_there_are_many_trials_each_is_run_on_fewer_samples(network, monkeypatch):
    whole = curve(network, 256)
    monkeypatch.setattr(module, "FEWER", 64)
    monkeypatch.setattr(effort, "PASSES", 0)
    few = curve(network, 256)
    assert few.keys() == whole.keys()
    assert few != whole
    assert 0.5 * sum(whole.values()) <= sum(few.values()) <= 2.0 * sum(whole.values())


@pytest.mark.parametrize(("dear", "shares"), [(1000, halved_trials.TRIED), (0, halved_trials.SELDOM)])
def test_where_there_are_very_many_trials_fewer_widths_are_tried(network, dear, shares, monkeypatch):
    seen, whole = [], module.tried_out
    monkeypatch.setattr(effort, "DEAR", dear)
    monkeypatch.setattr(
        module,
        "tried_out",
        lambda task, group, wanted, moments: seen.append(wanted) or whole(task, group, wanted, moments),
    )
    curve(network, 256)
    assert seen
    for wanted in seen:
        assert {*wanted.tried} == {round(share * wanted.choices[-1]) for share in shares}
        assert {*wanted.tried} <= {*wanted.between}


@pytest.mark.parametrize("samples", [128, 256])
def test_where_choosing_is_dear_one_half_chooses_and_promises_no_more(network, samples, monkeypatch):
    both, many = curve(network, samples), curve(network, 4096)
    monkeypatch.setattr(halved_trials, "COSTLY", 48)
    monkeypatch.setattr(halved_trials, "MANY", 48)

    one = curve(network, samples)

    assert one.keys() == both.keys()
    assert one != both
    for width in (6, 12, 24, 42):
        assert 0.6 * many[width] < one[width] < 2.0 * both[width]


@pytest.mark.parametrize("width", [24, 32, 48, 64])
def test_the_widest_that_is_narrower_is_tried_where_few_are_allowed(width):
    room = Room("group", width, 1, 1, 1, False).rounded(16)
    assert max(halved_trials.trial_widths(replace(room, halves=True), halved_trials.TRIED)) == width - 16 + (width % 16)


def test_what_lies_beyond_the_widths_that_were_tried_errs_in_proportion_to_its_consumers():
    consumers = Curve((1, 2, 4, 8), (0.8, 0.4, 0.2, 0.02))
    found = halved_trials.completed(Curve((2, 4), (0.3, 0.1)), consumers)
    np.testing.assert_allclose(found.errors, (0.6, 0.3, 0.1, 0.01))
