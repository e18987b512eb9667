"""Image folders: their images, classes and parts. Pixels are decoded elsewhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnad_ray.data.decoding import FULL_LEVEL
from dnad_ray.data.folder_parts import TEST, TRAIN, VALIDATION, find_images, find_parts, subfolders
from dnad_ray.data.image_files import IMAGE_EXTENSIONS, find_full_level, read_headers
from dnad_ray.data.images import Progress
from dnad_ray.errors import DataError
from dnad_ray.text import is_text

__all__ = ["FolderImages", "FolderPart", "FolderPlan", "list_image_folder", "plan_image_folder", "user_folder"]

_MOST_ENDINGS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderPart:
    """The image files of one part of a dataset, not yet decoded.

    Attributes:
        root: The folder of the part.
        paths: The files, ordered by class and then by path.
        labels: Class index of each, shape (N,).
    """

    root: Path
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]

    def select(self, indices: npt.NDArray[np.intp]) -> FolderPart:
        """Return the files at some positions."""
        return replace(self, paths=tuple(self.paths[index] for index in indices), labels=self.labels[indices])

    def without(self, paths: Collection[Path]) -> FolderPart:
        """Return the part without some files."""
        kept = [index for index, path in enumerate(self.paths) if path not in paths]
        return self.select(np.array(kept, np.intp))


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderImages:
    """What an image folder holds.

    Attributes:
        classes: Names of the class folders, sorted.
        train: Training images.
        validation: Images of the folder's own validation part, if it has one.
        test: Images of the folder's test part, if it has one.
        notes: Sentences about what was left out, for the user.
    """

    classes: tuple[str, ...]
    train: FolderPart
    validation: FolderPart | None
    test: FolderPart | None
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [path for part in (self.train, self.validation, self.test) if part is not None for path in part.paths]

    def without(self, paths: Collection[Path]) -> FolderImages:
        """Return the images without some files.

        Raises:
            DataError: If a class has no training image then.
        """
        train, validation, test = (part and part.without(paths) for part in (self.train, self.validation, self.test))
        assert train is not None
        for label, name in enumerate(self.classes):
            if not (train.labels == label).any():
                raise DataError("class folder", str(train.root / name), "a folder with at least one intact image")
        return replace(self, train=train, validation=validation, test=test)


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderPlan(FolderImages):
    """What an image folder holds, and how it is to be decoded.

    Attributes:
        channels: 1 if all training images are grey, else 3.
        image_size: Side to which all images are brought, in pixels.
        full_level: Level of white of images of more than 8 bits.
    """

    channels: int
    image_size: int
    full_level: int = FULL_LEVEL


def user_folder(root: str | None, allowed: str, *, may_be_missing: bool = False) -> Path:
    """Return the folder that a user gave as `data.root`; a leading ``~`` is the home folder.

    Args:
        root: What was given.
        allowed: Description of the expected folder, for the error message.
        may_be_missing: Whether a folder that does not exist will do.

    Raises:
        DataError: If nothing was given, or something that is no folder.
    """
    if root is None:
        raise DataError("data.root", None, allowed)
    # Unlike pathlib's methods, these return False for paths that are too long, forbidden or in an unknown home.
    path = os.path.expanduser(root)  # noqa: PTH111
    if not os.path.isdir(path) and not (may_be_missing and not os.path.lexists(path)):  # noqa: PTH112
        raise DataError("data.root", f"{path} ({'not a folder' if os.path.lexists(path) else 'missing'})", allowed)
    return Path(path)


def plan_image_folder(
    root: Path,
    image_size: int | None,
    progress: Progress,
    *,
    is_test_used: bool = True,
    left_out: Collection[Path] = (),
) -> FolderPlan:
    """Find the images of a folder and read their headers, as :func:`list_image_folder` does.

    Args:
        root: The folder, which exists.
        image_size: Side wanted, in pixels; None takes the images' own if all are squares of one size, else the
            median shorter side, at most 224, rounded down to a multiple of 8.
        progress: Called with the number of headers read.
        is_test_used: Whether test images are wanted. If not, a test part that cannot be used is only noted.
        left_out: Files to leave out, because they are broken.

    Raises:
        DataError: If the folder, a class folder in it, or a training image cannot be used, or if its folders may be
            parts or classes.
    """
    found = list_image_folder(root, is_test_used=is_test_used)
    if left_out:
        found = found.without(left_out)
    paths, notes = found.train.paths, found.notes
    channels, found_size, deep = read_headers(paths, progress)
    full_level = find_full_level([paths[index] for index in deep], progress) if deep else FULL_LEVEL
    if full_level != FULL_LEVEL:
        words = f"{len(deep):,} training images of 16 bits have no level above {full_level:,}, which is taken as white"
        notes = (*notes, words)
    return FolderPlan(
        classes=found.classes,
        channels=channels,
        image_size=image_size or found_size,
        train=found.train,
        validation=found.validation,
        test=found.test,
        full_level=full_level,
        notes=notes,
    )


def list_image_folder(root: Path, *, is_test_used: bool = True) -> FolderImages:
    """Find the images of a folder, and open none.

    The folder holds either one folder per class, or `train/` (or `training/`) and perhaps `val/` (or `valid/`,
    `validation/`, `dev/`) and `test/` (or `testing/`) that do, in upper or lower case. Hidden files and folders are
    ignored.

    Args:
        root: The folder, which exists.
        is_test_used: Whether test images are wanted. If not, a test part that cannot be used is only noted.

    Raises:
        DataError: If the folder or a class folder in it cannot be used, or if its folders may be parts or classes.
    """
    parts, beside = find_parts(root)
    train_root = parts.get(TRAIN, root)
    classes = tuple(folder.name for folder in subfolders(train_root))
    if len(classes) < 2:
        found = f"{train_root} ({'one class folder' if classes else 'no class folder'})"
        raise DataError("data.root", found, "a folder with one folder of images for each of at least 2 classes")
    for name in classes:
        if not is_text(name):  # a run could not write it down
            raise DataError("class folder", str(train_root / name), "a name in UTF-8")
    notes = [f"not looked at: {', '.join(beside)} beside {train_root.name}"] if beside else []
    others = Counter[str]()
    train = _find_images(train_root, classes, others)
    validation = _find_images(parts[VALIDATION], classes, others) if VALIDATION in parts else None
    test = None
    if TEST in parts:
        try:
            test = _find_images(parts[TEST], classes, others)
        except DataError as error:
            if is_test_used:
                raise
            notes.append(f"a search does not look at test images, but retraining will, and be refused: {error}")
    notes += _left_out_in_words(others)
    return FolderImages(classes=classes, train=train, validation=validation, test=test, notes=tuple(notes))


def _find_images(root: Path, classes: tuple[str, ...], others: Counter[str]) -> FolderPart:
    """Return the images of a part; files of other kinds are counted in ``others``, by ending."""
    paths: list[Path] = []
    labels: list[int] = []
    for folder in subfolders(root):
        if folder.name not in classes:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError("class folder", str(folder), f"a class of the training images: {known}")
        images, left_out = find_images(folder)
        if not images:
            kinds = ", ".join(sorted(extension[1:] for extension in IMAGE_EXTENSIONS))
            raise DataError("class folder", str(folder), f"a folder with at least one image ({kinds})")
        paths += images
        labels += [classes.index(folder.name)] * len(images)
        others.update(left_out)
    if not paths:
        raise DataError("image folder", str(root), "a folder with one folder of images per class")
    return FolderPart(root=root, paths=tuple(paths), labels=np.array(labels, np.int64))


def _left_out_in_words(others: Counter[str]) -> list[str]:
    if not others:
        return []
    endings = [f"{number:,} {ending or 'without an ending'}" for ending, number in others.most_common(_MOST_ENDINGS)]
    return [f"left out {others.total():,} files whose endings are not those of images ({', '.join(endings)})"]
