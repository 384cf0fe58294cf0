"""Questions about the gates of recurrent layers, which are no tensor of a model, but a product of what the layer reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_subprune.calibration.moments.energies import Energies
from onnx_subprune.calibration.streaming.product import Product
from onnx_subprune.calibration.streaming.questions import Aimed, Lost, Question
from onnx_subprune.calibration.streaming.target import Aim, chosen
from onnx_subprune.calibration.streaming.view import Terms, View
from onnx_subprune.graph.contractions.recurrent import data_beside


@dataclass(frozen=True, slots=True, eq=False)
class Gates(Question):
    """Moments against the gates of the original: `product` of `tensor`."""

    tensor: str
    product: Product

    @property
    def _beside(self) -> Sequence[str]:
        return [] if self.product.beside is None else [self.product.beside.tensor]

    @property
    def original(self) -> Sequence[str]:
        """See `Question`."""
        return [self.tensor, *self._beside]

    def current(self, source: str) -> Sequence[str]:
        """See `Question`."""
        return [source, *self._beside]

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        product, wanted = self.product, view.wanted[self.tensor]
        source = view.cut(wanted) if product.forced else view.have[view.input]
        if (beside := product.beside) is None:
            return Terms(input=chosen(source, view.channels, view.axis), target=product.target(wanted))
        data, original = view.have[beside.tensor], view.wanted[beside.tensor]
        if product.resets:
            target = product.candidate(wanted, original, source)
            return Terms(input=data_beside(data, product.kernel.backwards), target=target)
        if product.gated is not None:
            made, reset = (view.cut(item) for item in product.gated.gated_candidate(wanted, original))
            read = beside.rows(product.kernel, source, data)
            read[..., : reset.shape[-1]] *= reset.astype(np.float32, copy=False)
            return Terms(input=read, target=made)
        return Terms(input=beside.rows(product.kernel, source, data), target=product.whole(wanted, original))


@dataclass(frozen=True, slots=True, eq=False)
class LostGates(Gates):
    """The energy of what the gates of the pruned model fall short by, and that of the original's."""

    step, sums = True, Energies

    def terms(self, view: View) -> Terms:
        """See `Question`."""
        product, wanted = self.product, view.wanted[self.tensor]
        return Terms(input=product.residual(wanted, view.have[view.input]), target=product.size(wanted))


def moments_of(aim: Aim, *, renew: bool = False, with_gram: bool = True) -> Question:
    """Return the question for moments against an aim, which may be of gates."""
    return Aimed(aim, renew, with_gram) if aim.product is None else Gates(aim.tensor, aim.product)


def loss_of(aim: Aim) -> Question:
    """Return the question for what is lost of an aim, which may be of gates."""
    return Lost(aim) if aim.product is None else LostGates(aim.tensor, aim.product)
