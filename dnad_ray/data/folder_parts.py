"""Which folders of a dataset are its parts (training, validation, test), and which files in them are images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from dnad_ray.data.image_files import IMAGE_EXTENSIONS, looks_like_image
from dnad_ray.errors import DataError, one_line

__all__ = ["TEST", "TRAIN", "VALIDATION", "find_images", "find_parts", "subfolders"]

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_NAMES = {TRAIN: ("train", "training"), VALIDATION: ("val", "valid", "validation", "dev"), TEST: ("test", "testing")}
_PART_OF = {name: part for part, names in _NAMES.items() for name in names}
_ALLOWED_NAMES = "; ".join(", ".join(names) for names in _NAMES.values())

# What file servers and archives add: their thumbnails are no images of the user's.
_JUNK = frozenset(
    {"@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information"}
)


def find_parts(root: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the parts of a dataset by name, and the names of folders beside them that are not looked at.

    Args:
        root: The folder. There are no parts if it holds the classes themselves.

    Raises:
        DataError: If one part is there twice, if the training part is missing, or if folders may be parts or classes.
    """
    folders = subfolders(root)
    known = [(folder, _PART_OF[folder.name.lower()]) for folder in folders if folder.name.lower() in _PART_OF]
    only_parts = len(known) == len(folders) > 0
    trains = [folder for folder, part in known if part == TRAIN]
    if not trains:
        if only_parts:  # taking them for classes would teach the search its test images
            raise DataError("data.root", str(root), "a train folder beside its test or validation folder")
        return {}, ()
    classes = {folder.name for train in trains for folder in subfolders(train)}
    if not classes and not only_parts:
        return {}, ()  # a class may be called "train": it then has sister classes and holds images, not folders
    parts: dict[str, Path] = {}
    for folder, part in known:
        if part in parts:
            raise DataError(f"{part} folder", f"{parts[part]} and {folder}", f"one {part} folder")
        parts[part] = folder
    others = [folder for folder in folders if folder not in parts.values()]
    _refuse_doubt(root, parts, others, classes)
    return parts, tuple(folder.name for folder in others)


def _refuse_doubt(root: Path, parts: dict[str, Path], others: Iterable[Path], classes: set[str]) -> None:
    """Refuse folders beside the training part that may be a part of another name, or classes beside one called train.

    They are no classes where the validation or test part has the classes of the training part too.
    """
    sure = any(_holds(folder, classes) for part, folder in parts.items() if part != TRAIN)
    for folder in others:
        if _holds(folder, classes):
            allowed = f"a name of a part ({_ALLOWED_NAMES}); it has the class folders of {parts[TRAIN].name}"
            raise DataError("folder of images", str(folder), allowed)
        if not sure and find_images(folder)[0]:
            raise DataError(
                "data.root",
                f"{root} with {folder.name} beside {parts[TRAIN].name}",
                f"either classes or parts ({_ALLOWED_NAMES}) beside each other, and images of no part elsewhere; a "
                f"class of the name {parts[TRAIN].name} holds images, no folders",
            )


def _holds(folder: Path, classes: set[str]) -> bool:
    return any(inner.name in classes for inner in subfolders(folder))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder by name, without hidden ones and those of file servers.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if not _is_ignored(path.name) and path.is_dir()]
    except OSError as error:
        raise DataError("data.root", str(folder), f"a folder that can be read ({one_line(error)})") from None
    return sorted(found, key=lambda path: path.name)


def find_images(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Return the image files at any depth, sorted, and how many other files have which ending.

    A link to a folder is followed, but never in circles. A file without an ending is an image if it begins as one.

    Raises:
        DataError: If a folder cannot be read.
    """
    waiting, seen = [folder], set[tuple[int, int]]()
    images: list[Path] = []
    others = Counter[str]()
    while waiting:
        current = waiting.pop()
        try:
            identity = current.stat()
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            entries = [entry for entry in os.scandir(current) if not _is_ignored(entry.name)]
        except OSError as error:
            raise DataError("class folder", str(current), f"a folder that can be read ({one_line(error)})") from None
        for entry in entries:
            path = Path(entry.path)
            if _answers(entry.is_dir):
                waiting.append(path)
            elif _is_image(entry, ending := path.suffix.lower()):
                images.append(path)
            else:
                others[ending] += 1
    return sorted(images), others


def _answers(question: Callable[[], bool]) -> bool:
    """Return what an entry of a folder says; False where it raises, as one that is a link to itself does."""
    try:
        return question()
    except OSError:
        return False


def _is_image(entry: os.DirEntry[str], ending: str) -> bool:
    """Whether a file counts as an image; pipes and devices are not opened.

    A broken link counts by its ending, to be reported as the unreadable image it is.
    """
    is_file = _answers(entry.is_file)
    if ending in IMAGE_EXTENSIONS:
        return is_file or not Path(entry.path).exists()
    return not ending and is_file and looks_like_image(entry.path)


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK
