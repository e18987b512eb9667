"""Chart: hypervolume of the front of each trial, by setting, with a dot per seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import COLOURS, INK, TEMPLATE, axis, text_of
from analysis.charts.words import shown
from analysis.pareto import OBJECTIVES, reference_point, trial_hypervolumes
from dnad_ray.run_folder.metrics import METRICS, Metric, metric

__all__ = ["plot_hypervolume"]


class _HypervolumeInfo(NamedTuple):
    """The data of the chart; a dot is (setting, hypervolume, hover)."""

    metric: Metric
    height: int
    settings: tuple[str, ...]
    finished: tuple[tuple[str, float, str], ...]
    unfinished: tuple[tuple[str, float, str], ...]
    means: tuple[tuple[str, float, str], ...]
    reference: tuple[str, ...]


def plot_hypervolume(frame: pd.DataFrame, objectives: Sequence[str] = OBJECTIVES) -> go.Figure:
    """Draw the hypervolume of each trial as a dot, and the mean of each setting with two or more finished trials.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them; their reference point is common to all.
        objectives: Columns that are minimised.

    Raises:
        UserError: If an objective is unknown or is not minimised.
    """
    return _figure(_hypervolume_info(frame, objectives))


def _hypervolume_info(frame: pd.DataFrame, objectives: Sequence[str]) -> _HypervolumeInfo:
    table = trial_hypervolumes(frame, objectives)
    dots: dict[bool, list[tuple[str, float, str]]] = {True: [], False: []}
    for row in table.to_dict("records"):
        hover = (
            f"<b>{shown('hypervolume', row['hypervolume'])}</b><br>{text_of(row['run'])} / {text_of(row['trial'])}"
            f"<br>Seed {shown('seed', row['seed'])}"
        )
        dots[row["finished"]].append((str(row["setting"]), float(row["hypervolume"]), hover))
    means = []
    for setting, part in table[table["finished"]].groupby("setting", observed=True)["hypervolume"]:
        if len(part) > 1:
            mean = float(part.mean())
            spread = f"{shown('hypervolume', part.min())} to {shown('hypervolume', part.max())}"
            words = f"<b>Mean of {len(part)} trials: {shown('hypervolume', mean)}</b><br>{spread}"
            means.append((str(setting), mean, words))
    corner = reference_point(frame, objectives) if len(frame) else ()
    settings = tuple(map(str, table["setting"].cat.categories))
    return _HypervolumeInfo(
        metric=METRICS["hypervolume"],
        # Each setting stands in a row of its own, with a line for each of its parts.
        height=max(460, 160 + sum(44 + 19 * setting.count(", ") for setting in settings)),
        settings=settings,
        finished=tuple(dots[True]),
        unfinished=tuple(dots[False]),
        means=tuple(means),
        reference=tuple(
            f"{metric(name).label} {shown(name, value)}" for name, value in zip(objectives, corner, strict=False)
        ),
    )


def _figure(info: _HypervolumeInfo) -> go.Figure:
    labels = {setting: text_of(setting).replace(", ", ",<br>") for setting in info.settings}
    # Settings are long words: they stand left of their row, and the first one stands on top.
    order = [labels[setting] for setting in reversed(info.settings)]
    rows = {"type": "category", "categoryorder": "array", "categoryarray": order, "range": [-0.5, len(order) - 0.5]}
    share = axis(info.metric) | {"rangemode": "tozero"}
    # On one line, the reference would be wider than a phone.
    corner = "<br>".join(text_of(part) for part in ("measured from the reference point", *info.reference))
    share["title"]["text"] += f'<br><span style="font-size:12px">{corner}</span>'
    layout = {
        "xaxis": share,
        "yaxis": rows,
        "height": info.height,
        "showlegend": True,
    }
    figure = go.Figure(layout={"template": TEMPLATE, **layout})
    looks = (
        ("finished trial", info.finished, {"symbol": "circle", "size": 10, "color": COLOURS[0], "opacity": 0.75}),
        (
            "unfinished trial (not in the mean)",
            info.unfinished,
            {"symbol": "circle-open", "size": 10, "color": COLOURS[0]},
        ),
        ("mean", info.means, {"symbol": "line-ns", "size": 22, "line": {"width": 3, "color": INK}}),
    )
    for name, dots, marker in looks:
        if dots:
            figure.add_scatter(
                x=[value for _, value, _ in dots],
                y=[labels[setting] for setting, _, _ in dots],
                mode="markers",
                name=name,
                marker=marker,
                hovertext=[hover for _, _, hover in dots],
                hoverinfo="text",
            )
    return figure
