"""Normalisations over channels, as the rest of the package sees them: a constant says which channels each statistic is taken of.

    mean = sum_c w_c x_c,   w_c = 1 / D        (or sum_c w_c x_c, w_c = 1, times 1 / D, where the file has a sum and a number)

With w_c = 0 for the channels that are dropped, and 1 / k for the k that stay, a model in which nothing is cut computes what is left of it when they are.
Loading spells normalisations out that way (`spelling`); surgery puts back what the file had (`surgery.statistics`).
"""

from dataclasses import dataclass

from onnx import NodeProto

Place = tuple[str, int]
"""A node, by its first output, and a slot of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean over channels of a tensor: ReduceSum of `weighed`, its product with the constant `weight` in slot 1.

    number: where the number of channels, or its inverse if `inverse`, is; None where the weights are 1 / D.
    """

    weighed: str
    weight: str
    number: Place | None = None
    inverse: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """source / sqrt(variance + epsilon) * scale, the mean taken off where it is `centred`.

    source, variance, shifted: tensors; shifted is the sum under the root. epsilon, scale: where these constants are.
    """

    source: str
    means: tuple[Mean, ...]
    centred: bool
    variance: str
    shifted: str
    epsilon: Place
    scale: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A node of the file, and what it is spelled out in: nodes by their first outputs, in order, the last of which makes what it made.

    Of several nodes that are spelled out together only the last one's does; all are put back, or none.

    means: those within. slots: where the constants in its slots are now. epsilon: where its attribute is.
    """

    node: NodeProto
    spelled: tuple[str, ...]
    means: tuple[Mean, ...]
    slots: tuple[tuple[int, Place], ...] = ()
    epsilon: Place | None = None
