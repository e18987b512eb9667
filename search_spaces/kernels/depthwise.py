"""Depthwise convolution with a backward pass that is fast on CPUs, and exact everywhere.

torch hands the gradients of depthwise convolutions to oneDNN, which has fast code for kernels at most 3 wide without
dilation and falls back by a factor of 2 to 100 for the rest (measured with torch 2.13, AVX-512, channels last). Each
gradient is therefore computed by a fast convolution. On other devices torch's own gradients are used.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Arranged", "depthwise_conv"]

_FAST_WIDTH = 3
_NATIVE_BELOW = 2**18  # numbers in an image below which calls from Python cost more than torch's gradients do
_SMALL = 2**18  # numbers in a buffer below which it is cheaper to fill it with zeros than to look for the places


@final
class Arranged:
    """A copy of the images in the order that weight gradients need, shared by several convolutions.

    All convolutions of one kind on one state need the same copy for their weight gradients.
    """

    def __init__(self) -> None:
        self._num_readers = 0
        self._kept: dict[object, Tensor] = {}

    def expect(self) -> None:
        """Keep the copy for one more convolution."""
        self._num_readers += 1

    def classes(self, x: Tensor, *arrangement: Any) -> Tensor:
        """Return :func:`_classes` of the images."""
        if arrangement not in self._kept:
            self._kept[arrangement] = _classes(x, *arrangement)
        return self._kept[arrangement]

    def done(self) -> None:
        """Mark a convolution's gradients as computed; the last one frees the memory."""
        self._num_readers -= 1
        if self._num_readers <= 0:
            self._kept.clear()


