from __future__ import annotations

import pandas as pd
import pytest

from analysis.frame import load_runs
from analysis.pareto import hypervolume_share
from analysis.quality import compare_fronts, contributions, convex_hull, coverage, epsilon
from dnad_ray.errors import UserError

AXES = ("error", "macs")
NAN = float("nan")


def points(**columns):
    return pd.DataFrame(columns)


def test_coverage_by_hand_and_of_itself():
    first, second = points(error=[0.1, 0.2], macs=[20, 10]), points(error=[0.1, 0.3, 0.05], macs=[25, 10, 90])
    assert coverage(first, second, AXES) == 2 / 3
    assert coverage(second, first, AXES) == 0
    assert coverage(first, first, AXES) == 1


def test_coverage_ignores_what_is_not_finite_and_refuses_nothing():
    first = points(error=[NAN, 0.1], macs=[1, 10])
    assert coverage(first, points(error=[0.2, NAN], macs=[10, 1]), AXES) == 1
    assert coverage(points(error=[NAN], macs=[1]), first, AXES) == 0
    with pytest.raises(UserError, match="at least one to be covered"):
        coverage(first, first.iloc[:0], AXES)


def test_epsilon_by_hand():
    first, second = points(error=[0.2, 0.4], macs=[10, 5]), points(error=[0.1, 0.4], macs=[10, 4])
    assert epsilon(first, second, AXES) == 2  # 0.2 / 0.1; for the other point 5 / 4 are enough
    assert epsilon(second, first, AXES) == 1
    assert epsilon(first, second, AXES, kind="additive") == 1  # 5 - 4 MACs
    assert epsilon(second, first, AXES, kind="additive") == 0


def test_epsilon_refuses_zeros_accuracies_and_empty_fronts():
    zero = points(error=[0.0], macs=[1])
    with pytest.raises(UserError, match="kind='additive'"):
        epsilon(zero, zero, AXES)
    assert epsilon(zero, zero, AXES, kind="additive") == 0
    with pytest.raises(UserError, match="for accuracy take error"):
        epsilon(points(proxy_accuracy=[0.1]), points(proxy_accuracy=[0.1]), ["proxy_accuracy"])
    with pytest.raises(UserError, match="at least one in each"):
        epsilon(zero, zero.iloc[:0], AXES)
    with pytest.raises(UserError, match="multiplicative or additive"):
        epsilon(zero, zero, AXES, kind="other")


def test_contributions_say_what_would_be_lost():
    # Box 1 x 40. Run a holds (0.5, 20), run b (0.25, 30), run c a copy of a's point, run d a dominated one.
    frame = points(
        run=["a", "b", "c", "d"], trial="t", step=1, device_seconds=[1.0, 1.0, 2.0, 1.0], digest=["x", "y", "x", "z"],
        error=[0.5, 0.25, 0.5, 0.9], macs=[20, 30, 20, 40],
    )  # fmt: skip
    table = contributions(frame, "run", AXES)
    assert table.index.tolist() == ["b", "a", "c", "d"]
    assert table["front_points"].tolist() == [1, 1, 0, 0]
    assert table["front_share"].tolist() == [0.5, 0.5, 0.0, 0.0]
    assert table["hypervolume"].tolist() == [0.75 * 0.25, 0.5 * 0.5, 0.25, 0.0]  # d lies on the border of the box
    # Without b the step from 0.5 to 0.25 is lost right of 30; without a or c the other still holds their point.
    assert table["contribution"].tolist() == pytest.approx([0.25 * 0.25, 0.0, 0.0, 0.0])
    whole = hypervolume_share(frame[["error", "macs"]].to_numpy(), [1, 40])
    assert whole == pytest.approx(0.5 * 0.5 + 0.25 * 0.25)


def test_contributions_by_setting_and_of_nothing(make_run):
    frame = load_runs(make_run(trials=[{"seed": 0, "shrink.rate": rate} for rate in (0.1, 0.2)]))
    table = contributions(frame)
    assert set(table.index) == {"Shrink rate 0.1", "Shrink rate 0.2"}
    assert table["snapshots"].sum() == len(frame)
    assert table["front_share"].sum() == pytest.approx(1)
    assert len(contributions(frame.iloc[:0])) == 0
    with pytest.raises(UserError, match="a column that names a group"):
        contributions(frame, "colour")


def test_compare_fronts_has_both_directions_of_each_pair(make_run):
    frame = load_runs(make_run(trials=[{"seed": seed} for seed in (0, 1, 2)]))
    table = compare_fronts(frame, "trial")
    assert len(table) == 6
    assert table["coverage"].between(0, 1).all()
    one = table[(table["first"] == "t0") & (table["second"] == "t1")]
    assert len(one) == 1
    assert len(compare_fronts(frame)) == 0  # one run has no other


def test_convex_hull_drops_what_a_mixture_beats():
    frame = points(error=[0.5, 0.4, 0.2, 0.19, 0.1, 0.1], macs=[10, 15, 20, 40, 60, 60])
    assert convex_hull(frame, AXES).index.tolist() == [0, 2, 4]
    assert convex_hull(frame.iloc[:1], AXES).index.tolist() == [0]
    assert len(convex_hull(frame.iloc[:0], AXES)) == 0
    line = points(error=[0.3, 0.2, 0.1], macs=[1, 2, 3])
    assert convex_hull(line, AXES).index.tolist() == [0, 2]
    with pytest.raises(UserError, match="two of them"):
        convex_hull(frame, ["error"])
