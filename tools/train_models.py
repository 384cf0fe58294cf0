"""Train the models of ``models/`` and export them with their data to ONNX and NumPy files: four on Fashion-MNIST, one on spoken words.

The pruning itself needs neither PyTorch nor labels; this tool is only run to make the example models again::

    apt-get install dataset-fashion-mnist espeak-ng
    pip install torch==2.13.0 onnx onnxruntime numpy
    python tools/train_models.py

Each model is trained from the same seed, so training one of them alone (``--only``) gives the same weights as training
all. PyTorch promises equal results only for one version, one kind of processor and one number of threads.
"""

import argparse
import gzip
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools import spoken_words
from tools.recurrent_models import RowReader, WordSpotter

Images = npt.NDArray[np.uint8]
Inputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MEAN, STD = np.float32(0.2860), np.float32(0.3530)
CLASSES = 10
SIDE = 28
OPSET = 17
CALIBRATION_IMAGES = 512
TEST_IMAGES = 2000
TRAINED_RECORDINGS, TESTED_RECORDINGS = 8000, 2000


@dataclass(frozen=True)
class Split:
    """The images and labels of one half of the data set."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Task:
    """What is told apart: how it is read (training, test), how the models take it, and how much of it is kept."""

    name: str
    read: Callable[[Path], tuple[Split, Split]]
    preprocess: Callable[[Images], npt.NDArray[np.generic]]
    mirrored: bool
    sides: tuple[int, int]


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained: ``shift`` is the largest random translation in pixels; ``adaptive`` is AdamW in place of SGD."""

    build: Callable[[], nn.Module]
    task: Task
    epochs: int
    learning_rate: float
    shift: int
    batch: int = 128
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    adaptive: bool = False


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a strided 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        """Make the layers; the shortcut is empty where the shape stays."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut.append(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels_out))
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: torch.Tensor = self.relu2(y + self.shortcut(x))
        return out


def build_lenet() -> nn.Module:
    """Return a LeNet-5 with ReLU and max pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, CLASSES),
    )


def build_lenet_300_100() -> nn.Module:
    """Return the dense LeNet-300-100."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


def build_resnet() -> nn.Module:
    """Return a residual network with 14 weighted layers and widths 16, 32 and 64."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        ResidualBlock(16, 16, 1),
        ResidualBlock(16, 16, 1),
        ResidualBlock(16, 32, 2),
        ResidualBlock(32, 32, 1),
        ResidualBlock(32, 64, 2),
        ResidualBlock(64, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


def load_split(folder: Path, prefix: str) -> Split:
    """Read one split from the data set's gzipped IDX files (headers of 16 and 8 bytes)."""
    images = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return Split(
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIDE, SIDE),
        np.frombuffer(labels, np.uint8, offset=8).astype(np.int64),
    )


def preprocess(images: Images) -> Inputs:
    """Return the images as the models take them: (x / 255 - 0.2860) / 0.3530 of shape (N, 1, 28, 28)."""
    return ((images.astype(np.float32) / np.float32(255) - MEAN) / STD)[:, None]


def read_fashion(folder: Path) -> tuple[Split, Split]:
    """Read the images of clothes."""
    return load_split(folder, "train"), load_split(folder, "t10k")


def read_words(_: Path) -> tuple[Split, Split]:
    """Let espeak-ng speak, by voices of the training and by others."""
    recordings = (
        spoken_words.record(spoken_words.TRAINED, TRAINED_RECORDINGS, 0),
        spoken_words.record(spoken_words.TESTED, TESTED_RECORDINGS, 1),
    )
    trained, tested = (Split(found.spectrograms, found.labels) for found in recordings)
    return trained, tested


def as_stored(images: Images) -> Images:
    """Return spectrograms as the model takes them, but for their type: 0 to 255, of shape (N, 1, frames, bands)."""
    return images[:, None]


FASHION = Task("fashion", read_fashion, preprocess, mirrored=True, sides=(SIDE, SIDE))
SPOKEN = Task("words", read_words, as_stored, mirrored=False, sides=(spoken_words.FRAMES, spoken_words.BANDS))
RECIPES = {
    "lenet_fashion": Recipe(build_lenet, FASHION, epochs=15, learning_rate=0.05, shift=1),
    "lenet_300_100_fashion": Recipe(build_lenet_300_100, FASHION, epochs=15, learning_rate=0.1, shift=1),
    "resnet_fashion": Recipe(build_resnet, FASHION, epochs=12, learning_rate=0.2, shift=2, label_smoothing=0.05),
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
}


