"""Charts of the proof: test error against cost, over-fitting during the search, responses to one setting."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go
from proof_tables import arms_of, mean_and_margin

from analysis.charts.template import COLOURS, TEMPLATE

DASHES = ("solid", "dash", "dot")


def figure_of(title: str, x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(template=TEMPLATE, title=title, height=520, xaxis_title=x, yaxis_title=y)
    return figure


def error_figure(frame: pd.DataFrame) -> go.Figure:
    """Test error against cost, one line per arm, with 95 % intervals."""
    figure = figure_of("Retrained networks", "MACs (multiply-adds per image)", "Test error (share of test images)")
    targets = sorted(frame["target"].unique())
    figure.update_xaxes(type="log", tickvals=targets, ticktext=[f"{target / 1e6:g} M" for target in targets])
    shares = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9)
    figure.update_yaxes(type="log", tickvals=shares, ticktext=[f"{share:.1%}" for share in shares])
    for index, arm in enumerate(arms_of(frame)):
        groups = frame[frame["arm"] == arm].groupby("target")
        found = [(float(rows["macs"].mean()), *mean_and_margin(list(rows["error"]))) for _, rows in groups]
        figure.add_scatter(
            x=[entry[0] * (1 + 0.012 * (index - 4)) for entry in found],
            y=[entry[1] for entry in found],
            error_y={"array": [0 if math.isnan(entry[2]) else entry[2] for entry in found], "thickness": 1},
            mode="lines+markers",
            name=arm,
            line={"color": COLOURS[index % len(COLOURS)], "dash": DASHES[index // len(COLOURS)]},
        )
    return figure


def gap_figure(gaps: pd.DataFrame) -> go.Figure | None:
    """Training minus validation accuracy over the epochs of the search, mean of seeds."""
    if not len(gaps):
        return None
    figure = figure_of("Over-fitting during the search", "Epoch", "Training minus validation accuracy")
    # In its first epochs a network is better at the end, when it is scored, than on the way: cut off.
    figure.update_yaxes(tickformat=".0%", range=[-0.05, 1.1 * max(0.1, float(gaps["gap"].quantile(0.99)))])
    for index, arm in enumerate(arms_of(gaps)):
        means = gaps[gaps["arm"] == arm].groupby("epoch")["gap"].mean()
        figure.add_scatter(
            x=list(means.index),
            y=list(means),
            mode="lines",
            name=arm,
            line={"color": COLOURS[index % len(COLOURS)], "dash": DASHES[index // len(COLOURS)]},
        )
    return figure


def response_figure(frame: pd.DataFrame) -> go.Figure | None:
    """Test error of each setting, a dot per seed and the mean."""
    if not len(frame):
        return None
    figure = figure_of("One setting away from dnad", "", "Test error (share of test images)")
    figure.update_yaxes(tickformat=".1%", rangemode="normal")
    names = list(dict.fromkeys(frame["arm"]))
    figure.add_scatter(x=list(frame["arm"]), y=list(frame["error"]), mode="markers", name="one seed", opacity=0.5)
    means = [float(frame[frame["arm"] == name]["error"].mean()) for name in names]
    figure.add_scatter(x=names, y=means, mode="markers", name="mean", marker={"symbol": "line-ew-open", "size": 26})
    return figure
