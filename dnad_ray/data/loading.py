"""Loading of the images that a configuration names: training and validation; test only on request."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dnad_ray.config.run import DataConfig
from dnad_ray.data.image_files import decode_images
from dnad_ray.data.image_folder import FolderPart, FolderPlan, plan_image_folder, user_folder
from dnad_ray.data.images import (
    Augmentation,
    ImageData,
    ImageSource,
    Progress,
    Split,
    Statistics,
    channel_statistics,
    stratified_split,
)
from dnad_ray.data.memory import check_memory, fits_memory
from dnad_ray.data.named_datasets import NAMED_DATASETS, NamedDataset
from dnad_ray.data.streaming import FileSplit
from dnad_ray.errors import DataError

__all__ = [
    "DATASET_NAMES",
    "ImageData",
    "ImageSource",
    "Progress",
    "Split",
    "load_data",
    "load_test",
    "resolve_data_argument",
]

_IMAGE_FOLDER = "imagefolder"
DATASET_NAMES = (*NAMED_DATASETS, _IMAGE_FOLDER)
"""What `data.name` may be."""

_RESIZED_AT_ONCE = 512


def load_data(config: DataConfig, progress: Progress | None = None) -> ImageData:
    """Load training and validation images, never test images.

    Args:
        config: Which images. Validation images are chosen by its `split_seed` alone, so that all trials share them.
        progress: Called as (message, done, total) while image files are read.

    Raises:
        DataError: If the dataset is unknown, missing or broken, or does not fit into memory and must.
    """
    if config.name == _IMAGE_FOLDER:
        return _load_folder(config, progress or _silent)
    return _load_named(config, _named(config))


def load_test(config: DataConfig, progress: Progress | None = None) -> ImageSource | None:
    """Load the test images in the size, channels and classes of :func:`load_data`; None if the dataset has none.

    Args:
        config: Which images.
        progress: Called as (message, done, total) while image files are read.

    Raises:
        DataError: As for :func:`load_data`.
    """
    if config.name != _IMAGE_FOLDER:
        part = _named(config).read(config, False).split
        size = config.image_size or part.images.shape[-1]
        check_memory(len(part), part.images.shape[1], size)
        return _resized(part, size)
    plan = plan_image_folder(_folder_root(config), config.image_size, progress or _silent)
    if plan.test is None:
        return None
    if _is_streamed(config, plan, len(plan.test.paths)):
        return _on_disk(plan.test, plan, config)
    return _decoded(plan.test, plan, progress or _silent)


def resolve_data_argument(text: str) -> dict[str, Any]:
    """Return the config keys for ``--data NAME|FOLDER``; a dataset is preferred to a folder of the same name.

    Args:
        text: The value of the option.

    Raises:
        DataError: If it is neither the name of a dataset nor a folder.

    >>> resolve_data_argument("digits")
    {'data.name': 'digits'}
    """
    if text in DATASET_NAMES:
        return {"data.name": text}
    allowed = f"a dataset ({', '.join(DATASET_NAMES)}) or an existing folder of class folders"
    try:
        folder = user_folder(text, allowed)
    except DataError:
        raise DataError("--data", text, allowed) from None
    return {"data.name": _IMAGE_FOLDER, "data.root": str(folder.absolute())}


def _load_folder(config: DataConfig, progress: Progress) -> ImageData:
    plan = plan_image_folder(_folder_root(config), config.image_size, progress)
    train, validation = plan.train, plan.validation
    if validation is None:
        kept, held_out = stratified_split(train.labels, config.validation_share, config.split_seed, plan.classes)
        train, validation = train.select(kept), train.select(held_out)
    suits = Augmentation(pad=max(1, plan.image_size // 8), flip=True)
    augmentation = _augmentation(config, suits, plan.image_size)
    if not _is_streamed(config, plan, len(train.paths) + len(validation.paths)):
        decoded = _decoded(train, plan, progress), _decoded(validation, plan, progress)
        return _image_data(config, plan.classes, decoded, channel_statistics(decoded[0].images), augmentation)
    files = _on_disk(train, plan, config), _on_disk(validation, plan, config)
    statistics = files[0].statistics("reading training images", progress)
    # Only to find a broken file now, and not after the training of the teacher.
    files[1].statistics("reading validation images", progress)
    return _image_data(config, plan.classes, files, statistics, augmentation)


def _load_named(config: DataConfig, dataset: NamedDataset) -> ImageData:
    part = dataset.read(config, True)
    images, labels = part.split.images, part.split.labels
    own_size = images.shape[-1]
    size = config.image_size or own_size
    check_memory(len(images), images.shape[1], size)
    kept, held_out = stratified_split(labels, config.validation_share, config.split_seed, part.classes)
    suits = dataset.augmentation
    # The pad is meant for the own size, and means the same share of the image in another.
    suits = dataclasses.replace(suits, pad=max(1, round(suits.pad * size / own_size)))
    augmentation = _augmentation(config, suits, size)
    train = _resized(Split(images=images[kept], labels=labels[kept]), size)
    validation = _resized(Split(images=images[held_out], labels=labels[held_out]), size)
    return _image_data(config, part.classes, (train, validation), channel_statistics(train.images), augmentation)


def _augmentation(config: DataConfig, suits: Augmentation, image_size: int) -> Augmentation:
    if config.cutout > image_size:
        raise DataError("data.cutout", config.cutout, f"at most the side of the images, {image_size} pixels")
    return dataclasses.replace(suits if config.augment == "auto" else Augmentation(), cutout=config.cutout)


def _image_data(
    config: DataConfig,
    classes: tuple[str, ...],
    parts: tuple[ImageSource, ImageSource],
    statistics: Statistics,
    augmentation: Augmentation,
) -> ImageData:
    return ImageData(
        name=config.name,
        classes=classes,
        train=parts[0],
        validation=parts[1],
        mean=statistics[0],
        std=statistics[1],
        augmentation=augmentation,
    )


def _named(config: DataConfig) -> NamedDataset:
    if config.name not in NAMED_DATASETS:
        raise DataError("data.name", config.name, f"one of {', '.join(DATASET_NAMES)}")
    return NAMED_DATASETS[config.name]


def _folder_root(config: DataConfig) -> Path:
    return user_folder(config.root, "the folder that holds one folder of images per class")


def _is_streamed(config: DataConfig, plan: FolderPlan, num_images: int) -> bool:
    """Whether the images of a folder stay on disk; refuses those that are to be in memory and do not fit."""
    if config.storage == "auto":
        return not fits_memory(num_images, plan.channels, plan.image_size)
    if config.storage == "memory":
        check_memory(num_images, plan.channels, plan.image_size, "data.storage=disk decodes them for every batch")
    return config.storage == "disk"


def _decoded(part: FolderPart, plan: FolderPlan, progress: Progress) -> Split:
    return Split(images=decode_images(part.paths, plan.image_size, plan.channels, progress), labels=part.labels)


def _on_disk(part: FolderPart, plan: FolderPlan, config: DataConfig) -> FileSplit:
    return FileSplit(
        paths=tuple(str(path.absolute()) for path in part.paths),
        labels=part.labels,
        image_size=plan.image_size,
        channels=plan.channels,
        workers=config.workers,
    )


def _resized(split: Split, size: int) -> Split:
    """Bring square images to another size, in portions because torch may need floats in between."""
    images = split.images
    if images.shape[-1] == size:
        return split
    result: npt.NDArray[np.uint8] = np.empty((*images.shape[:2], size, size), np.uint8)
    for start in range(0, len(images), _RESIZED_AT_ONCE):
        portion = torch.from_numpy(images[start : start + _RESIZED_AT_ONCE])
        smooth = functional.interpolate(portion, size=(size, size), mode="bilinear", antialias=True)
        result[start : start + _RESIZED_AT_ONCE] = smooth.numpy()
    return Split(images=result, labels=split.labels)


def _silent(message: str, done: int, total: int) -> None:
    """Ignore progress."""
