"""Chart: the importance of each setting, a dot with its 95 % interval (see :mod:`analysis.importance`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.charts.response import trial_results
from analysis.charts.template import COLOURS, TEMPLATE, text_of
from analysis.importance import importance_of
from analysis.objectives import OBJECTIVES, Objective

__all__ = ["plot_importance"]


class _ImportanceInfo(NamedTuple):
    """The data of the chart; an entry is (label, share, lower end, upper end, hover)."""

    height: int
    num_trials: int
    entries: tuple[tuple[str, float, float, float, str], ...]


def plot_importance(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> go.Figure:
    """Draw the share of the variance of the trials' hypervolumes that each varied setting explains alone.

    The line through a dot is the share's 95 % interval. With few trials it goes nearly from 0 to 1.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them; unfinished trials are left out.
        objectives: Columns that are minimised, for the hypervolume.

    Raises:
        UserError: If an objective is refused or maximised.
    """
    return _figure(_importance_info(frame, objectives))


def _importance_info(frame: pd.DataFrame, objectives: Sequence[Objective]) -> _ImportanceInfo:
    trials = trial_results(frame, objectives)
    table = importance_of(trials[trials["finished"]])
    entries = tuple(
        (
            row["label"],
            float(row["importance"]),
            float(row["low"]),
            float(row["high"]),
            f"<b>{text_of(row['label'])}: {row['importance']:.0%}</b><br>95 % interval {row['low']:.0%} to "
            f"{row['high']:.0%}<br>{row['groups']} groups of {row['trials']} trials",
        )
        for row in table.to_dict("records")
    )
    return _ImportanceInfo(160 + 44 * max(1, len(entries)), int(trials["finished"].sum()), entries)


def _figure(info: _ImportanceInfo) -> go.Figure:
    words = f"Variance explained, with its 95 % interval<br>{info.num_trials} finished trials"
    share = {"title": {"text": words}, "tickformat": ".0%", "range": [-0.01, 1.01]}
    order = [text_of(label) for label, *_ in reversed(info.entries)]
    rows = {"type": "category", "categoryorder": "array", "categoryarray": order, "range": [-0.5, len(order) - 0.5]}
    axes = {"xaxis": share, "yaxis": rows}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, "showlegend": False, **axes})
    if info.entries:
        labels, shares, lows, highs, hovers = zip(*info.entries, strict=True)
        figure.add_scatter(
            x=shares,
            y=[text_of(label) for label in labels],
            mode="markers",
            marker={"color": COLOURS[0], "size": 11},
            error_x={
                "array": [high - share for high, share in zip(highs, shares, strict=True)],
                "arrayminus": [share - low for low, share in zip(lows, shares, strict=True)],
                "color": COLOURS[0],
                "thickness": 2,
                "width": 6,
            },
            cliponaxis=False,
            hovertext=hovers,
            hoverinfo="text",
        )
    return figure
