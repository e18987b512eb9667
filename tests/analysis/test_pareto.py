from __future__ import annotations

import itertools

import moocore
import numpy as np
import pandas as pd
import pytest

from analysis.frame import load_runs
from analysis.pareto import (
    front_of,
    hypervolume,
    hypervolume_share,
    knee_of,
    pareto_mask,
    reference_point,
    trial_hypervolumes,
)
from dnad_ray.errors import UserError

NAN, INF = float("nan"), float("inf")


def frame_of(**columns):
    rows = len(next(iter(columns.values())))
    plain = {
        "run": "r",
        "trial": "t",
        "step": range(rows),
        "digest": [f"d{i}" for i in range(rows)],
        "device_seconds": 1.0,
    }
    return pd.DataFrame(plain | columns, index=range(rows))


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4, 5])
def test_pareto_mask_agrees_with_the_definition(num_objectives):
    # Few distinct values make ties and duplicates common.
    points = np.random.default_rng(num_objectives).integers(0, 4, (40, num_objectives)).astype(float)
    expected = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert pareto_mask(points).tolist() == expected
    assert pareto_mask(-points, maximise=True).tolist() == expected


def test_pareto_mask_mixed_directions():
    assert pareto_mask([[0.9, 4], [0.8, 2], [0.7, 3]], maximise=[True, False]).tolist() == [True, True, False]
    assert pareto_mask([[0.9, 4], [0.8, 2], [0.7, 3]], maximise=np.array([False, True])).tolist() == [True, False, True]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_pareto_mask_rows_not_finite_are_out_and_dominate_nothing(bad):
    assert pareto_mask([[bad, 0], [1, 1], [bad, bad]]).tolist() == [False, True, False]
    assert pareto_mask([[bad, 0]], maximise=[True, False]).tolist() == [False]


def test_libraries_see_no_row_that_is_not_finite(monkeypatch):
    """moocore and others keep a row with NaN and lose good ones beside it."""
    seen = []
    for name in ("is_nondominated", "hypervolume"):
        real = getattr(moocore, name)

        def noted(points, *arguments, _real=real, **options):
            seen.append(np.asarray(points))
            return _real(points, *arguments, **options)

        monkeypatch.setattr(moocore, name, noted)
    frame = frame_of(error=[NAN, 0.2, 0.1, 0.3, 0.1], macs=[1.0, 5.0, INF, 7.0, 9.0], params=[1, 1, 1, 1, 2])
    assert front_of(frame).index.tolist() == [1, 4]
    assert hypervolume(frame[["error", "macs"]], [1, 10]) == pytest.approx(0.8 * 5 + 0.1 * 1)
    assert knee_of(frame) is None
    assert len(seen) == 3
    assert all(np.isfinite(points).all() for points in seen)


def test_pareto_mask_of_nothing():
    assert pareto_mask(np.zeros((0, 3))).shape == (0,)
    assert pareto_mask([], maximise=[True, False]).dtype == bool


@pytest.mark.parametrize("points", [3.0, [1.0, 2.0], np.zeros((2, 0)), np.zeros((1, 1, 1)), [["a"]], [[1, 2], [3]]])
def test_pareto_mask_refuses_what_is_no_table(points):
    with pytest.raises(UserError, match="points"):
        pareto_mask(points)


@pytest.mark.parametrize("maximise", [[True], [True] * 3, []])
def test_pareto_mask_refuses_directions_of_another_length(maximise):
    with pytest.raises(UserError, match="2 of them"):
        pareto_mask([[1, 2]], maximise)


def test_inputs_stay_unchanged():
    points = np.array([[2.0, NAN], [-1.0, 3.0], [1.0, 1.0]])
    reference = np.array([4.0, 4.0])
    copies = points.copy(), reference.copy()
    pareto_mask(points, maximise=[True, False])
    hypervolume(points, reference)
    hypervolume_share(points, reference)
    np.testing.assert_array_equal(points, copies[0])
    np.testing.assert_array_equal(reference, copies[1])


