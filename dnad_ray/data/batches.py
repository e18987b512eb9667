"""Batches on the device. Order and augmentation of the training images are a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

from dnad_ray.data.augmentation import Augmentation, EpochDraws, crop_and_flip, cutout_mask, draw_epoch
from dnad_ray.data.images import ImageData, ImageSource, Indices, shared_tensor
from dnad_ray.runtime.processes import ALONE, Ranks

__all__ = ["TrainingBatches", "evaluation_batches"]


@final
class TrainingBatches:
    """Batches of training images, augmented and normalised on the device.

    Images in memory are copied to the device as a whole. Images on disk are decoded ahead, in the order of the steps,
    until :meth:`close` is called or the object is deleted.

    Args:
        data: The dataset; its arrays are shared, not copied, on the CPU, and may be read-only.
        batch_size: Images per batch; an incomplete last batch is dropped. A dataset with fewer images is one batch.
        seed: Seed of order and augmentation.
        device: Where the batches are made.
        memory_format: Layout of the images of a batch.
        ranks: The processes that share every batch. This process gets its part.
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int,
        seed: int,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        held = data.train.held()
        self._split = data.train
        self._images = None if held is None else held.to(device)
        self._labels = shared_tensor(data.train.labels).to(device)
        self._normalise = _Normalisation(data, device)
        self._augmentation = data.augmentation
        self._batch_size = min(batch_size, len(data.train))
        self._part = ranks.part(self._batch_size)
        self._seed = seed
        self._device = device
        self._memory_format = memory_format
        self._image_size = data.image_size
        self._epoch = -1
        self._draws: EpochDraws | None = None
        self._stream: Generator[Tensor, None, None] | None = None
        self._next_step = -1

    @property
    def num_images(self) -> int:
        """Training images in all."""
        return len(self._split)

    @property
    def batch_size(self) -> int:
        """Images of a step, in all processes together."""
        return self._batch_size

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self._device

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a pass over the training images."""
        return self.num_images // self._batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images of shape (B, C, H, W), float32, and labels of shape (B,) of a step, counted from 0.

        The result depends on the seed and the step alone, not on the steps asked for before: a resumed search
        continues with the images that it would have seen. From disk, steps in a row are faster than jumps.

        Raises:
            DataError: If a file turns out to be no intact image, or is gone.
            ResourceError: If a process that decodes images ended by itself.
        """
        draws, chosen = self._draws_of(step // self.steps_per_epoch), self.indices(step)
        draws = draws.of(chosen)
        images = self._normalise(crop_and_flip(self._read(step, chosen), draws, self._augmentation))
        if self._augmentation.cutout:
            images = images * cutout_mask(draws, self._augmentation, self._image_size)
        return images.contiguous(memory_format=self._memory_format), self._labels[chosen]

    def indices(self, step: int) -> Tensor:
        """Return which training images a step has, in order, shape (B,)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._draws_of(epoch).order[position * self._batch_size : (position + 1) * self._batch_size][self._part]

    def close(self) -> None:
        """Stop the processes that decode ahead, if there are any; the next batch starts them again."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _draws_of(self, epoch: int) -> EpochDraws:
        if self._draws is None or epoch != self._epoch:
            drawn = draw_epoch(self._seed, epoch, self.num_images, self._image_size, self._augmentation)
            self._draws, self._epoch = drawn.to(self._device), epoch
        return self._draws

    def _read(self, step: int, chosen: Tensor) -> Tensor:
        """Return bytes of shape (B, C, H, W)."""
        if self._images is not None:
            return self._images.index_select(0, chosen)  # brackets would copy pixel by pixel
        if step != self._next_step:
            self.close()
        parts = _parts(self._seed, self.num_images, self._batch_size, self._part, step)
        stream = self._stream or self._split.stream(parts, self._device)
        self._stream = None  # where it fails, the next call starts another one
        images = next(stream)
        self._stream, self._next_step = stream, step + 1
        return images


def evaluation_batches(
    split: ImageSource,
    data: ImageData,
    batch_size: int,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image of a split once, in order, normalised as in training, without augmentation.

    Args:
        split: The images, for example ``data.validation``; may be read-only.
        data: The dataset whose train images give mean and standard deviation.
        batch_size: Images per batch; the last batch can be smaller.
        device: Where the batches are made.
        memory_format: Layout of the images of a batch.
    """
    normalise = _Normalisation(data, device)
    starts = range(0, len(split), batch_size)
    parts = [np.arange(start, min(start + batch_size, len(split))) for start in starts]
    for part, images in zip(parts, split.stream(parts, device), strict=True):
        batch = normalise(images).contiguous(memory_format=memory_format)
        yield batch, torch.from_numpy(split.labels[part]).to(device)


def _parts(seed: int, num_images: int, batch_size: int, part: slice, step: int) -> Iterator[Indices]:
    """Yield the images of this process for each step from ``step`` on, without end.

    The generator must not hold a reference to the batches: the two would keep each other, and the workers, alive.
    """
    steps = num_images // batch_size
    epoch, position = divmod(step, steps)
    while True:
        order = draw_epoch(seed, epoch, num_images, 1, Augmentation()).order.numpy()
        yield from order[position * batch_size : steps * batch_size].reshape(-1, batch_size)[:, part]
        epoch, position = epoch + 1, 0


@final
class _Normalisation:
    """Bytes to float32 with mean 0 and standard deviation 1 in each channel, as on the train images."""

    def __init__(self, data: ImageData, device: torch.device) -> None:
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (data.mean, data.std))
        self._scale = (1 / (255 * std)).float().to(device)[:, None, None]
        self._shift = (-mean / std).float().to(device)[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self._scale).add_(self._shift)
