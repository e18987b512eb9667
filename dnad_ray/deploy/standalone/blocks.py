"""Operations, cells and the classifier, for every skeleton; see :mod:`dnad_ray.deploy.standalone`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["OPERATIONS", "Cell", "CellData", "Classifier"]

Edge = tuple[str, int]
CellData = tuple[bool, Sequence[Sequence[Edge]], Sequence[int]]


class Chain(nn.Module):
    """Depthwise and pointwise convolutions with a norm behind each pair, ReLU between them."""

    def __init__(self, channels: int, stride: int, kernel: int, dilation: int, repeats: int) -> None:
        super().__init__()
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
        if self.skip > 1:
            x = x[..., :: self.skip, :: self.skip]
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


class Plain(nn.Module):
    """A convolution, in groups of some channels where a width is given, and its norm."""

    def __init__(self, channels: int, stride: int, kernel: int, group_width: int = 0) -> None:
        super().__init__()
        groups = channels // math.gcd(channels, group_width)  # gcd with 0: all channels, one group
        self.conv = nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), rectified, to (N, C, H', W')."""
        result: Tensor = self.norm(self.conv(x))
        return result


class Pool(nn.Module):
    """Pooling 3x3."""

    def __init__(self, channels: int, stride: int, average: bool) -> None:
        super().__init__()
        self.stride, self.average = stride, average

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        if self.average:
            return F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        return F.max_pool2d(x, 3, self.stride, 1)


class Noise(nn.Module):
    """Normally distributed noise while training, its mean in evaluation, whatever the state."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W')."""
        if self.stride > 1:
            x = x[..., :: self.stride, :: self.stride]
        return torch.randn_like(x) if self.training else x * 0


class Reduce(nn.Module):
    """Skip connection of stride 2: two pointwise convolutions, one of them a pixel further."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, out_channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, out_channels - out_channels // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), rectified, to (N, out_channels, H / 2, W / 2)."""
        shifted = F.pad(x[..., 1:, 1:], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
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


def skip(channels: int, stride: int) -> nn.Module:
    """Build a skip connection."""
    return nn.Identity() if stride == 1 else Reduce(channels, channels)


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "sep_conv_3x3": partial(Chain, kernel=3, dilation=1, repeats=2),
    "sep_conv_5x5": partial(Chain, kernel=5, dilation=1, repeats=2),
    "sep_conv_7x7": partial(Chain, kernel=7, dilation=1, repeats=2),
    "dil_conv_3x3": partial(Chain, kernel=3, dilation=2, repeats=1),
    "dil_conv_5x5": partial(Chain, kernel=5, dilation=2, repeats=1),
    "dw_conv_3x3": partial(Chain, kernel=3, dilation=1, repeats=1),
    "dw_conv_5x5": partial(Chain, kernel=5, dilation=1, repeats=1),
    "conv_7x1_1x7": Cross,
    "nor_conv_1x1": partial(Plain, kernel=1),
    "nor_conv_3x3": partial(Plain, kernel=3),
    "group_conv_3x3": partial(Plain, kernel=3, group_width=8),
    "max_pool_3x3": partial(Pool, average=False),
    "avg_pool_3x3": partial(Pool, average=True),
    "skip_connect": skip,
    "noise": Noise,
}
"""Name -> ``operation(channels, stride)``."""


class Node(nn.Module):
    """The operations of one node that no other node shares."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ModuleDict()


class Cell(nn.Module):
    """Nodes that sum operations on earlier states.

    Args:
        nodes: For each node its edges (operation, state that it reads).
        outputs: The nodes whose concatenation is the output.
        channels: Width of each node.
        has_strides: Whether edges from the cell's inputs have stride 2.
        inputs: Channels of the two inputs, which come rectified; None for one input that is read as it is.
        older_larger: Whether the older input has twice the resolution.
    """

    def __init__(
        self,
        nodes: Sequence[Sequence[Edge]],
        outputs: Sequence[int],
        channels: int,
        *,
        has_strides: bool = False,
        inputs: tuple[int, int] | None = None,
        older_larger: bool = False,
    ) -> None:
        super().__init__()
        self.outputs, self.reads_raw = outputs, inputs is None
        self.preprocess, self.shared, self.nodes = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleList()
        read = {source for node in nodes for _, source in node}
        for source, width in enumerate(inputs or ()):
            if source in read:
                larger = source == 0 and older_larger
                self.preprocess[str(source)] = Reduce(width, channels) if larger else Project(width, channels)
        self.edges: list[list[tuple[str, int]]] = []  # of each node the names of its operations, and what they read
        for edges in nodes:
            node = Node()
            self.edges.append([])
            for index, (name, source) in enumerate(edges):
                module = OPERATIONS[name](channels, 2 if has_strides and source < 2 else 1)
                key, number = f"{name}_from_{source}", list(edges[:index]).count((name, source))
                if isinstance(module, Pool | nn.Identity):  # nothing in it is trained: computed once for all nodes
                    self.shared[key] = module
                else:
                    key = f"{key}_{number}" if number else key
                    node.own[key] = module
                self.edges[-1].append((key, source))
            self.nodes.append(node)

    def forward(self, older: Tensor | None, newer: Tensor | None) -> Tensor:
        """Compute the cell from the outputs of the two before it, or from ``newer`` alone where it has one input."""
        states: list[Any] = [newer]
        if not self.reads_raw:
            pair = enumerate((older, newer))
            states = [self.preprocess[str(i)](x) if str(i) in self.preprocess else None for i, x in pair]
        first = len(states)
        for node, edges in zip(self.nodes, self.edges, strict=True):
            own: Any = node
            total: Tensor | None = None
            for key, source in edges:
                state = states[source]
                if key in self.shared:
                    term = self.shared[key](state)
                else:
                    term = own.own[key](state if isinstance(own.own[key], Noise) else F.relu(state))
                total = term if total is None else total + term
            states.append(total)
        nodes = states[first:]
        filled = next(node for node in nodes if node is not None)
        return torch.cat([torch.zeros_like(filled) if nodes[i] is None else nodes[i] for i in self.outputs], 1)


class Classifier(nn.Module):
    """Global average pooling and a linear layer; the two kinds of pooling round differently."""

    def __init__(self, in_channels: int, num_classes: int, adaptive: bool = True) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features to logits."""
        pooled = x.mean((2, 3)) if self.adaptive else F.avg_pool2d(x, x.shape[2:]).flatten(1)
        logits: Tensor = self.linear(pooled)
        return logits
