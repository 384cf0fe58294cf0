"""What a row of the comparison is, and the rows of this package."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from onnx_subprune import (
    Asymmetric,
    Channels,
    Gates,
    Layerwise,
    Macs,
    MarginalCost,
    Params,
    Refit,
    Sequential,
    Uniform,
    prune,
)
from onnx_subprune.allocation import Allocator
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.reconstruction.settings import Formulation
from onnx_subprune.runtime.session import Session
from onnx_subprune.selection import Selector, selectors

Arrays = Mapping[str, np.ndarray]
Budget = Channels | Macs | Params
BATCH = 64


class Scorer(Protocol):
    """A pruned classifier."""

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Return scores, (samples, classes), for a batch."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model with calibration data, (samples, ...) by input; `only` as on the command line."""

    model: Path
    data: Arrays
    only: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A pruned model, and the share of the multiply-accumulates that it kept. session: where it is one of onnxruntime."""

    scorer: Scorer
    macs: float
    session: Session | None = None


def outcome(session: Session, macs: float) -> Outcome:
    """Return what a model in onnxruntime is."""
    return Outcome(scorer=scorer_of(session), macs=macs, session=session)


ROUNDS = 15
"""Turns in which two models are timed."""


def latency(first: Session, second: Session, inputs: Arrays) -> float:
    """Return the second model's time in units of the first one's: processor time of batches in turns, the median."""
    batch = {name: array[:BATCH] for name, array in inputs.items()}
    ratios = []
    for turn in range(ROUNDS):
        spent = {}
        for session in (first, second) if turn % 2 else (second, first):
            start = time.process_time()
            session.run(batch, [session.outputs[0].name])
            spent[id(session)] = time.process_time() - start
        ratios.append(spent[id(second)] / spent[id(first)])
    return statistics.median(ratios)


class Row(Protocol):
    """A method: `draws` says whether it depends on the seed, `reads` whether on the calibration data."""

    draws: bool
    reads: bool

    def __call__(self, case: Case, budget: Budget, seed: int) -> Outcome:
        """Prune."""


def scorer_of(session: Session) -> Scorer:
    """Return the first output of a model as a scorer."""
    name, kinds = session.outputs[0].name, {port.name: port.dtype for port in session.inputs}

    def scores(inputs: Arrays) -> np.ndarray:
        fed = {key: array.astype(kinds[key], copy=False) for key, array in inputs.items()}
        return np.asarray(session.run(fed, [name])[name])

    return scores


def accuracy(scorer: Scorer, inputs: Arrays, labels: np.ndarray) -> float:
    """Return the percentage of right answers."""
    right = 0
    for start in range(0, len(labels), BATCH):
        scores = scorer({key: array[start : start + BATCH] for key, array in inputs.items()})
        right += int(np.sum(scores.argmax(axis=1) == labels[start : start + BATCH]))
    return 100 * right / len(labels)


PLAIN = Refit(residual=False, everywhere=False, rounds=0, joint=0, through_time=0)
"""The refit of the paper: each layer that lost inputs, on its own output."""
DRAWING = ("random", "layer-sampling", "shapley")
BEST = ("forward", "backward", "refined")


ALONE = Resources(shifts=False, trials=0)
"""The samples as they are, and no trials: what methods other than the default work with."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way of `prune`. selector: the name of one, or itself. finetune: steps of fine-tuning afterwards, on the same samples."""

    selector: str | Selector
    formulation: Formulation = field(default_factory=Asymmetric)
    refit: Refit | None = field(default_factory=Refit)
    allocator: Allocator = field(default_factory=Uniform)
    reads: bool = True
    resources: Resources = ALONE
    round_to: int | Literal["auto"] = 1
    finetune: int | None = None

    @property
    def draws(self) -> bool:
        """True if the selector draws at random."""
        return self.selector in DRAWING

    def __call__(self, case: Case, budget: Budget, seed: int) -> Outcome:
        """See `Row`."""
        found = prune(
            str(case.model),
            case.data,
            budget=budget,
            finetune=self.finetune,
            round_to=self.round_to,
            formulation=self.formulation,
            selector=selectors(seed)[self.selector] if isinstance(self.selector, str) else self.selector,
            allocator=self.allocator,
            refit=self.refit,
            only=case.only,
            resources=replace(self.resources, holdout=0),  # accuracies are those of a test set
            gates=Gates(accept_any=True),
        )
        return outcome(Session(found.model, folder=found.folder, threads=1), found.report.macs.ratio)


ROWS: Mapping[str, Row] = {
    **{f"{name}, asymmetric, all refits": Method(selector=name) for name in BEST},
    "refined, all refits, allocated": Method(selector="refined", allocator=MarginalCost(), resources=Resources()),
    "default options (widths in blocks)": Method(
        selector="refined", allocator=MarginalCost(), resources=Resources(), round_to="auto"
    ),
    "forward, asymmetric, paper's refit": Method(selector="forward", refit=PLAIN),
    "forward, sequential": Method(selector="forward", formulation=Sequential(), refit=PLAIN),
    "forward, layerwise": Method(selector="forward", formulation=Layerwise(), refit=PLAIN),
    **{f"{name}, paper's refit": Method(selector=name, refit=PLAIN) for name in selectors(0) if name not in BEST},
    **{
        f"{name}, no refit": Method(
            selector=name, formulation=Layerwise(), refit=None, reads=name not in ("random", "weight-norm")
        )
        for name in selectors(0)
        if name not in BEST[1:]
    },
}
"""By the name in the table."""
ALLOCATED = ("refined, all refits, allocated", "default options (widths in blocks)")
"""Left out with --channels, where every group keeps the same share."""
