"""Chart: proxy accuracy against accuracy after training from scratch, with rank correlations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import COLOURS, FAINT, TEMPLATE, axis, text_of
from analysis.charts.words import shown
from analysis.ranking import RankCorrelation, rank_correlation
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import METRICS, Metric

__all__ = ["plot_ranking"]


class _RankingInfo(NamedTuple):
    """The data of the chart; a dot is (proxy accuracy, accuracy, deviation over seeds, hover)."""

    x: Metric
    y: Metric
    correlation: RankCorrelation
    dots: tuple[tuple[float, float, float, str], ...]


def plot_ranking(networks: pd.DataFrame) -> go.Figure:
    """Draw proxy accuracy against accuracy, with Kendall's tau and Spearman's rho in the legend.

    Args:
        networks: A row per network with ``proxy_accuracy`` and ``accuracy``: what
            :func:`analysis.measurements.retrained_networks` returns. Those without a proxy accuracy are left out.

    Raises:
        UserError: If a column is missing, or networks of several protocols are given.
    """
    return _figure(_ranking_info(networks))


def _ranking_info(networks: pd.DataFrame) -> _RankingInfo:
    for name in ("proxy_accuracy", "accuracy"):
        if name not in networks:
            raise UserError("networks", f"no column {name}", "the columns proxy_accuracy and accuracy")
    if "protocol" in networks and networks["protocol"].nunique() > 1:
        known = ", ".join(sorted(networks["protocol"].unique()))
        raise UserError("networks", f"protocols {known}", "networks that were trained by one protocol")
    both = networks[np.isfinite(networks[["proxy_accuracy", "accuracy"]].to_numpy(dtype=float)).all(axis=1)]
    dots = []
    for row in both.to_dict("records"):
        deviation = float(row.get("accuracy_std", float("nan")))
        seeds = f", {row['num_seeds']} seeds" if "num_seeds" in row else ""
        hover = (
            f"<b>{shown('accuracy', row['accuracy'])} trained from scratch{seeds}</b><br>"
            f"{shown('proxy_accuracy', row['proxy_accuracy'])} with shared weights<br>{text_of(row.get('digest', ''))}"
        )
        dots.append((float(row["proxy_accuracy"]), float(row["accuracy"]), deviation, hover))
    correlation = rank_correlation([dot[0] for dot in dots], [dot[1] for dot in dots])
    return _RankingInfo(METRICS["proxy_accuracy"], METRICS["accuracy"], correlation, tuple(dots))


def _figure(info: _RankingInfo) -> go.Figure:
    # Without a network plotly would draw shares from -100 % to 400 %.
    span: dict[str, Any] = {"rangemode": "normal"} if info.dots else {"range": [0, 1]}
    axes = {"xaxis": axis(info.x) | span, "yaxis": axis(info.y) | span}
    figure = go.Figure(layout={"template": TEMPLATE, "height": 440, "showlegend": True, **axes})
    low, high = info.correlation.kendall_interval
    words = f"{info.correlation.num_networks} networks"
    if np.isfinite(info.correlation.kendall):
        words += f"<br>Kendall's tau {info.correlation.kendall:.2f}"
        words += f" (95 %: {low:.2f} to {high:.2f})" if np.isfinite(low) else ""
        words += f"<br>Spearman's rho {info.correlation.spearman:.2f}"
    if info.dots:
        deviations = [0.0 if np.isnan(dot[2]) else dot[2] for dot in info.dots]
        figure.add_scatter(
            x=[dot[0] for dot in info.dots],
            y=[dot[1] for dot in info.dots],
            mode="markers",
            name=words,
            marker={"size": 9, "color": COLOURS[0], "opacity": 0.8, "line": {"width": 1, "color": "white"}},
            error_y={"type": "data", "array": deviations, "visible": any(deviations), "color": FAINT, "thickness": 1},
            hovertext=[dot[3] for dot in info.dots],
            hoverinfo="text",
        )
    return figure
