"""Compact definitions of common convolutional architectures: fewer blocks, real structure. Needs PyTorch.

    python tools/architectures.py FOLDER

writes one ONNX file for each, with weights drawn at random, a dynamic batch axis, and in evaluation mode.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def unit(
    inputs: int, outputs: int, k: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Conv, BatchNormalization, activation."""
    conv = nn.Conv2d(inputs, outputs, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


class Excite(nn.Module):
    """Squeeze and excite; with linear layers and views, or with 1x1 convolutions."""

    def __init__(self, width: int, hidden: int, gate: type[nn.Module] = nn.Sigmoid, *, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        make = nn.Linear if linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.path = nn.Sequential(make(width, hidden), nn.ReLU(), make(hidden, width), gate())

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1)
        if self.linear:
            return x * self.path(pooled.view(x.shape[0], x.shape[1])).view(x.shape[0], x.shape[1], 1, 1)
        return x * self.path(pooled)


class Residual(nn.Module):
    """A path beside the identity, or a projection."""

    def __init__(self, path: nn.Module, skip: nn.Module | None = None, last: nn.Module | None = None) -> None:
        super().__init__()
        self.path, self.skip, self.last = path, skip or nn.Identity(), last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.path(x) + self.skip(x))


def inverted(
    inputs: int, outputs: int, grow: int, act: type[nn.Module], stride: int = 1, excite: nn.Module | None = None
) -> nn.Module:
    """Inverted residual of MobileNet and EfficientNet."""
    hidden = inputs * grow
    path = nn.Sequential(
        unit(inputs, hidden, 1, act=act),
        unit(hidden, hidden, 3, stride, hidden, act=act),
        excite or nn.Identity(),
        unit(hidden, outputs, 1, act=nn.Identity),
    )
    return Residual(path) if stride == 1 and inputs == outputs else path


def classifier(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(width, 10))


def mobilenet_v2() -> nn.Module:
    act = nn.ReLU6
    blocks = [
        inverted(16, 24, 6, act, 2),
        inverted(24, 24, 6, act),
        inverted(24, 32, 6, act, 2),
        inverted(32, 32, 6, act),
    ]
    return nn.Sequential(unit(3, 16, stride=2, act=act), *blocks, unit(32, 128, 1, act=act), classifier(128))


def mobilenet_v3() -> nn.Module:
    act = nn.Hardswish
    blocks = [
        inverted(16, 24, 4, nn.ReLU, 2, Excite(64, 16, nn.Hardsigmoid)),
        inverted(24, 24, 4, act, 1, Excite(96, 24, nn.Hardsigmoid, linear=True)),
        inverted(24, 40, 6, act, 2, Excite(144, 40, nn.Hardsigmoid)),
    ]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 64), nn.Hardswish(), nn.Linear(64, 10))
    return nn.Sequential(unit(3, 16, stride=2, act=act), *blocks, unit(40, 96, 1, act=act), head)


def efficientnet() -> nn.Module:
    act = nn.SiLU
    blocks = [
        inverted(16, 24, 6, act, 2, Excite(96, 4)),
        inverted(24, 24, 6, act, 1, Excite(144, 6)),
        inverted(24, 40, 6, act, 2, Excite(144, 6)),
    ]
    return nn.Sequential(unit(3, 16, stride=2, act=act), *blocks, unit(40, 128, 1, act=act), classifier(128))


