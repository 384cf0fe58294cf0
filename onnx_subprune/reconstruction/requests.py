"""The questions of the walk: moments of which inputs against which targets, and how much of the data they are of."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnx_subprune._typing import Mask
from onnx_subprune.calibration.streaming.gates import loss_of, moments_of
from onnx_subprune.calibration.streaming.request import Request, Sampling
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.graph.channels import Contraction
from onnx_subprune.graph.contractions.kernel import Kernel
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.task import Task


def aimed(
    task: Task,
    layer: Layer,
    aim: Aim,
    alive: Mask,
    *,
    renew: bool = False,
    with_gram: bool = True,
) -> Request:
    """Return the request for moments against the original's aim; with `renew`, against what of it the activation behind can tell apart.

    Of large maps some samples are enough.
    """
    every = every_of(task, layer.contraction, layer.weights.shape[1])
    positions = task.running.positions_of(-(-task.data.samples // every), layer.weights.shape[1])
    aim = aim.on(layer.contraction.output.index, layer.outputs)
    return Request(
        weight=layer.contraction.weight,
        kernel=layer.kernel,
        input=layer.contraction.input.tensor,
        question=moments_of(aim, renew=renew, with_gram=with_gram),
        sampling=Sampling(every=every, positions=positions),
        channels=living_channels(layer.kernel, alive),
    )


def lost(layer: Layer, aim: Aim) -> Request:
    """Return the request for what the pruned model loses of `aim` at `layer`, and how large that is, from all data."""
    contraction, aim = layer.contraction, aim.on(layer.contraction.output.index, layer.outputs)
    return Request(
        weight=contraction.weight, kernel=layer.kernel, input=contraction.input.tensor, question=loss_of(aim)
    )


def every_of(task: Task, contraction: Contraction, columns: int) -> int:
    """Return of how many samples one is enough for a contraction with so many columns a group."""
    return task.running.every_of(
        task.data.samples,
        task.graph.observation.positions(contraction.output.tensor, contraction.output.index),
        columns,
    )


def input_of(contraction: Contraction, kernel: Kernel, every: int = 1) -> Request:
    """Return the request for moments of the input alone, over all positions: layerwise selection is the paper's, and files of statistics have the same."""
    sampling = Sampling(every=every)
    return Request(weight=contraction.weight, kernel=kernel, input=contraction.input.tensor, sampling=sampling)


def output_count(kernel: Kernel, shape: Sequence[int]) -> int:
    """Return the output positions of a place on the first axis (a sample, or less), from the shape of the output."""
    return prod(shape[2:]) if kernel.spatial else prod(shape[1:-1])


def living_channels(kernel: Kernel, alive: Mask) -> NDArray[np.int64] | None:
    """Return the channels of the input that are not dropped, None for all; where there is one convolution group. One of no use if none is left."""
    if kernel.groups > 1 or alive.all():
        return None
    return np.flatnonzero(alive[:: kernel.taps]) if alive.any() else np.zeros(1, np.int64)
