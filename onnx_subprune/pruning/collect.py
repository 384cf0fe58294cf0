"""The verb `collect`: moments of one shard of the data, in a file."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.paths import source_files
from onnx_subprune.calibration.data.reading import open_shard
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.calibration.files import collect as collect_shard
from onnx_subprune.calibration.files.collect import Means, Part
from onnx_subprune.errors import OptionError, typed
from onnx_subprune.graph.formats import Model
from onnx_subprune.graph.network import check_computes, load, ports
from onnx_subprune.graph.tensors import model_files
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.opening import reading_of
from onnx_subprune.pruning.resources import Resources, memory_of, running_of
from onnx_subprune.runtime.files import check_apart
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.runtime.session import Runnable


@typed("path", "shard", "resources", "progress", "force", "constants")
def collect(
    model: Model,
    data: Source,
    path: str | os.PathLike[str],
    *,
    shard: tuple[int, int] = (1, 1),
    resources: Resources = Resources(),
    progress: Watch = silent,
    force: bool = False,
    constants: Mapping[str, Constant] = MappingProxyType({}),
) -> None:
    """Write the moments of one shard of `data` at every consumer of every group of `model` to `path`.

    Parameters
    ----------
    model, data, resources, progress, constants
        As in `prune`.
    path
        Where the file of moments goes; it appears whole or not at all.
    shard
        (i, n): the i-th of n equal runs of samples, counted from 1; (0, n) is (n, n), so that counting from 0 works as well.
    force
        Overwrite what is there.

    Raises
    ------
    SubpruneError
        As `prune`; OutputError where `path` cannot be written.

    Examples
    --------
    >>> from onnx_subprune import collect, merge
    >>> for shard in (1, 2):
    ...     collect("model.onnx", "calibration.npz", f"{shard}.npz", shard=(shard, 2))
    >>> merge(["1.npz", "2.npz"], "all.npz").settings.samples
    64

    """
    number, count = shard
    if count < 1 or not 0 <= number <= count:
        raise OptionError(f"shard {number}/{count}: write it as I/N with I from 1 to N")
    network = load(model)
    check_computes(network)
    reads = model_files(Path(model)) if isinstance(model, (str, os.PathLike)) else []
    sources = source_files(os.fspath(data)) if isinstance(data, (str, os.PathLike)) else ()
    check_apart({"the file of moments": Path(path)}, [*reads, *sources])
    part = Part(index=(number - 1) % count, count=count)
    found = open_shard(
        data,
        ports(network),
        part.index,
        count,
        reading=reading_of(network, constants, resources.samples, resources.memory),
    )
    graph = trace(network, example=found.example, rows=True)
    if not graph.groups:
        raise OptionError("nothing can be pruned in this model: see the reasons in `inspect`")
    placement = resources.placement(Runnable(network.given, network.folder), found.example.feeds)
    running = replace(running_of(resources, graph.observation, placement), positions=None)
    means = Means(running=running, memory=memory_of(resources), watch=progress)
    collect_shard(network, graph, found, part, Path(path), means, force=force)