class DenseLayer(nn.Module):
    """BatchNormalization, Relu, Conv twice; the result is concatenated to the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.path(x)], 1)


def densenet() -> nn.Module:
    first = [DenseLayer(32 + 12 * i, 12) for i in range(4)]
    turn = [nn.BatchNorm2d(80), nn.ReLU(), nn.Conv2d(80, 40, 1), nn.AvgPool2d(2)]
    second = [DenseLayer(40 + 12 * i, 12) for i in range(4)]
    return nn.Sequential(unit(3, 32, stride=2), *first, *turn, *second, nn.BatchNorm2d(88), nn.ReLU(), classifier(88))


class Branches(nn.Module):
    """Concatenation of parallel paths."""

    def __init__(self, *paths: nn.Module) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([path(x) for path in self.paths], 1)


def googlenet() -> nn.Module:
    def inception(inputs: int, a: int, b: int, c: int, d: int) -> nn.Module:
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(inputs, d, 1))
        return Branches(
            unit(inputs, a, 1),
            nn.Sequential(unit(inputs, b // 2, 1), unit(b // 2, b)),
            nn.Sequential(unit(inputs, c // 2, 1), unit(c // 2, c)),
            pool,
        )

    return nn.Sequential(
        unit(3, 32, stride=2),
        inception(32, 16, 32, 8, 8),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        inception(64, 32, 48, 16, 16),
        classifier(112),
    )


class Shuffle(nn.Module):
    """Unit of ShuffleNetV2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.path = nn.Sequential(unit(half, half, 1), unit(half, half, 3, 1, half, nn.Identity), unit(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.path(b)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v2() -> nn.Module:
    return nn.Sequential(
        unit(3, 48, stride=2), Shuffle(48), Shuffle(48), Shuffle(48), unit(48, 128, 1), classifier(128)
    )


def grouped_resnet(groups: int, excite: bool) -> nn.Module:
    def block(inputs: int, outputs: int, hidden: int, stride: int) -> nn.Module:
        gate = Excite(hidden, hidden // 4) if excite else nn.Identity()
        path = nn.Sequential(
            unit(inputs, hidden, 1),
            unit(hidden, hidden, 3, stride, groups),
            gate,
            unit(hidden, outputs, 1, act=nn.Identity),
        )
        skip = None if inputs == outputs and stride == 1 else unit(inputs, outputs, 1, stride, act=nn.Identity)
        return Residual(path, skip, nn.ReLU())

    return nn.Sequential(
        unit(3, 32, stride=2),
        block(32, 64, 32, 1),
        block(64, 64, 32, 1),
        block(64, 128, 64, 2),
        block(128, 128, 64, 1),
        classifier(128),
    )


class UNet(nn.Module):
    """Two levels, bilinear and transposed upsampling, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([unit(3, 16), unit(16, 32), unit(32, 64)])
        self.up = nn.ConvTranspose2d(64, 32, 2, 2)
        self.merge = nn.ModuleList([unit(64, 32), unit(48, 16)])
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        y = self.merge[0](torch.cat([self.up(c), b], 1))
        y = F.interpolate(y, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.last(self.merge[1](torch.cat([y, a], 1)))


class C2f(nn.Module):
    """YOLOv8's block."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        super().__init__()
        self.half = outputs // 2
        self.first = unit(inputs, outputs, 1, act=nn.SiLU)
        self.inner = nn.ModuleList(
            [
                Residual(
                    nn.Sequential(unit(self.half, self.half, act=nn.SiLU), unit(self.half, self.half, act=nn.SiLU))
                )
                for _ in range(count)
            ]
        )
        self.last = unit((2 + count) * self.half, outputs, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for layer in self.inner:
            parts.append(layer(parts[-1]))
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling, fast."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = unit(width, width // 2, 1, act=nn.SiLU), unit(width * 2, width, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """Backbone, SPPF, one step of the neck, two heads that are flattened and concatenated."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU
        self.stem = nn.Sequential(unit(3, 16, 3, 2, act=act), unit(16, 32, 3, 2, act=act), C2f(32, 32, 1))
        self.deep = nn.Sequential(unit(32, 64, 3, 2, act=act), C2f(64, 64, 2), SPPF(64))
        self.neck = C2f(96, 32, 1)
        self.heads = nn.ModuleList([nn.Sequential(unit(w, 32, act=act), nn.Conv2d(32, 14, 1)) for w in (32, 64)])

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = self.deep(a)
        a = self.neck(torch.cat([F.interpolate(b, scale_factor=2.0), a], 1))
        return torch.cat([head(y).view(x.shape[0], 14, -1) for head, y in zip(self.heads, (a, b), strict=True)], 2)


def srgan() -> nn.Module:
    def block() -> nn.Module:
        return Residual(nn.Sequential(unit(32, 32, act=nn.PReLU), unit(32, 32, act=nn.Identity)))

    body = Residual(nn.Sequential(block(), block(), unit(32, 32, act=nn.Identity)))
    up = [nn.Conv2d(32, 128, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]
    return nn.Sequential(nn.Conv2d(3, 32, 9, padding=4), nn.PReLU(), body, *up, nn.Conv2d(32, 3, 9, padding=4))


def decoder() -> nn.Module:
    layers = [
        nn.ConvTranspose2d(32, 64, 4, 2, 1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1, groups=2),
    ]
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), *layers, nn.GroupNorm(4, 32), nn.GELU(), nn.ConvTranspose2d(32, 3, 3, padding=1)
    )


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "densenet": densenet,
    "googlenet": googlenet,
    "shufflenet_v2": shufflenet_v2,
    "resnext": lambda: grouped_resnet(8, excite=False),
    "regnet": lambda: grouped_resnet(4, excite=True),
    "unet": UNet,
    "yolo": Yolo,
    "srgan": srgan,
    "decoder": decoder,
}


def export_all(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write every architecture to `folder` and yield its name and path."""
    for name, build in ARCHITECTURES.items():
        torch.manual_seed(0)
        model = build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
        path = folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (torch.randn(2, 3, 32, 32),),
                str(path),
                dynamo=False,
                opset_version=17,
                input_names=["x"],
                dynamic_axes={"x": {0: "N"}},
            )
        yield name, path


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for exported, _ in export_all(target):
        print(exported)
