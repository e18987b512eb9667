"""The skeleton of NAS-Bench-201: residual blocks between stages of cells; see :mod:`dnad_ray.deploy.standalone`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.deploy.standalone.blocks import Cell, CellData, Classifier

__all__ = ["CellNetwork"]


class Stem(nn.Module):
    """Convolution 3x3 at full resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to (N, C, H, W)."""
        result: Tensor = self.norm(self.conv(images))
        return result


class Block(nn.Module):
    """Residual block that halves the resolution and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 2 * channels, 3, 2, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(2 * channels)
        self.second = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(2 * channels)
        self.shortcut = nn.Conv2d(channels, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 2C, H / 2, W / 2)."""
        inner = self.first_norm(self.first(F.relu(x)))
        inner = self.second_norm(self.second(F.relu(inner)))
        is_odd = bool(x.shape[2] % 2 or x.shape[3] % 2)
        result: Tensor = inner + self.shortcut(F.avg_pool2d(x, 2, 2, ceil_mode=is_odd, count_include_pad=False))
        return result


class Head(nn.Module):
    """Norm, ReLU and classifier."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = Classifier(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to logits."""
        logits: Tensor = self.classifier(F.relu(self.norm(x)))
        return logits


class CellNetwork(nn.Module):
    """Stem, cells and head; takes pixels in 0..1 and normalises them itself.

    Args:
        cells: For each cell whether a residual block stands before it, the edges (operation, state) of each node, and
            the nodes of which its output consists.
        in_channels: Channels of the images.
        channels: Width before the first reduction.
        num_classes: Outputs.
        stem: ``cifar``, the only one that there is.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    def __init__(
        self,
        cells: Sequence[CellData],
        *,
        in_channels: int,
        channels: int,
        num_classes: int,
        stem: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.stem = Stem(in_channels, channels)
        self.blocks, self.cells = nn.ModuleDict(), nn.ModuleDict()
        for index, (reduction, nodes, outputs) in enumerate(cells):
            if reduction:
                self.blocks[str(index)] = Block(channels)
                channels *= 2
            self.cells[str(index)] = Cell(nodes, outputs, channels)
        self.head = Head(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W), pixels in 0..1, to logits (N, num_classes)."""
        x = self.stem((images - self.mean) / self.std)
        for index, cell in self.cells.items():
            x = cell(None, self.blocks[index](x) if index in self.blocks else x)
        logits: Tensor = self.head(x)
        return logits
