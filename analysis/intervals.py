"""Intervals of measured errors: how far the error on other images of the same kind may be."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

__all__ = ["against_smaller", "difference", "wilson", "with_intervals"]

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


def difference(share: float, number: int, other: float, other_number: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares (Newcombe, Statistics in Medicine 17, 1998, method 10).

    The shares are taken as counted on different images. Of two networks that were tested on the same ones, the true
    interval is narrower, as they are mostly wrong together.

    Args:
        share: The first share, 0 to 1.
        number: The images that it was counted on.
        other: The share that is subtracted.
        other_number: Its images.

    >>> [round(end, 4) for end in difference(56 / 70, 70, 48 / 80, 80)]
    [0.0524, 0.3339]
    """
    (low, high), (other_low, other_high) = wilson(share, number), wilson(other, other_number)
    below = math.hypot(share - low, other_high - other)
    above = math.hypot(high - share, other - other_low)
    return share - other - below, share - other + above


def against_smaller(retrained: pd.DataFrame) -> pd.Series[str]:
    """Say how each trained network compares with the next one that has fewer multiply-adds.

    Args:
        retrained: Networks with ``test_error``, ``num_images`` and ``macs``, trained alike.

    Returns:
        ``better`` or ``worse`` where the 95 % interval of the difference of errors leaves 0 out, else ``within noise``;
        empty for the smallest one. Other seeds of training are noise on top, which is not in it.
    """
    words, before = {}, None
    for label, row in retrained.reset_index(drop=True).sort_values("macs", kind="stable").iterrows():
        words[label] = "" if before is None else _compared(row, before)
        before = row
    in_order = [words[label] for label in range(len(retrained))]
    return pd.Series(in_order, index=retrained.index, dtype="str", name="against_smaller")


def _compared(row: pd.Series[Any], other: pd.Series[Any]) -> str:
    low, high = difference(row["test_error"], row["num_images"], other["test_error"], other["num_images"])
    return "better" if high < 0 else "worse" if low > 0 else "within noise"


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
