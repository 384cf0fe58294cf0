"""Streams: a model that takes a state and gives the next is fed the states that it meets, chunk after chunk of a sequence in order."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnx_subprune._typing import Array
from onnx_subprune.calibration.data.constants import Constant, constant_values
from onnx_subprune.calibration.data.ports import converted, fitted, validate_names
from onnx_subprune.calibration.data.runs import count, joined
from onnx_subprune.calibration.data.sources import Source, listed, read
from onnx_subprune.errors import DataError, OptionError, meant, typed
from onnx_subprune.graph.formats import Model
from onnx_subprune.graph.network import load, ports
from onnx_subprune.runtime.session import Port, Runnable


def carries_named(texts: Sequence[str]) -> dict[str, str]:
    """Return what STATE_IN=STATE_OUT say, outputs by input; OptionError if that is nothing."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, made = text.partition("=")
        if not (name and equals and made) or name in found:
            raise OptionError(f"--carry {text!r}: write it as STATE_IN=STATE_OUT, once for an input")
        found[name] = made
    return found


@typed("carry", "constants")
def carried(
    model: Model, data: Source, carry: Mapping[str, str], constants: Mapping[str, Constant] | None = None
) -> list[dict[str, Array]]:
    """Return what a streaming model is fed, run by run, when it goes through `data` in order: its states are those that it really meets.

    Parameters
    ----------
    model
        As in `prune`.
    data
        The other inputs, in order of time: what is yielded is a run each, arrays have a run (of the batch that the model insists on, else of one) after
        the other on their first axis.
    carry
        For each input that is a state the output that is its next value; the first is zero.
    constants
        As in `prune`; they are not returned.

    Returns
    -------
    A dictionary of arrays by input for each run, as `prune` takes them.

    Raises
    ------
    SubpruneError
        OptionError where `carry` names no input or output, DataError where the data do not fit, or a state is not what the next run takes.

    Examples
    --------
    >>> from onnx_subprune import carried
    >>> runs = carried("model.onnx", "calibration.npz", {})  # of a streaming model {"state_in": "state_out"}
    >>> len(runs), runs[0]["input"].shape
    (64, (1, 3, 8, 8))

    """
    network = load(model)
    session = Runnable(network.given, network.folder).session()
    inputs = ports(network)
    fixed = constant_values(constants or {}, inputs)
    _check(carry, inputs, session.outputs)
    others = [port for port in inputs if port.name not in carry and port.name not in fixed]
    if not others:
        raise DataError("all inputs of the model are states, or have constant values: there is no data to go through")
    states: dict[str, Array] = {}
    found = []
    for where, feeds in _runs(data, others):
        if not states:
            states = {port.name: _zeros(port, others, feeds) for port in inputs if port.name in carry}
        made = session.run({**feeds, **states, **fixed}, list(dict.fromkeys(carry.values())))
        found.append({**feeds, **states})
        following = {name: made[output] for name, output in carry.items()}
        for name, state in following.items():
            if state.shape != states[name].shape or state.dtype != states[name].dtype:
                raise DataError(
                    f"{where}: {carry[name]!r} is {state.dtype} {state.shape}, but {name!r} was fed {states[name].dtype} {states[name].shape}: "
                    "it is no next value of it, or the runs are not of one size"
                )
        states = following
    return found


def _check(carry: Mapping[str, str], inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    for kind, given, known in (("input", carry.keys(), inputs), ("output", carry.values(), outputs)):
        names = {port.name for port in known}
        unknown = sorted(set(given) - names)
        if unknown:
            raise OptionError(
                f"--carry: the model has no {kind} {unknown[0]!r}{meant(unknown[0], names)} its {kind}s are {listed(names)}"
            )


def _runs(data: Source, inputs: Sequence[Port]) -> Iterator[tuple[str, dict[str, Array]]]:
    """The feeds of each run, in order, with a name for messages."""
    given = read(data, inputs)
    for place, arrays in given.parts[:1]:
        validate_names(place if given.runs else given.where, arrays, inputs)
    if given.runs:
        for place, arrays in given.parts:
            yield place, {port.name: fitted(place, arrays[port.name], port, first="") for port in inputs}
        return
    arrays = joined(given.parts)
    wanted = {port.name: converted(given.where, arrays[port.name], port) for port in inputs}
    sizes = {port.shape[0] for port in inputs if port.shape and isinstance(port.shape[0], int) and port.shape[0] > 0}
    batch = min((size for size in sizes if isinstance(size, int)), default=1)
    for start in range(0, count(given.where, arrays) - batch + 1, batch):
        place = f"{given.where}, run {start // batch}"
        parts = {name: np.ascontiguousarray(array[start : start + batch]) for name, array in wanted.items()}
        yield place, {port.name: fitted(place, parts[port.name], port, first="") for port in inputs}


def _zeros(port: Port, others: Sequence[Port], feeds: Mapping[str, Array]) -> Array:
    """The first state: open sizes are those that inputs with the same name for them have, or else 1."""
    known = {
        name: size
        for other in others
        for name, size in zip(other.shape, feeds[other.name].shape, strict=False)
        if isinstance(name, str)
    }
    shape = [size if isinstance(size, int) and size > 0 else known.get(str(size), 1) for size in port.shape]
    return np.zeros(shape, port.dtype)
