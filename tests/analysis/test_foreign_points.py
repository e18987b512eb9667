"""Points of others beside our snapshots lack seeds, kinds, compute and settings: a chart, or words."""

from __future__ import annotations

import contextlib
import math

import pandas as pd
import pytest

import analysis
from analysis import (
    architectures,
    attainment_surfaces,
    contributions,
    from_frame,
    front_of,
    importance_of,
    load_runs,
    plot_compute,
    plot_hypervolume,
    plot_importance,
    plot_paths,
    setting_of,
    trial_hypervolumes,
    trial_results,
)
from dnad_ray.errors import UserError

RATES = [{"seed": seed, "shrink.rate": rate} for seed in (0, 1) for rate in (0.05, 0.1)]
OF_FRAMES = (
    *("attainment", "compute", "front", "front_3d", "hypervolume", "importance", "parallel", "paths", "response"),
    "ranking",
)


@pytest.fixture
def ours(make_run):
    return load_runs(make_run(trials=RATES))


@pytest.fixture
def theirs():
    numbers = {"proxy_accuracy": [0.8, 0.9], "macs": [2e6, 3e6], "params": [1e5, 2e5]}
    return from_frame(pd.DataFrame(numbers), origin="theirs")


@pytest.mark.parametrize("name", OF_FRAMES)
def test_every_chart_draws_foreign_points_or_refuses_them_in_words(name, ours, theirs):
    frames = {
        "both": pd.concat([ours, theirs], ignore_index=True),
        "labels twice": pd.concat([ours, theirs]),
        "theirs": theirs,
        "bare": pd.DataFrame({"error": [0.2, math.inf], "macs": [1.0, 2.0], "params": [1.0, math.nan]}),
        "nothing": ours.iloc[:0],
    }
    for which, frame in frames.items():
        copy = frame.copy()
        lacks_columns = which in ("theirs", "bare") or name == "ranking"
        with contextlib.suppress(*[UserError] * lacks_columns):
            getattr(analysis, f"plot_{name}")(frame)
        pd.testing.assert_frame_equal(frame, copy, obj=which)


def test_hypervolume_of_foreign_points_is_one_finished_trial_without_a_seed(ours, theirs):
    alone, both = trial_hypervolumes(ours), trial_hypervolumes(pd.concat([ours, theirs]))
    assert alone["seed"].tolist() == [0, 0, 1, 1]
    assert both["run"].tolist() == ["demo"] * 4 + ["theirs"]
    assert both["seed"].tolist()[:4] == [0, 0, 1, 1]
    assert pd.isna(both["seed"].iloc[4])
    assert both["finished"].all()
    # By hand: the corner is error 1, 3e6 MACs and 2e5 parameters. The second point lies on two of its sides, and the
    # first dominates 0.8 x 1/3 x 1/2 of the box.
    assert trial_hypervolumes(theirs)["hypervolume"].tolist() == pytest.approx([0.8 / 6])
    hovers = [hover for trace in plot_hypervolume(theirs).data for hover in trace.hovertext or ()]
    assert len(hovers) == 1
    assert hovers[0].endswith("Seed -")


def test_importance_takes_foreign_points_for_no_setting(ours, theirs):
    both = pd.concat([ours, theirs])
    names = ["setting", "groups", "trials"]
    alone = importance_of(trial_results(ours).assign(hypervolume=[1.0, 3.0, 1.0, 3.0]))
    mixed = importance_of(trial_results(both).assign(hypervolume=[1.0, 3.0, 1.0, 3.0, 9.0]))
    assert alone[[*names, "importance"]].to_dict("records") == mixed[[*names, "importance"]].to_dict("records")
    assert alone[names].values.tolist() == [["shrink_rate", 2, 4]]
    assert len(plot_importance(theirs).data) == 0


def test_importance_of_a_setting_with_many_ties():
    values = [1.0] * 30 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]  # most quantiles are the same number
    table = importance_of(pd.DataFrame({"shrink_rate": values, "hypervolume": [value / 10 for value in values]}))
    assert table["groups"].tolist() == [2]
    assert 0 < table["importance"].iloc[0] < 1


def test_compute_and_paths_leave_out_points_that_no_search_recorded(ours, theirs):
    both = pd.concat([ours, theirs])
    for chart in (plot_compute, plot_paths):
        lines = [[[*trace.x] for trace in chart(frame).data if [*trace.x] != [None]] for frame in (ours, both)]
        assert lines[0] == lines[1]
    with pytest.raises(UserError, match="no column device_seconds"):
        plot_compute(theirs)
    with pytest.raises(UserError, match="no column kind"):
        plot_paths(theirs)


def test_labels_that_are_there_twice_change_no_number(ours):
    other = ours.assign(run="other", error=ours["error"] * 0.9)
    twice, once = pd.concat([ours, other]), pd.concat([ours, other], ignore_index=True)
    assert twice.index.duplicated().any()
    assert setting_of(twice).tolist() == setting_of(once).tolist()
    for function in (trial_hypervolumes, contributions, attainment_surfaces):
        pd.testing.assert_frame_equal(function(twice), function(once))
    for function in (front_of, architectures):
        pd.testing.assert_frame_equal(function(twice).reset_index(drop=True), function(once).reset_index(drop=True))
    assert architectures(twice).index.tolist() == [twice.index[label] for label in architectures(once).index]


def test_rows_without_run_and_trial_are_one_setting_beside_ours(ours):
    both = pd.concat([ours, pd.DataFrame({"error": [0.1, 0.2], "macs": [1.0, 2.0], "params": [1.0, 2.0]})])
    assert setting_of(both).tolist()[-2:] == ["points", "points"]
    assert trial_hypervolumes(both)["trial"].tolist() == ["t0", "t1", "t2", "t3", "all"]
