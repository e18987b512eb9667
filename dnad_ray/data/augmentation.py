"""Random augmentation of training images: crop, mirroring and cutout, from draws that are made once per epoch.

The augmentation of the ImageNet protocols is in :mod:`dnad_ray.data.imagenet_augmentation`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Augmentation", "EpochDraws", "crop_and_flip", "cutout_mask", "draw_epoch"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random augmentation of training images; the default changes nothing.

    Attributes:
        pad: Pixels added on every side before a crop of the original size is taken at random.
        is_black: Whether these pixels are black, and not the nearest ones of the image.
        flip: Whether half of the images are mirrored left to right.
        cutout: Side in pixels of the square that is blanked at random; 0 for none.
    """

    pad: int = 0
    is_black: bool = False
    flip: bool = False
    cutout: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochDraws:
    """The random draws of one epoch. Each tensor but `order` has one row per image, in the order of the dataset.

    Attributes:
        order: The images in the order in which they are served, shape (N,).
        offset: Top left corner (y, x) of the crop in the padded image, shape (N, 2).
        flip: Whether the crop is mirrored left to right, shape (N,).
        centre: Pixel (y, x) of the crop, after mirroring, around which a square is blanked, shape (N, 2).
    """

    order: Tensor
    offset: Tensor
    flip: Tensor
    centre: Tensor

    def to(self, device: torch.device) -> EpochDraws:
        """Return the same draws on a device."""
        return EpochDraws(
            order=self.order.to(device),
            offset=self.offset.to(device),
            flip=self.flip.to(device),
            centre=self.centre.to(device),
        )

    def of(self, chosen: Tensor) -> EpochDraws:
        """Return the draws of some images, which are given by their positions in the dataset, shape (B,)."""
        offset, flip, centre = self.offset[chosen], self.flip[chosen], self.centre[chosen]
        return EpochDraws(order=chosen, offset=offset, flip=flip, centre=centre)


def draw_epoch(seed: int, epoch: int, num_images: int, image_size: int, augmentation: Augmentation) -> EpochDraws:
    """Draw the order and the augmentation of an epoch, on the CPU, so that every device gets the same draws.

    Args:
        seed: Seed of the trial.
        epoch: Pass over the training images, from 0.
        num_images: Images N of the dataset.
        image_size: Their side in pixels.
        augmentation: The augmentation. All draws are made in any case, so that the order depends on (seed, epoch) and
            N only.
    """
    # Seeds and epochs are small neighbouring numbers: a sum would give seed 1, epoch 0 the draws of seed 0, epoch 1.
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(mixed[0]))
    order = torch.randperm(num_images, generator=generator)
    offset = torch.randint(2 * augmentation.pad + 1, (num_images, 2), generator=generator)
    flip = torch.randint(2, (num_images,), generator=generator, dtype=torch.bool)
    centre = torch.randint(image_size, (num_images, 2), generator=generator)
    if not augmentation.flip:
        flip = torch.zeros_like(flip)
    return EpochDraws(order=order, offset=offset, flip=flip, centre=centre)


def crop_and_flip(images: Tensor, draws: EpochDraws, augmentation: Augmentation) -> Tensor:
    """Pad, crop to the original size, and mirror.

    Args:
        images: Bytes, shape (B, C, H, W), with H equal to W.
        draws: The draws of these images, in the same order.
        augmentation: Whether images are mirrored, and the width and colour of the padding.

    Returns:
        Bytes of the same shape.
    """
    pad = augmentation.pad
    if not pad and not augmentation.flip:
        return images
    size = images.shape[-1]
    pixel = torch.arange(size, device=images.device)
    offset = draws.offset - pad
    columns = pixel
    if augmentation.flip:
        columns = torch.where(draws.flip[:, None], columns.flip(0), columns)
    rows, columns = pixel + offset[:, :1], columns + offset[:, 1:]  # (B, H) and (B, W), in pixels of the image
    each = torch.arange(len(images), device=images.device)
    y, x = rows.clamp(0, size - 1), columns.clamp(0, size - 1)  # the nearest pixels
    pixels = images[each[:, None, None], :, y[:, :, None], x[:, None, :]]  # (B, H, W, C)
    if augmentation.is_black:
        pixels = pixels * (_within(rows, 0, size)[:, :, None, None] & _within(columns, 0, size)[:, None, :, None])
    return pixels.permute(0, 3, 1, 2)


def cutout_mask(draws: EpochDraws, augmentation: Augmentation, image_size: int) -> Tensor:
    """Return 0 inside the squares and 1 elsewhere, shape (B, 1, H, W). A square may extend beyond the image."""
    pixel = torch.arange(image_size, device=draws.centre.device)
    side = augmentation.cutout
    start = draws.centre - side // 2
    rows = _within(pixel, start[:, :1], start[:, :1] + side)
    columns = _within(pixel, start[:, 1:], start[:, 1:] + side)
    return (~(rows[:, :, None] & columns[:, None, :]))[:, None].float()


def _within(positions: Tensor, start: Tensor | int, stop: Tensor | int) -> Tensor:
    return (positions >= start) & (positions < stop)
