"""Image files: reading headers and decoding, on all CPUs that the process may use.

The files are not trusted: broken or hostile files give an error of one line that names them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from dnad_ray.data.decoding import FORMATS, FULL_LEVEL, READERS, decoded, is_deep, largest_level
from dnad_ray.data.images import Progress, count_levels
from dnad_ray.errors import DataError, one_line
from dnad_ray.runtime.cpus import usable_cpus

__all__ = [
    "IMAGE_EXTENSIONS",
    "READERS",
    "BrokenImagesError",
    "Headers",
    "Marks",
    "broken_images",
    "count_levels_of_files",
    "decode_images",
    "find_full_level",
    "looks_like_image",
    "read_headers",
]

_Path = str | Path

IMAGE_EXTENSIONS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Endings, in lower case, of the files that count as images."""

_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF8")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_BIT_DEPTHS = (8, 10, 12, 14)
_LARGEST_FOUND_SIZE = 224
_SMALLEST_SIZE = 4
_FILES_PER_TASK = 16
_MOST_NAMED = 20
_LARGEST_FILE = 2**30
_MARK_BYTES = 16


class BrokenImagesError(DataError):
    """Files are no intact images.

    Attributes:
        broken: For each such file, its path and the reason.
    """

    def __init__(self, broken: Sequence[tuple[_Path, str]]) -> None:
        self.broken = tuple(broken)
        first, reason = self.broken[0]
        if len(self.broken) == 1:
            super().__init__("image", str(first), f"an intact image ({reason})")
            return
        names = ", ".join(str(path) for path, _ in self.broken[:_MOST_NAMED])
        more = len(self.broken) - _MOST_NAMED
        super().__init__(
            "images",
            f"{len(self.broken)} files: {names}" + (f" and {more} more" if more > 0 else ""),
            f"intact images (the first: {reason})",
        )

    def __reduce__(self) -> Any:
        return type(self), (self.broken,)


class Headers(NamedTuple):
    """What the headers of image files say.

    Attributes:
        channels: 1 if all are grey and else 3.
        image_size: The files' own side if all are squares of one size, else the median shorter side, at most 224,
            rounded down to a multiple of 8 but at least 8.
        deep: Positions of the files of more than 8 bits.
    """

    channels: int
    image_size: int
    deep: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Marks:
    """Digests of image files, which tell whether a file changed and whether two images are equal.

    Attributes:
        files: Digests of the bytes, shape (N, 16).
        pixels: Digests of the decoded pixels, shape (N, 16).
    """

    files: npt.NDArray[np.uint8]
    pixels: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, number: int) -> Marks:
        """Return empty marks, to be filled by :func:`decode_images` or :func:`count_levels_of_files`."""
        return cls(files=np.zeros((number, _MARK_BYTES), np.uint8), pixels=np.zeros((number, _MARK_BYTES), np.uint8))

    def fill(self, index: int, path: _Path, pixels: npt.NDArray[np.uint8]) -> None:
        """Set the digests of one file."""
        self.files[index] = _digest_of_file(path)
        self.pixels[index] = np.frombuffer(_new_digest(pixels.tobytes()).digest(), np.uint8)


