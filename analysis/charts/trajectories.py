"""Charts: operations alive by epoch, and the path of each trial through error and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import (
    FAINT,
    MOST_MARKERS,
    TEMPLATE,
    add_legend,
    axis,
    colours_of,
    height_for,
    joined,
    text_of,
)
from analysis.charts.words import hovers_of, shown
from analysis.frame import setting_of
from analysis.trials import trials_of, with_values
from dnad_ray.run_folder.metrics import METRICS, Metric

__all__ = ["plot_paths", "plot_shrinking"]

_UNKNOWN = "no snapshot yet"


class _Trial(NamedTuple):
    """The line of one trial; the tuples run in parallel."""

    setting: str
    colour: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    hovers: tuple[str, ...]


class _TrajectoriesInfo(NamedTuple):
    """The data of the chart."""

    height: int
    x: Metric
    y: Metric
    log_x: bool
    steps: bool
    trials: tuple[_Trial, ...]
    colours: dict[str, str]


def plot_shrinking(history: pd.DataFrame, frame: pd.DataFrame) -> go.Figure:
    """Draw how many operations are alive in each trial's supernet after each epoch.

    Args:
        history: Epochs as :func:`analysis.frame.load_history` returns them.
        frame: Snapshots of the same runs: they say which setting a trial has.
    """
    return _figure(_shrinking_info(history, frame))


def plot_paths(frame: pd.DataFrame) -> go.Figure:
    """Draw the way of each trial from its densest network to its sparsest, by error and MACs.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them; points that no search recorded (without a
            ``kind``) have no path and are left out.

    Raises:
        UserError: If there is no column ``kind``, ``error`` or ``macs``.
    """
    return _figure(_paths_info(frame))


def _shrinking_info(history: pd.DataFrame, frame: pd.DataFrame) -> _TrajectoriesInfo:
    settings, colours = _settings(frame)
    trials: list[_Trial] = []
    has_markers = len(history) <= MOST_MARKERS
    records = history[["epoch", "num_operations", "train_loss"]].to_dict("records") if has_markers else None
    for key, part, rows in _trials(history, records):
        setting = settings.get(key, _UNKNOWN)
        name = text_of(" / ".join(key))
        words = (
            f"{name}<br>Epoch {row['epoch']}: {shown('num_operations', row['num_operations'])} operations, "
            f"training loss {shown('train_loss', row['train_loss'])}"
            for row in rows
        )
        # Lines without markers have no point to speak of.
        hovers = words if has_markers else [name] * len(part)
        trials.append(
            _Trial(
                setting=setting,
                colour=colours.get(setting, FAINT),
                x=tuple(part["epoch"].tolist()),
                y=tuple(part["num_operations"].tolist()),
                hovers=tuple(hovers),
            )
        )
    if any(trial.setting == _UNKNOWN for trial in trials):
        colours[_UNKNOWN] = FAINT
    return _TrajectoriesInfo(
        height=height_for(420, colours),
        x=METRICS["epoch"],
        y=METRICS["num_operations"],
        log_x=False,
        steps=True,
        trials=tuple(trials),
        colours=colours,
    )


def _paths_info(frame: pd.DataFrame) -> _TrajectoriesInfo:
    frame = with_values(frame, ["kind", "error", "macs"])
    frame = frame[frame["kind"].ne("ladder")]  # where a search went, not what it might have been
    settings, colours = _settings(frame)
    trials: list[_Trial] = []
    has_markers = len(frame) <= MOST_MARKERS
    for key, part, texts in _trials(frame, hovers_of(frame) if has_markers else None):
        setting = settings[key]
        # Lines without markers have no point to speak of.
        hovers = tuple(texts) if has_markers else (text_of(" / ".join(key)),) * len(part)
        trials.append(
            _Trial(
                setting=setting,
                colour=colours[setting],
                x=tuple(part["macs"].tolist()),
                y=tuple(part["error"].tolist()),
                hovers=hovers,
            )
        )
    return _TrajectoriesInfo(
        height=height_for(420, colours),
        x=METRICS["macs"],
        y=METRICS["error"],
        log_x=bool((frame["macs"] > 0).all()),
        steps=False,
        trials=tuple(trials),
        colours=colours,
    )


def _trials(frame: pd.DataFrame, records: Sequence[Any] | None) -> Iterator[tuple[Any, pd.DataFrame, list[Any]]]:
    """Yield each trial with its rows, in order; to make records of a hundred trials one by one takes a second."""
    for key, positions in trials_of(frame):
        yield key, frame.iloc[positions], [] if records is None else [records[position] for position in positions]


def _settings(frame: pd.DataFrame) -> tuple[dict[Any, str], dict[str, str]]:
    settings = setting_of(frame)
    by_trial = {key: str(settings.iloc[places[0]]) for key, places in trials_of(frame)}
    return by_trial, colours_of(list(settings.cat.categories))


def _figure(info: _TrajectoriesInfo) -> go.Figure:
    axes = {"xaxis": axis(info.x, log=info.log_x), "yaxis": axis(info.y)}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, **axes})
    add_legend(figure, info.colours)
    num_points = sum(len(trial.x) for trial in info.trials)
    for setting, colour in info.colours.items():
        # One trace per setting, however many trials: a thousand traces would take a browser seconds.
        lines = [trial for trial in info.trials if trial.setting == setting]
        figure.add_scatter(
            x=joined([trial.x for trial in lines]),
            y=joined([trial.y for trial in lines]),
            mode="lines+markers" if num_points <= MOST_MARKERS else "lines",
            legendgroup=text_of(setting),
            showlegend=False,
            line={"color": colour, "width": 1.5, "shape": "hv" if info.steps else "linear"},
            marker={"size": 5},
            hovertext=joined([trial.hovers for trial in lines]),
            hoverinfo="text",
        )
    figure.update_yaxes(rangemode="tozero")  # cut to the data, a path would look like a fall or a climb
    return figure
