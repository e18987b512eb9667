"""Chart: hypervolume against KD temperature, with a line per KD weight and a panel per shrink rate.

All panels have one vertical axis that begins at zero, and a line joins means of several trials only: on an axis cut to
the data, a line through two single trials looks like an effect, whatever the seeds alone do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.charts.template import TEMPLATE, axis, colours_of, faded, height_for, text_of
from analysis.charts.words import shown
from analysis.objectives import OBJECTIVES, Objective
from analysis.pareto import trial_hypervolumes
from analysis.trials import run_and_trial
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import METRICS, Metric, metric

__all__ = ["plot_response", "trial_results"]

_MOST_PANELS = 6


class _Curve(NamedTuple):
    """One line of a panel: the mean and the span where there are several seeds, and the seeds themselves."""

    name: str
    colour: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: tuple[tuple[float, float, str], ...]


class _Panel(NamedTuple):
    """One value of what panels tell apart."""

    title: str
    curves: tuple[_Curve, ...]


class _ResponseInfo(NamedTuple):
    """The data of the chart."""

    height: int
    x: Metric
    y: Metric
    log_x: bool
    panels: tuple[_Panel, ...]
    colours: dict[str, str]


def plot_response(
    frame: pd.DataFrame,
    x: str = "kd_temperature",
    line: str = "kd_weight",
    panel: str = "shrink_rate",
    objectives: Sequence[Objective] = OBJECTIVES,
) -> go.Figure:
    """Draw the hypervolume of trials against what a sweep varied, with bands from the worst seed to the best.

    A trial is a dot. Where there are several seeds, a line joins the means and the band is their span; a single trial
    joins no line.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them. Trials that lack a number for ``x`` (those
            without imitation have no KD temperature) are left out; unfinished ones too.
        x: Column along the horizontal axis; numbers.
        line: Column that lines tell apart.
        panel: Column that panels tell apart.
        objectives: Columns that are minimised, for the hypervolume.

    Raises:
        UserError: If a column is missing, ``x`` holds text, or there are more than 6 panels.
    """
    return _figure(_response_info(frame, x, line, panel, objectives))


def trial_results(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> pd.DataFrame:
    """Return one row per trial: what it began with, and the hypervolume of its front.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: Columns that are minimised.

    Returns:
        The columns of :func:`analysis.pareto.trial_hypervolumes` and of the trial's first snapshot.
    """
    table = trial_hypervolumes(frame, objectives)
    first = frame[~run_and_trial(frame).duplicated().to_numpy()]
    first = first.drop(columns=["run", "trial", "seed"], errors="ignore").assign(**run_and_trial(first))
    result: pd.DataFrame = table.merge(first, on=["run", "trial"], how="left", sort=False)
    return result


def _response_info(
    frame: pd.DataFrame, x: str, line: str, panel: str, objectives: Sequence[Objective]
) -> _ResponseInfo:
    for name in (x, line, panel):
        if name not in frame:
            raise UserError("column", name, "a column of the frame, for example kd_temperature")
    if not pd.api.types.is_numeric_dtype(frame[x].dtype):
        raise UserError(f"column {x}", "text", "numbers, for the horizontal axis")
    trials = trial_results(frame, objectives)
    trials = trials[trials["finished"] & trials[x].notna()]
    panels = sorted(trials[panel].dropna().unique(), key=_order)
    if len(panels) > _MOST_PANELS:
        raise UserError("panel", f"{len(panels)} values of {panel}", f"a column with at most {_MOST_PANELS} of them")
    colours = colours_of([_value(line, value) for value in sorted(trials[line].dropna().unique(), key=_order)])
    return _ResponseInfo(
        height=height_for(80 + 300 * max(1, len(panels)), colours),
        x=metric(x),
        y=METRICS["hypervolume"],
        log_x=bool(len(trials)) and bool((trials[x] > 0).all()) and trials[x].max() >= 8 * trials[x].min(),
        panels=tuple(
            _Panel(_value(panel, value), _curves(trials[trials[panel] == value], x, line, colours)) for value in panels
        ),
        colours=colours,
    )


def _curves(trials: pd.DataFrame, x: str, line: str, colours: dict[str, str]) -> tuple[_Curve, ...]:
    curves = []
    for value, part in trials.groupby(line, sort=True):
        spans = part.groupby(x, sort=True)["hypervolume"].agg(["mean", "min", "max", "size"])
        spans = spans[spans["size"] > 1]
        seeds = tuple(
            (
                float(row[x]),
                float(row["hypervolume"]),
                f"<b>{shown('hypervolume', row['hypervolume'])}</b><br>{text_of(row['run'])} / {text_of(row['trial'])}"
                f"<br>Seed {shown('seed', row['seed'])}",
            )
            for row in part.to_dict("records")
        )
        name = _value(line, value)
        mean, low, high = (tuple(map(float, spans[column])) for column in ("mean", "min", "max"))
        curves.append(_Curve(name, colours[name], tuple(map(float, spans.index)), mean, low, high, seeds))
    return tuple(curves)


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value  # a setting may be a number in one run and text in another


def _value(name: str, value: Any) -> str:
    return f"{metric(name).label.removeprefix('config.')} {value if isinstance(value, str) else shown(name, value)}"


def _figure(info: _ResponseInfo) -> go.Figure:
    titles = [text_of(panel.title) for panel in info.panels]
    # One below the other: side by side they would be too narrow for a phone.
    figure = make_subplots(
        rows=max(1, len(info.panels)), shared_xaxes=True, vertical_spacing=0.09, subplot_titles=titles or None
    )
    figure.update_layout(template=TEMPLATE, height=info.height, margin={"t": 64})
    figure.update_annotations(font={"size": 14})
    for row, panel in enumerate(info.panels, 1):
        for curve in panel.curves:
            _draw(figure, curve, row)
    for name, colour in info.colours.items():
        figure.add_scatter(
            x=[None], y=[None], mode="lines+markers", name=text_of(name), legendgroup=text_of(name),
            line={"color": colour, "width": 2}, showlegend=True, row=1, col=1,
        )  # fmt: skip
    share = axis(info.y) | {"title": {"text": info.y.label}, "rangemode": "tozero", "matches": "y"}
    figure.update_yaxes(share)
    below = axis(info.x) | ({"type": "log", "tickmode": "array"} if info.log_x else {})
    if info.log_x:
        values = sorted({value for panel in info.panels for curve in panel.curves for value, _, _ in curve.seeds})
        below |= {"tickvals": values, "ticktext": [format(value, "g") for value in values]}
    for row in range(1, len(info.panels) + 1):
        figure.update_xaxes(
            below if row == len(info.panels) else {k: v for k, v in below.items() if k != "title"}, row=row
        )
    return figure


def _draw(figure: go.Figure, curve: _Curve, row: int) -> None:
    group = text_of(curve.name)
    common: dict[str, Any] = {"legendgroup": group, "showlegend": False, "row": row, "col": 1}
    if curve.x:
        figure.add_scatter(
            x=[*curve.x, *reversed(curve.x)], y=[*curve.high, *reversed(curve.low)], mode="lines", fill="toself",
            fillcolor=faded(curve.colour, 0.15), line={"width": 0}, hoverinfo="skip", **common,
        )  # fmt: skip
        figure.add_scatter(
            x=curve.x, y=curve.mean, mode="lines", line={"color": curve.colour, "width": 2}, hoverinfo="skip", **common
        )
    figure.add_scatter(
        x=[x for x, _, _ in curve.seeds],
        y=[y for _, y, _ in curve.seeds],
        mode="markers",
        marker={"color": curve.colour, "size": 7, "line": {"width": 1, "color": "white"}},
        hovertext=[hover for _, _, hover in curve.seeds],
        hoverinfo="text",
        **common,
    )