def depthwise_conv(
    x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1, arranged: Arranged | None = None
) -> Tensor:
    """Convolve each channel with its own kernel, padded so that stride 1 keeps the size.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, k, k) with k odd.
        stride: 1 or 2.
        dilation: Step between the taps in pixels; 1 where the stride is 2.
        arranged: Given with the same ``x`` to each convolution of it, in one forward pass.

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)).
    """
    if not x.is_cpu:
        # Some kernels for GPUs return the other layout.
        y = F.conv2d(x, weight, None, stride, _padding(weight, dilation), dilation, x.shape[1])
        return y.contiguous(memory_format=torch.channels_last)
    if x.numel() < _NATIVE_BELOW and _is_fast(x, weight.shape[2], dilation):
        x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, None, stride, _padding(weight, dilation), dilation, x.shape[1])
    arranged = arranged or Arranged()
    result: Tensor = _DepthwiseConv.apply(x, weight, stride, dilation, arranged)  # type: ignore[no-untyped-call]
    return result


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd knows no keywords
        ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int, arranged: Arranged
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation, ctx.arranged = stride, dilation, arranged
        if ctx.needs_input_grad[1]:
            arranged.expect()
        return F.conv2d(x, weight, None, stride, _padding(weight, dilation), dilation, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        # Under autocast the convolution ran in half precision; its gradients are computed in that of the weight.
        full, kind = x.to(weight.dtype), x.dtype
        gradient = gradients[0].to(weight.dtype).contiguous(memory_format=torch.channels_last)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _input_gradient(gradient, full, weight, ctx.stride, ctx.dilation).to(kind)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(
                gradient, full, weight.shape[2], ctx.stride, ctx.dilation, arranged=ctx.arranged
            )
            ctx.arranged.done()
        return of_input, of_weight, None, None, None


def _input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    if stride == 1:
        # The transpose of a convolution that keeps the size is the convolution with the turned kernel.
        return F.conv2d(gradient, weight.flip(2, 3), None, 1, _padding(weight, dilation), dilation, x.shape[1])
    padding = _padding(weight, dilation)
    return _convolution_backward(gradient, x, weight, stride=stride, padding=(padding, padding), of_input=True)


def _weight_gradient(
    gradient: Tensor, x: Tensor, kernel: int, stride: int, dilation: int, *, arranged: Arranged
) -> Tensor:
    channels = x.shape[1]
    height, width = (-(-side // dilation) for side in x.shape[2:])
    padding = kernel // 2
    if _is_fast(x, kernel, dilation):
        columns = x.new_empty(channels, 1, kernel, kernel)
        return _convolution_backward(gradient, x, columns, stride=stride, padding=(padding, padding), of_input=False)
    # Pixels that a dilated kernel brings together share their residues: each class of pixels is an image of its own,
    # on which the kernel is a dense one. The kernel is cut into blocks of three columns, the last of one being the
    # first of the next: each sees the image moved by two pixels. On an image with `kernel - 1` columns of zeros
    # between its rows, to move it is to begin further on in memory; the zeros that the gradient gets on its right
    # cancel what thereby comes in from the next row. An image lower than the kernel is no fast case unless the zeros
    # above and below it are real, too.
    above = padding if height < kernel else 0
    size = (height + 2 * above, width + 2 * padding)
    seen = arranged.classes(x, dilation, (above, padding), size, 2 * padding)
    of_output = _classes(gradient, dilation, (0, 0), (-(-height // stride), (size[1] - _FAST_WIDTH) // stride + 1), 0)
    columns = x.new_empty(channels, 1, kernel, _FAST_WIDTH)
    blocks = []
    for first in range(0, kernel - 1, _FAST_WIDTH - 1):
        moved = seen.as_strided(seen.shape, seen.stride(), first * channels) if first else seen
        block = _convolution_backward(
            of_output, moved, columns, stride=stride, padding=(padding - above, 0), of_input=False
        )
        blocks.append(block[..., 1:] if first else block)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 3)


def _is_fast(x: Tensor, kernel: int, dilation: int) -> bool:
    """Whether oneDNN's weight gradient is fast."""
    return kernel <= _FAST_WIDTH and dilation == 1 and x.shape[2] >= kernel


def _classes(x: Tensor, step: int, before: tuple[int, int], size: tuple[int, int], slack: int) -> Tensor:
    """Split (N, C, H, W) into the images of every ``step``-th pixel, with zeros around them.

    Args:
        x: The images.
        step: Distance of the pixels of a class.
        before: Rows of zeros above and columns of zeros left of each image.
        size: Height and width with all zeros.
        slack: Zeros behind the last image, in pixels.

    Returns:
        (step^2 N, C, *size), channels last.
    """
    num, channels, full_height, full_width = x.shape
    inner_height, inner_width = -(-full_height // step), -(-full_width // step)
    numel = step * step * num * size[0] * size[1] * channels
    length = numel + slack * channels
    # Fill the whole buffer with zeros if that is cheap, else only the places that are read.
    flat = x.new_zeros(length) if length < _SMALL else x.new_empty(length)
    result = flat[:numel].view(step, step, num, *size, channels)
    inside = result[:, :, :, before[0] : before[0] + inner_height, before[1] : before[1] + inner_width]
    if length >= _SMALL:
        flat[numel:].zero_()
        for dimension, start, inner in ((3, before[0], inner_height), (4, before[1], inner_width)):
            result.narrow(dimension, 0, start).zero_()
            result.narrow(dimension, start + inner, size[dimension - 3] - start - inner).zero_()
        if full_height % step or full_width % step:
            inside.zero_()  # some classes have a row or a column less than others
    pixels = x.permute(0, 2, 3, 1)
    if full_height % step or full_width % step:
        for row in range(step):
            for column in range(step):
                part = pixels[:, row::step, column::step]
                inside[row, column, :, : part.shape[1], : part.shape[2]] = part
    else:
        split = pixels.view(num, inner_height, step, inner_width, step, channels)
        inside.copy_(split.permute(2, 4, 0, 1, 3, 5))
    return result.view(-1, *size, channels).permute(0, 3, 1, 2)


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int], of_input: bool
) -> Tensor:
    """Return the gradient of a dense depthwise convolution's input, or else that of its weight."""
    gradients = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        [stride, stride],
        [*padding],
        [1, 1],
        False,
        [0, 0],
        x.shape[1],
        [of_input, not of_input, False],
    )
    result: Tensor = gradients[0 if of_input else 1]
    return result


def _padding(weight: Tensor, dilation: int) -> int:
    return int(weight.shape[2]) // 2 * dilation
