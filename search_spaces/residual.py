"""The skeleton of NAS-Bench-201 (arXiv 2001.00326): stages of equal cells with residual blocks between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.cell import Cell
from search_spaces.errors import GenotypeError, SpaceError
from search_spaces.genotype import Genotype
from search_spaces.ops import BatchNorm
from search_spaces.shape import NetworkShape
from search_spaces.skeleton import Network, NetworkOutput
from search_spaces.stem_head import HALVINGS, Classifier

__all__ = ["STEMS_OF_RESIDUAL", "ResidualBlock", "ResidualHead", "ResidualNetwork", "ResidualStem"]

STEMS_OF_RESIDUAL = ("cifar", "half", "quarter")
"""Names of the stems of the skeleton; that of NAS-Bench-201 itself is ``cifar``, at the resolution of the image."""


class ResidualStem(nn.Module):
    """Convolution 3x3 to C channels, and one more for a quarter of the resolution.

    Args:
        in_channels: Channels of the images.
        channels: Width C.
        halvings: How often the resolution is halved, 0 to 2.
    """

    def __init__(self, in_channels: int, channels: int, halvings: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, 2 if halvings else 1, padding=1, bias=False)
        self.norm = BatchNorm(channels)
        self.second = nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False) if halvings == 2 else None
        self.second_norm = None if self.second is None else BatchNorm(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, H', W'); each halving rounds up."""
        x = self.norm(self.conv(images))
        if self.second is not None and self.second_norm is not None:
            x = self.second_norm(self.second(F.relu(x)))
        return cast(Tensor, x)


class ResidualBlock(nn.Module):
    """Residual block that halves the resolution and doubles the channels: two times ReLU, convolution and norm.

    The shortcut is average pooling 2x2, then a pointwise convolution without norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.first = nn.Conv2d(channels, wide, 3, 2, padding=1, bias=False)
        self.first_norm = BatchNorm(wide)
        self.second = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.second_norm = BatchNorm(wide)
        self.shortcut = nn.Conv2d(channels, wide, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 2C, ceil(H / 2), ceil(W / 2))."""
        inner = self.first_norm(self.first(F.relu(x)))
        inner = self.second_norm(self.second(F.relu(inner)))
        # Sides are even in the benchmark, and odd ones fit the convolutions only if rounded up; even ones are not, as
        # not all readers of exports can do it. ncnn and OpenVINO divide by other numbers where padding counts, also
        # without any (findings/average_pool_rounded_up.sh).
        is_odd = bool(x.shape[2] % 2 or x.shape[3] % 2)
        pooled = F.avg_pool2d(x, 2, 2, ceil_mode=is_odd, count_include_pad=False)
        return cast(Tensor, inner + self.shortcut(pooled))


class ResidualHead(nn.Module):
    """Norm, ReLU and classifier."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.classifier = Classifier(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, H, W) to logits (N, num_classes)."""
        return cast(Tensor, self.classifier(F.relu(self.norm(features))))


@final
class ResidualNetwork(Network):
    """The skeleton ``nas_bench_201``; see :class:`search_spaces.skeleton.Network`.

    Every cell reads the output of the one before it. There is a residual block before each cell marked as a reduction;
    the cell itself has stride 1. A genotype with a dead cell is refused, because no other cell reads across it.

    Raises:
        SpaceError: If the stem is not the one of this skeleton.
        GenotypeError: If the output of a cell is not one node.
    """

    def __init__(self, genotype: Genotype, shape: NetworkShape, searching: bool) -> None:
        super().__init__(genotype, shape, searching)
        if shape.stem not in STEMS_OF_RESIDUAL:
            raise SpaceError("stem", shape.stem, ", ".join(STEMS_OF_RESIDUAL))
        for index, cell in enumerate(self.genotype.cells):
            if len(cell.outputs) != 1:
                allowed = "one node: the next cell of this skeleton reads as many channels as a node has"
                raise GenotypeError(f"cells[{index}].concat", list(cell.outputs), allowed)
        channels = shape.init_channels
        self.stem = ResidualStem(shape.images.in_channels, channels, HALVINGS[shape.stem])
        self.blocks = nn.ModuleDict()
        for index, cell in enumerate(self.genotype.cells):
            if cell.reduction:
                self.blocks[str(index)] = ResidualBlock(channels)
                channels *= 2
            self.cells[str(index)] = Cell(cell, None, channels, False, searching)
        self.head = ResidualHead(channels, shape.images.num_classes)

    def forward(self, images: Tensor, weights: Sequence[Sequence[Tensor]] | None = None) -> NetworkOutput:
        """Classify images, see :meth:`search_spaces.skeleton.Network.forward`."""
        x = self.stem(images)
        taps: list[Tensor | None] = [None] * (self.stages[-1] + 1)
        for index, stage in enumerate(self.stages):
            if str(index) in self.blocks:
                x = self.blocks[str(index)](x)
            x = self.cells[str(index)](None, x, None if weights is None else weights[index])
            taps[stage] = x
        return NetworkOutput(self.head(x), tuple(taps))