def augment(images: Images, shift: int, mirrored: bool, rng: np.random.Generator) -> Images:
    """Move each image by up to ``shift`` pixels both ways; ``mirrored`` ones are mirrored with a chance of one half."""
    n, height, width = images.shape
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    rows = rng.integers(0, 2 * shift + 1, (n, 1)) + np.arange(height)
    columns = rng.integers(0, 2 * shift + 1, (n, 1)) + np.arange(width)
    if mirrored:
        columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    moved: Images = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


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
    loss_function = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = rng.permutation(len(data.images))[: steps * recipe.batch]
        for chosen in order.reshape(steps, recipe.batch):
            images = augment(data.images[chosen], recipe.shift, recipe.task.mirrored, rng)
            x = torch.from_numpy(recipe.task.preprocess(images).astype(np.float32, copy=False))
            loss = loss_function(model(x.to(memory_format=torch.channels_last)), torch.from_numpy(data.labels[chosen]))
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


def export(model: nn.Module, path: Path, sides: tuple[int, int]) -> None:
    """Write the model as ONNX with its BatchNormalization nodes kept in inference form, and check the file.

    Constants are folded where there is a recurrent layer alone: the gates of its weights come in another order in ONNX.
    """
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, *sides),),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=any(isinstance(module, nn.RNNBase) for module in model.modules()),
        dynamo=False,
    )
    exported = onnx.load(path)
    strip_notes(exported)
    for node in exported.graph.node:
        mode = [attribute.i for attribute in node.attribute if attribute.name == "training_mode"]
        if node.op_type == "BatchNormalization" and (len(node.output) != 1 or any(mode)):
            raise ValueError(f"{node.name} was exported in training form")
    onnx.checker.check_model(exported, full_check=True)
    onnx.save(exported, path)


def correct(path: Path, data: Split, task: Task) -> npt.NDArray[np.bool_]:
    """Tell for each image whether onnxruntime, running the file, finds its class."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    batches = np.array_split(task.preprocess(data.images).astype(np.float32), 10)
    logits = np.concatenate([np.asarray(session.run(["logits"], {"input": batch})[0]) for batch in batches])
    hits: npt.NDArray[np.bool_] = logits.argmax(axis=1) == data.labels
    return hits


def count_macs(model: nn.Module, sides: tuple[int, int]) -> int:
    """Count the multiplications of one image's convolutions, dense and recurrent layers (of these, those with weights)."""
    macs = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d | nn.Linear):
            positions = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
            macs += module.weight.numel() * positions
        if isinstance(module, nn.RNNBase):
            matrices = (weight.numel() for weight in module.parameters() if weight.ndim == 2)
            macs += sum(matrices) * inputs[0].shape[1]

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(torch.zeros(1, 1, *sides))
    for hook in hooks:
        hook.remove()
    return macs


def table_row(model: nn.Module, path: Path, test: Split, task: Task) -> str:
    """Return the model's row of the table in models/README.md, measured on the exported file."""
    hits = correct(path, test, task)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"| `{path.name}` | {parameters:,} | {count_macs(model, task.sides):,} | {path.stat().st_size:,} "
        f"| {hits.mean():.2%} | {hits[:TEST_IMAGES].mean():.2%} |"
    )


def write_data(folder: Path, task: Task, training: Split, test: Split) -> None:
    """Write the unlabelled calibration inputs and the test inputs with their labels."""
    calibration, tested = (
        task.preprocess(images) for images in (training.images[:CALIBRATION_IMAGES], test.images[:TEST_IMAGES])
    )
    np.savez_compressed(folder / f"{task.name}_calibration.npz", input=calibration)
    np.savez_compressed(folder / f"{task.name}_test.npz", input=tested)
    np.save(folder / f"{task.name}_test_labels.npy", test.labels[:TEST_IMAGES])


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
    for task in (FASHION, SPOKEN):
        named = [name for name in arguments.only if RECIPES[name].task is task]
        if not named:
            continue
        training, test = task.read(arguments.data)
        write_data(arguments.output, task, training, test)
        for name in named:
            print(name, flush=True)
            model = train(RECIPES[name], training, arguments.epochs or RECIPES[name].epochs, arguments.seed)
            path = arguments.output / f"{name}.onnx"
            export(model, path, task.sides)
            rows.append(table_row(model, path, test, task))
    print("| file | parameters | MACs | bytes | all test inputs | first 2,000 |", *rows, sep="\n")


if __name__ == "__main__":
    main()
