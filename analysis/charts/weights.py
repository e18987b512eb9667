"""Chart: the share of each operation in the architecture weights over the epochs of a search."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import TEMPLATE, axis, colours_of, faded, height_for, text_of
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import METRICS, Metric

__all__ = ["plot_weights"]


class _Course(NamedTuple):
    """One operation: per epoch the mean share over trials and cells, and the least and largest trial's."""

    name: str
    colour: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class _WeightsInfo(NamedTuple):
    """The data of the chart."""

    height: int
    x: Metric
    courses: tuple[_Course, ...]


def plot_weights(weights: pd.DataFrame, cell: int | None = None) -> go.Figure:
    """Draw the architecture weight of each operation over the epochs: the mean of trials, with the span of them.

    Args:
        weights: As :func:`analysis.frame.load_weights` returns it, of one trial or several.
        cell: One cell only; None for the mean over all.

    Raises:
        UserError: If there is no such cell.
    """
    return _figure(_weights_info(weights, cell))


def _weights_info(weights: pd.DataFrame, cell: int | None) -> _WeightsInfo:
    if cell is not None:
        known = sorted(weights["cell"].unique())
        if cell not in known:
            raise UserError("cell", cell, f"0 to {known[-1]}" if known else "none: no weights were kept")
        weights = weights[weights["cell"] == cell]
    keys = ["operation", "epoch", "run", "trial"]
    # An operation without a row was deleted; its weight is 0, not missing.
    table = weights.groupby(keys, sort=False)["weight"].mean().unstack(["run", "trial"])
    trials = weights.groupby(["epoch", "run", "trial"], sort=False).size().unstack(["run", "trial"]).notna()
    names = sorted(weights["operation"].unique())
    colours = colours_of(names)
    courses = []
    for name in names:
        part = table.loc[name].reindex(trials.index).fillna(0.0).where(trials[table.columns]).sort_index()
        mean, low, high = (tuple(map(float, part.agg(rule, axis=1))) for rule in ("mean", "min", "max"))
        courses.append(_Course(name, colours[name], tuple(map(float, part.index)), mean, low, high))
    return _WeightsInfo(height_for(420, names), METRICS["epoch"], tuple(courses))


def _figure(info: _WeightsInfo) -> go.Figure:
    share = {"title": {"text": "Architecture weight<br>share of the cell"}, "tickformat": "~%", "rangemode": "tozero"}
    figure = go.Figure(
        layout={"template": TEMPLATE, "height": info.height, "xaxis": axis(info.x), "yaxis": share, "showlegend": True}
    )
    for course in info.courses:
        group = text_of(course.name)
        figure.add_scatter(
            x=[*course.x, *reversed(course.x)],
            y=[*course.high, *reversed(course.low)],
            mode="lines",
            fill="toself",
            fillcolor=faded(course.colour, 0.12),
            line={"width": 0},
            legendgroup=group,
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=course.x,
            y=course.mean,
            mode="lines",
            name=group,
            legendgroup=group,
            line={"color": course.colour, "width": 2},
            hovertemplate=f"<b>{group}</b><br>%{{y:.1%}} in epoch %{{x}}<extra></extra>",
        )
    return figure
