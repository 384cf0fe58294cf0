"""Train the models of ``models/`` and export them with their data to ONNX and NumPy files.

The pruning itself needs neither PyTorch nor labels; this tool is only run to make the example models again::

    apt-get install dataset-fashion-mnist espeak-ng bible-kjv
    pip install torch==2.13.0 onnx onnxruntime onnxscript numpy scikit-image pillow
    python tools/train_models.py

Each model is trained from the same seed, so training one of them alone (``--only``) gives the same weights as training
all. PyTorch promises equal results only for one version, one kind of processor and one number of threads.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools import spoken_words
from tools.measures import Numbers
from tools.recurrent_models import RowReader, WordSpotter
from tools.sample_tasks import FASHION, PICTURES, SPOKEN, TASKS, TEXT, Samples, Split, Task
from tools.text_models import CONTEXT, Decoder
from tools.vision_models import (
    CLASSES,
    SIDE,
    SuperResolution,
    VisionTransformer,
    build_lenet,
    build_lenet_300_100,
    build_mobile,
    build_resnet,
)

OPSET = 17
DYNAMO_OPSET = 18
INPUT = "input"
AXES = {1: "tokens", 2: "height", 3: "width"}
"""Names of axes that may have any length."""


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained: ``shift`` is the largest random translation in pixels; ``adaptive`` is AdamW in place of SGD.

    ``dynamo`` is which of PyTorch's two exporters writes the file.
    """

    build: Callable[[], nn.Module]
    task: Task
    epochs: int
    learning_rate: float
    shift: int = 0
    batch: int = 128
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    adaptive: bool = False
    dynamo: bool = False


RECIPES = {
    "lenet_fashion": Recipe(build_lenet, FASHION, epochs=15, learning_rate=0.05, shift=1),
    "lenet_300_100_fashion": Recipe(build_lenet_300_100, FASHION, epochs=15, learning_rate=0.1, shift=1),
    "resnet_fashion": Recipe(build_resnet, FASHION, epochs=12, learning_rate=0.2, shift=2, label_smoothing=0.05),
    "mobile_fashion": Recipe(
        build_mobile,
        FASHION,
        epochs=12,
        learning_rate=0.1,
        shift=1,
        weight_decay=2e-4,
        label_smoothing=0.05,
    ),
    "gru_fashion": Recipe(
        lambda: RowReader(SIDE, CLASSES),
        FASHION,
        epochs=6,
        learning_rate=4e-3,
        shift=1,
        weight_decay=0.01,
        adaptive=True,
    ),
    "lstm_words": Recipe(
        lambda: WordSpotter(spoken_words.BANDS, len(spoken_words.WORDS)),
        SPOKEN,
        epochs=12,
        learning_rate=3e-3,
        shift=2,
        batch=64,
        weight_decay=0.01,
        adaptive=True,
    ),
    "vit_fashion": Recipe(
        VisionTransformer,
        FASHION,
        epochs=10,
        learning_rate=2e-3,
        shift=1,
        weight_decay=0.05,
        label_smoothing=0.05,
        adaptive=True,
    ),
    "gpt_text": Recipe(
        Decoder, TEXT, epochs=1, learning_rate=2e-3, batch=8, weight_decay=0.1, adaptive=True, dynamo=True
    ),
    "superres": Recipe(
        SuperResolution, PICTURES, epochs=5, learning_rate=1e-3, batch=16, weight_decay=0.0, adaptive=True
    ),
}


def tensor_of(task: Task, samples: Samples) -> torch.Tensor:
    """Return samples as the model takes them."""
    x = torch.from_numpy(np.ascontiguousarray(task.preprocess(samples)))
    if not task.integers:
        x = x.float()
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x


def example_of(task: Task, count: int) -> torch.Tensor:
    """Return `count` inputs of nothing."""
    return torch.zeros(count, *task.shape, dtype=torch.int64 if task.integers else torch.float32)


