"""The language model of ``models/``: a causal decoder as Llama's, over bytes of the King James Bible."""

import shutil
import subprocess

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 128
"""The text is ASCII."""
CONTEXT = 128
ROTATION = 10000.0


def read_bible() -> npt.NDArray[np.int64]:
    """Return the bytes of the text, verse by verse, without references; `bible` comes with Debian's bible-kjv."""
    program = shutil.which("bible")
    if program is None:
        raise FileNotFoundError("bible: apt-get install bible-kjv bible-kjv-text")
    said = subprocess.run([program, "-f", "gen1:1-rev22:21"], capture_output=True, check=True, stdin=subprocess.DEVNULL)
    verses = b"\n".join(line.partition(b" ")[2] for line in said.stdout.splitlines())
    return np.frombuffer(verses, np.uint8).astype(np.int64)


def rotation(tokens: int, size: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (tokens, size) of rotary positions, the two halves of a head alike."""
    speeds = ROTATION ** (-torch.arange(0, size, 2) / size)
    angles = torch.outer(torch.arange(tokens).float(), speeds).repeat(1, 2)
    return angles.cos(), angles.sin()


class GroupedAttention(nn.Module):
    """Causal attention with rotary positions; several heads of queries share one of keys and values."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        """Make the layers for `heads` of queries and `shared` of keys and values."""
        super().__init__()
        self.size, self.repeats = width // heads, heads // shared
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))
        cosines, sines = rotation(CONTEXT, self.size)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        """Turn heads (N, heads, tokens, size) by their positions."""
        left, right = x.chunk(2, -1)
        tokens = x.shape[2]
        turned: Tensor = x * self.cosines[:tokens] + torch.cat([-right, left], -1) * self.sines[:tokens]
        return turned

    def forward(self, x: Tensor) -> Tensor:
        """Return what attention adds to the stream (N, tokens, width)."""
        n, tokens, width = x.shape
        q, k, v = (layer(x).view(n, tokens, -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.rotate(q), self.rotate(k)
        k, v = (
            each[:, :, None].expand(n, -1, self.repeats, tokens, self.size).reshape(n, -1, tokens, self.size)
            for each in (k, v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.o(mixed.transpose(1, 2).reshape(n, tokens, width))
        return out


class GatedUnits(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, units: int) -> None:
        """Make the three layers."""
        super().__init__()
        self.gate, self.up = nn.Linear(width, units, bias=False), nn.Linear(width, units, bias=False)
        self.down = nn.Linear(units, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the units add to the stream."""
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Block(nn.Module):
    """Attention and gated units, each behind an RMSNorm and beside the stream."""

    def __init__(self, width: int, heads: int, shared: int, units: int) -> None:
        """Make the layers."""
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention, self.units = GroupedAttention(width, heads, shared), GatedUnits(width, units)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream behind this block."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.units(self.norm2(x))
        return out


class Decoder(nn.Module):
    """A causal language model: rotary positions, grouped heads, RMSNorm, gated units, a head of its own."""

    def __init__(self, width: int = 128, depth: int = 4, heads: int = 8, shared: int = 4, units: int = 320) -> None:
        """Make the layers; small weights to begin with."""
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.Sequential(*(Block(width, heads, shared, units) for _ in range(depth)))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-6), nn.Linear(width, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, 0, 0.5 * parameter.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (N, tokens, vocabulary) of the next byte after each of `tokens` (N, tokens)."""
        out: Tensor = self.head(self.norm(self.blocks(self.embedding(tokens))))
        return out
