from __future__ import annotations

import pytest

from analysis.charts.operations import _operations_info, plot_operations
from dnad_ray.errors import UserError


def test_operations_info_counts_edges_by_cell(dense):
    info = _operations_info([dense(3, 1), dense(3, 2)])
    assert info.cells == ("0", "1 r", "2 r")
    assert [part.title for part in info.parts] == ["all networks (2 networks)"]
    # One node has 2 earlier states, the second 3: 2 and 5 edges of each operation in every cell.
    assert info.parts[0].counts == ((3.5, 3.5, 3.5),) * 3
    assert set(info.operations) == {"sep_conv_3x3", "dil_conv_5x5", "skip_connect"}


def test_operations_info_cuts_a_front_into_thirds(dense):
    info = _operations_info({str(index): dense(3, nodes) for index, nodes in enumerate((1, 1, 2, 2, 3))})
    assert [part.title for part in info.parts] == [
        *("cheapest third (1 network)", "middle third (3 networks)", "costliest third (1 network)"),
    ]
    assert [part.counts[0][0] for part in info.parts] == [2.0, 4.0, 9.0]


def test_operations_refuse_networks_of_other_depths(dense):
    with pytest.raises(UserError, match="networks of 2, 3 cells"):
        plot_operations([dense(2), dense(3)])
    assert not plot_operations([]).data
