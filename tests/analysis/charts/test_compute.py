from __future__ import annotations

import pytest

from analysis.charts.compute import _compute_info, plot_compute
from analysis.frame import load_runs
from analysis.pareto import hypervolume_share, reference_point, trial_hypervolumes


def test_compute_info_ends_at_the_hypervolume_of_the_trial_and_never_falls(make_run):
    frame = load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=5))
    info = _compute_info(frame, ("error", "macs", "params"))
    assert [rise.label for rise in info.rises] == ["demo / t0", "demo / t1"]
    for rise, volume in zip(info.rises, trial_hypervolumes(frame)["hypervolume"], strict=True):
        assert rise.volumes[-1] == pytest.approx(volume)
        assert list(rise.volumes) == sorted(rise.volumes)
        assert list(rise.seconds) == sorted(rise.seconds)
    assert info.reference[0] == "Proxy error 100.00%"


def test_compute_info_passes_over_what_is_not_finite(make_run):
    frame = load_runs(make_run(epochs=3))
    frame.loc[1, "error"] = float("nan")
    volumes = _compute_info(frame, ("error", "macs")).rises[0].volumes
    assert volumes[1] == volumes[0]
    assert not plot_compute(frame.iloc[:0]).data


def test_compute_info_draws_sixty_steps_of_a_long_trial_each_with_all_before_it(make_run):
    numbers = range(200)
    frame = load_runs(make_run(epochs=3)).iloc[[0] * 200]
    frame = frame.assign(step=numbers, device_seconds=numbers, macs=[400 - n for n in numbers], error=0.5)
    frame["error"] += [(n % 7) / 100 for n in numbers]
    (rise,) = _compute_info(frame, ("error", "macs")).rises
    assert (len(rise.seconds), rise.seconds[0], rise.seconds[-1]) == (60, 0, 199)
    corner = reference_point(frame, ("error", "macs"))
    points = frame[["error", "macs"]].to_numpy(dtype=float)
    expected = [hypervolume_share(points[: int(seconds) + 1], corner) for seconds in rise.seconds]
    assert list(rise.volumes) == pytest.approx(expected)
