"""Budget and metric as words of the command line."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from onnx_subprune.allocation import Channels, Latency, Macs, Params
from onnx_subprune.errors import BudgetError, OptionError
from onnx_subprune.evaluation.metric import Accuracy, Metric, validation
from onnx_subprune.pruning.budgets.budget import Budget, MaxDrop


def _speedup(factor: float) -> Latency:
    """Return the latency of a model that is so many times as fast."""
    if not factor > 1.0:
        raise BudgetError(
            f"speedup {factor} is not above 1: give how many times as fast the result has to be, for example 2"
        )
    return Latency(1.0 / factor)


FRACTIONS: Mapping[str, Callable[[float], Budget]] = {
    "--macs": Macs,
    "--params": Params,
    "--channels": Channels,
    "--latency": Latency,
    "--speedup": _speedup,
}


def metric_of(labels: str | None, validate: str | None) -> Metric | None:
    """Return the metric of --labels or --validate, None without."""
    if labels is not None and validate is not None:
        raise OptionError("--labels and --validate contradict each other: give one metric")
    if validate is not None:
        return validation(validate)
    return Accuracy(labels) if labels is not None else None


def budget_of(fractions: Mapping[str, float | None], max_drop: float | None, metric: Metric | None) -> Budget:
    """Return the one budget that is given, Macs(0.5) without; `fractions` by option."""
    given: list[Budget] = [FRACTIONS[option](value) for option, value in fractions.items() if value is not None]
    if max_drop is not None:
        if metric is None:
            raise OptionError("--max-drop needs a metric: --labels y.npy, or --validate script.py:function")
        given.append(MaxDrop(max_drop, metric))
    if len(given) > 1:
        raise OptionError(f"more than one budget: give one of {', '.join(fractions)}, --max-drop")
    return given[0] if given else Macs(0.5)


def timed(budget: Budget, table: str | None, measure: str | None) -> Budget:
    """Return a budget of latency with a table or a command of the user's; OptionError for another budget."""
    if table is None and measure is None:
        return budget
    if not isinstance(budget, Latency):
        raise OptionError("--table and --measure go with --latency or --speedup")
    return replace(budget, table=table, measure=measure)
