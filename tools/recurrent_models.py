"""The recurrent models of ``models/``: a GRU that reads an image row by row, and a convolutional LSTM that hears words."""

import torch
from torch import nn

GRU_UNITS = 96
LSTM_UNITS = 64


class RowReader(nn.Module):
    """Two layers of a bidirectional GRU over the rows of an image, the mean of their states, a dense layer."""

    def __init__(self, side: int, classes: int, units: int = GRU_UNITS) -> None:
        """Make the layers for images of (1, side, side)."""
        super().__init__()
        self.gru = nn.GRU(side, units, num_layers=2, batch_first=True, bidirectional=True)
        self.dense = nn.Linear(2 * units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of images (N, 1, side, side)."""
        states, _ = self.gru(x.squeeze(1))
        out: torch.Tensor = self.dense(states.mean(1))
        return out


class WordSpotter(nn.Module):
    """Two convolutions over a spectrogram, an LSTM over its frames, a dense layer on the last state."""

    def __init__(self, bands: int, classes: int, units: int = LSTM_UNITS) -> None:
        """Make the layers for spectrograms of (1, frames, bands), from 0 to 255."""
        super().__init__()
        self.scale = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.pool1 = nn.MaxPool2d((1, 2))
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool2 = nn.MaxPool2d(2)
        self.lstm = nn.LSTM(32 * (bands // 4), units, batch_first=True)
        self.dense = nn.Linear(units, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of spectrograms (N, 1, frames, bands)."""
        x = self.pool1(torch.relu(self.bn1(self.conv1(self.scale(x)))))
        x = self.pool2(torch.relu(self.bn2(self.conv2(x))))
        x = x.permute(0, 2, 1, 3).flatten(2)
        _, (state, _) = self.lstm(x)
        out: torch.Tensor = self.dense(state[-1])
        return out
