"""The classes of images in words, for the user to see before any work begins."""

from __future__ import annotations

import numpy as np

from dnad_ray.data.images import ImageData

__all__ = ["classes_in_words"]

_MOST_CLASSES = 12


def classes_in_words(data: ImageData, measured: str = "validation") -> str:
    """Return a sentence with the number of images of each class; of many classes, the first ones and the range.

    Args:
        data: The images.
        measured: What the images that are not learnt from are called.
    """
    number = data.num_classes
    counts = [np.bincount(part.labels, minlength=number).tolist() for part in (data.train, data.validation)]
    shown = [f"{name} {counts[0][label]:,} + {counts[1][label]:,}" for label, name in enumerate(data.classes)]
    words = f"classes, training + {measured} images: {', '.join(shown[:_MOST_CLASSES])}"
    if number > _MOST_CLASSES:
        ranges = " + ".join(f"{min(found):,} to {max(found):,}" for found in counts)
        words += f" and {number - _MOST_CLASSES:,} more; {ranges} of each class"
    record = data.record
    if measured == "validation" and record is not None:
        words += "; no test images" if record.num_test == 0 else f"; {record.num_test:,} test images, not looked at"
    return words
