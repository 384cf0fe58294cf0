"""Execution providers of onnxruntime: which there are, sessions on them, and the note where the processor takes over."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnxruntime as ort
from onnx import TensorProto, helper

from onnx_subprune.errors import OptionError, ProviderNote, meant

PROCESSOR = "CPUExecutionProvider"
SUFFIX = "ExecutionProvider"
THREADS = {"OpenVINOExecutionProvider": "num_of_threads", "XnnpackExecutionProvider": "intra_op_num_threads"}
"""Providers for processors with threads of their own, and their option for how many."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider by onnxruntime's name, with its options."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def short(self) -> str:
        """What users call it."""
        return self.name.removesuffix(SUFFIX).lower()

    def on(self, threads: int | None) -> dict[str, str]:
        """Return the options, with the number of threads where the provider has an option for that."""
        own = THREADS.get(self.name)
        counted = {own: str(threads)} if own is not None and threads else {}
        return {**counted, **dict(self.options)}


def providers_of(names: str | Sequence[str]) -> tuple[Provider, ...]:
    """Return the providers of names like openvino, cuda:device_id=1 or CUDAExecutionProvider, in order of preference; () for the processor alone.

    Raises OptionError for names that onnxruntime does not know, and for providers that the installed one does not have.
    """
    found = [_provider(text) for text in ([names] if isinstance(names, str) else names)]
    kept = [item.name for item in found]
    if len(set(kept)) < len(kept):
        raise OptionError(f"--providers {' '.join(item.short for item in found)}: each of them once")
    places = [place for place, item in enumerate(found) if item.name == PROCESSOR]
    return tuple(found[: places[0]] if places else found)


def _provider(text: str) -> Provider:
    name, _, rest = text.strip().partition(":")
    known = {item.removesuffix(SUFFIX).lower(): item for item in ort.get_all_providers()}
    there = {item.removesuffix(SUFFIX).lower(): item for item in ort.get_available_providers()}
    known |= there
    short = name.lower().removesuffix(SUFFIX.lower())
    if short not in known:
        raise OptionError(
            f"--providers {text}: no execution provider of onnxruntime{meant(short, known, '')}; here: {_listed(there)}"
        )
    if short not in there:
        raise OptionError(
            f"--providers {text}: onnxruntime {ort.__version__}, as it is installed here, has {_listed(there)} only; "
            "other providers come with other packages, in place of onnxruntime"
        )
    options = [part.partition("=") for part in rest.split(",")] if rest else []
    if any(not key or not sign for key, sign, _ in options):
        raise OptionError(f"--providers {text}: write options as {short}:KEY=VALUE,KEY=VALUE")
    return Provider(known[short], tuple((key.strip(), value.strip()) for key, _, value in options))


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(sorted(names))


def named(providers: Sequence[Provider]) -> str:
    """Return the providers as users write them."""
    return ", ".join(item.short for item in providers) or "cpu"


def session_on(
    model: bytes | str, options: ort.SessionOptions, providers: Sequence[Provider], threads: int | None
) -> ort.InferenceSession:
    """Return a session on the providers, with the processor for what they leave, or, with a note, on the processor alone.

    Raises what onnxruntime does where the processor does not take the model either.
    """
    if providers:
        wanted = [(item.name, item.on(threads)) for item in providers]
        try:
            return ort.InferenceSession(model, options, providers=[*wanted, PROCESSOR], enable_fallback=0)
        except (
            Exception
        ):  # onnxruntime's exceptions have no common base; the processor says what is wrong with the model itself
            found = ort.InferenceSession(model, options, providers=[PROCESSOR])
        note(f"{named(providers)} does not take a part of the model; such parts run on the processor")
        return found
    return ort.InferenceSession(model, options, providers=[PROCESSOR])


def note(text: str) -> None:
    """Tell the user where a model runs, without ado."""
    warnings.warn(ProviderNote(text), stacklevel=3)


def started(providers: Sequence[Provider]) -> tuple[Provider, ...]:
    """Return those that onnxruntime can start here, for which a model of one node is loaded; OptionError for options that they do not take."""
    return tuple(item for item in providers if _starts(item))


def lacking(providers: Sequence[Provider]) -> list[str]:
    """Return, by their short names, what is not installed here, or cannot be started."""
    there = {*ort.get_available_providers()}
    return [item.short for item in providers if item.name not in there or not _starts(item)]


def _starts(provider: Provider) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    wanted = [(provider.name, provider.on(1)), PROCESSOR]
    try:
        found = ort.InferenceSession(_least(), options, providers=wanted, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base
        said = " ".join(str(error).split()).rpartition(") ")[2][:200]
        raise OptionError(f"--providers {provider.short}: onnxruntime cannot start it like this: {said}") from error
    return provider.name in found.get_providers()


def _least() -> bytes:
    """A model of one node."""
    source, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "least", [source], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
