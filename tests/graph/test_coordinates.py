"""Connected components, as SciPy has them."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_subprune.graph.rules.coordinates import components


@pytest.mark.parametrize("seed", range(40))
def test_components_are_numbered_in_the_order_of_their_first_nodes(seed):
    random = np.random.default_rng(seed)
    count, links = random.integers(1, 60), random.integers(0, 80)
    left, right = random.integers(0, count, (2, links))
    graph = coo_array((np.ones(links), (left, right)), shape=(count, count))
    np.testing.assert_array_equal(
        components(count, left, right), connected_components(graph, directed=False)[1].astype(np.int64)
    )


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_a_long_chain_is_one_component(order):
    nodes = {
        "rising": np.arange(5000),
        "falling": np.arange(5000)[::-1],
        "mixed": np.random.default_rng(1).permutation(5000),
    }[order]
    assert not components(5000, nodes[:-1], nodes[1:]).any()


def test_without_nodes_there_are_none():
    assert components(0, np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0,)
