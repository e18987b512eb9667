"""Chart: the hypervolume of each trial's front so far, over the seconds of compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import TEMPLATE, add_legend, axis, colours_of, height_for, joined, text_of
from analysis.charts.words import shown
from analysis.frame import setting_of
from analysis.objectives import OBJECTIVES, Objective, describe, minimised
from analysis.pareto import hypervolume_share, reference_point
from analysis.trials import trials_of, with_values
from dnad_ray.run_folder.metrics import METRICS, Metric

__all__ = ["plot_compute"]

_MOST_STEPS = 60
"""Of a line; more cannot be told apart, and a hypervolume each takes seconds for ten thousand snapshots."""


class _Rise(NamedTuple):
    """One trial: seconds, and the hypervolume share of its front at that time."""

    setting: str
    colour: str
    label: str
    seconds: tuple[float, ...]
    volumes: tuple[float, ...]


class _ComputeInfo(NamedTuple):
    """The data of the chart."""

    height: int
    x: Metric
    y: Metric
    rises: tuple[_Rise, ...]
    colours: dict[str, str]
    reference: tuple[str, ...]


def plot_compute(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> go.Figure:
    """Draw the hypervolume of each trial's front so far against its compute, under one reference point.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them; points without ``device_seconds`` count for
            the reference point only. Of a long trial some 60 snapshots are drawn, evenly spaced, and the last one.
        objectives: Columns that are minimised.

    Raises:
        UserError: If an objective is refused or maximised, or there is no column ``device_seconds``.
    """
    return _figure(_compute_info(frame, objectives))


def _compute_info(frame: pd.DataFrame, objectives: Sequence[Objective]) -> _ComputeInfo:
    corner = reference_point(frame, objectives) if len(frame) else ()
    frame = with_values(frame, ["device_seconds"])
    order = [name for name in ("run", "trial", "device_seconds", "step") if name in frame]
    frame = frame.sort_values(order, kind="stable")
    settings = setting_of(frame)
    colours = colours_of(list(settings.cat.categories))
    points, seconds = minimised(frame, objectives), frame["device_seconds"].to_numpy(dtype=float)
    rises = []
    for (run, trial), places in trials_of(frame):
        setting = str(settings.iloc[places[0]])
        steps = np.unique(np.linspace(0, len(places) - 1, _MOST_STEPS).round().astype(int))
        volumes = _volumes(points[places], steps, corner)
        taken = tuple(seconds[places[steps]].tolist())
        rises.append(_Rise(setting, colours[setting], f"{run} / {trial}", taken, volumes))
    return _ComputeInfo(
        height=height_for(420, colours),
        x=METRICS["device_seconds"],
        y=METRICS["hypervolume"],
        rises=tuple(rises),
        colours=colours,
        reference=describe(objectives, corner) if corner else (),
    )


def _volumes(points: np.ndarray, steps: np.ndarray, corner: Sequence[float]) -> tuple[float, ...]:
    """Return the hypervolume of all points up to and with each step."""
    return tuple(hypervolume_share(points[: step + 1], corner) for step in steps)


def _figure(info: _ComputeInfo) -> go.Figure:
    share = axis(info.y) | {"rangemode": "tozero"}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, "xaxis": axis(info.x), "yaxis": share})
    add_legend(figure, info.colours)
    for setting, colour in info.colours.items():
        rises = [rise for rise in info.rises if rise.setting == setting]
        hovers = [[f"{text_of(rise.label)}<br>{shown('hypervolume', v)}" for v in rise.volumes] for rise in rises]
        figure.add_scatter(
            x=joined([rise.seconds for rise in rises]),
            y=joined([rise.volumes for rise in rises]),
            mode="lines",
            legendgroup=text_of(setting),
            showlegend=False,
            line={"color": colour, "width": 1.5, "shape": "hv"},
            opacity=0.8,
            hovertext=joined(hovers),
            hoverinfo="text",
        )
    return figure
