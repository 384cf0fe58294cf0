"""What normalisations divide by when channels are gone: exact where it follows from those that stay, nearer than without elsewhere."""

import numpy as np
import pytest

from onnx_subprune import Asymmetric, Channels, Layerwise, Macs, Refit, Resources, Sequential, prune
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.moments.statistics import relative_rows
from onnx_subprune.evaluation import verification
from onnx_subprune.evaluation.masked import masked
from onnx_subprune.graph.network import load
from onnx_subprune.graph.surgery.surgery import Plan
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.resources import running_of
from onnx_subprune.reconstruction import compaction
from onnx_subprune.reconstruction.statistics import coefficients, statistics_at
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.session import Session
from onnx_subprune.selection import Refined
from tests.networks.dead import apart
from tests.networks.net import Net
from tests.networks.patterns import decomposed_layer_normalization, decomposed_root_mean_square

ONE = Resources(threads=1, trials=0, shifts=False)
GENERATOR = np.random.default_rng(3)
X = GENERATOR.standard_normal((48, 4, 10)).astype(np.float32)
NORMS = {
    "LayerNormalization": lambda n, x, g, b: n("LayerNormalization", x, g, b, axis=-1),
    "SimplifiedLayerNormalization": lambda n, x, g, b: n("SimplifiedLayerNormalization", x, g, axis=-1),
    "decomposed": lambda n, x, g, b: n("Add", n("Mul", decomposed_layer_normalization(n, x), g), b),
}


def half_dead(norm: str, blocks: int = 2, width: int = 16):
    """A stream of which every other channel is zero; what is written to it has no mean over the others, so that LayerNormalization may lose half."""
    n = Net(17, seed=1)

    def written(values):
        values[..., ::2] = 0.0
        values[..., 1::2] -= values[..., 1::2].mean(axis=-1, keepdims=True)
        return n.constant(values.astype(np.float32))

    def layer(x, inputs, outputs=width):
        y = n("MatMul", x, written(n.rng.standard_normal((inputs, outputs))))
        return n("Add", y, written(n.rng.standard_normal(outputs)))

    def normed(x):
        scale, shift = n.rng.standard_normal((2, width)).astype(np.float32)
        scale[::2] = shift[::2] = 0.0
        return NORMS[norm](n, x, n.constant(scale), n.constant(shift))

    x = layer(n.input(("N", 4, 10)), 10)
    for _ in range(blocks):
        x = n("Add", x, layer(n.relu(n.linear(normed(x), width, 6)), 6))
    n.output(n.linear(normed(x), width, 3), 3)
    return n.model()


@pytest.mark.parametrize("formulation", [Asymmetric(), Sequential(), Layerwise()], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("norm", NORMS)
def test_a_stream_of_which_half_is_dead_comes_out_as_it_was(norm, formulation):
    model = half_dead(norm)
    (stream,) = (group.name for group in trace(model).groups if group.width == 16)
    found = prune(model, X, budget=Channels(0.5), only=[stream], round_to=1, formulation=formulation, resources=ONE)
    assert found.report.groups[0].kept == tuple(range(1, 16, 2))
    assert apart(*(Session(each, optimize=False).run({"x": X}) for each in (model, found.model))) < 1e-5
    operators = [[node.op_type for node in each.graph.node] for each in (model, found.model)]
    assert operators[0] == operators[1]


def sums(part, whole):
    rows, target = relative_rows(part, whole)
    flat = rows.reshape(-1, 2)
    return flat.T @ flat, flat.T @ target.ravel()


def test_two_numbers_are_found_again_and_epsilon_never_falls():
    part = GENERATOR.uniform(0.5, 2.0, (8, 4, 1))
    assert coefficients(sums(part, 1.5 * part + 0.25), 1e-5) == pytest.approx((1.5, 0.25), rel=1e-6)
    factor, shift = coefficients(sums(part, 1.5 * part - 0.25), 1e-5)
    assert shift == 1e-5
    assert 1.0 < factor < 1.5
    assert coefficients(sums(np.zeros_like(part), part), 1e-5) == (1.0, 1e-5)


def test_a_fitted_statistic_is_nearer_to_that_of_all_channels_than_that_of_those_that_stay():
    """On data that it was not fitted to; of one normalisation whose channels are not alike."""
    n = Net(17, seed=5)
    x = n.linear(n.input(("N", 4, 10)), 10, 12)
    x = decomposed_root_mean_square(n, n("Mul", x, n.constant(np.geomspace(0.1, 3.0, 12).astype(np.float32))))
    n.output(n.linear(x, 12, 3), 3)
    network = load(n.model())
    graph = trace(network)
    supports = {graph.groups[0].name: [0, 1, 5, 8, 9, 10, 11]}
    task = Task(
        network=network,
        graph=graph,
        data=Calibration(arrays={"x": X[:32]}, chunk=8),
        widths={},
        formulation=Asymmetric(),
        selector=Refined(),
        refit=Refit(),
        running=running_of(ONE, graph.observation),
        memory=1 << 28,
        watch=lambda *_: None,
        clock=lambda: 0.0,
    )
    (item,) = network.spelled.normalizations
    root = network.nodes[network.readers[item.shifted][0][0]].output[0]
    weights = statistics_at(task, [supports])[0]
    seen = [
        Session(_showing(each, root), optimize=False).run({"x": X[32:]})[root]
        for each in (network.proto, masked(network, graph, Plan(supports=supports)))
    ]
    scale = next(
        value[0] / network.array(network.node(use.node).input[use.slot])[0]
        for use, value in weights.items()
        if value.size == 12 and use.node == network.labels[network.producer[item.scale[0]]]
    )
    fitted = Session(_showing(masked(network, graph, Plan(supports=supports, weights=weights)), root), optimize=False)
    whole, naive, near = seen[0], seen[1], fitted.run({"x": X[32:]})[root] / scale
    assert np.abs(near / whole - 1).mean() < 0.5 * np.abs(naive / whole - 1).mean()


def _showing(model, name):
    """The model with one more output."""
    found = type(model)()
    found.CopyFrom(model)
    found.graph.output.add(name=name)
    return found


def test_a_large_model_whose_stream_is_masked_while_it_runs_comes_out_as_it_was_too(monkeypatch):
    for module in (compaction, verification):
        monkeypatch.setattr(module, "LARGE", 0)
    model = half_dead("LayerNormalization", blocks=1)
    (stream,) = (group.name for group in trace(model).groups if group.width == 16)
    found = prune(model, X, budget=Channels(0.5), only=[stream], round_to=1, resources=ONE)
    assert apart(*(Session(each, optimize=False).run({"x": X}) for each in (model, found.model))) < 1e-5


def test_a_branch_with_a_normalisation_inside_gets_narrower_and_does_not_vanish():
    n = Net(17, seed=2)
    x = n.conv(n.input(("N", 3, 6, 6)), 8, 3)
    y = n.conv(x, 16, 3)
    shape = n.weight(16, 1, 1, positive=True), n.weight(16, 1, 1)
    y = n("Add", n("Mul", decomposed_layer_normalization(n, y, 1), shape[0]), shape[1])
    n.width[y] = 16
    x = n("Add", x, n.conv(n.relu(y), 8, 3))
    n.width[x] = 8
    n.head(n.relu(x))
    images = GENERATOR.standard_normal((24, 3, 6, 6)).astype(np.float32)
    found = prune(n.model(), images, budget=Macs(0.35), round_to=8, resources=ONE)
    assert [group.width[1] for group in found.report.groups if group.width[0] == 16] == [8]