def test_hypervolume_by_hand():
    assert hypervolume([[1, 3], [2, 2], [3, 1]], [4, 4]) == 3 + 2 + 1
    assert hypervolume([[1, 1, 1]], [2, 3, 4]) == 1 * 2 * 3
    assert hypervolume([[1, 1, 1], [1, 1, 1], [2, 2, 2], [NAN, 0, 0]], [2, 3, 4]) == 6
    assert hypervolume([[0, 4], [4, 0], [5, 1]], [4, 4]) == 0  # on the border or beyond it
    assert hypervolume(np.zeros((0, 2)), [1, 1]) == hypervolume([], [1, 1]) == 0
    assert hypervolume([[-INF, 1]], [2, 2]) == 0


def test_hypervolume_matches_counted_unit_boxes():
    points = np.random.default_rng(0).integers(0, 6, (8, 3))
    counted = sum(any((point <= corner).all() for point in points) for corner in itertools.product(range(6), repeat=3))
    assert hypervolume(points, [6, 6, 6]) == counted


@pytest.mark.parametrize("reference", [[1], [1, 2, 3], 1.0, [NAN, 1], [INF, 1], [[1, 1]]])
def test_hypervolume_refuses_a_reference_that_does_not_fit(reference):
    with pytest.raises(UserError, match="reference"):
        hypervolume([[0, 0]], reference)
    with pytest.raises(UserError, match="reference"):
        hypervolume_share([[0, 0]], reference)


def test_hypervolume_share_is_a_share():
    assert hypervolume_share([[0.5, 10], [0.25, 20]], [1, 40]) == 0.375 + 0.375 - 0.25
    assert hypervolume_share([[-1, -1]], [2, 2]) == 1
    assert hypervolume_share([[-INF, 0]], [2, 2]) == 0
    assert hypervolume_share([[0, 0]], [2, 0]) == 0  # no box, no share
    assert hypervolume_share([[0.5, 5e11]], [1, 1e12]) == 0.25
    with pytest.raises(UserError, match="at least 0"):
        hypervolume_share([[0, 0]], [1, -1])


def test_front_of_sorts_by_the_second_objective_and_keeps_labels():
    frame = frame_of(error=[0.1, 0.3, 0.2, 0.4], macs=[30, 10, 20, 40])
    front = front_of(frame, ("error", "macs"))
    assert front.index.tolist() == [1, 2, 0]
    assert front_of(frame, ("macs", "error")).index.tolist() == [0, 2, 1]
    assert front_of(frame, ["macs"]).index.tolist() == [1]


def test_front_of_keeps_one_of_equal_architectures_the_cheapest_found():
    frame = frame_of(
        error=[0.1, 0.1, 0.1, 0.2],
        macs=[10, 10, 10, 10],
        digest=["a", "a", "b", "a"],
        device_seconds=[9.0, 3.0, 5.0, 1.0],
    )
    assert front_of(frame, ("error", "macs")).index.tolist() == [1, 2]


def test_front_of_maximises_where_more_is_better():
    frame = frame_of(proxy_accuracy=[0.9, 0.8, 0.8], macs=[20, 10, 15])
    assert front_of(frame, ("proxy_accuracy", "macs")).index.tolist() == [1, 0]


def test_front_of_ignores_rows_not_finite_and_keeps_the_frame():
    frame = frame_of(error=[NAN, 0.5, 0.1], macs=[1, 10, INF])
    copy = frame.copy()
    assert front_of(frame, ("error", "macs")).index.tolist() == [1]
    pd.testing.assert_frame_equal(frame, copy)
    assert len(front_of(frame.iloc[:0], ("error", "macs"))) == 0


@pytest.mark.parametrize(
    ("name", "objectives"), [("speed", ("error", "speed")), ("seed", ("seed",)), ("hypervolume", ("hypervolume",))]
)
def test_front_of_refuses_objectives_unknown_or_without_better_side(name, objectives):
    with pytest.raises(UserError, match=f"objective: got '{name}'; allowed: one of error, macs") as caught:
        front_of(frame_of(error=[0.1], macs=[1], seed=[0]), objectives)
    assert "seed" not in caught.value.allowed
    with pytest.raises(UserError, match="at least one of error"):
        front_of(frame_of(error=[0.1]), [])


def test_knee_of_is_farthest_from_the_line_between_the_ends():
    frame = frame_of(error=[0.5, 0.4, 0.15, 0.1, 0.9], macs=[10, 30, 40, 110, 90])
    assert knee_of(frame) == 2
    assert knee_of(frame, ("macs", "error")) == 2


