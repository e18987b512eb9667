"""Loading of the images that a configuration names: training and validation; test only on request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dnad_ray.config.run import DataConfig
from dnad_ray.data.fingerprint import class_images, class_images_in_memory, equal_images_in_words
from dnad_ray.data.folder_parts import TEST, TRAIN, VALIDATION
from dnad_ray.data.image_files import BrokenImagesError, Marks, broken_images, decode_images
from dnad_ray.data.image_folder import FolderPart, FolderPlan, list_image_folder, plan_image_folder, user_folder
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
from dnad_ray.run_folder.images import ClassImages, ImagesRecord

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
_MOST_NAMED = 5
_Read = TypeVar("_Read")


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
    return _load_folder_test(config, progress or _silent)


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
    return _without_broken(config, progress, lambda left_out: _read_folder(config, progress, left_out))


def _without_broken(config: DataConfig, progress: Progress, read: Callable[[frozenset[Path]], _Read]) -> _Read:
    """Read images; where files are broken, name all of them or read again without them, as the user wants."""
    try:
        return read(frozenset())
    except BrokenImagesError as error:
        # Not all were read: say everything at once, or leave everything out at once.
        broken = broken_images(list_image_folder(_folder_root(config), is_test_used=False).paths, progress)
        if config.broken == "refuse" or not broken:
            raise (BrokenImagesError(broken) if broken else error) from None
    return read(frozenset(Path(path) for path, _ in broken))


def _read_folder(config: DataConfig, progress: Progress, left_out: frozenset[Path]) -> ImageData:
    plan = plan_image_folder(_folder_root(config), config.image_size, progress, is_test_used=False, left_out=left_out)
    number, own = len(plan.classes), plan.validation
    if own is None:
        kept, held_out = stratified_split(plan.train.labels, config.validation_share, config.split_seed, plan.classes)
        parts = plan.train.select(kept), plan.train.select(held_out)
    else:
        parts = plan.train, own
    suits = Augmentation(pad=max(1, plan.image_size // 8), flip=True)
    augmentation = _augmentation(config, suits, plan.image_size)
    marks = [Marks.of(len(part.paths)) for part in parts]
    splits: tuple[ImageSource, ImageSource]
    if _is_streamed(config, plan, sum(len(part.paths) for part in parts)):
        train, validation = (_on_disk(part, plan, config) for part in parts)
        statistics = train.statistics("reading training images", progress, marks[0])
        # Only to find a broken file now, and not after the training of the teacher.
        validation.statistics("reading validation images", progress, marks[1])
        splits = train, validation
    else:
        held = [_decoded(part, plan, progress, mark) for part, mark in zip(parts, marks, strict=True)]
        statistics, splits = channel_statistics(held[0].images), (held[0], held[1])
    if own is None:
        whole = Marks.of(len(plan.train.paths))
        for indices, mark in zip((kept, held_out), marks, strict=True):
            whole.files[indices] = mark.files
        fingerprint = {TRAIN: class_images(plan.train, number, whole)}
    else:
        fingerprint = {
            TRAIN: class_images(plan.train, number, marks[0]),
            VALIDATION: class_images(own, number, marks[1]),
        }
    if plan.test is not None:
        fingerprint[TEST] = class_images(plan.test, number)
    notes = [*plan.notes, *equal_images_in_words(list(zip(parts, marks, strict=True)))]
    if left_out:
        names = sorted(map(str, left_out))
        more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
        notes.append(f"left out {len(names):,} broken images: {', '.join(names[:_MOST_NAMED])}{more}")
    num_test = 0 if plan.test is None else len(plan.test.paths)
    data = _image_data(
        config, plan.classes, splits, statistics, augmentation, fingerprint=fingerprint, num_test=num_test
    )
    return dataclasses.replace(data, full_level=plan.full_level, notes=tuple(notes))


def _load_folder_test(config: DataConfig, progress: Progress) -> ImageSource | None:
    def read(left_out: frozenset[Path]) -> ImageSource | None:
        plan = plan_image_folder(_folder_root(config), config.image_size, progress, left_out=left_out)
        if plan.test is None:
            return None
        if _is_streamed(config, plan, len(plan.test.paths)):
            return _on_disk(plan.test, plan, config)
        return _decoded(plan.test, plan, progress)

    return _without_broken(config, progress, read)


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
    return _image_data(
        config,
        part.classes,
        (train, validation),
        channel_statistics(train.images),
        augmentation,
        fingerprint={TRAIN: class_images_in_memory(part.split, len(part.classes))},
        num_test=dataset.num_test,
    )


def _augmentation(config: DataConfig, suits: Augmentation, image_size: int) -> Augmentation:
    if config.cutout > image_size:
        raise DataError("data.cutout", config.cutout, f"at most the side of the images, {image_size} pixels")
    chosen = suits if config.augment == "auto" else Augmentation()
    is_black = bool(chosen.pad) and config.padding == "black"
    return dataclasses.replace(chosen, cutout=config.cutout, is_black=is_black)


def _image_data(
    config: DataConfig,
    classes: tuple[str, ...],
    parts: tuple[ImageSource, ImageSource],
    statistics: Statistics,
    augmentation: Augmentation,
    *,
    fingerprint: Mapping[str, tuple[ClassImages, ...]],
    num_test: int,
) -> ImageData:
    record = ImagesRecord(
        name=config.name,
        classes=classes,
        image_size=parts[0].image_size,
        channels=parts[0].channels,
        num_train=len(parts[0]),
        num_validation=len(parts[1]),
        num_test=num_test,
        parts=fingerprint,
    )
    return ImageData(
        name=config.name,
        classes=classes,
        train=parts[0],
        validation=parts[1],
        mean=statistics[0],
        std=statistics[1],
        augmentation=augmentation,
        record=record,
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


def _decoded(part: FolderPart, plan: FolderPlan, progress: Progress, marks: Marks | None = None) -> Split:
    images = decode_images(
        part.paths, plan.image_size, plan.channels, progress, full_level=plan.full_level, marks=marks
    )
    return Split(images=images, labels=part.labels)


def _on_disk(part: FolderPart, plan: FolderPlan, config: DataConfig) -> FileSplit:
    return FileSplit(
        paths=tuple(str(path.absolute()) for path in part.paths),
        labels=part.labels,
        image_size=plan.image_size,
        channels=plan.channels,
        workers=config.workers,
        full_level=plan.full_level,
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
