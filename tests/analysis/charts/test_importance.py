from __future__ import annotations

import pytest

from analysis.charts.importance import _importance_info, plot_importance
from analysis.frame import load_runs
from analysis.pareto import OBJECTIVES


def test_importance_info_has_an_interval_per_varied_setting(make_run):
    trials = [
        {"seed": seed, "shrink.rate": r, "train.batch_size": b}
        for r in (0.05, 0.3)
        for b in (32, 64)
        for seed in (0, 1)
    ]
    frame = load_runs(make_run(trials=trials, epochs=4))
    info = _importance_info(frame, OBJECTIVES)
    assert info.num_trials == 8
    assert {label for label, *_ in info.entries} == {"Shrink rate", "train.batch_size"}
    assert info.entries[0][0] == "Shrink rate"  # the made-up numbers know no batch size
    assert info.entries[0][1] > info.entries[1][1]
    assert all(0 <= low <= share <= high <= 1 for _, share, low, high, _ in info.entries)
    (dots,) = plot_importance(frame).data
    ends = [share + above for share, above in zip(dots.x, dots.error_x.array, strict=True)]
    assert ends == pytest.approx([high for _, _, _, high, _ in info.entries])


def test_importance_of_one_setting_is_empty(make_run):
    assert not plot_importance(load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}]))).data
