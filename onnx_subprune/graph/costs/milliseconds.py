"""The time of a model as a function of the widths of its groups, from a table of `runtime.layer_table`.

    ms(widths) = sum over layers of ms0 grid(read, written) / grid(read0, written0)  +  sum over others of ms0 (numbers / numbers0)  +  fixed

ms0 is what a node takes in the whole model, grid what a layer of its shape takes alone; others go with the numbers that they read or make (see
`beside`); what lies between the nodes is fixed.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from onnx_subprune.allocation import Factor, Multilinear, Term
from onnx_subprune.allocation.multilinear import Grid, Tabulated
from onnx_subprune.errors import OptionError
from onnx_subprune.graph.channels import ChannelGraph, Contraction
from onnx_subprune.graph.costs.beside import Beside
from onnx_subprune.graph.costs.sizes import Sizes
from onnx_subprune.graph.network import Network

Table = Mapping[str, object]
KEYS = frozenset({"version", "block", "shapes", "layers", "others", "fixed"})


def milliseconds(network: Network, graph: ChannelGraph, table: Table) -> Multilinear:
    """Return the time of `network` at any widths of the groups of `graph`; OptionError if the table is of another model."""
    if not isinstance(table, Mapping) or not KEYS.issubset(table):
        raise OptionError("the table is none of `onnx-subprune profile`")
    layers = cast("Mapping[str, Mapping[str, float]]", table["layers"])
    shapes = cast("Sequence[Mapping[str, object]]", table["shapes"])
    missing = set(layers) - set(network.labels)
    if missing:
        raise OptionError(f"the table is of another model: it has a layer {min(missing)}")
    sizes = Sizes(network, graph, int(cast("int", table["block"])))
    terms: list[Term | Tabulated] = []
    for contraction in graph.contractions:
        if contraction.node in layers:
            entry = layers[contraction.node]
            term = _layer(network, contraction, shapes[int(entry["shape"])], float(entry["ms"]), sizes)
            terms.append(sizes.vanishing.gated([contraction.node], term))
    beside = Beside(network, graph, sizes)
    for other in cast("Sequence[Mapping[str, object]]", table["others"]):
        terms += beside.terms(other)
    terms.append(Term(float(cast("float", table["fixed"])), ()))
    return Multilinear(terms=tuple(terms), full={group.name: group.width for group in graph.groups})


def _layer(
    network: Network, contraction: Contraction, shape: Mapping[str, object], spent: float, sizes: Sizes
) -> Tabulated:
    """The term of one layer, `spent` at its full widths."""
    reads, writes = (
        tuple(float(size) for size in cast("Sequence[float]", shape[side])) for side in ("reads", "writes")
    )
    grid = Grid(reads, writes, tuple(tuple(row) for row in cast("Sequence[Sequence[float]]", shape["ms"])))
    dims = network.array(contraction.weight_tensor).shape
    factors = [
        sizes.factor(axis, dims[axis.index] * (contraction.groups if number == 0 and contraction.groups > 1 else 1))
        for number, axis in enumerate((contraction.rows, contraction.columns))
    ]
    read, written = factors[0], factors[1]
    if contraction.whole_groups:
        read = Factor(offset=1.0, slopes={})
    convolution = contraction.op in ("Conv", "ConvTranspose")
    if convolution:
        read, written = sizes.read(read), sizes.carried(written)
    full = Tabulated(1.0, (read, written), grid)
    alone = full.at({name: sizes.widths[name] for factor in (read, written) for name in factor.slopes})
    return Tabulated(spent / alone if alone > 0.0 else 0.0, (read, written), grid)