def train(recipe: Recipe, data: Split, epochs: int, seed: int) -> nn.Module:
    """Train a new model with a one-cycle learning rate; return it on the CPU in evaluation mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = recipe.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        if recipe.adaptive
        else torch.optim.SGD(
            model.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=True
        )
    )
    steps = len(data.images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=epochs * steps)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = rng.permutation(len(data.images))[: steps * recipe.batch]
        for chosen in order.reshape(steps, recipe.batch):
            images, labels = recipe.task.vary(data.images[chosen], data.labels[chosen], recipe.shift, rng)
            outputs = model(tensor_of(recipe.task, images))
            loss = recipe.task.loss(outputs, torch.from_numpy(np.ascontiguousarray(labels)), recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            if recipe.adaptive:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"  epoch {epoch + 1:2d}: loss {total / steps:.4f}, {time.perf_counter() - start:.0f} s", flush=True)
    return model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[no-any-return]


def strip_notes(model: onnx.ModelProto) -> None:
    """Remove what an exporter may note about the machine it ran on: doc strings and metadata."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def write_graph(model: nn.Module, path: Path, recipe: Recipe) -> None:
    """Write the model as ONNX by the exporter of its recipe.

    Of TorchScript's, constants are folded where there is a recurrent layer alone: the gates of its weights come in another order in ONNX.
    """
    task = recipe.task
    names = {0: "batch", **{axis: AXES[axis] for axis in task.free}}
    if recipe.dynamo:
        sizes = {axis: torch.export.Dim(name, max=CONTEXT if axis else None) for axis, name in names.items()}
        torch.onnx.export(
            model,
            (example_of(task, 2),),
            path,
            input_names=[INPUT],
            output_names=[task.output],
            dynamic_shapes=(sizes,),
            opset_version=DYNAMO_OPSET,
            external_data=False,
            dynamo=True,
        )
        return
    torch.onnx.export(
        model,
        (example_of(task, 1),),
        path,
        input_names=[INPUT],
        output_names=[task.output],
        dynamic_axes={INPUT: names, task.output: names},
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=any(isinstance(module, nn.RNNBase) for module in model.modules()),
        dynamo=False,
    )


def export(model: nn.Module, path: Path, recipe: Recipe) -> None:
    """Write the model as ONNX with its BatchNormalization nodes kept in inference form, and check the file."""
    write_graph(model, path, recipe)
    exported = onnx.load(path)
    strip_notes(exported)
    for node in exported.graph.node:
        mode = [attribute.i for attribute in node.attribute if attribute.name == "training_mode"]
        if node.op_type == "BatchNormalization" and (len(node.output) != 1 or any(mode)):
            raise ValueError(f"{node.name} was exported in training form")
    onnx.checker.check_model(exported, full_check=True)
    onnx.save(exported, path)


def scores(path: Path, data: Split, task: Task) -> Numbers:
    """Return for each sample how good the output of the file is, run by onnxruntime."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for chosen in np.array_split(np.arange(len(data.images)), 10):
        inputs = tensor_of(task, data.images[chosen]).contiguous().numpy()
        found.append(task.measure.each(np.asarray(session.run([task.output], {INPUT: inputs})[0]), data.labels[chosen]))
    return np.concatenate(found)


def count_macs(model: nn.Module, task: Task) -> int:
    """Count the multiplications of one input's convolutions, dense and recurrent layers (those with weights alone)."""
    macs = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d | nn.Linear):
            positions = output.numel() // output.shape[1 if isinstance(module, nn.Conv2d) else -1]
            macs += module.weight.numel() * positions
        if isinstance(module, nn.RNNBase):
            matrices = (weight.numel() for weight in module.parameters() if weight.ndim == 2)
            macs += sum(matrices) * inputs[0].shape[1]

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(example_of(task, 1))
    for hook in hooks:
        hook.remove()
    return macs


def table_row(model: nn.Module, path: Path, test: Split, task: Task) -> str:
    """Return the model's row of the table in models/README.md, measured on the exported file."""
    found = scores(path, test, task)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    whole, kept = (task.measure.shown.format(task.measure.sum_up(part)) for part in (found, found[: task.kept[1]]))
    return (
        f"| `{path.name}` | {parameters:,} | {count_macs(model, task):,} | {path.stat().st_size:,} | {whole} | {kept} |"
    )


def write_data(folder: Path, task: Task, training: Split, test: Split) -> None:
    """Write the unlabelled calibration inputs and the test inputs with their labels."""
    calibrating, testing = task.kept
    calibration, tested = task.preprocess(training.images[:calibrating]), task.preprocess(test.images[:testing])
    np.savez_compressed(folder / f"{task.name}_calibration.npz", input=calibration)
    np.savez_compressed(folder / f"{task.name}_test.npz", input=tested)
    np.save(folder / f"{task.name}_test_labels.npy", test.labels[:testing])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of the *-ubyte.gz files"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent.parent / "models", help="folder to write to"
    )
    parser.add_argument("--only", choices=RECIPES, nargs="+", default=list(RECIPES), help="models to train")
    parser.add_argument("--epochs", type=int, help="epochs of each model instead of its own number, for a quick try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train, export and measure the chosen models."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in TASKS:
        named = [name for name in arguments.only if RECIPES[name].task is task]
        if not named:
            continue
        training, test = task.read(arguments.data)
        write_data(arguments.output, task, training, test)
        for name in named:
            print(name, flush=True)
            model = train(RECIPES[name], training, arguments.epochs or RECIPES[name].epochs, arguments.seed)
            path = arguments.output / f"{name}.onnx"
            export(model, path, RECIPES[name])
            rows.append(table_row(model, path, test, task))
    print("| file | parameters | MACs | bytes | all test inputs | those kept |", *rows, sep="\n")


if __name__ == "__main__":
    main()
