"""The built-in encoder's network: a small U-Net with features at full, half and quarter resolution."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 96, 112)
FEATURES = 32

# The card maps HU -1000..1000 to 0..1; the network looks at them through three windows of its own.
WINDOWS_HU = ((-1000.0, 1000.0), (-160.0, 240.0), (-1000.0, -400.0))
LOW_HU, HIGH_HU = -1000.0, 1000.0


class Block(nn.Module):
    """Convolution 3x3x3, instance norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.norm(self.convolution(x)), 0.01)


class Up(nn.Module):
    """Twice the resolution, the encoder's features added, one block."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(inputs, skip, 2, 2)
        self.block = Block(skip, outputs)

    def forward(self, x: Tensor, skip: Tensor, more: Tensor | None = None) -> Tensor:
        mixed = self.up(x) + skip
        out: Tensor = self.block(mixed if more is None else mixed + more)
        return out


class Encoder(nn.Module):
    """U-Net that yields features and class logits.

    Parameters
    ----------
    classes
        Channels of the head, background included.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        low = [(a - LOW_HU) / (HIGH_HU - LOW_HU) for a, _ in WINDOWS_HU]
        span = [(b - a) / (HIGH_HU - LOW_HU) for a, b in WINDOWS_HU]
        self.register_buffer("low", torch.tensor(low).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("span", torch.tensor(span).view(1, -1, 1, 1, 1), persistent=False)
        self.stem = nn.Sequential(Block(len(WINDOWS_HU), WIDTHS[0]), Block(WIDTHS[0], WIDTHS[0]))
        self.down = nn.ModuleList(nn.Sequential(Block(a, b, 2), Block(b, b)) for a, b in pairwise(WIDTHS))
        outputs = (*WIDTHS[1:-1][::-1], FEATURES)
        inputs = (WIDTHS[-1], *outputs[:-1])
        skips = WIDTHS[:-1][::-1]
        self.up = nn.ModuleList(Up(*sizes) for sizes in zip(inputs, skips, outputs, strict=True))
        # What quarter resolution knows reaches the finest level directly.
        self.shortcut = nn.ConvTranspose3d(WIDTHS[2], WIDTHS[0], 4, 4)
        self.head = nn.Conv3d(FEATURES, classes, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of strides 1, 2 and 4 from images (N, 1, X, Y, Z) of values 0..1."""
        x = self.stem(((image - self.low) / self.span).clamp(0, 1))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        levels = []
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip, self.shortcut(levels[-2]) if skip is skips[0] else None)
            levels.append(x)
        return levels[-1], levels[-2], levels[-3]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of strides 1, 2, 4 and logits."""
        fine, half, quarter = self.features(image)
        return fine, half, quarter, self.head(fine)
