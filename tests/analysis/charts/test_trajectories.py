from __future__ import annotations

import shutil

import pytest

from analysis.charts.template import COLOURS, FAINT
from analysis.charts.trajectories import _paths_info, _shrinking_info, plot_paths, plot_shrinking
from analysis.frame import load_history, load_runs

TRIALS = ({"seed": 0, "shrink.rate": 0.1}, {"seed": 0, "shrink.rate": 0.05}, {"seed": 1, "shrink.rate": 0.1})


@pytest.fixture
def folder(make_run):
    return make_run(trials=TRIALS, epochs=3)


def test_shrinking_info_is_a_line_per_trial(folder):
    history = load_history(folder)
    info = _shrinking_info(history, load_runs(folder))
    assert (info.x.name, info.y.name, info.steps, info.log_x) == ("epoch", "num_operations", True, False)
    assert [trial.setting for trial in info.trials] == ["Shrink rate 0.1", "Shrink rate 0.05", "Shrink rate 0.1"]
    assert [trial.colour for trial in info.trials] == [COLOURS[1], COLOURS[0], COLOURS[1]]
    assert [trial.x for trial in info.trials] == [(1, 2, 3)] * 3
    assert info.trials[0].y == tuple(history["num_operations"][:3])
    assert info.trials[0].y[0] == 81
    assert info.trials[0].hovers[0] == "demo / t0<br>Epoch 1: 81 operations, training loss 2.3000"


def test_shrinking_info_of_many_epochs_says_the_trial_alone(folder, monkeypatch):
    monkeypatch.setattr("analysis.charts.trajectories.MOST_MARKERS", 8)  # of nine epochs
    info = _shrinking_info(load_history(folder), load_runs(folder))
    assert [trial.hovers for trial in info.trials] == [(f"demo / t{number}",) * 3 for number in range(3)]


def test_shrinking_info_trial_without_snapshot_is_drawn_faintly(folder):
    shutil.rmtree(folder / "trials" / "t1" / "snapshots")
    info = _shrinking_info(load_history(folder), load_runs(folder))
    assert [trial.setting for trial in info.trials] == ["all trials", "no snapshot yet", "all trials"]
    assert info.colours == {"all trials": COLOURS[0], "no snapshot yet": FAINT}


def test_paths_info_goes_through_the_snapshots_in_order(folder):
    frame = load_runs(folder)
    info = _paths_info(frame)
    assert (info.x.name, info.y.name, info.steps, info.log_x) == ("macs", "error", False, True)
    assert info.trials[2].x == tuple(frame["macs"][6:])
    assert info.trials[2].y == tuple(frame["error"][6:])
    assert info.trials[2].hovers[0].startswith("<b>Proxy error")


def test_figures_have_a_legend_entry_per_setting(folder):
    frame = load_runs(folder)
    for figure in (plot_paths(frame), plot_shrinking(load_history(folder), frame)):
        legend = [trace.name for trace in figure.data if trace.showlegend is not False]
        assert legend == ["Shrink rate 0.05", "Shrink rate 0.1"]
        lines = [trace for trace in figure.data if [*trace.x] != [None]]
        assert [sum(x is None for x in trace.x) for trace in lines] == [0, 1]  # one trial, and two with a gap between


def test_figures_of_nothing_are_empty(folder):
    frame = load_runs(folder).iloc[:0]
    assert not plot_paths(frame).data
    assert not plot_shrinking(load_history(folder).iloc[:0], frame).data