def test_knee_of_is_none_on_a_line_a_bulge_or_two_points():
    assert knee_of(frame_of(error=[0.3, 0.2, 0.1], macs=[1, 2, 3])) is None
    assert knee_of(frame_of(error=[0.4, 0.39, 0.1], macs=[1, 2, 3])) is None
    assert knee_of(frame_of(error=[0.3, 0.2], macs=[1, 2])) is None
    assert knee_of(frame_of(error=[0.3, 0.3, 0.3], macs=[1, 1, 1])) is None
    with pytest.raises(UserError, match="two of them"):
        knee_of(frame_of(error=[0.3]), ["error"])


def test_reference_point_is_all_wrong_and_the_densest():
    frame = frame_of(error=[0.1, 0.2, 0.3], macs=[10, 30, NAN], params=[7, 5, 6])
    assert reference_point(frame) == (1.0, 30.0, 7.0)
    with pytest.raises(UserError, match="no finite value"):
        reference_point(frame.iloc[:0])
    with pytest.raises(UserError, match="for accuracy take error"):
        reference_point(frame_of(proxy_accuracy=[0.1]), ["proxy_accuracy"])


def test_trial_hypervolumes_share_one_reference():
    frame = frame_of(
        error=[0.5, 0.25, 0.5],
        macs=[20, 40, 10],
        trial=["a", "a", "b"],
        seed=[0, 0, 1],
        kind=["pruned", "final", "pruned"],
        shrink_rate=0.1,
        kd_kind="none",
        kd_weight=1.0,
        kd_temperature=NAN,
    )
    table = trial_hypervolumes(frame, ("error", "macs"))
    assert table["trial"].tolist() == ["a", "b"]
    assert table["seed"].tolist() == [0, 1]
    assert table["finished"].tolist() == [True, False]
    assert table["hypervolume"].tolist() == [0.5 * 0.5, 0.5 * 0.75]  # of the box 1 x 40; (0.25, 40) is on its border
    assert table["setting"].tolist() == ["all trials"] * 2


def test_trial_hypervolumes_of_nothing(make_run):
    frame = load_runs(make_run(epochs=1)).iloc[:0]
    assert len(trial_hypervolumes(frame)) == 0


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 5])
def test_pareto_mask_weak_and_strict_agree_with_their_definitions(num_objectives):
    points = np.random.default_rng(num_objectives).integers(0, 4, (60, num_objectives)).astype(float)
    strict = [not any((q < p).all() for q in points) for p in points]
    assert pareto_mask(points, dominance="strict").tolist() == strict
    pareto = pareto_mask(points)
    first = [not any((q == p).all() for q in points[:i]) for i, p in enumerate(points)]
    assert pareto_mask(points, dominance="weak").tolist() == (pareto & first).tolist()
    assert (pareto <= np.array(strict)).all()


def test_pareto_mask_strict_ignores_what_is_not_finite():
    assert pareto_mask([[NAN, 0], [1, 1], [2, 1]], dominance="strict").tolist() == [False, True, True]
    with pytest.raises(UserError, match="pareto, weak or strict"):
        pareto_mask([[1, 1]], dominance="lax")


def test_front_of_foreign_points_needs_no_provenance():
    frame = pd.DataFrame({"error": [0.1, 0.1, 0.3], "macs": [5, 5, 9]})
    assert front_of(frame, ("error", "macs")).index.tolist() == [0]
    assert front_of(frame, ("error", "macs"), dominance="strict").index.tolist() == [0]


def test_front_of_one_point_and_of_all_equal_ones():
    assert front_of(frame_of(error=[0.1], macs=[1]), ("error", "macs")).index.tolist() == [0]
    equal = frame_of(error=[0.1] * 3, macs=[1] * 3)
    assert len(front_of(equal, ("error", "macs"))) == 3  # three architectures
    assert len(front_of(equal, ("error", "macs"), dominance="weak")) == 1


def test_reference_point_of_test_errors_is_all_wrong():
    assert reference_point(frame_of(test_error=[0.1, 0.2], macs=[1, 2]), ("test_error", "macs")) == (1.0, 2.0)
