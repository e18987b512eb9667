from __future__ import annotations

import pytest

from analysis.charts.hypervolume import _hypervolume_info, plot_hypervolume
from analysis.frame import load_runs
from analysis.pareto import trial_hypervolumes

TRIALS = tuple({"seed": seed, "shrink.rate": rate} for seed in (0, 1, 2) for rate in (0.1, 0.05))


@pytest.fixture
def frame(make_run):
    return load_runs(make_run(trials=TRIALS, epochs=4, states={5: {"state": "failed", "reason": "NaN"}}))


def test_hypervolume_info_shows_every_seed_and_the_mean(frame):
    info = _hypervolume_info(frame, ("error", "macs", "params"))
    values = trial_hypervolumes(frame)["hypervolume"].tolist()
    low, high = "Shrink rate 0.05", "Shrink rate 0.1"
    assert info.settings == (low, high)
    assert [(setting, value) for setting, value, _ in info.finished] == list(
        zip([high, low, high, low, high], values[:5], strict=True)
    )
    assert [(setting, value) for setting, value, _ in info.unfinished] == [(low, values[5])]
    assert [(setting, value) for setting, value, _ in info.means] == [
        (low, pytest.approx((values[1] + values[3]) / 2)),
        (high, pytest.approx((values[0] + values[2] + values[4]) / 3)),
    ]
    assert info.means[1][2].startswith("<b>Mean of 3 trials: ")
    assert info.finished[0][2] == f"<b>{values[0]:.4f}</b><br>demo / t0<br>Seed 0"


def test_hypervolume_info_states_its_reference(frame):
    densest = frame.loc[frame["macs"].idxmax()]
    reference = _hypervolume_info(frame, ("error", "macs", "params")).reference
    assert reference == ("Proxy error 100.00%", f"MACs {densest['macs']:,}", f"Parameters {densest['params']:,}")
    assert "Proxy error 100.00%" in plot_hypervolume(frame).layout.xaxis.title.text


def test_hypervolume_info_has_no_mean_of_one(make_run):
    info = _hypervolume_info(load_runs(make_run(epochs=2)), ("error", "macs"))
    assert info.means == ()
    assert info.settings == ("all trials",)


def test_plot_hypervolume_puts_the_first_setting_on_top(frame):
    figure = plot_hypervolume(frame)
    assert figure.layout.yaxis.categoryarray == ("Shrink rate 0.1", "Shrink rate 0.05")
    assert [trace.name for trace in figure.data] == ["finished trial", "unfinished trial (not in the mean)", "mean"]
    assert not plot_hypervolume(frame.iloc[:0]).data
