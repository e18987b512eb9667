"""Any number of objectives: a line per network of the front across one axis per objective, to be brushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import INK, TEMPLATE, axis, text_of
from analysis.objectives import OBJECTIVES, Objective, resolve
from analysis.pareto import front_of
from dnad_ray.errors import UserError
from dnad_ray.records import Metric

__all__ = ["plot_parallel"]


class _ParallelInfo(NamedTuple):
    """Exactly what is drawn: an axis per metric, better values at the top."""

    axes: tuple[Metric, ...]
    values: tuple[tuple[float, ...], ...]


def plot_parallel(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> go.Figure:
    """Draw the front in parallel coordinates; drag along an axis to keep the networks in a range.

    Better is up on every axis, so lines that cross between two axes show what is traded there.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them, or foreign points.
        objectives: Two or more columns with a better side; neighbours are compared best.

    Raises:
        UserError: If an objective is refused, or there is only one.
    """
    return _figure(_parallel_info(frame, objectives))


def _parallel_info(frame: pd.DataFrame, objectives: Sequence[Objective]) -> _ParallelInfo:
    entries = resolve(frame, objectives)
    if len(entries) < 2:
        raise UserError("objectives", [entry.name for entry in entries], "at least two")
    front = front_of(frame, objectives)
    return _ParallelInfo(entries, tuple(tuple(map(float, front[entry.name])) for entry in entries))


def _figure(info: _ParallelInfo) -> go.Figure:
    figure = go.Figure(layout={"template": TEMPLATE, "height": 440, "margin": {"l": 70, "r": 50, "t": 70, "b": 24}})
    if not info.values[0]:
        return figure
    dimensions = []
    for entry, values in zip(info.axes, info.values, strict=True):
        low, high = min(values), max(values)
        room = 0.02 * (high - low) or abs(high) * 0.05 or 1.0
        ends = (low - room, high + room)
        dimensions.append(
            {
                "label": text_of(entry.label),
                "values": values,
                "range": ends[::-1] if entry.minimise else ends,
                "tickformat": axis(entry)["tickformat"],
            }
        )
    line = {"color": info.values[0], "colorscale": "Viridis", "reversescale": bool(info.axes[0].minimise)}
    figure.add_parcoords(dimensions=dimensions, line=line, labelfont={"size": 13, "color": INK})
    return figure
