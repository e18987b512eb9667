"""Chart: all snapshots in three objectives, with the front in full colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import FAINT, INK, LOGARITHMIC, TEMPLATE, axis
from analysis.charts.words import hover_of
from analysis.objectives import OBJECTIVES, Objective, minimised, resolve
from analysis.pareto import front_of
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric

__all__ = ["plot_front_3d"]

_MOST_DOMINATED = 3000
"""Dominated points that are drawn: more hide each other, and no page turns them smoothly."""


class _SpaceInfo(NamedTuple):
    """The data of the chart; points are (x, y, z), the first objective upward."""

    axes: tuple[Metric, Metric, Metric]
    log: tuple[bool, ...]
    front: tuple[tuple[float, ...], ...]
    rows: tuple[int, ...]
    hovers: tuple[str, ...]
    dominated: tuple[tuple[float, ...], ...]
    num_left_out: int


def plot_front_3d(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> go.Figure:
    """Draw the front of three objectives in space; the first one points upward.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them, or foreign points.
        objectives: Three columns with a direction.

    Returns:
        A figure whose front markers carry the position of their row in ``frame`` as ``customdata``.

    Raises:
        UserError: If an objective is refused, or there are not three.
    """
    return _figure(_space_info(frame, objectives))


def _space_info(frame: pd.DataFrame, objectives: Sequence[Objective]) -> _SpaceInfo:
    entries = resolve(frame, objectives)
    if len(entries) != 3:
        raise UserError("objectives", [entry.name for entry in entries], "three of them")
    frame = frame.reset_index(drop=True)
    z, x, y = entries
    names = [x.name, y.name, z.name]
    front = front_of(frame, objectives)
    values = frame[names].to_numpy(dtype=float)
    finite = np.isfinite(minimised(frame, objectives)).all(axis=1)
    others = np.flatnonzero(finite & ~frame.index.isin(front.index))
    kept = others[:: -(-len(others) // _MOST_DOMINATED)] if len(others) > _MOST_DOMINATED else others
    return _SpaceInfo(
        axes=(x, y, z),
        log=tuple(name in LOGARITHMIC and bool((values[finite][:, i] > 0).all()) for i, name in enumerate(names)),
        front=tuple(map(tuple, front[names].to_numpy(dtype=float).tolist())),
        rows=tuple(int(label) for label in front.index),
        hovers=tuple(hover_of(row) for row in front.to_dict("records")),
        dominated=tuple(map(tuple, values[kept].tolist())),
        num_left_out=len(others) - len(kept),
    )


def _figure(info: _SpaceInfo) -> go.Figure:
    # Low, wide and near: a cube seen from afar leaves two thirds of a wide page empty.
    scene: dict[str, Any] = {
        "aspectmode": "manual",
        "aspectratio": {"x": 1.5, "y": 1.5, "z": 0.9},
        "camera": {"eye": {"x": 1.05, "y": -1.75, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.12}},
    }
    for name, entry, log in zip("xyz", info.axes, info.log, strict=True):
        side = axis(entry)
        scene[f"{name}axis"] = {
            "title": {"text": entry.label},
            "tickformat": side["tickformat"],
            "gridcolor": "#e6e9ec",
            "backgroundcolor": "white",
            "type": "log" if log else "linear",
            "nticks": 4,
        } | ({"autorangeoptions": side["autorangeoptions"]} if "autorangeoptions" in side else {})
    layout = {"scene": scene, "height": 520, "margin": {"l": 0, "r": 0, "t": 8, "b": 40}}
    figure = go.Figure(layout={"template": TEMPLATE, **layout})
    if info.dominated:
        x, y, z = zip(*info.dominated, strict=True)
        name = "dominated" + (f" ({info.num_left_out:,} more are not drawn)" if info.num_left_out else "")
        marker = {"size": 2.5, "color": FAINT, "opacity": 0.35}
        figure.add_scatter3d(x=x, y=y, z=z, mode="markers", name=name, marker=marker, hoverinfo="skip")
    if info.front:
        x, y, z = zip(*info.front, strict=True)
        # Height in colour too: a still picture of a space has no depth.
        marker = {"size": 5, "color": z, "colorscale": "Viridis", "line": {"width": 1, "color": INK}}
        figure.add_scatter3d(
            x=x,
            y=y,
            z=z,
            mode="markers",
            name="front",
            marker=marker,
            customdata=info.rows,
            hovertext=info.hovers,
            hoverinfo="text",
        )
    return figure
