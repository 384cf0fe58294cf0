"""The networks of ``models/`` that look at images: plain and residual ones, a mobile one, a transformer, and one that doubles the size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.architectures import Excite, Residual, inverted, unit

CLASSES = 10
SIDE = 28
EXPANSION = 4


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

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
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


def build_mobile() -> nn.Module:
    """Return a MobileNetV2 for small images: inverted residuals with depthwise convolutions, squeeze and excite, and ReLU6."""

    def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        hidden = EXPANSION * inputs
        return inverted(inputs, outputs, EXPANSION, nn.ReLU6, stride, Excite(hidden, hidden // 8))

    return nn.Sequential(
        unit(1, 16, act=nn.ReLU6),
        unit(16, 16, 3, 2, 16, act=nn.ReLU6),
        unit(16, 24, 1, act=nn.Identity),
        block(24, 24),
        block(24, 24),
        block(24, 48, 2),
        block(48, 48),
        block(48, 48),
        block(48, 48),
        unit(48, 256, 1, act=nn.ReLU6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, CLASSES),
    )


class PackedAttention(nn.Module):
    """Attention whose queries, keys and values are one dense layer, as in timm."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the two dense layers."""
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what attention adds to the stream (N, tokens, width)."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        out: Tensor = self.proj(mixed)
        return out


class VisionTransformer(nn.Module):
    """A ViT: two strided convolutions, a class token, learned positions, LayerNorm in front of attention and of GELU units."""

    def __init__(self, width: int = 64, depth: int = 4, heads: int = 4, units: int = 192, stem: int = 32) -> None:
        """Make the layers for images of (1, 28, 28), of which 7 x 7 tokens are made."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, stem, 3, 2, 1), nn.ReLU(), nn.Conv2d(stem, width, 3, 2, 1))
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (SIDE // 4) ** 2 + 1, width))
        self.blocks = nn.Sequential()
        for _ in range(depth):
            dense = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, units), nn.GELU(), nn.Linear(units, width))
            self.blocks.append(Residual(nn.Sequential(nn.LayerNorm(width), PackedAttention(width, heads))))
            self.blocks.append(Residual(dense))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images (N, 1, 28, 28)."""
        patches = self.stem(x).flatten(2).transpose(1, 2)
        stream = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.positions
        out: Tensor = self.head(self.norm(self.blocks(stream))[:, 0])
        return out


class SuperResolution(nn.Module):
    """Doubles width and height of RGB pictures: residual blocks, pixel shuffle, added to what bilinear interpolation gives."""

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        """Make the layers; pictures are 0 to 255."""
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)

        def block() -> nn.Module:
            path = nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            return Residual(nn.Sequential(*path))

        self.body = Residual(nn.Sequential(*(block() for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)))
        self.up = nn.Sequential(nn.Conv2d(width, 64, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return pictures (N, 3, 2 height, 2 width) of pictures (N, 3, height, width)."""
        x = x / 255
        detail = self.last(self.up(self.body(self.first(x))))
        out: Tensor = (detail + F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)) * 255
        return out
