"""Images for retraining: training and validation images of the search together, test images once, at the end."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, cast

import numpy as np

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.config.run import DataConfig
from dnad_ray.data.images import Augmentation, ImageData, ImageSource, Progress, Split
from dnad_ray.data.loading import load_data, load_test
from dnad_ray.data.streaming import FileSplit
from dnad_ray.errors import DataError

__all__ = ["RetrainImages", "load_retrain_images", "measured_on_test", "varied_as"]

_CUTOUT_SIZE = 32


class RetrainImages(NamedTuple):
    """Images to train networks on, and images to measure them with.

    Attributes:
        data: ``train`` holds the training images of the search, and its validation images too if there are test
            images. ``validation`` is the split for the measurement. Mean and deviation are those of the search.
        split: ``test``, or ``validation`` if the data have no test images.
        other: Fingerprint of images that are not those of the run folder; empty for its own.
    """

    data: ImageData
    split: str
    other: str = ""


def load_retrain_images(config: DataConfig, progress: Progress | None = None) -> RetrainImages:
    """Load the images of a run for retraining.

    Without test images, networks are measured on the validation images, and are not trained on them. These are the
    images that the search selected the networks with; the record says so.

    Raises:
        DataError: If the data cannot be used, or their test images have another number of channels.
    """
    return measured_on_test(load_data(config, progress), config, progress)


def measured_on_test(data: ImageData, config: DataConfig, progress: Progress | None = None) -> RetrainImages:
    """Return the images of a search, and the test images, as :func:`load_retrain_images` does.

    Args:
        data: The images of the search.
        config: Their settings.
        progress: Called as (message, done, total) while image files are read.
    """
    test = load_test(config, progress)
    if test is None:
        return RetrainImages(data, "validation")
    if test.channels != data.in_channels:
        raise DataError("test images", f"{test.channels} channels", f"{data.in_channels}, as the training images have")
    joined = dataclasses.replace(data, train=_joined(data.train, data.validation), validation=test)
    return RetrainImages(joined, "test")


def varied_as(config: RetrainConfig, data: ImageData) -> ImageData:
    """Return the data with the augmentation of a protocol; random crops are added later, on the device."""
    cutout = round(config.cutout * data.image_size / _CUTOUT_SIZE)
    suits = data.augmentation if config.augment == "auto" else Augmentation()
    return dataclasses.replace(data, augmentation=dataclasses.replace(suits, cutout=cutout))


def _joined(first: ImageSource, second: ImageSource) -> ImageSource:
    if isinstance(first, Split) and isinstance(second, Split):
        return Split(
            images=np.concatenate([first.images, second.images]), labels=np.concatenate([first.labels, second.labels])
        )
    files, others = cast(FileSplit, first), cast(FileSplit, second)
    return dataclasses.replace(
        files, paths=(*files.paths, *others.paths), labels=np.concatenate([files.labels, others.labels])
    )
