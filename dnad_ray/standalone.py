"""A network of cells in plain PyTorch: `dnad-ray export --format python` writes this file with a network in it.

It stands alone on purpose: nothing here may import another module of the package. The names of the parameters are
those of :mod:`search_spaces.network`, so that one file of weights fits both; a test holds the two to the same outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CellNetwork"]

Edge = tuple[str, int]
CHAINS = {  # kernel, dilation, repeats
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "sep_conv_7x7": (7, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}


class Chain(nn.Module):
    """Depthwise and pointwise convolutions with a norm behind each pair, ReLU between them."""

    def __init__(self, channels: int, stride: int, name: str) -> None:
        super().__init__()
        kernel, dilation, repeats = CHAINS[name]
        # With stride and dilation 2 every tap falls on an even pixel: a plain convolution on those.
        self.skip, stride, first = (stride, 1, 1) if stride == dilation else (1, stride, dilation)
        self.depthwise, self.pointwise, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index in range(repeats):
            step, spread = (stride, first) if index == 0 else (1, dilation)
            padding = kernel // 2 * spread
            self.depthwise.append(
                nn.Conv2d(channels, channels, kernel, step, padding, spread, groups=channels, bias=False)
            )
            self.pointwise.append(nn.Conv2d(channels, channels, 1, bias=False))
            self.norms.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), rectified, to (N, C, H', W')."""
        x = x[:, :, :: self.skip, :: self.skip]
        for index, depthwise in enumerate(self.depthwise):
            x = self.norms[index](self.pointwise[index](depthwise(F.relu(x) if index else x)))
        return x


class Cross(nn.Module):
    """Convolution 1x7, then 7x1."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.row = nn.Conv2d(channels, channels, (1, 7), (1, stride), padding=(0, 3), bias=False)
        self.column = nn.Conv2d(channels, channels, (7, 1), (stride, 1), padding=(3, 0), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), rectified, to (N, C, H', W')."""
        result: Tensor = self.norm(self.column(self.row(x)))
        return result


class Pool(nn.Module):
    """Pooling 3x3."""

    def __init__(self, stride: int, average: bool) -> None:
        super().__init__()
        self.stride, self.average = stride, average

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        if self.average:
            return F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        return F.max_pool2d(x, 3, self.stride, 1)


class Reduce(nn.Module):
    """Skip connection of stride 2: two pointwise convolutions, one of them a pixel further."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, out_channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, out_channels - out_channels // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), rectified, to (N, out_channels, H / 2, W / 2)."""
        shifted = F.pad(x[:, :, 1:, 1:], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        result: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))
        return result


class Project(nn.Module):
    """Pointwise convolution and norm of a cell's input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W), rectified, to (N, out_channels, H, W)."""
        result: Tensor = self.norm(self.conv(x))
        return result


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """Build an operation by name."""
    if name in CHAINS:
        return Chain(channels, stride, name)
    if name == "conv_7x1_1x7":
        return Cross(channels, stride)
    if name in ("max_pool_3x3", "avg_pool_3x3"):
        return Pool(stride, name == "avg_pool_3x3")
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else Reduce(channels, channels)
    raise ValueError(f"unknown operation {name!r}")


class Node(nn.Module):
    """The operations of one node that have weights."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ModuleDict()


class Cell(nn.Module):
    """Nodes that sum operations on earlier states."""

    def __init__(
        self,
        nodes: Sequence[Sequence[Edge]],
        reduction: bool,
        inputs: tuple[int, int],
        channels: int,
        older_larger: bool,
    ) -> None:
        super().__init__()
        self.topology = nodes
        self.preprocess, self.shared, self.nodes = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleList()
        read = {source for node in nodes for _, source in node}
        for source, width in enumerate(inputs):
            if source in read:
                larger = source == 0 and older_larger
                self.preprocess[str(source)] = Reduce(width, channels) if larger else Project(width, channels)
        for edges in nodes:
            node = Node()
            for name, source in edges:
                module = operation(name, channels, 2 if reduction and source < 2 else 1)
                target = self.shared if isinstance(module, Pool | nn.Identity) else node.own
                target[f"{source} {name}"] = module
            self.nodes.append(node)

    def forward(self, older: Tensor | None, newer: Tensor | None) -> Tensor:
        """Compute the cell from the rectified outputs of the two before it."""
        states: list[Tensor | None] = [
            self.preprocess[str(i)](x) if str(i) in self.preprocess else None for i, x in enumerate((older, newer))
        ]
        outputs: list[Tensor | None] = []
        for index, edges in enumerate(self.topology):
            total: Tensor | None = None
            for name, source in edges:
                key, state = f"{source} {name}", states[source]
                assert state is not None
                own: Any = self.nodes[index]
                term = self.shared[key](state) if key in self.shared else own.own[key](F.relu(state))
                total = term if total is None else total + term
            outputs.append(total)
            states.append(total)
        filled = next(output for output in outputs if output is not None)
        return torch.cat([torch.zeros_like(filled) if output is None else output for output in outputs], 1)


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


class Classifier(nn.Module):
    """Global average pooling and a linear layer."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features to logits."""
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class CellNetwork(nn.Module):
    """Stem, cells and classifier; takes pixels in 0..1 and normalises them itself.

    Args:
        cells: For each cell whether it reduces, and the edges (operation, state) of each node; a cell without edges
            is dead.
        in_channels: Channels of the images.
        channels: Width before the first reduction.
        num_classes: Outputs.
        stem: ``cifar`` or ``imagenet``.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """

    def __init__(
        self,
        cells: Sequence[tuple[bool, Sequence[Sequence[Edge]]]],
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
        for index, (reduction, nodes) in enumerate(cells):
            channels *= 2 if reduction else 1
            if any(nodes):
                self.cells[str(index)] = Cell(nodes, reduction, (older, newer), channels, older_larger)
            older, newer, older_larger = newer, len(nodes) * channels, reduction
        self.classifier = Classifier(newer, num_classes)

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
