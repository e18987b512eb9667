"""Named datasets: digits (part of scikit-learn), and four that torchvision reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dnad_ray.config.run import DataConfig
from dnad_ray.data.image_folder import user_folder
from dnad_ray.data.images import Augmentation, Split, stratified_split
from dnad_ray.errors import DataError, one_line
from dnad_ray.runtime.torchvision_import import torchvision_datasets

__all__ = ["NAMED_DATASETS", "NamedDataset", "NamedSplit"]

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
# Never change these two: they select the test images, which no search may see.
_DIGITS_TEST_SHARE = 0.2
_DIGITS_TEST_SEED = 20260


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedSplit:
    """One of the two official parts of a dataset.

    Attributes:
        split: Its images, in the dataset's own size.
        classes: Names of the classes.
    """

    split: Split
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """How a dataset is read, and the augmentation that keeps the class of its images.

    Attributes:
        read: Called as (config, whether for training) to read one part.
        augmentation: Augmentation for the images in their own size.
        channels: Channels of the images.
        num_test: Number of its official test images.
    """

    read: Callable[[DataConfig, bool], NamedSplit]
    augmentation: Augmentation
    num_test: int
    channels: int = 3


def _read_digits(config: DataConfig, training: bool) -> NamedSplit:
    # Read from the file, because importing scikit-learn's own reader takes longer than to train on the digits.
    package = cast(ModuleSpec, find_spec("sklearn"))
    file = Path(cast(str, package.origin)).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, np.int64, delimiter=",")
    levels, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    images = ((levels * 255 + 8) // 16).astype(np.uint8)  # the levels are 0..16
    train, test = stratified_split(labels, _DIGITS_TEST_SHARE, _DIGITS_TEST_SEED, _DIGIT_NAMES)
    chosen = train if training else test
    return NamedSplit(split=Split(images=images[chosen, None], labels=labels[chosen]), classes=_DIGIT_NAMES)


def _read_torchvision(config: DataConfig, training: bool, *, class_name: str, by_split: bool = False) -> NamedSplit:
    """Read one part of a torchvision dataset; the files are verified by torchvision where it knows their checksums."""
    allowed = f"the folder that holds {config.name}, or that gets it with data.download: true"
    root = user_folder(config.root, allowed, may_be_missing=config.download)
    reader = getattr(torchvision_datasets(), class_name)
    part: dict[str, Any] = {"split": "train" if training else "test"} if by_split else {"train": training}
    try:
        with warnings.catch_warnings():  # numpy 2.4.0 to 2.4.4 complains of old pickles, as which CIFAR comes
            warnings.filterwarnings("ignore", message=r".*align should be passed as")
            dataset = reader(root=str(root), download=config.download, **part)
        return _as_split(dataset)
    except (
        # Errors of torchvision and its readers for missing, incomplete or unreadable files.
        *(OSError, RuntimeError, AssertionError, ValueError, TypeError, LookupError, EOFError),
    ) as error:
        remedy = "a network that reaches its server" if config.download else "data.download: true"
        allowed = f"a folder with the intact files of {config.name}, or {remedy} ({one_line(error)})"
        raise DataError("data.root", str(root), allowed) from None


def _as_split(dataset: Any) -> NamedSplit:
    labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
    labels = labels.astype(np.int64).reshape(-1)
    images: npt.NDArray[np.uint8] = np.asarray(dataset.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    classes = tuple(getattr(dataset, "classes", _DIGIT_NAMES))
    if len(images) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"{len(images)} images do not match {len(labels)} labels of {len(classes)} classes")
    return NamedSplit(split=Split(images=np.ascontiguousarray(images), labels=labels), classes=classes)


NAMED_DATASETS: Mapping[str, NamedDataset] = MappingProxyType(
    {
        "digits": NamedDataset(read=_read_digits, augmentation=Augmentation(pad=1), channels=1, num_test=359),
        "cifar10": NamedDataset(
            read=partial(_read_torchvision, class_name="CIFAR10"),
            augmentation=Augmentation(pad=4, flip=True),
            num_test=10_000,
        ),
        "cifar100": NamedDataset(
            read=partial(_read_torchvision, class_name="CIFAR100"),
            augmentation=Augmentation(pad=4, flip=True),
            num_test=10_000,
        ),
        "svhn": NamedDataset(
            read=partial(_read_torchvision, class_name="SVHN", by_split=True),
            augmentation=Augmentation(pad=4),
            num_test=26_032,
        ),
        "fashion_mnist": NamedDataset(
            read=partial(_read_torchvision, class_name="FashionMNIST"),
            augmentation=Augmentation(pad=2, flip=True),
            num_test=10_000,
            channels=1,
        ),
    }
)
"""The datasets by name; a mirrored digit is another sign, so digits and house numbers are not flipped."""
