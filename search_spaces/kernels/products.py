"""Products of all pixels of an image with a small matrix, by the library that is faster on this processor.

A pointwise convolution is a matrix product, and torch has two libraries for it on CPUs. MKL, behind ``torch.mm``, takes
on AMD's processors 2 to 3 times as long as oneDNN, behind ``torch.conv2d``, and products of a group 1.2 to 5 times
(measured with torch 2.13 on an EPYC with AVX-512, float32, 4,096 to 65,536 pixels, 8 to 128 channels). On Intel's it is
not slower, and has less to do before it begins. The choice follows from processor and sizes alone, never from a clock:
the same search must give the same bits again.

Images are (N, C, H, W), channels last. A *group* is several products side by side: of ``groups`` equal slices of the
channels, each with its own part of the kernel's rows.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["add_product_", "kernel_gradient", "pixel_rows", "product", "product_with_gradients"]

# Multiply-adds of a product below which the 25 microseconds that oneDNN takes to begin are more than it saves.
_LARGE = 2**19


def pixel_rows(x: Tensor) -> Tensor:
    """View (N, C, H, W), channels last, as a matrix with a row per pixel."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def product(x: Tensor, kernel: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Return ``x kernel^T + bias`` for every pixel; keeps no gradients.

    Args:
        x: (N, groups * C_in, H, W).
        kernel: (groups * C_out, C_in).
        bias: (groups * C_out,).
        groups: Products side by side.

    Returns:
        (N, groups * C_out, H, W), channels last.
    """
    if _by_convolution(x, kernel):
        return F.conv2d(x, kernel[:, :, None, None], bias, groups=groups)
    result = torch.empty(
        (x.shape[0], len(kernel), *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    if groups == 1:
        if bias is None:
            torch.mm(pixel_rows(x), kernel.t(), out=pixel_rows(result))
        else:
            torch.addmm(bias, pixel_rows(x), kernel.t(), out=pixel_rows(result))
        return result
    columns = kernel.view(groups, -1, kernel.shape[1]).transpose(1, 2)
    if bias is None:
        torch.bmm(_slices(x, groups), columns, out=_slices(result, groups))
    else:
        torch.baddbmm(bias.view(groups, 1, -1), _slices(x, groups), columns, out=_slices(result, groups))
    return result


def add_product_(into: Tensor, x: Tensor, kernel: Tensor, groups: int = 1) -> None:
    """Add ``x kernel^T`` of every pixel to ``into`` (N, groups * C_out, H, W); see :func:`product`."""
    if _by_convolution(x, kernel):
        torch.ops.mkldnn._convolution_pointwise_.binary(
            into, x, kernel[:, :, None, None], None, [0, 0], [1, 1], [1, 1], groups, "add", None, None, [], None
        )
    elif groups == 1:
        pixel_rows(into).addmm_(pixel_rows(x), kernel.t())
    else:
        columns = kernel.view(groups, -1, kernel.shape[1]).transpose(1, 2)
        _slices(into, groups).baddbmm_(_slices(x, groups), columns)


def kernel_gradient(gradient: Tensor, x: Tensor, groups: int = 1) -> Tensor:
    """Return the sum over pixels of ``gradient^T x``, the gradient of a product's kernel.

    Args:
        gradient: (N, groups * C_out, H, W).
        x: (N, groups * C_in, H, W).
        groups: Products side by side.

    Returns:
        (groups * C_out, C_in).
    """
    num_out, num_in = gradient.shape[1], x.shape[1] // groups
    kernel = x.new_empty(num_out, num_in, 1, 1)
    if _by_convolution(x, kernel):
        gradients = torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [False, True, False]
        )
        return gradients[1].view(num_out, num_in)  # type: ignore[no-any-return]
    if groups == 1:
        return pixel_rows(gradient).t() @ pixel_rows(x)
    return torch.bmm(_slices(gradient, groups).transpose(1, 2), _slices(x, groups)).view(num_out, num_in)


def product_with_gradients(x: Tensor, kernel: Tensor) -> Tensor:
    """Return ``x kernel^T`` for every pixel, as :func:`product` does for one group, to be trained."""
    if _by_convolution(x, kernel):
        return F.conv2d(x.contiguous(memory_format=torch.channels_last), kernel[:, :, None, None])
    return (x.permute(0, 2, 3, 1) @ kernel.t()).permute(0, 3, 1, 2)


def _by_convolution(x: Tensor, kernel: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and x.numel() // x.shape[1] * kernel.shape[0] * kernel.shape[1] >= _LARGE
        and _is_amd()
    )


@functools.cache
def _is_amd() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # another system than Linux: nothing was measured there
        return False
    vendor = next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
    return vendor == "AuthenticAMD" and torch.backends.mkldnn.is_available()


def _slices(x: Tensor, groups: int) -> Tensor:
    """View a group as a matrix for each product (groups, N * H * W, C)."""
    return x.permute(0, 2, 3, 1).view(-1, groups, x.shape[1] // groups).transpose(0, 1)
