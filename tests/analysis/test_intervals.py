"""Intervals of counted errors, against published values."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.intervals import wilson, with_intervals


@pytest.mark.parametrize(
    ("share", "number", "low", "high"),
    [
        (81 / 263, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15 / 148, 148, 0.0624, 0.1605),
        (0 / 20, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(share, number, low, high):
    assert wilson(share, number) == pytest.approx((low, high), abs=5e-5)


def test_nothing_counted_has_no_interval():
    assert all(map(math.isnan, wilson(0.5, 0)))
    assert all(map(math.isnan, wilson(math.nan, 10)))


def test_columns_are_added_to_the_rows():
    frame = pd.DataFrame({"test_error": [0.0, 15 / 148], "num_images": [20, 148]}, index=[7, 3])
    found = with_intervals(frame)
    assert list(found.index) == [7, 3]
    assert found["error_high"].round(4).tolist() == [0.1611, 0.1605]
    assert list(with_intervals(frame.iloc[:0]).columns) == ["test_error", "num_images", "error_low", "error_high"]
