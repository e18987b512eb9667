"""Intervals of counted errors, against published values."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.intervals import against_smaller, difference, wilson, with_intervals


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


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), pages 873 to 890, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_intervals_of_differences_are_those_of_the_literature(first, second, low, high):
    found = difference(first[0] / first[1], first[1], second[0] / second[1], second[1])
    assert found == pytest.approx((low, high), abs=5e-5)


def test_networks_are_compared_with_the_next_smaller_one():
    frame = pd.DataFrame(
        {"test_error": [0.30, 0.10, 0.20, 0.11], "num_images": [400] * 4, "macs": [40, 30, 10, 20]}, index=[5, 5, 2, 9]
    )
    # By multiply-adds: 20 %, then 11 % (better), 10 % (who knows), 30 % (worse).
    assert against_smaller(frame).tolist() == ["worse", "within noise", "", "better"]
    assert against_smaller(frame).index.tolist() == [5, 5, 2, 9]
    assert against_smaller(frame.iloc[:0]).tolist() == []
