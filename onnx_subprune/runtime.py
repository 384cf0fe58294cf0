"""The only door to onnxruntime: sessions, observation of intermediate tensors, latency.

All sessions run on the CPU. Failures come out as one-line errors of this package.
"""

import contextlib
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from onnx_subprune.errors import ModelError

Array = NDArray[np.generic]

SMALL = 4096
"""Integer tensors of at most this many elements are observed with their values."""
AT_ONCE = 64
"""So many tensors are observed in one run, so that not all activations of a model are alive at once."""
LIMIT = 2**31 - 2**20
"""Protobuf messages end at 2 GiB."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model; a dimension is a number, a name, or None where it is not known."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What one run shows of a tensor; `value` only of small integer ones."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    value: Array | None


class Session:
    """A model, ready to run.

    folder: where side files of an in-memory model lie. optimize: False for onnxruntime's graph optimizations off (verification).
    threads: None for as many as there are cores. Raises ModelError if onnxruntime refuses the model.
    """

    def __init__(
        self,
        model: ModelProto | Path,
        *,
        optimize: bool = True,
        threads: int | None = None,
        folder: Path | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # outputs are held for long: an arena would hold twice their size
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder.resolve())
            )
        source = str(model) if isinstance(model, Path) else serialized(model)
        with _one_line("onnxruntime cannot load the model"):
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_port(item) for item in self._session.get_inputs())
        self.outputs = tuple(_port(item) for item in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the outputs (all of them by default) by name."""
        names = list(outputs) if outputs is not None else [port.name for port in self.outputs]
        with _one_line("onnxruntime cannot run the model"):
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def serialized(model: ModelProto) -> bytes:
    """Return the bytes of `model`; ModelError beyond the limit of the format."""
    if model.ByteSize() > LIMIT:
        raise ModelError(
            "the model holds more than 2 GB of weights in memory: save it with its weights in a side file and pass the path"
        )
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        raise ModelError(f"{what}: {text[:300]}") from error


_KINDS = {"float": "float32", "double": "float64"}


def _port(item: ort.NodeArg) -> Port:
    kind = str(item.type)
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        dtype = np.dtype(_KINDS.get(name, name))
    except TypeError:
        dtype = np.dtype(object)
    return Port(item.name, tuple(item.shape), dtype)


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy of `model` that shares nothing but also puts `names` out."""
    copy = ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    del copy.graph.value_info[:]
    return copy


def observe(
    model: ModelProto, feeds: Mapping[str, Array], names: Sequence[str], folder: Path | None = None
) -> dict[str, Array]:
    """Run `model` once, optimizations off, and return the tensors `names`, which may be intermediate ones."""
    return Session(_with_outputs(model, names), optimize=False, folder=folder).run(feeds, names)


def observe_shapes(model: ModelProto, feeds: Mapping[str, Array], folder: Path | None = None) -> dict[str, Observed]:
    """Run `model`, optimizations off, and return what every tensor of its main graph looks like.

    Sequences, optionals and other things that are not tensors are left out.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    session = Session(_with_outputs(model, names), optimize=False, folder=folder)
    found = {name: _seen(array) for name, array in feeds.items()}
    for start in range(0, len(names), AT_ONCE):
        for name, value in session.run(feeds, names[start : start + AT_ONCE]).items():
            if isinstance(value, np.ndarray):
                found[name] = _seen(value)
    return found


def _seen(array: Array) -> Observed:
    small = array.size <= SMALL and array.dtype.kind in "iub"
    return Observed(tuple(array.shape), array.dtype, np.array(array) if small else None)


def _time(session: Session, feeds: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    session.run(feeds)
    return (time.perf_counter() - start) * 1e3


def latency(sessions: Sequence[Session], feeds: Mapping[str, Array], *, seconds: float = 1.0) -> tuple[float, ...]:
    """Return the median milliseconds of a run of each session; they take turns, so that drift of the machine hits all alike.

    seconds: about how long to measure, all together; at least five rounds are run, after one that is not counted.
    """
    first = sum(_time(session, feeds) for session in sessions)
    rounds = max(5, int(seconds * 1e3 / max(first, 1e-3)))
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(min(rounds, 200)):
        for taken, session in zip(times, sessions, strict=True):
            taken.append(_time(session, feeds))
    return tuple(statistics.median(taken) for taken in times)


def environment() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = ("onnx", "onnxruntime", "numpy", "scipy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version(name) for name in packages},
    }


def is_float(kind: int) -> bool:
    """True for the floating-point element types of ONNX."""
    return kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
