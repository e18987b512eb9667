"""Image folders: their images, classes and parts. Pixels are decoded elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnad_ray.data.image_files import IMAGE_EXTENSIONS, read_headers
from dnad_ray.data.images import Progress
from dnad_ray.errors import DataError, one_line

__all__ = ["FolderPart", "FolderPlan", "plan_image_folder", "user_folder"]

_TRAIN, _TEST, _VALIDATION = "train", "test", ("val", "valid", "validation")
_PARTS = frozenset({_TRAIN, _TEST, *_VALIDATION})


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderPart:
    """The image files of one part of a dataset, not yet decoded.

    Attributes:
        paths: The files, ordered by class and then by path.
        labels: Class index of each, shape (N,).
    """

    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]

    def select(self, indices: npt.NDArray[np.intp]) -> FolderPart:
        """Return the files at some positions."""
        return FolderPart(paths=tuple(self.paths[index] for index in indices), labels=self.labels[indices])


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderPlan:
    """What an image folder holds and how it is to be decoded.

    Attributes:
        classes: Names of the class folders, sorted.
        channels: 1 if all training images are grey, else 3.
        image_size: Side to which all images are brought, in pixels.
        train: Training images.
        validation: Images of the folder's own validation part, if it has one.
        test: Images of the folder's test part, if it has one.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: int
    train: FolderPart
    validation: FolderPart | None
    test: FolderPart | None


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


def plan_image_folder(root: Path, image_size: int | None, progress: Progress) -> FolderPlan:
    """Find the images of a folder and read their headers.

    The folder holds either one folder per class, or `train/` and perhaps `val/` (or `valid/`, `validation/`) and
    `test/` that do (in upper or lower case). Hidden files and folders are ignored.

    Args:
        root: The folder, which exists.
        image_size: Side wanted, in pixels; None takes the images' own if all are squares of one size, else the
            median shorter side, at most 224, rounded down to a multiple of 8.
        progress: Called with the number of headers read.

    Raises:
        DataError: If the folder, a class folder in it, or a training image cannot be used.
    """
    parts = _find_parts(root)
    train_root = parts.get(_TRAIN, root)
    classes = tuple(folder.name for folder in _folders(train_root))
    if len(classes) < 2:
        found = f"{train_root} ({'one class folder' if classes else 'no class folder'})"
        raise DataError("data.root", found, "a folder with one folder of images for each of at least 2 classes")
    train = _find_images(train_root, classes)
    validations = [parts[name] for name in _VALIDATION if name in parts]
    if len(validations) > 1:
        given = " and ".join(str(folder) for folder in validations)
        raise DataError("validation folder", given, "one validation folder")
    channels, found_size = read_headers(train.paths, progress)
    return FolderPlan(
        classes=classes,
        channels=channels,
        image_size=image_size or found_size,
        train=train,
        validation=_find_images(validations[0], classes) if validations else None,
        test=_find_images(parts[_TEST], classes) if _TEST in parts else None,
    )


def _find_parts(root: Path) -> dict[str, Path]:
    """Return the parts by lower-case name; empty if the folder holds the classes themselves."""
    folders = _folders(root)
    parts = {folder.name.lower(): folder for folder in folders if folder.name.lower() in _PARTS}
    only_parts = len(parts) == len(folders) > 0
    if _TRAIN not in parts:
        if only_parts:  # taking them for classes would teach the search its test images
            raise DataError("data.root", str(root), "a train folder beside its test or validation folder")
        return {}
    # A class may be called "train": it then has sister classes and holds images, not folders.
    return parts if only_parts or _folders(parts[_TRAIN]) else {}


def _folders(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()]
    except OSError as error:
        raise DataError("data.root", str(folder), f"a folder that can be read ({one_line(error)})") from None
    return sorted(found, key=lambda path: path.name)


def _find_images(root: Path, classes: tuple[str, ...]) -> FolderPart:
    paths: list[Path] = []
    labels: list[int] = []
    for folder in _folders(root):
        if folder.name not in classes:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError("class folder", str(folder), f"a class of the training images: {known}")
        images = sorted(_walk(folder))
        if not images:
            kinds = ", ".join(sorted(extension[1:] for extension in IMAGE_EXTENSIONS))
            raise DataError("class folder", str(folder), f"a folder with at least one image ({kinds})")
        paths += images
        labels += [classes.index(folder.name)] * len(images)
    if not paths:
        raise DataError("image folder", str(root), "a folder with one folder of images per class")
    return FolderPart(paths=tuple(paths), labels=np.array(labels, np.int64))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the image files at any depth; a link to a folder is followed, but never in circles."""
    waiting, seen = [folder], set[tuple[int, int]]()
    while waiting:
        current = waiting.pop()
        try:
            identity = current.stat()
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            entries = [entry for entry in os.scandir(current) if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError("class folder", str(current), f"a folder that can be read ({one_line(error)})") from None
        for entry in entries:
            if entry.is_dir():
                waiting.append(Path(entry.path))
            # A broken link is kept, to be reported as the unreadable image it is; pipes and devices are not opened.
            elif Path(entry.name).suffix.lower() in IMAGE_EXTENSIONS and (
                entry.is_file() or not Path(entry.path).exists()
            ):
                yield Path(entry.path)
