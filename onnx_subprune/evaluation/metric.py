"""How good a model is by the user's own measure: accuracy against labels, or a function of theirs. Higher is better."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto

from onnx_subprune._typing import Array, Int64
from onnx_subprune.calibration.data.labels import given_labels, read_labels
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.data.script import load_function, message_of, script_named
from onnx_subprune.errors import DataError, OptionError, typed_fields
from onnx_subprune.graph.save import save_model, side_file_wanted
from onnx_subprune.runtime.files import scratch
from onnx_subprune.runtime.session import Runnable

Labels = NDArray[np.int64]
Judge = Callable[[ModelProto], float]
"""Gives a model its score; bound to data, labels and folders already."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A judge, and what it says of the original."""

    judge: Judge
    base: float


@dataclass(frozen=True, slots=True, eq=False)
class Accuracy:
    """The share of samples whose label is the arg-max of the model's first output.

    labels: "y.npy", "x.npz:key", or (samples,) integers, one for every sample of the data. Judged are those that are held out (see
    `Resources`); where the metric chooses the widths, it chooses by others.
    """

    labels: str | os.PathLike[str] | ArrayLike

    def __post_init__(self) -> None:
        given_labels(self.labels)

    def __repr__(self) -> str:
        if isinstance(self.labels, (str, os.PathLike)):
            return f"Accuracy({os.fspath(self.labels)!r})"
        return f"Accuracy({len(np.asarray(self.labels))} labels)"


@typed_fields
@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """A function of the path of an .onnx file that returns a score; higher is better. `name` is for the report."""

    function: Callable[[str], float] = field(repr=False)
    name: str = "validation"


Metric = Accuracy | Validation


def validation(source: str) -> Validation:
    """Return the metric `script.py:function`; OptionError if it is not written like that, DataError if there is none."""
    named = script_named(source)
    if named is None:
        raise OptionError(f"--validate {source!r}: write it as script.py:function")
    if not named[0].exists():
        raise DataError(f"{named[0]}: no such file; --validate takes script.py:function")
    return Validation(load_function(*named), name=source)  # type: ignore[arg-type]  # what it returns is checked at every call


@dataclass(frozen=True, slots=True, eq=False)
class Judging:
    """Samples to judge on, where they lie in the data (int64), and how many samples the data have, for which there are labels."""

    data: Calibration
    places: Int64
    total: int


def judge_of(metric: Metric, on: Judging, folder: Path | None, threads: int | None) -> Judge:
    """Bind `metric` to the samples to judge on. DataError if labels do not fit."""
    if isinstance(metric, Validation):
        return lambda model: _validated(metric, model, folder)
    labels = read_labels(metric.labels)
    spare = 2 * ((on.data.fixed or 1) - 1)  # samples that do not fill a fixed batch are left out
    if not on.total <= len(labels) <= on.total + spare:
        raise DataError(
            f"{metric}: {len(labels)} labels for {on.total} samples of the data; give one a sample, in their order"
        )
    truth = labels[on.places]
    return lambda model: _accuracy(Runnable(model, folder), on.data, truth, threads)


def _accuracy(model: Runnable, data: Calibration, labels: Labels, threads: int | None) -> float:
    session = model.session(threads=threads)
    name = session.outputs[0].name
    right = start = 0
    for chunk in data.chunks():
        chosen = _chosen(session.run(chunk, [name])[name], name)
        if len(chosen) < min(data.chunk, data.samples - start):
            raise DataError(
                f"labels need a row of scores for every sample, but {name!r} has {len(chosen)} for {data.chunk}: use --validate script.py:function"
            )
        right += int(np.sum(chosen == labels[start : start + len(chosen)]))
        start += len(chosen)
    return right / start


def _chosen(output: Array, name: str) -> Array:
    """The class of each sample: that with the highest score, or what the output says, where it holds classes."""
    if output.dtype.kind in "iu" and output.size == len(output):
        return output.reshape(-1)
    if output.ndim != 2 or output.shape[1] < 2:
        raise OptionError(
            f"labels need a first output of shape (samples, classes), but {name!r} has {output.shape}: use --validate script.py:function"
        )
    return np.asarray(output.argmax(axis=1))


def _validated(metric: Validation, model: ModelProto, folder: Path | None) -> float:
    with scratch() as temporary:
        path = temporary / "candidate.onnx"
        save_model(model, folder, path, side_file=side_file_wanted(model))
        try:
            score = float(metric.function(str(path)))
        except (Exception, SystemExit) as error:
            raise DataError(f"{metric.name}: fails: {message_of(error)}") from error
    if not np.isfinite(score):
        raise DataError(f"{metric.name}: returned {score}; a score is a finite number, higher is better")
    return score
