"""Chart: attainment of each setting over its seeds, a median line and a band from best to worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.attainment import LEVELS, attainment_surfaces
from analysis.charts.template import LOGARITHMIC, TEMPLATE, axis, colours_of, faded, height_for, text_of
from analysis.objectives import Objective, resolve
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric

__all__ = ["plot_attainment"]

_Line = tuple[tuple[float, float], ...]


class _Band(NamedTuple):
    """One setting: its corners from left to right, at each level."""

    name: str
    colour: str
    num_trials: int
    best: _Line
    median: _Line
    worst: _Line


class _AttainmentInfo(NamedTuple):
    """The data of the chart."""

    height: int
    x: Metric
    y: Metric
    log_x: bool
    end: float
    bands: tuple[_Band, ...]


def plot_attainment(frame: pd.DataFrame, objectives: Sequence[Objective] = ("error", "macs")) -> go.Figure:
    """Draw the attainment surfaces of each setting over its trials, see :mod:`analysis.attainment`.

    The line is what at least half of the trials attain, the band lies between what the best one did and what all did.
    A setting with one trial has a line and no band.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them.
        objectives: Two columns that are minimised: the vertical axis and the horizontal one.

    Raises:
        UserError: If an objective is refused or maximised, or there are not two.
    """
    return _figure(_attainment_info(frame, objectives))


def _attainment_info(frame: pd.DataFrame, objectives: Sequence[Objective]) -> _AttainmentInfo:
    entries = resolve(frame, objectives)
    if len(entries) != 2 or not all(entry.minimise for entry in entries):
        names = [entry.name for entry in entries]
        raise UserError("objectives", names, "two that are minimised; for accuracy take error")
    y, x = entries
    table = attainment_surfaces(frame, entries)
    parts = {str(name): part for name, part in table.groupby("setting", sort=False)}
    names = list(parts)
    colours = colours_of(names)
    bands = []
    for name, part in parts.items():
        lines = {
            level: tuple(zip(rows[x.name].tolist(), rows[y.name].tolist(), strict=True))
            for level, rows in part.groupby("level", sort=False)
        }
        bands.append(_Band(name, colours[name], int(part["trials"].iloc[0]), *(lines[level] for level in LEVELS)))
    costs = table[x.name]
    return _AttainmentInfo(
        height=height_for(480, names),
        x=x,
        y=y,
        log_x=x.name in LOGARITHMIC and bool((costs > 0).all()),
        end=float(costs.max()) if len(costs) else 0.0,
        bands=tuple(bands),
    )


def _figure(info: _AttainmentInfo) -> go.Figure:
    axes = {"xaxis": axis(info.x, log=info.log_x), "yaxis": axis(info.y)}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, **axes})
    for band in info.bands:
        group = text_of(band.name)
        words = f"{group} ({band.num_trials} trial{'' if band.num_trials == 1 else 's'})"
        if band.num_trials > 1:
            best, worst = _steps(band.best, info.end), _steps(band.worst, info.end)
            # The worst surface begins further right: there the band is open to above, as nothing is attained by all.
            outline = [*best, *reversed(worst), (worst[0][0], best[0][1]) if worst[0][0] > best[0][0] else worst[0]]
            figure.add_scatter(
                x=[x for x, _ in outline],
                y=[y for _, y in outline],
                mode="lines",
                fill="toself",
                fillcolor=faded(band.colour, 0.16),
                line={"width": 0},
                legendgroup=group,
                showlegend=False,
                hoverinfo="skip",
            )
        median = _steps(band.median, info.end)
        figure.add_scatter(
            x=[x for x, _ in median],
            y=[y for _, y in median],
            mode="lines",
            name=words,
            legendgroup=group,
            showlegend=True,
            line={"color": band.colour, "width": 2},
            hovertemplate=f"<b>{words}</b><br>half of the trials reach %{{y}} at %{{x}}<extra></extra>",
        )
    return figure


def _steps(corners: _Line, end: float) -> list[tuple[float, float]]:
    """Return the staircase through corners, on to the right end: until the next corner nothing better is attained."""
    points: list[tuple[float, float]] = []
    for (x, y), (following, _) in zip(corners, (*corners[1:], (end, 0.0)), strict=True):
        points += [(x, y), (max(x, following), y)]
    return points
