"""Augmentation of the ImageNet protocols, on the device: random resized crops, mirroring, colour jitter.

All draws depend only on the seed that is passed in, so that a resumed training sees the same images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["augmented_as_imagenet"]

_AREA = (0.08, 1.0)  # share of the image that a crop covers, as in Inception's training (arXiv 1409.4842)
_RATIO = (3 / 4, 4 / 3)
_JITTER = 0.4  # of brightness, contrast and saturation, as in DARTS for ImageNet


def augmented_as_imagenet(images: Tensor, mean: Tensor, std: Tensor, seed: int) -> Tensor:
    """Augment a batch: random resized crop, mirroring and colour jitter.

    Crops are taken from decoded images, which already have the image size.

    Args:
        images: Normalised (N, C, H, W).
        mean: Mean of each channel in 0..1, (C,).
        std: Standard deviation of each channel, (C,).
        seed: Seed of the draws.

    Returns:
        Normalised images of the same shape and memory format.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand((8, len(images)), generator=generator)
    crops = _affine(draws[:5]).to(images)
    grid = F.affine_grid(crops, list(images.shape), align_corners=False)
    varied = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    mean, std = mean.to(images)[:, None, None], std.to(images)[:, None, None]
    pixels = (varied * std + mean).clamp(0, 1)
    brightness, contrast, saturation = (1 + _JITTER * (2 * draws[5:] - 1)).to(images)[:, :, None, None, None]
    pixels = (pixels * brightness).clamp(0, 1)
    grey = pixels.mean(1, keepdim=True)
    level = grey.mean((2, 3), keepdim=True)
    pixels = (level + (pixels - level) * contrast).clamp(0, 1)
    if images.shape[1] > 1:
        grey = pixels.mean(1, keepdim=True)
        pixels = (grey + (pixels - grey) * saturation).clamp(0, 1)
    is_last = images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_last else torch.contiguous_format
    result: Tensor = (pixels - mean) / std
    return result.contiguous(memory_format=layout)


def _affine(draws: Tensor) -> Tensor:
    """Return the affine maps (N, 2, 3) from result to image, both in -1..1, for draws (5, N) in 0..1."""
    area = _AREA[0] + (_AREA[1] - _AREA[0]) * draws[0]
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    ratio = torch.exp(low + (high - low) * draws[1])
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    result = torch.zeros(draws.shape[1], 2, 3)
    result[:, 0, 0] = torch.where(draws[4] < 0.5, -width, width)
    result[:, 1, 1] = height
    result[:, 0, 2] = (1 - width) * (2 * draws[2] - 1)
    result[:, 1, 2] = (1 - height) * (2 * draws[3] - 1)
    return result
