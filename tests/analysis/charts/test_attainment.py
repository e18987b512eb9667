from __future__ import annotations

import pandas as pd
import pytest

from analysis.charts.attainment import _attainment_info, _steps, plot_attainment
from analysis.frame import load_runs
from dnad_ray.errors import UserError


def test_attainment_info_has_a_band_per_setting(make_run):
    trials = [{"seed": seed, "shrink.rate": rate} for rate in (0.05, 0.1) for seed in (0, 1, 2)]
    info = _attainment_info(load_runs(make_run(trials=trials)), ("error", "macs"))
    assert [(band.name, band.num_trials) for band in info.bands] == [("Shrink rate 0.05", 3), ("Shrink rate 0.1", 3)]
    for band in info.bands:
        assert band.best[0][0] <= band.median[0][0] <= band.worst[0][0]
        assert min(y for _, y in band.best) <= min(y for _, y in band.worst)
    figure = plot_attainment(load_runs(make_run("other", trials=trials)))
    assert len(figure.data) == 4  # a band and a line each


def test_attainment_of_one_trial_has_a_line_and_no_band(make_run):
    assert len(plot_attainment(load_runs(make_run())).data) == 1
    assert not plot_attainment(load_runs(make_run("other")).iloc[:0]).data


def test_steps_stay_until_the_next_corner_and_go_on_to_the_end():
    assert _steps(((1, 5), (3, 2)), 4) == [(1, 5), (3, 5), (3, 2), (4, 2)]


@pytest.mark.parametrize("objectives", [["error"], ["proxy_accuracy", "macs"], ["error", "macs", "params"]])
def test_attainment_refuses_other_objectives(objectives):
    frame = pd.DataFrame(
        {"error": [0.1], "proxy_accuracy": [0.9], "macs": [1], "params": [1], "run": "r", "trial": "t"}
    )
    with pytest.raises(UserError, match="two that are minimised"):
        plot_attainment(frame, objectives)
