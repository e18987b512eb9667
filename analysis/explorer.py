"""Interactive front for notebooks: click points, select boxes, type a budget, compare two networks.

Needs the extra ``notebook`` (``ipywidgets`` for the controls, ``anywidget`` for plotly's live figures); nothing else
of this package imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, final

import ipywidgets
import pandas as pd

from analysis.charts.architecture import draw_architecture
from analysis.charts.front import plot_front
from analysis.charts.template import INK
from analysis.charts.words import hover_of
from analysis.live_figure import LiveFigure
from analysis.objectives import OBJECTIVES, Objective, best_under, parse_budget, resolve, within
from analysis.pareto import front_of
from dnad_ray.errors import UserError
from dnad_ray.run_folder.reading import read_genotype

__all__ = ["FrontExplorer"]

_PLACES = ("left", "right")


@final
class FrontExplorer:
    """The front of a frame as a live figure with controls; the last expression of a cell shows it.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: As for :func:`analysis.charts.front.plot_front`.

    Attributes:
        figure: The live figure: clicks choose a network, box and lasso brush.
        brushed: The rows in the newest box or lasso; all of them before there was one.
        chosen: Labels of the rows shown left and right, or None.
    """

    def __init__(self, frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> None:
        self._frame = frame
        self._objectives = resolve(frame, objectives)
        self.brushed = frame
        self.chosen: dict[str, Any] = dict.fromkeys(_PLACES)
        self.figure = LiveFigure(plot_front(frame, objectives))
        self.figure.update_layout(dragmode="select", autosize=True)
        # Rings are drawn last: one per place.
        for place, symbol in zip(_PLACES, ("circle-open", "square-open"), strict=True):
            marker = {"size": 20, "symbol": symbol, "color": INK, "line": {"width": 2.5}}
            self.figure.add_scatter(x=[], y=[], mode="markers", marker=marker, name=place, hoverinfo="skip")
        for trace in self.figure.data:
            if trace.customdata is not None:
                trace.on_click(self._on_click)
                trace.on_selection(self._on_selection)
        # By default, buttons are below one another and have a fixed width that cuts words off.
        self._target = ipywidgets.ToggleButtons(
            options=list(_PLACES), description="Click shows", style={"button_width": "5em"}
        )
        self._budgets = {
            entry.name: ipywidgets.Text(
                placeholder="5%" if entry.format.endswith("%") else "1.5M",
                description=f"{entry.label} at most",
                continuous_update=False,
                style={"description_width": "initial"},
                layout={"width": "16em"},
            )
            for entry in self._objectives
            if entry.minimise
        }
        self._answer = ipywidgets.HTML()
        self._table = ipywidgets.HTML()
        self._panes = {place: ipywidgets.HTML() for place in _PLACES}
        for field in self._budgets.values():
            field.observe(self._on_budget, names="value")
        front = front_of(frame, objectives)
        if len(front):
            self.choose(front.index[0], "left")
            self.choose(front.index[-1], "right")
        self.figure.connect()

    @property
    def widget(self) -> ipywidgets.Widget:
        """All controls and panes as one widget."""
        controls = ipywidgets.HBox([self._target, *self._budgets.values()], layout={"flex_flow": "row wrap"})
        panes = ipywidgets.HBox(list(self._panes.values()))
        return ipywidgets.VBox([controls, self._answer, self.figure, panes, self._table])

    def choose(self, label: Any, place: str = "left") -> None:
        """Show the network of a row on one side.

        Raises:
            UserError: If there is no such row or side.
        """
        if place not in _PLACES:
            raise UserError("place", place, " or ".join(_PLACES))
        if label not in self._frame.index:
            raise UserError("row", label, "a label of the frame's index")
        self.chosen[place] = label
        row = self._frame.loc[label]
        y, x = (entry.name for entry in self._objectives[:2])
        ring = self.figure.data[len(self.figure.data) - len(_PLACES) + _PLACES.index(place)]
        with self.figure.batch_update():
            ring.x, ring.y = (float(row[x]),), (float(row[y]),)
        self._panes[place].value = f"<h4>{place}</h4><p>{hover_of(row.to_dict())}</p>{self._drawing(row)}"

    def limit(self, budgets: Mapping[str, float]) -> Any:
        """Show the best row within the budgets on the left; returns its label, or None if no row fits."""
        objective = self._objectives[0]
        label = best_under(self._frame, dict(budgets), objective)
        kept = len(within(self._frame, dict(budgets)))
        self._answer.value = f"{kept} of {len(self._frame)} rows keep the budget."
        if label is not None:
            self.choose(label, "left")
        return label

    def brush(self, positions: Sequence[int]) -> pd.DataFrame:
        """Set the brushed rows by their positions in the frame, and show their front as a table."""
        self.brushed = self._frame.iloc[sorted(set(positions))]
        names = [
            *(entry.name for entry in self._objectives),
            *(n for n in ("run", "trial", "digest") if n in self._frame),
        ]
        front = front_of(self.brushed, self._objectives)
        words = f"<p>{len(self.brushed)} rows in the box, {len(front)} of them on its front.</p>"
        self._table.value = words + str(front[names].to_html(max_rows=20, escape=True))
        return self.brushed

    def _drawing(self, row: pd.Series[Any]) -> str:
        if "run_path" not in row:
            return ""
        try:
            return draw_architecture(read_genotype(str(row["run_path"]), str(row["digest"]))).html
        except UserError as error:
            return f"<p>{escape(str(error))}</p>"

    def _on_click(self, trace: Any, points: Any, _: Any) -> None:
        for index in points.point_inds[:1]:
            self.choose(self._frame.index[int(trace.customdata[index])], str(self._target.value))

    def _on_selection(self, trace: Any, points: Any, _: Any) -> None:
        # Each trace sends its own selection; the selections are combined.
        positions = [
            int(other.customdata[index])
            for other in self.figure.data
            if other.customdata is not None
            for index in (points.point_inds if other is trace else other.selectedpoints or ())
        ]
        self.brush(positions)

    def _on_budget(self, _: Any) -> None:
        try:
            typed = {name: field.value.strip() for name, field in self._budgets.items()}
            budgets = dict(parse_budget(f"{name}={text}") for name, text in typed.items() if text)
        except UserError as error:
            self._answer.value = escape(str(error))
            return
        if budgets:
            self.limit(budgets)
        else:
            self._answer.value = ""
