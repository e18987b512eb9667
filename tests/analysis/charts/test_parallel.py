from __future__ import annotations

import pandas as pd
import pytest

from analysis.charts.parallel import _parallel_info, plot_parallel
from dnad_ray.errors import UserError


@pytest.fixture
def frame():
    return pd.DataFrame(
        {"error": [0.1, 0.2, 0.4, 0.5], "proxy_accuracy": [0.9, 0.8, 0.6, 0.5], "macs": [40, 30, 20, 50]},
        index=list("abcd"),
    )


def test_parallel_info_puts_the_best_of_each_axis_at_the_top(frame):
    info = _parallel_info(frame, ("error", "macs"))
    assert info.rows == (2, 1, 0)  # cheapest first; the fourth is dominated
    assert info.ends == ((0.1, 0.4), (20.0, 40.0))
    assert [tuple(round(height, 3) for height in row) for row in info.heights] == [(0, 1), (0.667, 0.5), (1, 0)]
    assert [group.name for group in info.groups] == ["Proxy error 10.00%", "Proxy error 20.00%", "Proxy error 40.00%"]


def test_parallel_info_maximised_axis_is_upside_down(frame):
    info = _parallel_info(frame, ("proxy_accuracy", "macs"))
    assert info.ends[0] == (0.9, 0.6)


def test_plot_parallel_of_one_point_of_nothing_and_of_one_axis(frame):
    assert len(plot_parallel(frame.iloc[:1], ("error", "macs")).data) == 1
    assert not plot_parallel(frame.iloc[:0], ("error", "macs")).data
    with pytest.raises(UserError, match="at least two"):
        plot_parallel(frame, ["error"])


def test_plot_parallel_markers_know_their_row(frame):
    rows = [
        row for trace in plot_parallel(frame, ("error", "macs")).data for row in trace.customdata if row is not None
    ]
    assert sorted(set(rows)) == [0, 1, 2]
