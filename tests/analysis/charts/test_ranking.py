from __future__ import annotations

import pandas as pd
import pytest

from analysis.charts.ranking import _ranking_info, plot_ranking
from dnad_ray.errors import UserError


def test_ranking_info_compares_what_has_both():
    networks = pd.DataFrame({"proxy_accuracy": [0.8, 0.9, None, 0.7], "accuracy": [0.9, 0.95, 0.99, 0.91]})
    info = _ranking_info(networks)
    assert [dot[:2] for dot in info.dots] == [(0.8, 0.9), (0.9, 0.95), (0.7, 0.91)]
    assert info.correlation.num_networks == 3
    assert info.correlation.kendall == pytest.approx(1 / 3, abs=1e-4)
    assert "tau 0.33" in plot_ranking(networks).data[0].name


def test_ranking_refuses_other_columns_and_several_protocols():
    with pytest.raises(UserError, match="no column accuracy"):
        plot_ranking(pd.DataFrame({"proxy_accuracy": [1]}))
    mixed = pd.DataFrame({"proxy_accuracy": [0.8, 0.9], "accuracy": [0.9, 0.95], "protocol": ["a", "b"]})
    with pytest.raises(UserError, match="protocols a, b"):
        plot_ranking(mixed)
    empty = plot_ranking(mixed.iloc[:0])
    assert not empty.data
    assert empty.layout.xaxis.range == empty.layout.yaxis.range == (0, 1)  # axes of shares all the same
