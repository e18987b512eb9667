"""Which images a dataset has: the entries of its record in a run folder, and images that are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from dnad_ray.data.image_files import Marks
from dnad_ray.data.image_folder import FolderPart
from dnad_ray.data.images import Split
from dnad_ray.run_folder.images import ClassImages

__all__ = ["class_images", "class_images_in_memory", "equal_images_in_words"]

_NOTED_SHARE = 0.01
"""Share of images equal to an earlier one above which the user is told: photographs have a few duplicates too."""


def class_images(part: FolderPart, num_classes: int, marks: Marks | None = None) -> tuple[ClassImages, ...]:
    """Return an entry for each class of a part of a folder.

    Args:
        part: The files.
        num_classes: Number of classes.
        marks: Their digests. None for files that are not read: their sizes are then taken with their names.
    """
    begin = len(str(part.root)) + 1
    result = []
    for label in range(num_classes):
        members = np.flatnonzero(part.labels == label).tolist()
        names = [str(part.paths[index])[begin:] for index in members]
        if marks is None:
            names = [f"{name} {_size(part, index)}" for name, index in zip(names, members, strict=True)]
        content = "" if marks is None else _digest(row.tobytes() for row in marks.files[members])
        entry = ClassImages(
            count=len(members), names=_digest(name.encode(errors="surrogateescape") for name in names), content=content
        )
        result.append(entry)
    return tuple(result)


def class_images_in_memory(split: Split, num_classes: int) -> tuple[ClassImages, ...]:
    """Return an entry for each class of images that are no files."""
    result = []
    for label in range(num_classes):
        members = split.images[split.labels == label]
        result.append(ClassImages(count=len(members), content=hashlib.sha256(members.tobytes()).hexdigest()[:16]))
    return tuple(result)


def equal_images_in_words(parts: Sequence[tuple[FolderPart, Marks]]) -> list[str]:
    """Return a warning where more than one image in a hundred has the pixels of an earlier one; else nothing."""
    pixels = np.concatenate([marks.pixels for _, marks in parts])
    labels = np.concatenate([part.labels for part, _ in parts])
    paths = [path for part, _ in parts for path in part.paths]
    whole = np.ascontiguousarray(pixels).view(f"V{pixels.shape[1]}").ravel()
    _, firsts, found = np.unique(whole, return_index=True, return_inverse=True)
    others = np.flatnonzero(firsts[found] != np.arange(len(paths)))
    if len(others) <= _NOTED_SHARE * len(paths):
        return []
    unlike = int((labels[others] != labels[firsts[found[others]]]).sum())
    example = others[0]
    return [
        f"{len(others):,} of {len(paths):,} images have exactly the pixels of an earlier one as the network sees them, "
        f"{unlike:,} of these in another class; the first is {paths[example]}, as {paths[firsts[found[example]]]}"
    ]


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _size(part: FolderPart, index: int) -> int:
    try:
        return part.paths[index].stat().st_size
    except OSError:  # a broken link, which is named when it is read
        return -1
