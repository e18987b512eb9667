from __future__ import annotations

import pytest

from analysis.charts.front import plot_front
from analysis.published import published_figures
from dnad_ray.errors import UserError


def test_published_figures_are_shares_and_counts_with_their_source():
    table = published_figures("imagenet").set_index("name")
    assert table.at["DNAD", "test_error"] == pytest.approx(0.237)
    assert (table.at["DNAD", "params"], table.at["DNAD", "macs"]) == (6.0e6, 598e6)
    assert table["source"].str.contains("arXiv").all()
    with pytest.raises(UserError, match="cifar10 or imagenet"):
        published_figures("digits")


def test_published_figures_are_drawn_as_an_overlay_and_count_for_nothing():
    import pandas as pd

    ours = pd.DataFrame({"test_error": [0.05, 0.04], "params": [1e6, 2e6]})
    figure = plot_front(ours, ("test_error", "params"), overlay=published_figures("cifar10"))
    stars = [trace for trace in figure.data if trace.name == "published, by other training"]
    assert len(stars) == 1
    assert len(stars[0].x) == 7
    line = next(trace for trace in figure.data if trace.name == "front")
    assert list(line.x) == [1e6, 2e6]
    with pytest.raises(UserError, match="no column macs"):
        plot_front(
            ours.assign(macs=1), ("test_error", "macs"), overlay=pd.DataFrame({"name": ["x"], "test_error": [0.1]})
        )
