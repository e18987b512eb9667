"""Chart: the importance of each setting, a bar each (see :mod:`analysis.importance`)."""

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
    """The data of the chart; a bar is (label, share, hover)."""

    height: int
    num_trials: int
    bars: tuple[tuple[str, float, str], ...]


def plot_importance(frame: pd.DataFrame, objectives: Sequence[Objective] = OBJECTIVES) -> go.Figure:
    """Draw the share of the variance of the trials' hypervolumes that each varied setting explains alone.

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
    bars = tuple(
        (
            row["label"],
            float(row["importance"]),
            f"<b>{text_of(row['label'])}: {row['importance']:.0%}</b><br>{row['groups']} groups of "
            f"{row['trials']} trials",
        )
        for row in table.to_dict("records")
    )
    return _ImportanceInfo(140 + 44 * max(1, len(bars)), int(trials["finished"].sum()), bars)


def _figure(info: _ImportanceInfo) -> go.Figure:
    share = {"title": {"text": f"Variance explained<br>{info.num_trials} finished trials"}, "tickformat": ".0%"}
    order = [text_of(label) for label, _, _ in reversed(info.bars)]
    axes = {"xaxis": share | {"range": [0, 1]}, "yaxis": {"categoryorder": "array", "categoryarray": order}}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, "showlegend": False, **axes})
    if info.bars:
        figure.add_bar(
            x=[value for _, value, _ in info.bars],
            y=[text_of(label) for label, _, _ in info.bars],
            orientation="h",
            marker={"color": COLOURS[0]},
            text=[f"{value:.0%}" for _, value, _ in info.bars],
            textposition="outside",
            cliponaxis=False,
            hovertext=[hover for _, _, hover in info.bars],
            hoverinfo="text",
        )
    return figure
