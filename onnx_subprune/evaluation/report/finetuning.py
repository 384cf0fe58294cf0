"""Fine-tuning in a report: as values, and in a sentence."""

from dataclasses import asdict

from onnx_subprune.reconstruction.finetuning.settings import FineTuned


def finetuning_dict(found: FineTuned) -> dict[str, object]:
    """Return it as plain values."""
    before, after = found.loss
    fitted, chosen = found.samples
    return {
        **asdict(found),
        "loss": {"before": before, "after": after},
        "samples": {"fitted": fitted, "chosen_by": chosen},
        "gain_per_hundred_passes": found.gain_per_hundred,
    }


def finetuning_words(found: FineTuned) -> str:
    """Return in a sentence what it did, and by which samples the result was chosen."""
    before, after = found.loss
    cost = f"{found.steps:,} steps of {found.batch}, {found.forward_passes:,} forward and {found.backward_passes:,} backward passes, {found.seconds:.0f} s"
    if found.because is not None:
        cost += f"; {found.left} weights are not learned: {found.because}"
    on = f"{found.samples[1]} samples that chose the result, and that nothing was fitted to nor is judged on"
    loss = "loss, with a tenth of the cross entropy of the labels," if found.labels else "loss"
    if not found.kept:
        return f"fine-tuning: nothing changed, as no state had a {loss} surely below {before:.3g} on {on} ({cost})"
    return (
        f"fine-tuning: the {loss} fell from {before:.3g} to {after:.3g} on {on} (the state after step {found.best:,}; {cost}); "
        "errors of single layers and groups are those before it"
    )


def finetuning_lines(found: FineTuned | None) -> list[str]:
    """Return that sentence; nothing where nothing was fine-tuned."""
    return [] if found is None else [finetuning_words(found)]
