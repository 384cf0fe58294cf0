"""Streams that nothing but sums lies on, in another basis: the same function, and fewer channels than any subset needs."""

import numpy as np
import pytest

from onnx_subprune import Channels, prune
from onnx_subprune.evaluation.report.values import GroupReport
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.network import Network, load
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning import preparation
from onnx_subprune.reconstruction.bases import sites, turned_by
from onnx_subprune.reconstruction.head_factors import WIDEST, Factors
from onnx_subprune.runtime.session import Session
from tests.networks.check import feeds_of
from tests.networks.net import Net
from tests.networks.patterns import PATTERNS

WIDTH, LEFT = 12, 6
LINEAR = (
    "activation-dropout",
    "conv-auto-pad",
    "batch-normalization-of-vectors",
    "two-branches-by-every-operator",
    "fan-out",
    "slice-with-a-step",
    "gather-that-permutes",
    "expand-to-the-batch",
    "squeeze-excite-linear-sigmoid",
    "squeeze-excite-with-computed-reshapes",
    "one-scale-for-two-normalisations",
    "where-with-a-mask",
)
"""Patterns with layers that nothing but sums and changes of layout lies between."""


def mobile(seed: int = 0, *, normalized: bool = False, between: str | None = None) -> Net:
    """Projections of two inverted residual blocks add up; less and less matters in directions that are no channels. between: an operator on the stream."""
    net, rng = Net(seed=seed), np.random.default_rng(seed)
    mix = 0.75 ** np.arange(WIDTH)[:, None] * np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]

    def project(x: str, inputs: int) -> str:
        weight = (mix.T @ rng.standard_normal((WIDTH, inputs)) / np.sqrt(inputs)).astype(np.float32)
        made = net("Conv", x, net.constant(weight[:, :, None, None]))
        net.width[made] = WIDTH
        if not normalized:
            return net("Add", made, net.constant(rng.standard_normal(WIDTH).astype(np.float32)[:, None, None]))
        values = (rng.standard_normal(WIDTH) for _ in range(3))
        scaled = (1 + rng.random(WIDTH) / 4, *list(values)[:2], 1 + rng.random(WIDTH) / 4)
        return net("BatchNormalization", made, *(net.constant(value.astype(np.float32)) for value in scaled))

    def wide(x: str, inputs: int, size: int = 3) -> str:
        return net("Relu", net("Conv", x, net.weight(24, inputs, size, size), net.weight(24), pads=[size // 2] * 4))

    x = net.input(("N", 3, 6, 6))
    stream = project(wide(x, 3), 24)
    stream = net("Add", stream, project(wide(stream, WIDTH, 1), 24))
    if between is not None:
        stream = net(between, stream)
    pooled = net("Flatten", net("GlobalAveragePool", wide(stream, WIDTH)))
    net.width[pooled] = 24
    net.output(net.linear(pooled, 24, 3), 2)
    return net


def stream_of(network: Network) -> str:
    """The name of the group that the stream is."""
    return next(g.name for g in trace(network).groups if g.width == WIDTH)


@pytest.mark.parametrize("normalized", [False, True], ids=["sums", "normalized"])
def test_a_stream_keeps_what_is_read_of_it_whatever_basis_it_comes_in(normalized, monkeypatch):
    model = mobile(normalized=normalized).model()
    network = load(model)
    data = feeds_of(network, 48, 2)

    def stream() -> GroupReport:
        found = prune(model, data, budget=Channels(0.5), round_to=1, only=[stream_of(network)])
        return next(group for group in found.report.groups if group.width == (WIDTH, LEFT))

    found = stream()
    assert found.basis
    monkeypatch.setattr(preparation, "turned", lambda task, rules: (task, frozenset()))
    subset = stream()
    assert not subset.basis
    assert found.error < 0.6 * subset.error


@pytest.mark.parametrize(("between", "count"), [(None, 1), ("Identity", 1), ("Neg", 1), ("Relu", 0), ("Abs", 0)])
def test_what_tells_channels_apart_keeps_them_as_they_are(between, count):
    network = load(mobile(between=between).model())
    assert len([site for site in sites(network, trace(network)) if site.stream is not None]) == count


@pytest.mark.parametrize("name", [*LINEAR, "normalized"])
def test_any_basis_of_a_stream_is_the_same_function(name):
    made = mobile(normalized=True) if name == "normalized" else None
    network = load(next(p for p in PATTERNS if p.name == name).model(17) if made is None else made.model())
    graph, rng = trace(network), np.random.default_rng(0)
    weights: dict[Use, np.ndarray] = {}
    found = [site for site in sites(network, graph) if site.stream is not None]
    assert found
    for site in found:
        basis = rng.standard_normal((1, site.group.width, site.group.width)) + 2 * np.eye(site.group.width)
        turned_by(network, site, Factors(np.linalg.inv(basis).transpose(0, 2, 1), basis), weights)
    other, feeds = apply(network, graph, Plan(weights=weights)), feeds_of(network, 4, 1)
    before, after = (Session(model).run(feeds) for model in (network.given, other))
    for output, value in before.items():
        reference = value.astype(np.float64)
        np.testing.assert_allclose(after[output].astype(np.float64), reference, atol=1e-3 * np.abs(reference).max())


@pytest.mark.parametrize(("bias", "count"), [(0.0, 1), (1.5, 0)])
@pytest.mark.parametrize("single", [(), (1,), (1, 1)])
def test_one_number_that_all_channels_share_is_no_bias_of_a_stream(bias, count, single):
    net = Net()
    x = net.relu(net.linear(net.input(("N", 4)), 4, 6))
    shared = net.constant(np.full(single, bias, np.float32))
    net.output(net.linear(net("Gemm", x, net.weight(6, 5), shared), 5, 2), 2)
    network = load(net.model())
    assert len([site for site in sites(network, trace(network)) if site.stream is not None]) == count


def test_a_sum_of_each_sample_that_a_layer_adds_to_all_channels_keeps_them_as_they_are():
    net = Net()
    x = net.relu(net.linear(net.input(("N", 4)), 4, 6))
    added = net.linear(x, 6, 1)
    net.output(net.linear(net("Gemm", x, net.weight(6, 5), added), 5, 2), 2)
    network = load(net.model())
    assert not any(site.stream is not None and site.group.width == 5 for site in sites(network, trace(network)))


def test_very_wide_streams_stay_as_they_are():
    net = Net()
    net.output(net.linear(net.linear(net.relu(net.linear(net.input(("N", 2)), 2, 3)), 3, WIDEST + 1), WIDEST + 1, 2), 2)
    network = load(net.model())
    assert [site.group.width for site in sites(network, trace(network))] == []
