"""The channels of a recipe, cut from another checkpoint of the same architecture, with data to refit it to or without."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from threadpoolctl import threadpool_limits

from onnx_subprune.allocation import Channels, Uniform
from onnx_subprune.calibration.data.constants import Constant
from onnx_subprune.calibration.data.samples import Calibration
from onnx_subprune.calibration.data.sources import Source
from onnx_subprune.errors import OptionError, typed
from onnx_subprune.evaluation.gates import Gates
from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.evaluation.report.removed import gone_with, removed, still_pinned
from onnx_subprune.evaluation.report.values import Change
from onnx_subprune.evaluation.verification import verify
from onnx_subprune.graph.channels import ChannelGraph
from onnx_subprune.graph.formats import Model, identity
from onnx_subprune.graph.network import check_computes, load
from onnx_subprune.graph.rules import RULES
from onnx_subprune.graph.rules.vocabulary import Rule
from onnx_subprune.graph.save import NAMED, side_file_wanted, written_bytes
from onnx_subprune.graph.squeezes import without_axes
from onnx_subprune.graph.surgery.surgery import Plan, apply
from onnx_subprune.graph.tracing.trace import trace
from onnx_subprune.pruning.budgets.ladder import Allocated
from onnx_subprune.pruning.cut import cut, measure, timed
from onnx_subprune.pruning.judgement import reviewed
from onnx_subprune.pruning.preparation import loading_notes, prepare
from onnx_subprune.pruning.recipe import Kept, Recipe
from onnx_subprune.pruning.resources import Resources
from onnx_subprune.pruning.result import Pruned
from onnx_subprune.pruning.settings import Settings
from onnx_subprune.pruning.stamp import stamped
from onnx_subprune.pruning.summary import group_reports, summarize
from onnx_subprune.pruning.written import counted
from onnx_subprune.reconstruction.reconstruct import reconstruct
from onnx_subprune.reconstruction.settings import Asymmetric, Reconstruction, Refit
from onnx_subprune.runtime.progress import Watch, silent
from onnx_subprune.runtime.session import environment
from onnx_subprune.selection import Choice, Refined, WeightNorm


@typed("recipe", "rules", "resources", "progress", "constants")
def apply_recipe(
    model: Model,
    recipe: Recipe | str | os.PathLike[str],
    data: Source | None = None,
    *,
    rules: Mapping[str, Rule] = RULES,
    resources: Resources = Resources(),
    progress: Watch = silent,
    constants: Mapping[str, Constant] = MappingProxyType({}),
) -> Pruned:
    """Cut the channels that a recipe names from another checkpoint of the same architecture.

    Parameters
    ----------
    model
        As in `prune`: a model with the groups of the recipe's own, with other weights.
    recipe
        What `prune --recipe` or `Recipe.to_json` wrote, or a `Recipe`.
    data
        As in `prune`: weights are refitted, and the result is judged. Without, weights are merely sliced, as for fine-tuning afterwards.
    rules, resources, progress, constants
        As in `prune`.

    Returns
    -------
    The smaller model with a report on it; without data there are no fidelity and no latency.

    Raises
    ------
    SubpruneError
        As `prune`; OptionError where the recipe is of another architecture.

    Examples
    --------
    >>> from onnx_subprune import Recipe, apply_recipe, prune
    >>> first = prune("model.onnx", "calibration.npz", budget=0.5)
    >>> again = apply_recipe("model.onnx", Recipe.of(first.report))
    >>> [group.kept for group in again.report.groups] == [group.kept for group in first.report.groups]
    True

    """
    found = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if data is None:
        return _sliced(model, found, rules)
    return _refitted(
        model,
        found,
        data,
        Settings(
            budget=Channels(0.5),  # nothing is allocated
            formulation=Asymmetric(),
            selector=Refined() if any(item.basis for item in found.groups) else WeightNorm(),  # nothing is chosen
            allocator=Uniform(),
            exclude=(),
            only=(),
            round_to=1,
            target=None,
            min_width=None,
            refit=Refit(),
            gates=Gates(),
            rules=rules,
            resources=replace(resources, trials=0),
            progress=progress,
            constants=constants,
        ),
    )


def _matching(recipe: Recipe, graph: ChannelGraph) -> dict[str, Kept]:
    """The recipe's groups by name, without those that go with a block anyway; OptionError if the model does not have them."""
    widths = {group.name: (group.width, group.cells) for group in graph.groups}
    for item in recipe.groups:
        if item.name not in widths:
            raise OptionError(
                f"the recipe is of another architecture: this model has no group {item.name!r} of channels that can go"
            )
        width, cells = widths[item.name]
        if width != item.width:
            raise OptionError(
                f"the recipe is of another architecture: group {item.name!r} has {item.width} channels there, {width} here"
            )
        counts = {int(cell): sum(int(cells[place]) == cell for place in item.kept) for cell in set(cells.tolist())}
        if len(set(counts.values())) > 1:
            raise OptionError(
                f"the recipe is of another architecture: group {item.name!r} does not keep equally many channels of each part"
            )
    if not recipe.groups:
        raise OptionError("the recipe keeps all channels: there is nothing to cut")
    return {item.name: item for item in recipe.groups if item.gone is None}


