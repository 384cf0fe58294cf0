"""Normalisations whose channels are fewer: with two numbers each, they divide by the statistic of all channels, as far as it follows from theirs.

    variance of all + epsilon ~ a * variance of what stays + b

is fitted over the positions (`calibration.moments.statistics`), and goes into constants that are there: scale / sqrt(a), and b / a for epsilon. Where
the channels that are gone are zero, and their mean is, that is exact.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array, Float64
from onnx_subprune.calibration.data.masks import Visible
from onnx_subprune.calibration.moments.moments import Moments
from onnx_subprune.calibration.moments.statistics import relative_rows
from onnx_subprune.calibration.streaming.executor import Lockstep
from onnx_subprune.calibration.streaming.request import Request, Sampling
from onnx_subprune.calibration.streaming.statistic import Statistic
from onnx_subprune.calibration.streaming.stream import Stream
from onnx_subprune.graph.channels import Use
from onnx_subprune.graph.contractions.product import Product
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.normalization import Normalization
from onnx_subprune.graph.observing import made_before
from onnx_subprune.graph.statistics import counting, operand, statistics_of
from onnx_subprune.graph.surgery.slicing import kept_positions
from onnx_subprune.reconstruction.task import Task
from onnx_subprune.runtime.spill import Store

SEEN = 64
"""Samples that two numbers are fitted to, where they have many positions; all, where they have few."""
ENOUGH = 4096
"""Rows of these."""

Sums = tuple[Float64, Float64]
"""Gram (2, 2) and cross (2,) of `relative_rows`."""


def coefficients(sums: Sums, epsilon: float) -> tuple[float, float]:
    """Return a > 0 and b >= epsilon that fit best; without less than epsilon nothing is divided by less than before."""
    gram, cross = sums
    part, both, inverse = gram[0, 0], gram[0, 1], gram[1, 1]
    if not part > 0.0:
        return 1.0, epsilon
    first, second = cross[0] - epsilon * both, cross[1] - epsilon * inverse  # b = epsilon + more
    determinant = part * inverse - both**2
    more = (part * second - both * first) / determinant if determinant > 1e-12 * part * inverse else 0.0
    more = max(more, 0.0)
    factor = (first - both * more) / part
    if not factor > 0.0:
        more, factor = 0.0, first / part
    return (float(factor), float(epsilon + more)) if factor > 0.0 else (1.0, epsilon)


def scaled(network: Network, item: Normalization, sums: Sums) -> dict[Use, Array]:
    """Return scale and epsilon of a normalisation after that fit."""
    (at_scale, gamma), (at_epsilon, name) = (operand(network, place) for place in (item.scale, item.epsilon))
    old, epsilon = network.array(gamma), network.array(name)
    factor, shift = coefficients(sums, float(epsilon.item()))
    return {
        at_scale: (old.astype(np.float64) / np.sqrt(factor)).astype(old.dtype),
        at_epsilon: np.full_like(epsilon, shift / factor),
    }


def asked(network: Network, item: Normalization, models: Lockstep, every: int) -> Sums:
    """Return the sums of a normalisation in the pruned model, against the original's."""
    use, _ = operand(network, item.epsilon)
    request = Request(
        weight=use,
        kernel=Product(node=use.node),
        input=item.variance,
        question=Statistic(item.shifted),
        sampling=Sampling(every=every),
    )
    found = models.collect(request).whole()
    assert isinstance(found, Moments), "two columns are never more than the rows"
    return found.gram[0], found.cross[0, :, 0]


def every_of(task: Task, item: Normalization) -> int:
    """Return of how many samples one is enough."""
    shape = task.graph.observation.shapes[item.shifted]
    rows = int(np.prod(shape)) // max(task.graph.observation.batch, 1)
    return max(1, task.data.samples // max(SEEN, -(-ENOUGH // max(rows, 1))))


def statistics_at(task: Task, plans: Sequence[Mapping[str, Sequence[int]]]) -> list[dict[Use, Array]]:
    """Return, for each of these supports, what normalisations have then, fitted to what all channels are in the original: one pass at most."""
    network = task.network
    kept = [kept_positions(task.graph, supports) for supports in plans]
    axes = {item.source: counting(network, item.means[-1]) for item in network.spelled.normalizations}
    touched = [item for item in network.spelled.normalizations if any(axes[item.source] in some for some in kept)]
    found = [statistics_of(network, some) for some in kept]
    if not touched:
        return found
    sums = {(item.shifted, n): (np.zeros((2, 2)), np.zeros(2)) for item in touched for n in range(len(plans))}
    least = max(every_of(task, item) for item in touched)
    data = task.data.about(-(-task.data.samples // least))
    visible, kernel = Visible(data, task.running.mask), Product(node="")
    with Store(task.memory) as store:
        stream = Stream(network, data, store, task.running)
        for item in touched:
            place = network.producer[item.shifted]
            pending = [name for other in touched for name in (other.source, other.shifted)]
            stream.advance(place, made_before(network, pending, place))
            for number, chunk in enumerate(stream.read([item.source, item.shifted])):
                whole, axis = chunk[item.shifted], axes[item.source]
                source = np.moveaxis(chunk[item.source], axis.index - network.array(axis.tensor).ndim, -1)
                for n, some in enumerate(kept):
                    if axis in some and len(some[axis]):
                        part = _variance(source[..., some[axis]].reshape(whole.size, -1), centred=item.centred)
                        rows, target = visible.rows(kernel, number, *relative_rows(part.reshape(whole.shape), whole))
                        assert rows is not None
                        assert target is not None
                        flat = rows.astype(np.float64).reshape(-1, 2)
                        old = sums[item.shifted, n]
                        sums[item.shifted, n] = (
                            old[0] + flat.T @ flat,
                            old[1] + flat.T @ target.astype(np.float64).ravel(),
                        )
        stream.close()
    for item in touched:
        for n, some in enumerate(kept):
            if axes[item.source] in some:
                found[n].update(scaled(network, item, sums[item.shifted, n]))
    return found


def _variance(values: Array, *, centred: bool) -> Float64:
    """The mean square over the last axis, about the mean where it is `centred`."""
    wide = values.astype(np.float64)
    return np.asarray(wide.var(axis=-1) if centred else (wide**2).mean(axis=-1))
