"""Check whether images fit into the memory that this process may use."""

from __future__ import annotations

import psutil

from dnad_ray.errors import DataError

__all__ = ["check_memory", "fits_memory"]

_MEMORY_SHARE = 0.6


def fits_memory(num_images: int, channels: int, image_size: int) -> bool:
    """Whether images need no more than 60 % of the available memory.

    Args:
        num_images: How many images are to be held at once.
        channels: Channels of each, one byte per pixel.
        image_size: Side of each in pixels.
    """
    return num_images * channels * image_size**2 <= _memory_limit()


def check_memory(num_images: int, channels: int, image_size: int, remedy: str | None = None) -> None:
    """Refuse images that would fill the memory, before any of them is decoded.

    Args:
        num_images: How many images are to be held at once.
        channels: Channels of each, one byte per pixel.
        image_size: Side of each in pixels.
        remedy: Advice for the error message, besides smaller or fewer images.

    Raises:
        DataError: If they need more than 60 % of the available memory.
    """
    if fits_memory(num_images, channels, image_size):
        return
    limit = _memory_limit()
    fitting = int((limit / (num_images * channels)) ** 0.5) // 8 * 8
    remedies = [f"data.image_size: {fitting} or smaller would fit" if fitting else "use fewer images"]
    remedies += [remedy] if remedy else []
    needed = num_images * channels * image_size**2
    raise DataError(
        "images in memory",
        f"{num_images} images of {image_size}x{image_size} pixels, {needed / 1e9:.2f} GB",
        f"at most {limit / 1e9:.2f} GB, {_MEMORY_SHARE:.0%} of the available memory ({', or '.join(remedies)})",
    )


def _memory_limit() -> int:
    return int(_MEMORY_SHARE * psutil.virtual_memory().available)
