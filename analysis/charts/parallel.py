"""Chart: parallel coordinates of the front, one axis per objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.colors
import plotly.graph_objects as go

from analysis.charts.template import INK, TEMPLATE, joined, text_of
from analysis.charts.words import hover_of
from analysis.objectives import OBJECTIVES, Objective, minimised, resolve
from analysis.pareto import front_of
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric

__all__ = ["plot_parallel"]

_NUM_GROUPS = 5


class _Group(NamedTuple):
    """Networks with similar values of the first objective."""

    name: str
    colour: str
    networks: tuple[int, ...]


class _ParallelInfo(NamedTuple):
    """The data of the chart: an axis per metric, and per network its height on each, 1 for the best of the front."""

    axes: tuple[Metric, ...]
    ends: tuple[tuple[float, float], ...]
    heights: tuple[tuple[float, ...], ...]
    rows: tuple[int, ...]
    hovers: tuple[str, ...]
    groups: tuple[_Group, ...]


def plot_parallel(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> go.Figure:
    """Draw the front in parallel coordinates, in five groups by the first objective.

    Better is up on every axis, so lines that cross between two axes show what is traded there. It is drawn as lines and
    not as plotly's own parallel coordinates: those are made by a program that compiles code while it runs, which a page
    with a strict security policy forbids, and they know neither hover nor click.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them, or foreign points.
        objectives: Two or more columns with a direction; neighbours are compared best.

    Returns:
        A figure whose markers carry the position of their row in ``frame`` as ``customdata``.

    Raises:
        UserError: If an objective is refused, or there is only one.
    """
    return _figure(_parallel_info(frame, objectives))


def _parallel_info(frame: pd.DataFrame, objectives: Sequence[Objective]) -> _ParallelInfo:
    entries = resolve(frame, objectives)
    if len(entries) < 2:
        raise UserError("objectives", [entry.name for entry in entries], "at least two")
    front = front_of(frame.reset_index(drop=True), objectives)
    points = minimised(front, objectives)
    if not len(points):
        return _ParallelInfo(entries, (), (), (), (), ())
    best, worst = points.min(axis=0), points.max(axis=0)
    span = np.where(worst > best, worst - best, 1.0)
    signs = [1.0 if entry.minimise else -1.0 for entry in entries]
    order = np.argsort(points[:, 0], kind="stable")
    size = min(_NUM_GROUPS, len(points))
    parts = [tuple(map(int, part)) for part in np.array_split(order, size)]
    values = front[entries[0].name].to_numpy(dtype=float)
    names = [f"{entries[0].label} {_span(entries[0], values[list(part)])}" for part in parts]
    colours = [str(colour) for colour in plotly.colors.sample_colorscale("Viridis", np.linspace(0, 0.9, size).tolist())]
    return _ParallelInfo(
        axes=entries,
        ends=tuple((float(b * sign), float(w * sign)) for b, w, sign in zip(best, worst, signs, strict=True)),
        heights=tuple(tuple(map(float, row)) for row in 1.0 - (points - best) / span),
        rows=tuple(int(label) for label in front.index),
        hovers=tuple(hover_of(row) for row in front.to_dict("records")),
        groups=tuple(_Group(*entry) for entry in zip(names, colours, parts, strict=True)),
    )


def _span(entry: Metric, values: npt.NDArray[np.float64]) -> str:
    low, high = format(values.min(), entry.format), format(values.max(), entry.format)
    return low if low == high else f"{low} to {high}"


def _figure(info: _ParallelInfo) -> go.Figure:
    places = list(range(len(info.axes)))
    titles = [text_of(entry.label) for entry in info.axes]
    axes = {
        "xaxis": {"tickvals": places, "ticktext": titles, "range": [-0.35, len(places) - 0.65], "showline": False},
        # Above and below the lines there is room for the values of both ends.
        "yaxis": {"visible": False, "range": [-0.12, 1.12]},
    }
    figure = go.Figure(
        layout={"template": TEMPLATE, "height": 460 + 20 * len(info.groups), "margin": {"t": 72}, **axes}
    )
    figure.update_xaxes(side="top", ticks="", gridcolor="#b4bbc2")
    for group in info.groups:
        chosen = group.networks
        figure.add_scatter(
            x=joined([places for _ in chosen]),
            y=joined([info.heights[network] for network in chosen]),
            mode="lines+markers",
            name=text_of(group.name),
            line={"color": group.colour, "width": 1.5},
            marker={"size": 6},
            customdata=joined([[info.rows[network]] * len(places) for network in chosen]),
            hovertext=joined([[info.hovers[network]] * len(places) for network in chosen]),
            hoverinfo="text",
        )
    for place, (entry, (best, worst)) in enumerate(zip(info.axes, info.ends, strict=False)):
        for height, value, anchor in ((1.0, best, "bottom"), (0.0, worst, "top")):
            figure.add_annotation(
                x=place,
                y=height,
                text=text_of(format(value, entry.format)),
                showarrow=False,
                yanchor=anchor,
                yshift=6 if anchor == "bottom" else -6,
                font={"size": 12, "color": INK},
            )
    return figure
