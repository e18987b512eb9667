"""The skeleton of DARTS, in which a cell reads the two before it; see :mod:`dnad_ray.deploy.standalone`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnad_ray.deploy.standalone.blocks import Cell, CellData, Classifier

__all__ = ["CellNetwork"]


class CifarStem(nn.Module):
    """Convolution 3x3 at full resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_channels, self.older_larger = (3 * channels, 3 * channels), False
        self.conv = nn.Conv2d(in_channels, 3 * channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3 * channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to the two inputs of the first cell."""
        state = self.norm(self.conv(images))
        return state, state


class ImageNetStem(nn.Module):
    """Two stems that together divide the resolution by 8."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_channels, self.older_larger = (channels, channels), True
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.second = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to the two inputs of the first cell."""
        older = self.first(images)
        return older, self.second(older)


class CellNetwork(nn.Module):
    """Stem, cells and classifier; takes pixels in 0..1 and normalises them itself.

    Args:
        cells: For each cell whether it reduces, the edges (operation, state) of each node, and the nodes of which its
            output consists; a cell without edges is dead.
        in_channels: Channels of the images.
        channels: Width before the first reduction.
        num_classes: Outputs.
        stem: ``cifar`` or ``imagenet``.
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
        first = CifarStem(in_channels, channels) if stem == "cifar" else ImageNetStem(in_channels, channels)
        self.stem = first
        self.num_cells, self.cells = len(cells), nn.ModuleDict()
        (older, newer), older_larger = first.out_channels, first.older_larger
        for index, (reduction, nodes, outputs) in enumerate(cells):
            channels *= 2 if reduction else 1
            if any(nodes):
                self.cells[str(index)] = Cell(
                    nodes,
                    outputs,
                    channels,
                    has_strides=reduction,
                    inputs=(older, newer),
                    older_larger=older_larger,
                )
            older, newer, older_larger = newer, len(outputs) * channels, reduction
        self.classifier = Classifier(newer, num_classes, adaptive=stem == "cifar")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W), pixels in 0..1, to logits (N, num_classes)."""
        stems = self.stem((images - self.mean) / self.std)
        older: Tensor | None = F.relu(stems[0])
        newer: Tensor | None = F.relu(stems[1])
        output: Tensor | None = None
        for index in range(self.num_cells):
            key = str(index)
            output = self.cells[key](older, newer) if key in self.cells else None
            older, newer = newer, None if output is None else F.relu(output)
        assert output is not None
        logits: Tensor = self.classifier(output)
        return logits
