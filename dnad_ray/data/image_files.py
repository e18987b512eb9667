"""Image files: reading headers and decoding, on all CPUs that the process may use.

The files are not trusted: a broken or hostile file gives an error of one line that names it.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
from PIL import Image

from dnad_ray.data.images import Progress, count_levels
from dnad_ray.errors import DataError, one_line
from dnad_ray.runtime.cpus import usable_cpus

__all__ = ["IMAGE_EXTENSIONS", "READERS", "count_levels_of_files", "decode_images", "read_headers"]

_Path = str | Path

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
"""Endings, in lower case, of the files that count as images."""

# Whatever a file is called, nothing but these is tried: some of Pillow's other readers start foreign programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
READERS = tuple(f"PIL.{name}ImagePlugin" for name in ("Png", "Jpeg", "Bmp", "WebP", "Tiff", "Gif", "Ppm"))
"""The modules that read them."""

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
_LARGEST_FOUND_SIZE = 224
_SMALLEST_SIZE = 4
_FILES_PER_TASK = 16

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_headers(paths: Sequence[Path], progress: Progress) -> tuple[int, int]:
    """Return the number of channels and the image size that suit the files.

    Args:
        paths: The files, at least one.
        progress: Called with the number of headers read.

    Returns:
        1 if all are grey and else 3; and the side in pixels: the files' own if all are squares of one size, else
        the median shorter side, at most 224, rounded down to a multiple of 8 but at least 8.

    Raises:
        DataError: On the first file that is no image, or one so large that decoding it could fill the memory.
    """
    sides = np.zeros((len(paths), 2), np.int64)
    grey = np.zeros(len(paths), bool)

    def read(index: int) -> None:
        with Image.open(paths[index], formats=_FORMATS) as image:
            sides[index] = image.size
            grey[index] = image.mode in _GREY_MODES

    _for_each_file(paths, read, "reading image sizes", progress)
    if sides.min() == sides.max() >= _SMALLEST_SIZE:
        size = int(sides[0, 0])
    else:
        size = max(8, min(_LARGEST_FOUND_SIZE, int(np.median(sides.min(axis=1)))) // 8 * 8)
    return (1 if grey.all() else 3), size


def decode_images(
    paths: Sequence[_Path], image_size: int, channels: int, progress: Progress | None = None, threads: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode files to one array of shape (N, C, H, W), upright, the centre square resized with antialiasing.

    Args:
        paths: The files.
        image_size: Side H and W of the result, in pixels.
        channels: 1 for grey, 3 for RGB.
        progress: Called with the number of images decoded.
        threads: How many decode at once; None takes all CPUs that this process may use.

    Raises:
        DataError: On the first file that is no intact image.
    """
    result = np.empty((len(paths), channels, image_size, image_size), np.uint8)

    def decode(index: int) -> None:
        result[index] = _decoded(paths[index], image_size, channels)

    _for_each_file(paths, decode, "decoding images", progress, threads)
    return result


def count_levels_of_files(
    paths: Sequence[_Path], image_size: int, channels: int, message: str, progress: Progress
) -> npt.NDArray[np.int64]:
    """Decode files as :func:`decode_images` does and return how often each channel has each level, shape (C, 256).

    Args:
        paths: The files; a few of them at a time are in memory.
        image_size: Side to which they are brought, in pixels.
        channels: 1 for grey, 3 for RGB.
        message: Text for the progress display.
        progress: Called with the number of images read.

    Raises:
        DataError: On the first file that is no intact image.
    """
    counts, lock = np.zeros((channels, 256), np.int64), Lock()

    def count(index: int) -> None:
        found = count_levels(_decoded(paths[index], image_size, channels)[None])
        with lock:  # whole numbers: the order in which threads come does not show
            np.add(counts, found, out=counts)

    _for_each_file(paths, count, message, progress)
    return counts


def _decoded(path: _Path, image_size: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return an image of shape (C, H, W)."""
    with Image.open(path, formats=_FORMATS) as image:
        image.load()
        pixels: npt.NDArray[np.uint8] = np.asarray(_centre_square(_plain(_upright(image), channels), image_size))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _for_each_file(
    paths: Sequence[_Path],
    action: Callable[[int], None],
    message: str,
    progress: Progress | None,
    threads: int | None = None,
) -> None:
    """Run an action on the index of every file, in threads (Pillow decodes without the interpreter lock)."""

    def run(start: int) -> int:
        stop = min(start + _FILES_PER_TASK, len(paths))
        for index in range(start, stop):
            try:
                action(index)
            except Exception as error:  # noqa: BLE001 - a broken file makes Pillow raise nearly anything
                raise DataError("image", str(paths[index]), f"an intact image ({one_line(error)})") from None
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


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - metadata that cannot be read, for whatever reason, turns nothing
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Return 8-bit grey or RGB without transparency."""
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"pixels of kind {image.mode}, save it with 8 or 16 bits")
        image = Image.fromarray((levels // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side and crop the centre, in one pass: a long thin image must not grow first."""
    if image.size == (side, side):
        return image
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
