from __future__ import annotations

import pytest

import analysis.charts.front_3d
from analysis.charts.front_3d import _space_info, plot_front_3d
from analysis.frame import load_runs
from analysis.pareto import OBJECTIVES, front_of
from dnad_ray.errors import UserError


def test_space_info_has_the_first_objective_upward(make_run):
    frame = load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=5))
    info = _space_info(frame, OBJECTIVES)
    assert [entry.name for entry in info.axes] == ["macs", "params", "error"]
    assert info.log == (True, True, False)
    front = front_of(frame)
    assert info.rows == tuple(front.index)
    assert info.front[0] == (front["macs"].iloc[0], front["params"].iloc[0], front["error"].iloc[0])
    assert len(info.dominated) == len(frame) - len(front)


def test_space_info_says_what_is_left_out(make_run, monkeypatch):
    frame = load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=5))
    monkeypatch.setattr(analysis.charts.front_3d, "_MOST_DOMINATED", 2)
    info = _space_info(frame, OBJECTIVES)
    assert len(info.dominated) <= 2
    assert info.num_left_out == len(frame) - len(info.front) - len(info.dominated)
    assert any("more are not drawn" in trace.name for trace in plot_front_3d(frame).data)


def test_plot_front_3d_refuses_two_and_draws_nothing_of_nothing(make_run):
    frame = load_runs(make_run())
    with pytest.raises(UserError, match="three of them"):
        plot_front_3d(frame, ("error", "macs"))
    assert not plot_front_3d(frame.iloc[:0]).data
