"""What a run or a comparison comes to, in two sentences."""

from typing import Protocol

from onnx_subprune.evaluation.measures import Fidelity
from onnx_subprune.evaluation.report.values import Change


class Summed(Protocol):
    """Something with costs and, where that was measured, fidelity."""

    @property
    def params(self) -> Change:
        """Parameters."""

    @property
    def macs(self) -> Change:
        """Multiply-accumulates."""

    @property
    def fidelity(self) -> Fidelity | None:
        """How close the outputs are."""


def summary(found: Summed) -> str:
    """Return in two sentences what is left, and how close it is."""
    left = {"parameters": found.params, "multiply-accumulates": found.macs}
    shares = " and ".join(f"{100 * change.ratio:.0f} % of the {name}" for name, change in left.items())
    text = f"{shares} are left."
    if found.fidelity is None:
        return f"{text} How close the outputs are was not measured: there were no data."
    close = []
    for name, item in found.fidelity.outputs.items():
        error = "" if item.relative_error is None else f"a relative error of {item.error_words}"
        agreement = "" if item.agreement is None else f"an agreement of {item.agreement_words}"
        close.append(f"{name} has {' and '.join(filter(None, [error, agreement])) or 'nothing to compare'}")
    return f"{text} On {found.fidelity.where} {'; '.join(close)}."
