"""Decoding of one image file to upright pixels of a given size and number of channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["FORMATS", "FULL_LEVEL", "READERS", "decoded", "is_deep", "largest_level"]

# Whatever a file is called, nothing but these is tried: some of Pillow's other readers start foreign programs.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
"""The formats that are read, by Pillow's names."""

READERS = tuple(f"PIL.{name}ImagePlugin" for name in ("Png", "Jpeg", "Bmp", "WebP", "Tiff", "Gif", "Ppm"))
"""The modules that read them."""

FULL_LEVEL = 65535
"""Level of white in images of more than 8 bits whose whole range is in use."""

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


def decoded(path: str | Path, image_size: int, channels: int, full_level: int = FULL_LEVEL) -> npt.NDArray[np.uint8]:
    """Decode a file to an array of shape (C, H, W), upright, the centre square resized with antialiasing.

    Transparent pixels are shown on white.

    Args:
        path: The file.
        image_size: Side H and W of the result, in pixels.
        channels: 1 for grey, 3 for RGB.
        full_level: Level that becomes 255, for images of more than 8 bits; higher levels become 255 too.
    """
    with Image.open(path, formats=FORMATS) as image:
        image.load()
        plain = _plain(_upright(image), channels, full_level)
        pixels: npt.NDArray[np.uint8] = np.asarray(_centre_square(plain, image_size))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def is_deep(image: Image.Image) -> bool:
    """Whether the pixels of an image are whole numbers of more than 8 bits."""
    return image.mode.startswith("I")


def largest_level(path: str | Path) -> int:
    """Return the largest level of a deep image."""
    with Image.open(path, formats=FORMATS) as image:
        image.load()
        return int(_deep_levels(image).max())


def _deep_levels(image: Image.Image) -> npt.NDArray[np.int64]:
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > FULL_LEVEL:
        raise ValueError(f"pixels of kind {image.mode}, save it with 8 or 16 bits")
    return levels.astype(np.int64)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # noqa: BLE001 - metadata that cannot be read, for whatever reason, turns nothing
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _plain(image: Image.Image, channels: int, full_level: int) -> Image.Image:
    """Return 8-bit grey or RGB without transparency."""
    if is_deep(image) or image.mode == "F":
        levels = np.minimum(_deep_levels(image), full_level)
        image = Image.fromarray((levels * 255 // full_level).astype(np.uint8))
    if image.has_transparency_data:
        image = _on_white(image)
    return image.convert("L" if channels == 1 else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image as it looks on white: where the shape is in the transparency, the colours below say nothing."""
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side and crop the centre, in one pass: a long thin image must not grow first."""
    if image.size == (side, side):
        return image
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)
