"""Candidate operations: one table from name to module.

Every operation maps (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)). Convolutions expect an input that
has been through a ReLU already: the cell computes it once per state.

The supernet (``searching=True``) normalises every candidate by an affine-free batch norm, pools included, so that
architecture weights compare outputs of one scale; the derived network (``searching=False``) has affine batch norms
and bare pools, as in DARTS (arXiv 1806.09055).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.errors import SpaceError
from search_spaces.genotype import NONE
from search_spaces.kernels.pixels import halves
from search_spaces.kernels.products import product_with_gradients

__all__ = [
    "CHAINS",
    "GROUP_WIDTH",
    "OPERATIONS",
    "PARAMETER_FREE",
    "BatchNorm",
    "DepthwiseChain",
    "FactorizedReduce",
    "Identity",
    "Operation",
    "PointwiseNorm",
    "check_operations",
]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm without the counter of batches, which is not used and would cost one operation per norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, H, W)."""
        momentum = cast(float, self.momentum)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps
        )


class Operation(nn.Module):
    """Abstract candidate.

    Attributes:
        reads_relu: Whether the operation expects ReLU of the state.
        is_shared: Whether two candidates of this kind on one state compute the same thing, because nothing in them
            is trained: the cell then computes it once and re-weights it.
    """

    reads_relu = True
    is_shared = False

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operation to (N, C, H, W)."""
        raise NotImplementedError


class DepthwiseChain(NamedTuple):
    """A candidate made of depthwise convolutions, a pointwise one and a norm behind each, ReLU in between.

    Attributes:
        kernel: Side of the depthwise kernels.
        dilation: Distance of their taps.
        repeats: Length of the chain.
    """

    kernel: int
    dilation: int
    repeats: int

    def first_step(self, stride: int) -> tuple[int, int, int]:
        """Return (pixels to skip, stride, dilation) of the first depthwise convolution.

        With stride and dilation 2 every tap falls on an even pixel: the same sum is a plain convolution on those
        pixels, whose backward pass is several times faster on CPUs.
        """
        return (stride, 1, 1) if stride == self.dilation else (1, stride, self.dilation)


class SeparableConv(Operation):
    """A :class:`DepthwiseChain` as modules; the first convolution has the stride."""

    def __init__(self, channels: int, stride: int, searching: bool, chain: DepthwiseChain) -> None:
        super().__init__()
        self.skip, stride, dilation = chain.first_step(stride)
        self.depthwise, self.pointwise, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for _ in range(chain.repeats):
            padding = chain.kernel // 2 * dilation
            depthwise = nn.Conv2d(
                channels, channels, chain.kernel, stride, padding, dilation, groups=channels, bias=False
            )
            self.depthwise.append(depthwise)
            self.pointwise.append(nn.Conv2d(channels, channels, 1, bias=False))
            self.norms.append(BatchNorm(channels, affine=not searching))
            stride, dilation = 1, chain.dilation

    def forward(self, x: Tensor) -> Tensor:
        if self.skip > 1:  # a slice of all pixels would be one in every export too, which splits it for some runtimes
            x = x[..., :: self.skip, :: self.skip]
        for index, (depthwise, pointwise, norm) in enumerate(
            zip(self.depthwise, self.pointwise, self.norms, strict=True)
        ):
            x = norm(pointwise(depthwise(F.relu(x) if index else x)))
        return x


class FactorizedConv(Operation):
    """Full convolution 1x7, then 7x1."""

    def __init__(self, channels: int, stride: int, searching: bool) -> None:
        super().__init__()
        self.row = nn.Conv2d(channels, channels, (1, 7), (1, stride), padding=(0, 3), bias=False)
        self.column = nn.Conv2d(channels, channels, (7, 1), (stride, 1), padding=(3, 0), bias=False)
        self.norm = BatchNorm(channels, affine=not searching)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.column(self.row(x))))


class PlainConv(Operation):
    """A convolution and a norm, as in NAS-Bench-201 (arXiv 2001.00326); the ReLU before it is the cell's work.

    Args:
        channels: Channels of input and output.
        stride: 1 or 2.
        searching: See :mod:`search_spaces.ops`.
        kernel: Side of the kernel.
        group_width: Channels of a group of a grouped convolution, if they divide ``channels``; else their greatest
            common divisor. None for one group of all channels.
    """

    def __init__(
        self, channels: int, stride: int, searching: bool, kernel: int, group_width: int | None = None
    ) -> None:
        super().__init__()
        groups = 1 if group_width is None else channels // math.gcd(channels, group_width)
        self.conv = nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = BatchNorm(channels, affine=not searching)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.conv(x)))


class Pool(Operation):
    """Max or average pooling 3x3; the average leaves the padding out."""

    reads_relu = False
    is_shared = True

    def __init__(self, channels: int, stride: int, searching: bool, average: bool) -> None:
        super().__init__()
        self.stride, self.average = stride, average
        self.norm = BatchNorm(channels, affine=False) if searching else None

    def forward(self, x: Tensor) -> Tensor:
        if self.average:
            x = F.avg_pool2d(x, 3, self.stride, 1, count_include_pad=False)
        else:
            x = F.max_pool2d(x, 3, self.stride, 1)
        return x if self.norm is None else cast(Tensor, self.norm(x))


class Noise(Operation):
    """Normally distributed noise while training, whatever the state; its mean, zero, in evaluation.

    A good search does not keep it (S4 of RobustDARTS, arXiv 1909.09656). There it is noise in evaluation too; here it
    is not, because the score of a network with random output could not be reproduced.
    """

    reads_relu = False

    def __init__(self, channels: int, stride: int, searching: bool) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[..., :: self.stride, :: self.stride]
        return torch.randn_like(x) if self.training else x * 0


class Identity(Operation):
    """The state itself."""

    reads_relu = False
    is_shared = True

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W)."""
        return x


