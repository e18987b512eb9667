"""From a data configuration to images in memory: train and validation for the search, test only on request."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dnad_ray.config import DataConfig
from dnad_ray.errors import DataError
from dnad_ray.image_files import decode_images
from dnad_ray.image_folder import FolderPart, plan_image_folder, user_folder
from dnad_ray.images import (
    Augmentation,
    ImageData,
    Progress,
    Split,
    channel_statistics,
    check_memory,
    stratified_split,
)
from dnad_ray.named_datasets import NAMED_DATASETS, NamedDataset

__all__ = ["DATASET_NAMES", "ImageData", "Progress", "Split", "load_data", "load_test", "resolve_data_argument"]

_IMAGE_FOLDER = "imagefolder"
DATASET_NAMES = (*NAMED_DATASETS, _IMAGE_FOLDER)
"""What `data.name` may be."""

_RESIZED_AT_ONCE = 512


def load_data(config: DataConfig, progress: Progress | None = None) -> ImageData:
    """Load what a search may see: train and validation images, never test images.

    Args:
        config: Which images. Validation images are chosen by its `split_seed` alone, so that all trials share them.
        progress: Called as (message, done, total) while image files are read.

    Raises:
        DataError: If the dataset is unknown, missing or broken, or does not fit into memory.
    """
    if config.name == _IMAGE_FOLDER:
        return _load_folder(config, progress or _silent)
    return _load_named(config, _named(config))


def load_test(config: DataConfig, progress: Progress | None = None) -> Split | None:
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
    check_memory(len(plan.test.paths), plan.channels, plan.image_size)
    return _decoded(plan.test, plan.image_size, plan.channels, progress or _silent)


def resolve_data_argument(text: str) -> dict[str, Any]:
    """Return the config keys that ``--data NAME|FOLDER`` stands for; a name wins over a folder of that name.

    Args:
        text: What the user gave.

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
    check_memory(len(train.paths) + len(validation.paths), plan.channels, plan.image_size)
    return _image_data(
        config,
        classes=plan.classes,
        train=_decoded(train, plan.image_size, plan.channels, progress),
        validation=_decoded(validation, plan.image_size, plan.channels, progress),
        augmentation=Augmentation(pad=max(1, plan.image_size // 8), flip=True),
    )


def _load_named(config: DataConfig, dataset: NamedDataset) -> ImageData:
    part = dataset.read(config, True)
    images, labels = part.split.images, part.split.labels
    own_size = images.shape[-1]
    size = config.image_size or own_size
    check_memory(len(images), images.shape[1], size)
    kept, held_out = stratified_split(labels, config.validation_share, config.split_seed, part.classes)
    suits = dataset.augmentation
    return _image_data(
        config,
        classes=part.classes,
        train=_resized(Split(images=images[kept], labels=labels[kept]), size),
        validation=_resized(Split(images=images[held_out], labels=labels[held_out]), size),
        # The pad is meant for the own size, and means the same share of the image in another.
        augmentation=dataclasses.replace(suits, pad=max(1, round(suits.pad * size / own_size))),
    )


def _image_data(
    config: DataConfig, *, classes: tuple[str, ...], train: Split, validation: Split, augmentation: Augmentation
) -> ImageData:
    size = train.images.shape[-1]
    if config.cutout > size:
        raise DataError("data.cutout", config.cutout, f"at most the side of the images, {size} pixels")
    varied = augmentation if config.augment == "auto" else Augmentation()
    mean, std = channel_statistics(train.images)
    return ImageData(
        name=config.name,
        classes=classes,
        train=train,
        validation=validation,
        mean=mean,
        std=std,
        augmentation=dataclasses.replace(varied, cutout=config.cutout),
    )


def _named(config: DataConfig) -> NamedDataset:
    if config.name not in NAMED_DATASETS:
        raise DataError("data.name", config.name, f"one of {', '.join(DATASET_NAMES)}")
    return NAMED_DATASETS[config.name]


def _folder_root(config: DataConfig) -> Path:
    return user_folder(config.root, "the folder that holds one folder of images per class")


def _decoded(part: FolderPart, image_size: int, channels: int, progress: Progress) -> Split:
    return Split(images=decode_images(part.paths, image_size, channels, progress), labels=part.labels)


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
    """Tell nobody about progress."""
