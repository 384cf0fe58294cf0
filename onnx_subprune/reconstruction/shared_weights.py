"""One refit for all contractions that have one weight: a siamese network, a block that is applied again, an unrolled recurrence.

With uses j = 1 .. k of a weight W, X_j what use j reads and T_j what it should put out, W minimises the sum of |T_j - X_j W - b_j|^2: the moments of
the uses add up. The bias is one too where it is one in the model, else each use has its own.

Use j > 1 reads what depends on W. So the fit is done where the walk reaches the first use, from where the pruned model looks ahead to the inputs
of all others, as they are with the weight so far (at first the old one, without the dropped channels); with the new weight it looks again, at most
`ROUNDS` times, and the weight of which the uses together put out least wrong, measured in the pruned model, stays. What lies between the uses is
refitted later, and the weight is not touched again. Weights that are read in yet another manner (turned, by a body) stay as they are, without the
dropped channels; their biases make up for the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_subprune._typing import Float64, Mask
from onnx_subprune.calibration.moments.halves import Halves
from onnx_subprune.calibration.streaming.questions import Short
from onnx_subprune.calibration.streaming.target import Aim
from onnx_subprune.graph.network import Network
from onnx_subprune.graph.sharing import root_of
from onnx_subprune.reconstruction.fit import Fit, Known, fit, living, means, plain, spread
from onnx_subprune.reconstruction.layer import Layer
from onnx_subprune.reconstruction.pooling import pooled
from onnx_subprune.reconstruction.progress import State
from onnx_subprune.reconstruction.settings import Refitted
from onnx_subprune.reconstruction.task import aimed

ROUNDS = 3
"""Another look ahead after the second found next to nothing."""
WORTH = 0.05
"""A further round follows one that took away this share of what is wrong."""
NOTHING = 1e-10
"""Less than this share of the target's energy is nothing: the weight stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A use of the weight: the layer that it is, and what that should put out; None where that is what the old weight makes of its input."""

    layer: Layer
    aim: Aim | None


class SharedWeight:
    """The contractions `members`, in topological order, which have one weight. refit: False keeps the weight, and refits biases alone."""

    def __init__(self, state: State, members: Sequence[Member], *, refit: bool) -> None:
        self._state, self._members, self._refit = state, members, refit
        self._alive: Mask = state.alive(members[0].layer)
        self._aims = [member.aim for member in members if member.aim is not None]
        self._aimed = len(self._aims) == len(members)

    def settle(self) -> list[Refitted]:
        """Refit the weight, and put it into the pruned model; return what became of each use."""
        first = self._members[0].layer
        sliced = np.where(self._alive.reshape(first.prior.shape[:2])[:, :, None], first.prior, 0.0)
        if not self._alive.all():
            self._take([Fit.unchanged(sliced)] * len(self._members))
        self._advance()
        halves = self._moments()
        best = self._fitted(halves, sliced)
        if self._aimed:
            best = self._best(halves, sliced, best)
        self._take(best)
        return [found.summary(member.layer.node) for member, found in zip(self._members, best, strict=True)]

    def _best(self, halves: Sequence[Halves], sliced: Float64, first: list[Fit]) -> list[Fit]:
        """The fits of the round after which the uses put out least wrong."""
        best = [replace(item, weights=sliced, bias=None, refitted=False) for item in first]
        energy = sum(float(half.energy.sum()) for some in halves for half in some.parts)
        left, trial = self._wrong(), first
        for number in range(ROUNDS):
            if left <= NOTHING * energy:
                break
            self._take(trial)
            self._advance()
            wrong = self._wrong()
            if not wrong < left:  # the old biases go back, where they are not those of the best already
                layers = [member.layer for member in self._members]
                pairs = zip(best, layers, strict=True)
                return [item if item.refitted else replace(item, bias=self._old_bias(layer)) for item, layer in pairs]
            enough = wrong > (1.0 - WORTH) * left
            best, left = trial, wrong
            if enough or number + 1 == ROUNDS or len(self._members) == 1:
                break
            trial = self._fitted(self._moments(), sliced)
        return best

    def _advance(self) -> None:
        """Hold the inputs of all uses, as they are with the weight so far."""
        models, position = self._state.models, self._state.pairing.anchor(self._members[0].layer.contraction)
        models.advance(position)  # forgets what followed from another weight
        models.advance(position, [member.layer.contraction.input.tensor for member in self._members])

    def _old_bias(self, layer: Layer) -> Float64 | None:
        """The bias for which the constant is the old one."""
        return None if layer.bias is None else layer.inside

    def _moments(self) -> list[Halves]:
        """For each use the moments of the even and of the odd chunks, among all columns."""
        found = []
        for member in self._members:
            layer = member.layer
            if self._aimed and member.aim is not None:
                halves = self._state.halves(aimed(self._state.task, layer, member.aim, self._alive))
            else:
                halves = self._state.own(layer)
            found.append(halves.map(lambda half: spread(half, self._alive)) if layer.kernel.groups == 1 else halves)
        return found

    def _fitted(self, halves: Sequence[Halves], sliced: Float64) -> list[Fit]:
        """One fit for each use: the weight is the same, the bias may be its own."""
        layers = [member.layer for member in self._members]
        one = self._one_bias()
        biased = [layer.bias is not None and not one for layer in layers]
        centered = [
            [half.centered() if own else half for half in some.parts] for some, own in zip(halves, biased, strict=True)
        ]
        whole = pooled([*zip(*centered, strict=True)])
        prior = layers[0].prior
        if self._refit and whole is not None:
            alive = layers[0].kernel.groups == 1
            use = Halves.of([living(half, self._alive) for half in whole] if alive else whole)
            found = fit(use, prior, self._alive, free_bias=one, known=Known(threads=self._state.task.running.cores))
        else:
            parts = [half for some in halves for half in some.parts]
            errors = [plain(part, prior, self._alive) for part in parts]
            error = float(np.mean([item.plain_error for item in errors]))
            found = errors[0].with_error(error)
            one = False
        if one:
            return [found] * len(layers)
        return [
            replace(found, bias=means(some.whole, found.weights) if layer.bias is not None else None)
            for layer, some in zip(layers, halves, strict=True)
        ]

    def _one_bias(self) -> bool:
        """True if all uses have the same bias, or none yet: then they stay alike."""
        network, biases = self._state.task.network, [member.layer.bias for member in self._members]
        known = [bias for bias in biases if bias is not None]
        if len(known) < len(biases):
            return False
        alike = all(np.array_equal(bias.scale, known[0].scale) and bias.own == known[0].own for bias in known)
        return alike and len({_constant(network, bias.use.node, bias.use.slot) for bias in known}) == 1

    def _wrong(self) -> float:
        """What all uses put out short of their aims."""
        total = 0.0
        for member, aim in zip(self._members, self._aims, strict=True):
            request = aimed(self._state.task, member.layer, aim, self._alive)
            question = Short(aim.on(member.layer.contraction.output.index, member.layer.outputs))
            request = replace(request, question=question, channels=None)
            total += float(self._state.whole(request).energy.sum())
        return total

    def _take(self, fits: Sequence[Fit]) -> None:
        for member, found in zip(self._members, fits, strict=True):
            self._state.take(member.layer, found)


def _constant(network: Network, node: str, slot: int) -> str:
    """The constant of the file in a slot; empty where the slot is."""
    inputs = network.node(node).input
    return root_of(network, inputs[slot]).tensor if slot < len(inputs) and inputs[slot] else ""