class FactorizedReduce(Operation):
    """Skip connection of stride 2: two pointwise convolutions, the second on the image shifted by one pixel."""

    def __init__(self, channels: int, out_channels: int, searching: bool) -> None:
        super().__init__()
        self.searching = searching
        self.even = nn.Conv2d(channels, out_channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, out_channels - out_channels // 2, 1, 2, bias=False)
        self.norm = BatchNorm(out_channels, affine=not searching)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, out_channels, ceil(H / 2), ceil(W / 2))."""
        # Also because oneDNN 3.12 writes out of bounds in the gradient of such a convolution of few channels, channels
        # last (torch 2.13: 8 to 4 channels of 56 x 56 pixels); without training the convolutions are used.
        if (self.searching or self.training) and x.is_cpu:
            even, odd = halves(x).split(x.shape[1], 1)
            return cast(Tensor, self.norm(torch.cat([_product(even, self.even), _product(odd, self.odd)], 1)))
        shifted = x[..., 1:, 1:]
        if x.shape[2] % 2 or x.shape[3] % 2:
            # An odd side is padded by one, so that both halves have ceil(side / 2) pixels.
            shifted = F.pad(shifted, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return cast(Tensor, self.norm(torch.cat([self.even(x), self.odd(shifted)], 1)))


class PointwiseNorm(nn.Module):
    """Pointwise convolution and batch norm: the preprocessing of the rectified inputs of a cell."""

    def __init__(self, in_channels: int, out_channels: int, searching: bool) -> None:
        super().__init__()
        self.searching = searching
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = BatchNorm(out_channels, affine=not searching)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        projected = _product(x, self.conv) if self.searching and x.is_cpu else self.conv(x)
        return cast(Tensor, self.norm(projected))


def _product(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a convolution 1x1 as a matrix product, which is faster on CPUs; its stride is ignored."""
    return product_with_gradients(x, conv.weight.flatten(1))


def _skip(channels: int, stride: int, searching: bool) -> Operation:
    return Identity() if stride == 1 else FactorizedReduce(channels, channels, searching)


CHAINS: dict[str, DepthwiseChain] = {
    "sep_conv_3x3": DepthwiseChain(kernel=3, dilation=1, repeats=2),
    "sep_conv_5x5": DepthwiseChain(kernel=5, dilation=1, repeats=2),
    "sep_conv_7x7": DepthwiseChain(kernel=7, dilation=1, repeats=2),
    "dil_conv_3x3": DepthwiseChain(kernel=3, dilation=2, repeats=1),
    "dil_conv_5x5": DepthwiseChain(kernel=5, dilation=2, repeats=1),
    "dw_conv_3x3": DepthwiseChain(kernel=3, dilation=1, repeats=1),
    "dw_conv_5x5": DepthwiseChain(kernel=5, dilation=1, repeats=1),
}
"""The candidates that the supernet computes side by side, see :mod:`search_spaces.kernels.bank`."""

GROUP_WIDTH = 8
"""Channels of a group of ``group_conv_3x3``: as wide as a vector register of most CPUs, in float32."""

PARAMETER_FREE = frozenset({"avg_pool_3x3", "max_pool_3x3", "skip_connect"})
"""Operations without parameters, except for a skip of stride 2; a network of these alone learns only in its stem."""

OPERATIONS: dict[str, Callable[[int, int, bool], Operation] | None] = {
    **{name: partial(SeparableConv, chain=chain) for name, chain in CHAINS.items()},
    "conv_7x1_1x7": FactorizedConv,
    "nor_conv_1x1": partial(PlainConv, kernel=1),
    "nor_conv_3x3": partial(PlainConv, kernel=3),
    "group_conv_3x3": partial(PlainConv, kernel=3, group_width=GROUP_WIDTH),
    "max_pool_3x3": partial(Pool, average=False),
    "avg_pool_3x3": partial(Pool, average=True),
    "skip_connect": _skip,
    "noise": Noise,
    NONE: None,
}
"""Name -> ``factory(channels, stride, searching)``; None for the operation that computes nothing."""


def check_operations(names: Iterable[str], origin: str) -> None:
    """Raise :class:`SpaceError` for the first name that the table does not have."""
    for name in names:
        if name not in OPERATIONS:
            raise SpaceError(origin, name, ", ".join(OPERATIONS))
