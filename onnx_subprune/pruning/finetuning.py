"""Fine-tuning as a stage: the weights of the smaller model, which stays the same otherwise."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto, TensorProto

from onnx_subprune._typing import Float32, Int64
from onnx_subprune.calibration.data.labels import read_labels
from onnx_subprune.calibration.shifts import images
from onnx_subprune.errors import SubpruneError
from onnx_subprune.evaluation.metric import Accuracy
from onnx_subprune.graph.gradients.training import weight_in
from onnx_subprune.pruning.cut import Cut
from onnx_subprune.pruning.job import Job
from onnx_subprune.pruning.samples import Samples
from onnx_subprune.reconstruction.finetuning.finetune import Tuning, finetuned
from onnx_subprune.reconstruction.finetuning.settings import FineTuned
from onnx_subprune.runtime.session import Runnable

LARGEST = 512 << 20
"""Bytes of a model in memory up to which it is fine-tuned: weights, gradients and moments are some times as much."""


def tuned(job: Job, samples: Samples, smaller: Cut) -> tuple[Job, Cut, FineTuned | None]:
    """Return the smaller model with new weights where they are better on samples that nothing else was done with.

    What stands in the way is a warning of the job that is returned, and the model is then as it was.
    """
    settings = job.settings.finetune
    if settings is None:
        return job, smaller, None
    try:
        tuning = _tuning(job, samples, smaller)
        found, weights = finetuned(tuning, settings, job.settings.progress)
    except SubpruneError as error:
        return replace(job, warnings=(*job.warnings, f"not fine-tuned: {error}")), smaller, None
    return job, replace(smaller, model=with_weights(smaller.model, weights)), found


def with_weights(model: ModelProto, weights: Mapping[str, Float32]) -> ModelProto:
    """Return a copy of the model with other values of weights, by the names of initializers and of what constants put out."""
    found = ModelProto()
    found.CopyFrom(model)
    named = [(tensor.name, tensor) for tensor in found.graph.initializer]
    named += [(node.output[0], tensor) for node in found.graph.node if (tensor := weight_in(node)) is not None]
    for name, tensor in named:
        if name in weights:
            value = np.ascontiguousarray(weights[name], np.float32).tobytes()
            kept = {"name": tensor.name, "doc_string": tensor.doc_string} if tensor.name or tensor.doc_string else {}
            tensor.CopyFrom(TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=value, **kept))
    return found


def _tuning(job: Job, samples: Samples, smaller: Cut) -> Tuning:
    """What is needed; SubpruneError where something is missing."""
    if samples.tuning is None:
        raise SubpruneError("too few samples to hold some out that choose the result; give more")
    if smaller.apart is not None or smaller.model.ByteSize() > LARGEST:
        raise SubpruneError(
            "the model is too large: its weights, their gradients and moments would have no room in memory"
        )
    still = job.settings.resources.shifts is False or samples.used.runs
    return Tuning(
        pruned=Runnable(smaller.model, smaller.folder),
        original=Runnable(job.original.given, job.original.folder),
        fitted=samples.used,
        chosen=samples.tuning,
        images=() if still else tuple(name for name in images(job.original) if name not in samples.used.shared),
        threads=job.settings.resources.threads,
        memory=job.task.memory,
        labels=_labels(job, samples),
    )


def _labels(job: Job, samples: Samples) -> tuple[Int64, Int64] | None:
    """The labels of the samples to fit to, and of those that choose, where the user gives some for the metric."""
    metric, places = job.settings.judged_by, samples.places
    if not isinstance(metric, Accuracy) or places is None:
        return None
    labels = read_labels(metric.labels)
    found = tuple(np.asarray(labels[part], np.int64) for part in places)
    return found[0], found[1]
