from __future__ import annotations

import pytest

from analysis.charts.response import _response_info, plot_response, trial_results
from analysis.frame import load_runs
from analysis.pareto import OBJECTIVES
from dnad_ray.errors import UserError

TRIALS = [
    {"seed": seed, "distill.kind": "logits", "distill.temperature": t, "distill.weight": w, "shrink.rate": r}
    for r in (0.05, 0.1)
    for t in (1.0, 8.0)
    for w in (0.5, 1.0)
    for seed in (0, 1)
]


@pytest.fixture
def frame(make_run):
    return load_runs(make_run(trials=TRIALS, epochs=2, states={0: {"state": "failed"}}))


def test_response_info_has_panels_lines_and_seeds(frame):
    info = _response_info(frame, "kd_temperature", "kd_weight", "shrink_rate", OBJECTIVES)
    assert [panel.title for panel in info.panels] == ["Shrink rate 0.05", "Shrink rate 0.1"]
    assert [curve.name for curve in info.panels[0].curves] == ["KD weight 0.5", "KD weight 1"]
    assert info.log_x
    first, full = info.panels[0].curves[0], info.panels[1].curves[0]
    assert len(first.seeds) == 3  # one trial failed
    assert full.x == (1.0, 8.0)
    trials = trial_results(frame)
    mine = trials[(trials["kd_weight"] == 0.5) & (trials["shrink_rate"] == 0.1) & (trials["kd_temperature"] == 8)]
    assert full.mean[1] == pytest.approx(mine["hypervolume"].mean())
    assert (full.low[1], full.high[1]) == (mine["hypervolume"].min(), mine["hypervolume"].max())


def test_response_joins_no_single_trials(make_run):
    trials = [{**trial, "seed": 0} for trial in TRIALS if trial["seed"] == 0]
    info = _response_info(
        load_runs(make_run(trials=trials, epochs=2)), "kd_temperature", "kd_weight", "shrink_rate", OBJECTIVES
    )
    for curve in (curve for panel in info.panels for curve in panel.curves):
        assert len(curve.seeds) == 2
        assert curve.x == curve.mean == ()


def test_response_draws_all_panels_on_one_axis_from_zero(frame):
    layout = plot_response(frame).layout
    assert [axis.rangemode for axis in (layout.yaxis, layout.yaxis2)] == ["tozero", "tozero"]
    assert layout.yaxis2.matches == "y"
    modes = {trace.mode for trace in plot_response(frame).data if trace.showlegend is False}
    assert modes == {"lines", "markers"}


def test_response_refuses_in_words(frame):
    with pytest.raises(UserError, match="got 'colour'"):
        plot_response(frame, panel="colour")
    with pytest.raises(UserError, match="numbers, for the horizontal axis"):
        plot_response(frame, x="kd_kind")
    with pytest.raises(UserError, match="at most 6"):
        plot_response(frame.assign(step=range(len(frame))), panel="step")


def test_response_without_finished_trials_is_empty(frame):
    names = {trace.name for trace in plot_response(frame[frame["kind"] != "final"]).data}
    assert names == set()
