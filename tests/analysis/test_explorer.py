from __future__ import annotations

import math
from html import escape

import pytest

pytest.importorskip("anywidget", reason="live figures need the extra notebook")

from analysis.explorer import FrontExplorer
from analysis.frame import load_runs
from analysis.objectives import best_under
from analysis.pareto import front_of
from dnad_ray.errors import UserError


class Points:
    def __init__(self, *inds):
        self.point_inds = list(inds)


@pytest.fixture
def frame(make_run):
    frame = load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=5))
    return frame.set_axis([f"row {i}" for i in range(len(frame))])


def test_explorer_shows_two_networks_side_by_side(frame):
    explorer = FrontExplorer(frame)
    front = front_of(frame)
    assert explorer.chosen == {"left": front.index[0], "right": front.index[-1]}
    left, right = (pane.value for pane in explorer._panes.values())
    assert front["digest"].iloc[0] in left
    assert front["digest"].iloc[-1] in right
    assert left.count("<svg") > 3
    rings = explorer.figure.data[-2:]
    assert [ring.x[0] for ring in rings] == [front["macs"].iloc[0], front["macs"].iloc[-1]]
    assert explorer.widget.children
    # Messages to the browser are JSON, which has no NaN.
    states = [widget.get_state() for widget in explorer.widget.children[0].children]
    assert not [v for state in states for v in state.values() if isinstance(v, float) and math.isnan(v)]


def test_explorer_click_shows_the_row_under_the_pointer(frame):
    explorer = FrontExplorer(frame)
    trace = next(trace for trace in explorer.figure.data if trace.customdata is not None)
    explorer._target.value = "right"
    explorer._on_click(trace, Points(0), None)
    assert explorer.chosen["right"] == frame.index[trace.customdata[0]]


def test_explorer_brush_lists_the_front_of_the_box(frame):
    explorer = FrontExplorer(frame)
    assert explorer.brushed is frame
    trace = next(trace for trace in explorer.figure.data if trace.customdata is not None)
    explorer._on_selection(trace, Points(0, 1), None)
    assert sorted(explorer.brushed.index) == sorted(frame.index[[trace.customdata[0], trace.customdata[1]]])
    assert "2 rows in the box" in explorer._table.value


def test_explorer_budget_chooses_the_best_that_keeps_it(frame):
    explorer = FrontExplorer(frame)
    limit = float(frame["macs"].median())
    explorer._budgets["macs"].value = f" {limit / 1000}k "
    assert explorer.chosen["left"] == best_under(frame, {"macs": limit})
    explorer._budgets["macs"].value = ""
    assert explorer._answer.value == ""
    explorer._budgets["error"].value = "99%"
    assert explorer.chosen["left"] == best_under(frame, {"error": 0.99})
    explorer._budgets["macs"].value = "<few>"
    assert explorer._answer.value == escape(
        "budget: got 'macs=<few>'; allowed: NAME=NUMBER with k, M, G, % or ms behind it, commas between thousands "
        "only, for example macs=30M"
    )
    assert explorer.limit({"macs": 1.0}) is None
    assert explorer._answer.value.startswith("0 of")


def test_explorer_refuses_other_rows_and_sides_and_shows_nothing_of_nothing(frame):
    explorer = FrontExplorer(frame)
    with pytest.raises(UserError, match="left or right"):
        explorer.choose(frame.index[0], "middle")
    with pytest.raises(UserError, match="a label of the frame's index"):
        explorer.choose("row 99")
    assert FrontExplorer(frame.iloc[:0]).chosen == {"left": None, "right": None}
