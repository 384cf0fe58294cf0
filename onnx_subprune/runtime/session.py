"""The door to onnxruntime.

Sessions run on the processor where no other execution provider is given. Failures come out as one-line errors of this package.
"""

import contextlib
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import scipy
from onnx import ModelProto, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from onnx_subprune._typing import Array
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.runtime.providers import Provider, session_on
from onnx_subprune.runtime.weights import Model, source, weight_bytes

LARGE = 2**30
"""Models with more bytes of weights are run without a second, packed copy of them, which is faster for small ones."""


NO_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
"""What onnxruntime says where there is too little memory."""
BATCHES = frozenset({"b", "n", "bs"})
"""What exporters call the dimension of the batch, beside names that begin with it."""


def counts_samples(name: str) -> bool:
    """True if a dimension of this name counts samples, as far as names tell."""
    return name.lower() in BATCHES or name.lower().startswith("batch")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model; a dimension is a number, a name, or None where it is not known."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype[np.generic]


UNSAFE = "FuseFp16InitializerToFp32NodeTransformer"
"""An optimisation of float16 models, for processors without float16, in which onnxruntime 1.32 dies where a part of an encoder ends in q, k and v."""


class Session:
    """A model, ready to run.

    model: in memory, a path, or serialized. Large weights are handed over by their address, or mapped from their side file.
    folder: where side files of an in-memory model lie. optimize: False for onnxruntime's graph optimizations off (verification).
    threads: None for as many as there are cores. profile: where to write the time of every node (`runtime.profiling`).
    providers: what runs it, in order of preference; the processor runs what they leave, see `session_on`.
    part: it is a part of a model, in which onnxruntime does without what is `UNSAFE`.
    alone: the thread that asks for a run does all of it.
    Raises ModelError if onnxruntime refuses the model.
    """

    def __init__(
        self,
        model: "Model | Path | bytes",
        *,
        optimize: bool = True,
        threads: int | None = None,
        folder: Path | None = None,
        profile: Path | None = None,
        providers: Sequence[Provider] = (),
        part: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        if (
            not optimize
        ):  # shapes are taken as soon as a tensor is there, so that the tensor can go (see observe_shapes)
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        self.alone = threads == 1 and not providers
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        # Idle threads that spin take the cores from the linear algebra. The memory arena stays: without it, no run was faster and
        # most took more memory.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if part:
            options.add_session_config_entry("optimization.disable_specified_optimizers", UNSAFE)
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder.resolve())
            )
        if not isinstance(model, (Path, bytes)) and weight_bytes(model) > LARGE:
            options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of the weights
        text, apart = source(model)
        values = [
            ort.OrtValue.ortvalue_from_numpy_with_onnx_type(numpy_helper.to_array(tensor), tensor.data_type)
            for tensor in apart.values()
        ]
        options.add_external_initializers(list(apart), values)
        try:
            self._session = session_on(text, options, providers, threads)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ModelError(f"onnxruntime cannot load the model: {_line(error)}") from error
        self._session._model_bytes = None  # it would keep them for other providers: as much memory again as the weights
        self.inputs = tuple(_port(item) for item in self._session.get_inputs())
        self.outputs = tuple(_port(item) for item in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Return the outputs (all of them by default) by name.

        float8 arrives as its bytes in uint8, a sequence as its elements on a new first axis (see `_array`). Raises DataError if `feeds` do not fit the
        declared inputs, ModelError if the run fails, or if an output is bfloat16 or has 4 bits, which onnxruntime cannot hand to NumPy.
        """
        names = list(outputs) if outputs is not None else [port.name for port in self.outputs]
        if not names:  # onnxruntime takes none for all
            return {}
        with _running():
            found = self._session.run(names, dict(feeds))
        return {name: _array(value) for name, value in zip(names, found, strict=True)}

    def end_profiling(self) -> Path:
        """Return the file with the time of every node; only for a session with `profile`."""
        return Path(self._session.end_profiling())

    def fill(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Write the outputs into arrays of the right shape and type, C-contiguous like the feeds: no copy is made. Raises as `run` does.

        An output that is an input at once is copied here: onnxruntime leaves such an array as it was.
        """
        binding = self._session.io_binding()
        for name in outputs.keys() & feeds.keys():
            outputs[name][...] = feeds[name]
        outputs = {name: array for name, array in outputs.items() if name not in feeds}
        with _running():
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)


def _array(value: object) -> Array:
    """What an output holds, as one array: elements of a sequence on a first axis, or behind one another where their shapes differ; maps as rows of values.

    An optional without a value is empty.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return np.array([value[key] for key in sorted(value)])
    if isinstance(value, list):
        items = [_array(item) for item in value]
        if len({item.shape for item in items}) == 1:
            return np.stack(items)
        return np.concatenate([item.ravel() for item in items]) if items else np.zeros(0, np.float32)
    return np.zeros(0, np.float32) if value is None else np.asarray(value)


@contextlib.contextmanager
def _running() -> Iterator[None]:
    try:
        yield
    except (InvalidArgument, ValueError) as error:
        text = _line(error)
        about_feeds = "input" in text and "while running" not in text
        kind = DataError if about_feeds else ModelError
        raise kind(f"onnxruntime cannot run the model{' on these inputs' * about_feeds}: {text}") from error
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ModelError(f"onnxruntime cannot run the model: {_line(error)}") from error


def _line(error: Exception) -> str:
    text = " ".join(re.sub(r"\[ONNXRuntimeError\] : \d+ : |/onnxruntime_src/\S*/", "", str(error)).split())
    text = text if len(text) <= 300 else text[:299] + "…"
    scarce = any(words in text for words in NO_MEMORY)
    return f"too little memory; use a smaller --batch-size, or smaller samples ({text})" if scarce else text


_KINDS = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2"}


def _port(item: ort.NodeArg) -> Port:
    return Port(item.name, tuple(item.shape), dtype_of(str(item.type)))


def dtype_of(kind: str) -> np.dtype[np.generic]:
    """Return the element type that onnxruntime spells "tensor(float)"; object for what is no tensor."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(_KINDS.get(name, name))
    except (TypeError, ValueError):  # strings, sequences, optionals
        return np.dtype(object)


def environment() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = (onnx, ort, np, scipy)  # whatever package onnxruntime comes from: there are others for other providers
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{item.__name__: item.__version__ for item in packages},
    }


@dataclass(frozen=True, slots=True)
class Runnable:
    """A model in memory, with the folder of its side files, or the path of one; providers: what runs it, see `Session`."""

    model: ModelProto | Path
    folder: Path | None = None
    providers: tuple[Provider, ...] = ()

    def session(self, *, threads: int | None = None, optimize: bool = True, profile: Path | None = None) -> Session:
        """Return a session for it."""
        return Session(
            self.model,
            optimize=optimize,
            threads=threads,
            folder=self.folder,
            profile=profile,
            providers=self.providers,
        )

    def on(self, providers: tuple[Provider, ...]) -> "Runnable":
        """Return the same model on other providers."""
        return replace(self, providers=providers)
