"""Candidate operations: one table from name to module.

Every operation maps (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)). Convolutions expect an input that
has been through a ReLU already: the cell computes it once per state for all that read it.

The supernet (``searching=True``) normalises every candidate by an affine-free batch norm, pools included, so that
architecture weights compare outputs of one scale; the derived network (``searching=False``) has affine batch norms
and bare pools, as in DARTS (arXiv 1806.09055).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.errors import SpaceError
from search_spaces.genotype import NONE

__all__ = ["OPERATIONS", "BatchNorm", "FactorizedReduce", "Operation", "ReluConvNorm", "check_operations"]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm whose scale can be an architecture weight.

    The weight of a candidate multiplies its output; folded into the scale of the affine-free batch norm that ends
    the candidate, it costs no pass over the tensor and receives the same gradient.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Normalise ``x`` (N, C, H, W); ``scale``, a scalar tensor, multiplies the result of an affine-free norm."""
        # contiguous(): torch's channels-last backward on CPU reads an expanded weight as if it had a stride (2.13).
        weight = self.weight if scale is None else scale.expand(self.num_features).contiguous()
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            weight,
            self.bias,
            self.training,
            cast(float, self.momentum),
            self.eps,
        )


class Operation(nn.Module):
    """Abstract candidate: ``forward(x, scale)`` returns the output times ``scale`` (None is 1).

    Attributes:
        reads_relu: Whether the operation expects ReLU of the state.
        is_shared: Whether two candidates of this kind on one state compute the same thing, because nothing in them
            is trained: the cell then computes it once and re-weights it.
    """

    reads_relu = True
    is_shared = False

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Apply the operation to (N, C, H, W)."""
        raise NotImplementedError


class SeparableConv(Operation):
    """Depthwise and pointwise convolution, twice; the first has the stride."""

    def __init__(self, channels: int, stride: int, searching: bool, kernel: int) -> None:
        super().__init__()
        depthwise = partial(nn.Conv2d, channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.depthwise1 = depthwise(stride=stride)
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = BatchNorm(channels, affine=not searching)
        self.depthwise2 = depthwise(stride=1)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = BatchNorm(channels, affine=not searching)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = F.relu(self.norm1(self.pointwise1(self.depthwise1(x))))
        return cast(Tensor, self.norm2(self.pointwise2(self.depthwise2(x)), scale))


class DilatedConv(Operation):
    """Depthwise convolution of dilation 2, then a pointwise one."""

    def __init__(self, channels: int, stride: int, searching: bool, kernel: int) -> None:
        super().__init__()
        # With stride 2 every tap falls on an even pixel: the same sum is a plain convolution on those pixels, whose
        # backward pass is several times faster on CPUs.
        self.stride = stride
        dilation = 2 if stride == 1 else 1
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = BatchNorm(channels, affine=not searching)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return cast(Tensor, self.norm(self.pointwise(self.depthwise(x)), scale))


class FactorizedConv(Operation):
    """Full convolution 1x7, then 7x1."""

    def __init__(self, channels: int, stride: int, searching: bool) -> None:
        super().__init__()
        self.row = nn.Conv2d(channels, channels, (1, 7), (1, stride), padding=(0, 3), bias=False)
        self.column = nn.Conv2d(channels, channels, (7, 1), (stride, 1), padding=(3, 0), bias=False)
        self.norm = BatchNorm(channels, affine=not searching)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.norm(self.column(self.row(x)), scale))


class Pool(Operation):
    """Max or average pooling 3x3; the average leaves the padding out."""

    reads_relu = False
    is_shared = True

    def __init__(self, channels: int, stride: int, searching: bool, average: bool) -> None:
        super().__init__()
        self.stride, self.average = stride, average
        self.norm = BatchNorm(channels, affine=False) if searching else None

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        if self.average:
            x = F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        else:
            x = F.max_pool2d(x, 3, self.stride, 1)
        if self.norm is not None:
            return cast(Tensor, self.norm(x, scale))
        return x if scale is None else x * scale


class Identity(Operation):
    """The state itself."""

    reads_relu = False
    is_shared = True

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x if scale is None else x * scale


class FactorizedReduce(Operation):
    """Skip connection of stride 2: two pointwise convolutions, the second on the image shifted by one pixel."""

    def __init__(self, channels: int, out_channels: int, searching: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, out_channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, out_channels - out_channels // 2, 1, 2, bias=False)
        self.norm = BatchNorm(out_channels, affine=not searching)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Map (N, channels, H, W) to (N, out_channels, ceil(H / 2), ceil(W / 2))."""
        shifted = x[:, :, 1:, 1:]
        if x.shape[2] % 2 or x.shape[3] % 2:
            # An odd side is padded by one, so that both halves have ceil(side / 2) pixels.
            shifted = F.pad(shifted, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return cast(Tensor, self.norm(torch.cat([self.even(x), self.odd(shifted)], 1), scale))


class ReluConvNorm(nn.Module):
    """ReLU, pointwise convolution, batch norm: what a cell does to its inputs first."""

    def __init__(self, in_channels: int, out_channels: int, searching: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = BatchNorm(out_channels, affine=not searching)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        return cast(Tensor, self.norm(self.conv(F.relu(x))))


def _skip(channels: int, stride: int, searching: bool) -> Operation:
    return Identity() if stride == 1 else FactorizedReduce(channels, channels, searching)


OPERATIONS: dict[str, Callable[[int, int, bool], Operation] | None] = {
    "sep_conv_3x3": partial(SeparableConv, kernel=3),
    "sep_conv_5x5": partial(SeparableConv, kernel=5),
    "sep_conv_7x7": partial(SeparableConv, kernel=7),
    "dil_conv_3x3": partial(DilatedConv, kernel=3),
    "dil_conv_5x5": partial(DilatedConv, kernel=5),
    "conv_7x1_1x7": FactorizedConv,
    "max_pool_3x3": partial(Pool, average=False),
    "avg_pool_3x3": partial(Pool, average=True),
    "skip_connect": _skip,
    NONE: None,
}
"""Name -> ``factory(channels, stride, searching)``; None for the operation that computes nothing."""


def check_operations(names: Iterable[str], origin: str) -> None:
    """Raise :class:`SpaceError` for the first name that the table does not have."""
    for name in names:
        if name not in OPERATIONS:
            raise SpaceError(origin, name, ", ".join(OPERATIONS))
