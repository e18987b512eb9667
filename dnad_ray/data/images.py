"""Images of a dataset, and how they are split into training and validation.

:mod:`dnad_ray.data.loading` fills these types, :mod:`dnad_ray.data.batches` serves batches of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dnad_ray.data.augmentation import Augmentation
from dnad_ray.data.decoding import FULL_LEVEL
from dnad_ray.errors import DataError
from dnad_ray.run_folder.images import ImagesRecord
from search_spaces.shape import ImageShape

__all__ = [
    "Augmentation",
    "ImageData",
    "ImageSource",
    "Indices",
    "Progress",
    "Split",
    "Statistics",
    "channel_statistics",
    "count_levels",
    "shared_tensor",
    "statistics_of_levels",
    "stratified_split",
]

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how many are done, how many there are)."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in 0..1."""

Indices = npt.NDArray[np.intp]
"""Positions of images in a split."""


class ImageSource(Protocol):
    """Images of a dataset with their classes, in memory or on disk."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices, shape (N,)."""

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""

    @property
    def channels(self) -> int:
        """Channels of an image: 1 (grey) or 3 (RGB)."""

    def __len__(self) -> int: ...

    def select(self, indices: Indices) -> ImageSource:
        """Return the images at some positions, in that order."""

    def held(self) -> Tensor | None:
        """Return all bytes, shape (N, C, H, W), without a copy, or None if they are on disk."""

    def stream(self, parts: Iterable[Indices], device: torch.device) -> Generator[Tensor, None, None]:
        """Yield the bytes of one part after the other, shape (B, C, H, W), on a device; close it when done early."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images in memory with their classes.

    Attributes:
        images: Pixels from 0 to 255, shape (N, C, H, W), contiguous.
        labels: Class indices, shape (N,).
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8, self.images.dtype
        assert self.images.ndim == 4, self.images.shape
        assert self.labels.dtype == np.int64, self.labels.dtype
        assert self.labels.shape == self.images.shape[:1], (self.labels.shape, self.images.shape)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return int(self.images.shape[-1])

    @property
    def channels(self) -> int:
        """Channels of an image: 1 (grey) or 3 (RGB)."""
        return int(self.images.shape[1])

    def select(self, indices: Indices) -> Split:
        """Return a copy of the images at some positions, in that order."""
        return Split(images=self.images[indices], labels=self.labels[indices])

    def held(self) -> Tensor:
        """Return all bytes, shape (N, C, H, W), without a copy."""
        return shared_tensor(self.images)

    def stream(self, parts: Iterable[Indices], device: torch.device) -> Generator[Tensor, None, None]:
        """Yield the bytes of one part after the other, shape (B, C, H, W), on a device."""
        for part in parts:
            yield torch.from_numpy(self.images[part]).to(device)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """All images of a dataset that a search can see. Test images are not part of it, on purpose.

    Attributes:
        name: Name of the dataset.
        classes: Names of the classes; a label is an index into them.
        train: Images that weights and architecture learn from.
        validation: Images held out for the proxy accuracy.
        mean: Mean of each channel of the train images, in 0..1.
        std: Standard deviation of each channel of the train images, in 0..1, never zero.
        augmentation: Augmentation of the training images.
        full_level: Level of white of image files of more than 8 bits.
        record: What a run folder keeps of the images, with their fingerprint; None for images that no loader made.
        notes: Sentences about what was left out or looks wrong, for the user.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSource
    validation: ImageSource
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    full_level: int = FULL_LEVEL
    record: ImagesRecord | None = None
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> ImageShape:
        """What a network must know of the images."""
        return ImageShape(in_channels=self.in_channels, image_size=self.image_size, num_classes=self.num_classes)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.image_size

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 (grey) or 3 (RGB)."""
        return self.train.channels

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)


def channel_statistics(images: npt.NDArray[np.uint8]) -> Statistics:
    """Return mean and standard deviation of each channel in 0..1, exactly and without a float copy of the images.

    A channel that never varies gets the standard deviation 1, so that it can be divided by.

    Args:
        images: Shape (N, C, H, W), at least one image.

    >>> channel_statistics(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    return statistics_of_levels(count_levels(images))


def count_levels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return how often each channel has each level, shape (C, 256).

    Args:
        images: Shape (N, C, H, W), at least one image.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), np.int64)
    chunk = max(1, 2**22 // max(1, images[0].size))
    for start in range(0, len(images), chunk):
        for channel in range(channels):
            counts[channel] += np.bincount(images[start : start + chunk, channel].ravel(), minlength=256)
    return counts


def statistics_of_levels(counts: npt.NDArray[np.int64]) -> Statistics:
    """Return mean and standard deviation of each channel in 0..1; 1 for a channel that never varies.

    Args:
        counts: How often each channel has each level, shape (C, 256), from :func:`count_levels`.
    """
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1))
    std[(counts > 0).sum(axis=1) == 1] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())


def stratified_split(
    labels: npt.NDArray[np.int64], share: float, seed: int, classes: Sequence[str]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split into indices to keep and indices to hold out, both in ascending order.

    Of each class the nearest whole number to ``share`` is held out, but at least one image, and at least one stays.
    The same arguments give the same split with every version of numpy (its frozen legacy stream is used).

    Args:
        labels: Class indices, shape (N,).
        share: Share of each class to hold out, between 0 and 1.
        seed: Seed of the choice.
        classes: Names of the classes, for the error message.

    Raises:
        DataError: If a class has fewer than two images.
    """
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    held_out = np.zeros(len(labels), bool)
    for label, name in enumerate(classes):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            allowed = "at least 2 images in every class, because one of them is held out for validation"
            raise DataError(f"training images of class {name!r}", len(members), allowed)
        size = min(max(1, int(share * len(members) + 0.5)), len(members) - 1)
        held_out[random.permutation(members)[:size]] = True
    return np.nonzero(~held_out)[0], np.nonzero(held_out)[0]


def shared_tensor(array: npt.NDArray[Any]) -> Tensor:
    """Wrap an array as a tensor without a copy. It may be read-only (Ray's object store): never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