def read_headers(paths: Sequence[Path], progress: Progress) -> Headers:
    """Return the number of channels and the image size that suit the files.

    Args:
        paths: The files, at least one.
        progress: Called with the number of headers read.

    Raises:
        BrokenImagesError: If files are no images, or so large that decoding them could fill the memory.
    """
    sides = np.zeros((len(paths), 2), np.int64)
    grey, deep = np.zeros(len(paths), bool), np.zeros(len(paths), bool)

    def read(index: int) -> None:
        with Image.open(paths[index], formats=FORMATS) as image:
            sides[index] = image.size
            grey[index] = image.mode in _GREY_MODES
            deep[index] = is_deep(image)

    _for_each_file(paths, read, "reading image sizes", progress)
    if sides.min() == sides.max() >= _SMALLEST_SIZE:
        size = int(sides[0, 0])
    else:
        size = max(8, min(_LARGEST_FOUND_SIZE, int(np.median(sides.min(axis=1)))) // 8 * 8)
    return Headers(1 if grey.all() else 3, size, tuple(np.flatnonzero(deep).tolist()))


def find_full_level(paths: Sequence[_Path], progress: Progress) -> int:
    """Return the level of white of images of more than 8 bits: the largest one of 8, 10, 12, 14 or 16 bits.

    Cameras and scanners write 12 bits into files of 16. It follows from all images together, because they must be
    as bright beside each other as they were.

    Args:
        paths: The files, at least one.
        progress: Called with the number of images read.

    Raises:
        BrokenImagesError: If files are no intact images.
    """
    levels = np.zeros(len(paths), np.int64)

    def read(index: int) -> None:
        levels[index] = largest_level(paths[index])

    _for_each_file(paths, read, "reading images of 16 bits", progress)
    return next((2**bits - 1 for bits in _BIT_DEPTHS if levels.max() < 2**bits), FULL_LEVEL)


def decode_images(
    paths: Sequence[_Path],
    image_size: int,
    channels: int,
    progress: Progress | None = None,
    threads: int | None = None,
    *,
    full_level: int = FULL_LEVEL,
    marks: Marks | None = None,
) -> npt.NDArray[np.uint8]:
    """Decode files to one array of shape (N, C, H, W), upright, the centre square resized with antialiasing.

    Args:
        paths: The files.
        image_size: Side H and W of the result, in pixels.
        channels: 1 for grey, 3 for RGB.
        progress: Called with the number of images decoded.
        threads: How many decode at once; None takes all CPUs that this process may use.
        full_level: Level of white of images of more than 8 bits.
        marks: Digests to fill, one for each file.

    Raises:
        BrokenImagesError: If files are no intact images.
    """
    result = np.empty((len(paths), channels, image_size, image_size), np.uint8)

    def decode(index: int) -> None:
        result[index] = decoded(paths[index], image_size, channels, full_level)
        if marks is not None:
            marks.fill(index, paths[index], result[index])

    _for_each_file(paths, decode, "decoding images", progress, threads)
    return result


def count_levels_of_files(
    paths: Sequence[_Path],
    image_size: int,
    channels: int,
    message: str,
    progress: Progress,
    *,
    full_level: int = FULL_LEVEL,
    marks: Marks | None = None,
) -> npt.NDArray[np.int64]:
    """Decode files as :func:`decode_images` does and return how often each channel has each level, shape (C, 256).

    Args:
        paths: The files; a few of them at a time are in memory.
        image_size: Side to which they are brought, in pixels.
        channels: 1 for grey, 3 for RGB.
        message: Text for the progress display.
        progress: Called with the number of images read.
        full_level: Level of white of images of more than 8 bits.
        marks: Digests to fill, one for each file.

    Raises:
        BrokenImagesError: If files are no intact images.
    """
    counts, lock = np.zeros((channels, 256), np.int64), Lock()

    def count(index: int) -> None:
        pixels = decoded(paths[index], image_size, channels, full_level)
        found = count_levels(pixels[None])
        if marks is not None:
            marks.fill(index, paths[index], pixels)
        with lock:  # whole numbers: the order in which threads come does not show
            np.add(counts, found, out=counts)

    _for_each_file(paths, count, message, progress)
    return counts


def broken_images(paths: Sequence[_Path], progress: Progress) -> tuple[tuple[_Path, str], ...]:
    """Return the files that are no intact images, each with the reason; all are decoded for this."""

    def decode(index: int) -> None:
        decoded(paths[index], _SMALLEST_SIZE, 1)

    try:
        _for_each_file(paths, decode, "looking for broken images", progress)
    except BrokenImagesError as error:
        return error.broken
    return ()


def looks_like_image(path: _Path) -> bool:
    """Whether a file begins as one of the formats that are read does; for files without an ending."""
    try:
        with Path(path).open("rb") as stream:
            begin = stream.read(12)
    except OSError:
        return False
    is_pnm = begin[:1] == b"P" and begin[1:2] in b"123456" and begin[2:3].isspace()
    return begin.startswith(_BEGINNINGS) or is_pnm or (begin[:4] == b"RIFF" and begin[8:] == b"WEBP")


def _new_digest(content: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=_MARK_BYTES)


def _digest_of_file(path: _Path) -> npt.NDArray[np.uint8]:
    digest, length = _new_digest(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file object takes several times as long for small files
    try:
        while part := os.read(descriptor, 2**20):
            digest.update(part)
            length += len(part)
            if length > _LARGEST_FILE:
                raise ValueError(f"more than {_LARGEST_FILE:,} bytes")
    finally:
        os.close(descriptor)
    return np.frombuffer(digest.digest(), np.uint8)


def _for_each_file(
    paths: Sequence[_Path],
    action: Callable[[int], None],
    message: str,
    progress: Progress | None,
    threads: int | None = None,
) -> None:
    """Run an action on the index of every file, in threads (Pillow decodes without the interpreter lock)."""
    broken: dict[int, str] = {}

    def run(start: int) -> int:
        stop = min(start + _FILES_PER_TASK, len(paths))
        for index in range(start, stop):
            try:
                action(index)
            except Exception as error:  # noqa: BLE001 - a broken file makes Pillow raise nearly anything
                broken[index] = one_line(error)
        return stop

    for reader in READERS:  # or the first files would load them in several threads at once
        importlib.import_module(reader)
    if threads is None:
        threads = usable_cpus()
    # The filters are the process's: they must be set around the threads, not in them.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\b")  # odd metadata does not spoil the pixels
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        tell = progress or (lambda *_: None)
        tell(message, 0, len(paths))
        for done in pool.map(run, range(0, len(paths), _FILES_PER_TASK)):
            tell(message, done, len(paths))
    if broken:
        raise BrokenImagesError([(paths[index], broken[index]) for index in sorted(broken)])
