"""Machines that a model is made for, and the widths that their kernels like.

Each row of the table says of how many channels a convolution, of how many columns a matrix product, and of how many numbers a part that repeats
(a head of attention, the units of a gate) computes a whole block at once. What is not a multiple is padded, or takes a slower path:

    cpu-avx512       16  8  8   onnxruntime: NCHWc blocks of 16 floats (MlasNchwcGetBlockSize, nchwc_transformer.cc); inputs that are no multiple
                                of 4 leave the layout, what is no multiple of 16 is padded to one; measured by `convolution_block`
    cpu-avx2          8  8  8   onnxruntime: NCHWc blocks of 8 floats
    arm64            16  8  8   onnxruntime: MLAS_NEON_NCHWC_BLOCK_SIZE = 16 (pull request 25580); XNNPACK f32 tiles have 8 columns, f16 8 or 16
    tensorrt-fp16     8  8  8   NVIDIA, "Tensor Core" alignment of 16 bytes: 8 half floats; formats "channel % 8 == 0" (NVIDIA/TensorRT#3876)
    tensorrt-int8    32 32 32   NVIDIA: INT8 formats pack 32 channels (kCHW32)
    qnn              32 32 32   Qualcomm AI Engine Direct, best practices (80-63442-10): "round up the number of channels to a multiple of 32"
    coreml           32 32 16   Apple Neural Engine: the last axis is aligned to 64 bytes, 32 half floats
    webgpu            4  4  4   onnxruntime: nChw4c layouts (microsoft/onnxruntime#26638)
    none              1  1  1   size alone

Kernels of onnxruntime on a CPU take multiples of 4 channels as well, and pad them to whole blocks (`padded`); other machines leave their fast path.

A group of channels is rounded by what makes and reads it: blocks of convolutions where there is one among these, of matrix products else. A channel that
owns several columns of a matrix (a head) counts them all, and where equally many channels of each of several cells stay (the numbers of a
head, the groups of a grouped convolution) each cell is rounded by itself.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import gcd, lcm

from onnx_subprune.graph.channels import ChannelGraph, ChannelGroup, Contraction
from onnx_subprune.runtime.blocks import convolution_block

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True, slots=True)
class Target:
    """Channels of a convolution, columns of a matrix product, and numbers of a part that repeats, that a machine computes at once.

    padded: multiples of channels that a convolution pads to whole blocks; None where it does not.
    """

    name: str
    convolution: int
    matrix: int
    part: int
    padded: int | None = None

    def divided(self, divisor: int) -> "Target":
        """Return the target with blocks that are smaller by a factor, a power of two."""
        sizes = [max(1, size // divisor) for size in (self.convolution, self.matrix, self.part)]
        return replace(self, convolution=sizes[0], matrix=sizes[1], part=sizes[2])

    def finer(self) -> list["Target"]:
        """Return the targets with convolutions of smaller multiples that kernels pad, largest first."""
        halves = (self.convolution >> bits for bits in range(1, self.convolution.bit_length()))
        return [replace(self, convolution=half) for half in halves if self.padded and half % self.padded == 0]


TARGETS: Mapping[str, Target] = {
    row.name: row
    for row in (
        Target("cpu-avx512", 16, 8, 8, padded=4),
        Target("cpu-avx2", 8, 8, 8, padded=4),
        Target("arm64", 16, 8, 8, padded=4),
        Target("tensorrt-fp16", 8, 8, 8),
        Target("tensorrt-int8", 32, 32, 32),
        Target("qnn", 32, 32, 32),
        Target("coreml", 32, 32, 16),
        Target("webgpu", 4, 4, 4),
        Target("none", 1, 1, 1),
    )
}
"""By name; see above for where each row comes from."""


PROVIDED: Mapping[str, str] = {
    "TensorrtExecutionProvider": "tensorrt-fp16",
    "CUDAExecutionProvider": "tensorrt-fp16",
    "QNNExecutionProvider": "qnn",
    "CoreMLExecutionProvider": "coreml",
    "WebGpuExecutionProvider": "webgpu",
}
"""Targets of execution providers; the others run on the processor, or are not known."""


def this_machine() -> Target:
    """Return the target of the processor that this runs on, as the installed onnxruntime uses it."""
    block = convolution_block()
    if platform.machine().lower() in ("aarch64", "arm64"):
        return replace(TARGETS["arm64"], convolution=block)
    return TARGETS["cpu-avx512" if block == TARGETS["cpu-avx512"].convolution else "cpu-avx2"]


def multiple_of(graph: ChannelGraph, group: ChannelGroup, target: Target) -> int:
    """Return the number of which the width of `group` should be a multiple on `target`; one that its step allows."""
    around = _around(graph, group)
    convolved = any(contraction.op in CONVOLUTIONS for contraction in around)
    if not convolved:
        columns = _columns(group, around)
        if columns >= target.part:
            return group.step  # whole heads
        block = target.part if group.step > 1 else target.matrix
        wanted = block // gcd(block, columns)
    else:
        wanted = target.convolution
    inside = group.width // group.step
    apart = not convolved or any(c.groups > 1 and not c.whole_groups for c in around)
    if group.step > 1 and apart and inside % wanted == 0:
        return group.step * wanted
    return lcm(group.step, wanted)


def _around(graph: ChannelGraph, group: ChannelGroup) -> list[Contraction]:
    """The contractions that make or read the channels."""
    nodes = {*group.producers, *group.readers}
    return [contraction for contraction in graph.contractions if contraction.node in nodes]


def _columns(group: ChannelGroup, around: list[Contraction]) -> int:
    """How many columns of a matrix product a channel owns: the fewest, where they differ."""
    axes = {
        axis for contraction in around if not contraction.stacked for axis in (contraction.rows, contraction.columns)
    }
    return min((part.positions.shape[1] for part in group.slices if part.axis in axes), default=1)
