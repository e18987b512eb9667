from __future__ import annotations

import pandas as pd
import pytest

from analysis.attainment import LEVELS, attainment_surfaces
from analysis.frame import load_runs
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric

X, Y = Metric("x", "x", "", True, ".3g"), Metric("y", "y", "", True, ".3g")


def frame_of(*trials, **more):
    rows = [("r", f"t{i}", x, y) for i, points in enumerate(trials) for x, y in points]
    return pd.DataFrame(rows, columns=["run", "trial", "x", "y"]).assign(group="g", **more)


def corners(table, level):
    part = table[table["level"] == level]
    return list(zip(part["x"], part["y"], strict=True))


def test_attainment_surfaces_of_three_trials_by_hand():
    frame = frame_of([(1, 3), (2, 2), (3, 1)], [(2, 3), (3, 2)], [(1.5, 4)])
    table = attainment_surfaces(frame, [Y, X], "group")
    assert corners(table, "best") == [(1, 3), (2, 2), (3, 1)]
    assert corners(table, "median") == [(1.5, 4), (2, 3), (3, 2)]  # at least two of three attain these
    assert corners(table, "worst") == [(2, 4)]
    assert set(table["trials"]) == {3}


def test_attainment_surfaces_do_not_depend_on_the_order_of_the_rows():
    """moocore takes the points of a set for those of several where the sets are interleaved."""
    frame = frame_of([(1, 3), (2, 2), (3, 1)], [(2, 3), (3, 2)], [(1.5, 4)])
    expected = attainment_surfaces(frame, [Y, X], "group")
    for order in ([0, 3, 5, 1, 4, 2], [5, 4, 3, 2, 1, 0], [3, 0, 4, 1, 5, 2]):
        pd.testing.assert_frame_equal(attainment_surfaces(frame.iloc[order], [Y, X], "group"), expected)


def test_attainment_surfaces_of_one_trial_agree_and_an_even_number_has_the_lower_median():
    one = attainment_surfaces(frame_of([(1, 3), (3, 1)]), [Y, X], "group")
    assert all(corners(one, level) == [(1, 3), (3, 1)] for level in LEVELS)
    two = attainment_surfaces(frame_of([(1, 1)], [(2, 2)]), [Y, X], "group")
    assert [corners(two, level) for level in LEVELS] == [[(1, 1)], [(1, 1)], [(2, 2)]]


def test_attainment_surfaces_maximise_where_more_is_better():
    more = Metric("y", "y", "", False, ".3g")
    table = attainment_surfaces(frame_of([(1, 5)], [(2, 7)]), [more, X], "group")
    assert corners(table, "worst") == [(2, 5)]  # within 2, both reach at least 5


def test_attainment_surfaces_leave_out_what_is_not_finite(make_run):
    frame = frame_of([(1, 3), (float("nan"), 0)], [(2, float("inf"))])
    table = attainment_surfaces(frame, [Y, X], "group")
    assert corners(table, "worst") == [(1, 3)]
    assert set(table["trials"]) == {1}
    assert len(attainment_surfaces(frame.iloc[:0], [Y, X], "group")) == 0
    real = load_runs(make_run(trials=[{"seed": seed} for seed in (0, 1)]))
    assert set(attainment_surfaces(real)["setting"]) == {"all trials"}
    assert {"error", "macs", "params"} <= set(attainment_surfaces(real, ("error", "macs", "params")))


def test_attainment_surfaces_refuse_in_words():
    with pytest.raises(UserError, match="two or three"):
        attainment_surfaces(frame_of([(1, 1)]), [X], "group")
    with pytest.raises(UserError, match="a column that names groups"):
        attainment_surfaces(frame_of([(1, 1)]), [Y, X], "colour")