def _refitted(model: Model, recipe: Recipe, data: Source, settings: Settings) -> Pruned:
    start = time.perf_counter()
    job, samples = prepare(model, data, settings)
    kept = _matching(recipe, job.task.graph)
    same = {name: item for name, item in kept.items() if not item.kept or (not item.basis and name not in job.turned)}
    traced = time.perf_counter()
    task = replace(
        job.task,
        widths={name: len(item.kept) for name, item in kept.items()},
        choices={name: Choice(item.kept, 0.0) for name, item in same.items()},
    )
    with threadpool_limits(1):
        done = reconstruct(task)
    rebuilt = time.perf_counter()
    smaller = cut(job, done, samples.used)
    measured = measure(job, samples, smaller, timed(job, samples, smaller))
    job = reviewed(job, samples, done, measured, rebuilt - traced)
    notes = () if len(same) == len(kept) else (
        f"{len(kept) - len(same)} groups are cut in another basis, that of these data: as wide as in the recipe, but not the same channels",
    )  # fmt: skip
    job = replace(job, described={**job.described, **_settings_of(recipe)}, notes=(*job.notes, *notes))
    end = time.perf_counter()
    seconds = {"trace": traced - start, **done.seconds, "verify": end - rebuilt, "total": end - start}
    return summarize(job, Allocated(widths=task.widths), done, smaller, measured, seconds)


def _sliced(model: Model, recipe: Recipe, rules: Mapping[str, Rule]) -> Pruned:
    """The model without the channels, its weights as they are."""
    start = time.perf_counter()
    network = load(model)
    check_computes(network)
    graph = trace(network, rules=rules)
    kept = _matching(recipe, graph)
    left = [name for name, item in kept.items() if item.basis]
    chosen = {name: Choice(item.kept, 0.0) for name, item in kept.items() if not item.basis}
    plan = Plan(supports={name: choice.support for name, choice in chosen.items()})
    small = apply(network, graph, plan, rules=rules)
    runs = {name: array[None] for name, array in graph.observation.example.feeds.items()}
    deviation = verify(network, graph, plan, small, Calibration(arrays=runs, chunk=1, runs=True), network.folder)
    before, after = counted(network, graph), counted(load(small), graph)
    done = Reconstruction(choices=chosen, weights={}, refits={}, seconds={})
    empty = [name for name, choice in chosen.items() if not choice.support]
    groups = group_reports(graph, done, {}, gone=gone_with(network, graph, empty))
    stamped(small, graph, groups)
    small = without_axes(small, network.squeezed)
    side_file = side_file_wanted(small) or side_file_wanted(network.proto)
    report = Report(
        model=identity(model),
        data={"samples": 0, "sha256": ""},
        settings=_settings_of(recipe),
        environment=environment(),
        params=Change(before.params, after.params),
        macs=Change(before.macs, after.macs),
        size=Change(network.size, written_bytes(small, NAMED, side_file=side_file)),
        latency=None,
        groups=groups,
        pinned=still_pinned(network, graph, empty),
        fidelity=None,
        deviation=deviation,
        seconds={"total": time.perf_counter() - start},
        notes=(
            *loading_notes(network),
            *removed(network, graph, empty),
            "weights are sliced, not refitted, and nothing was measured: there are no data",
            *_whole(left),
        ),
    )
    return Pruned(model=small, report=report, folder=network.folder, side_file=side_file)


def _whole(names: Sequence[str]) -> list[str]:
    return (
        [f"{', '.join(names)}: left whole, as the recipe has these in another basis, which takes data"] if names else []
    )


def _settings_of(recipe: Recipe) -> dict[str, str]:
    """What the settings in the report say."""
    return {
        "budget": "recipe",
        "recipe_model": str(recipe.model.get("sha256", "")),
        "recipe_version": recipe.version,
        "recipe_budget": str(recipe.settings.get("budget", "")),
    }
