"""Intervals of measured errors: how far the error on other images of the same kind may be."""

from __future__ import annotations

import math

import pandas as pd

__all__ = ["wilson", "with_intervals"]

_Z = 1.959963984540054
"""Standard normal quantile of a two-sided interval of 95 %."""


def wilson(share: float, number: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was counted on some images (Wilson, JASA 22, 1927).

    Args:
        share: Counted share, 0 to 1.
        number: Images.

    >>> [round(end, 4) for end in wilson(0.1, 100)]
    [0.0552, 0.1744]
    """
    if number < 1 or math.isnan(share):
        return math.nan, math.nan
    square = _Z * _Z / number
    centre = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / number + square / (4 * number))
    return max(0.0, centre - half), min(1.0, centre + half)


def with_intervals(retrained: pd.DataFrame) -> pd.DataFrame:
    """Return trained networks with the interval of each error, from the number of images that it was counted on.

    The interval says nothing about other seeds of training, whose spread comes on top.

    Args:
        retrained: As :func:`analysis.measurements.load_retrained` returns it.

    Returns:
        The same rows, with the columns ``error_low`` and ``error_high``.
    """
    pairs = [wilson(*row) for row in zip(retrained["test_error"], retrained["num_images"], strict=True)]
    ends = pd.DataFrame(pairs, columns=["error_low", "error_high"], index=retrained.index, dtype=float)
    joined: pd.DataFrame = pd.concat([retrained, ends], axis=1)
    return joined
