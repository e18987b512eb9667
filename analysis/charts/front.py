"""The global front: error against cost of every snapshot of every run, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import FAINT, INK, TEMPLATE, add_legend, axis, colours_of, height_for, text_of
from analysis.charts.words import KINDS, hover_of
from analysis.frame import setting_of
from analysis.pareto import OBJECTIVES, front_of
from dnad_ray.errors import UserError
from dnad_ray.records import Metric, metric

__all__ = ["plot_front"]

_SYMBOLS = {"pruned": "circle", "pareto": "diamond", "final": "square"}
_NUM_AXES = 2


class _Points(NamedTuple):
    """Markers of one colour, on the front or off it; the tuples run in parallel."""

    name: str
    colour: str
    on_front: bool
    x: tuple[float, ...]
    y: tuple[float, ...]
    symbols: tuple[str, ...]
    rows: tuple[int, ...]
    hovers: tuple[str, ...]


class _FrontInfo(NamedTuple):
    """Exactly what is drawn."""

    height: int
    x: Metric
    y: Metric
    log_x: bool
    line_shape: str
    line: tuple[tuple[float, float], ...]
    points: tuple[_Points, ...]
    colours: dict[str, str]
    kinds: tuple[str, ...]


def plot_front(
    frame: pd.DataFrame,
    objectives: Sequence[str] = OBJECTIVES,
    colour: Literal["setting", "run", "trial"] = "setting",
) -> go.Figure:
    """Draw all snapshots and their front.

    Networks on the front of all objectives are drawn in full colour, dominated ones faintly. The line joins those
    on the front of the two objectives that are drawn; full colour off the line is owed to a further objective.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: At least two columns with a better side: the vertical axis, the horizontal one, and others that
            count for the front.
        colour: What colours tell apart: the setting (see :func:`analysis.frame.setting_of`), the run, or the trial.

    Returns:
        A figure whose markers carry the position of their row in ``frame`` as ``customdata``.

    Raises:
        UserError: If an objective is unknown, has no better side, or there are fewer than two.
    """
    return _figure(_front_info(frame, objectives, colour))


def _front_info(frame: pd.DataFrame, objectives: Sequence[str], colour: str) -> _FrontInfo:
    if len(objectives) < _NUM_AXES:
        raise UserError("objectives", list(objectives), "at least two: the vertical and the horizontal axis")
    y, x = objectives[:2]
    frame = frame.reset_index(drop=True)
    front = set(front_of(frame, objectives).index)
    line = front_of(frame, (y, x))
    groups = _groups(frame, colour)
    colours = colours_of(list(groups.cat.categories))
    points = []
    for on_front in (False, True):
        for name in groups.cat.categories:
            part = frame[(groups == name) & (frame.index.isin(front) == on_front)]
            if len(part):
                points.append(
                    _Points(
                        name=name,
                        colour=colours[name],
                        on_front=on_front,
                        x=tuple(part[x].tolist()),
                        y=tuple(part[y].tolist()),
                        symbols=tuple(_SYMBOLS.get(kind, "circle") for kind in part["kind"]),
                        rows=tuple(int(label) for label in part.index),
                        hovers=tuple(hover_of(row) for row in part.to_dict("records")),
                    )
                )
    present = set(frame["kind"])
    return _FrontInfo(
        height=height_for(560, colours),
        x=metric(x),
        y=metric(y),
        # A logarithm shows a cost over orders of magnitude; shares and zeros have no use for it.
        log_x=x in ("macs", "macs_conv_linear", "params", "device_seconds") and bool((frame[x] > 0).all()),
        # From one network of the front to the next costlier one, the best that can be had stays the same.
        line_shape="hv" if metric(x).minimise else "vh",
        line=tuple(zip(line[x].tolist(), line[y].tolist(), strict=True)),
        points=tuple(points),
        colours=colours,
        kinds=tuple(kind for kind in KINDS if kind in present),
    )


def _groups(frame: pd.DataFrame, colour: str) -> pd.Series[Any]:
    if colour == "setting":
        return setting_of(frame)
    if colour == "run":
        return frame["run"].astype("category")
    if colour == "trial":
        return (frame["run"] + " / " + frame["trial"]).astype("category")
    raise UserError("colour", colour, "setting, run or trial")


def _figure(info: _FrontInfo) -> go.Figure:
    axes = {"xaxis": axis(info.x, log=info.log_x), "yaxis": axis(info.y)}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, **axes})
    add_legend(figure, info.colours)
    for part in info.points:
        figure.add_scatter(
            x=part.x,
            y=part.y,
            mode="markers",
            legendgroup=text_of(part.name),
            showlegend=False,
            marker={
                "color": part.colour,
                "symbol": part.symbols,
                "size": 11 if part.on_front else 7,
                "opacity": 1.0 if part.on_front else 0.3,
                "line": {"width": 1, "color": "white"},
            },
            customdata=part.rows,
            hovertext=part.hovers,
            hoverinfo="text",
        )
    if info.line:
        figure.add_scatter(
            x=[x for x, _ in info.line],
            y=[y for _, y in info.line],
            mode="lines",
            name="front",
            line={"shape": info.line_shape, "color": INK, "width": 1.5},
            hoverinfo="skip",
        )
    for kind in info.kinds:
        marker = {"symbol": _SYMBOLS[kind], "color": FAINT, "size": 9}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=kind, marker=marker, hoverinfo="skip")
    return figure
