"""What an epoch's report keeps of the architecture weights."""

from __future__ import annotations

import pytest

from dnad_ray.run_folder.records import EpochReport
from dnad_ray.search.loop import SearchState, search


@pytest.fixture(scope="module")
def whole(tiny, digits):
    """The usual tiny search: its events and its end."""
    state = SearchState.start(tiny(), digits, None, run="r", trial="t")
    return list(search(state)), state


def test_search_reports_architecture_weights_that_fill_each_cell(whole):
    events, state = whole
    reports = [event.operation_weights for event in events if isinstance(event, EpochReport)]
    for weights in reports:
        for cell in zip(*weights.values(), strict=True):
            assert sum(cell) == pytest.approx(1, abs=0.001)  # a node's weights sum to 1, and so does their mean
    # The last report is of the state at the end: the weight of an operation in a cell, node by node.
    current = state.relaxation.weights().tolist()
    names = sorted({item.edge.operation for item in state.supernet.candidates})
    assert sorted(reports[-1]) == names
    nodes = {item.node for item in state.supernet.candidates if item.cell == 0}
    pairs = zip(state.supernet.candidates, current, strict=True)
    mine = sum(weight for item, weight in pairs if item.cell == 0 and item.edge.operation == names[0])
    assert reports[-1][names[0]][0] == pytest.approx(mine / len(nodes), abs=1e-3)
