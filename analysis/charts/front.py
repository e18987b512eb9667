"""Chart: error against cost of every snapshot of every run, with the global front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from analysis.charts.template import (
    FAINT,
    INK,
    LOGARITHMIC,
    TEMPLATE,
    add_legend,
    axis,
    colours_of,
    height_for,
    text_of,
)
from analysis.charts.words import KINDS, hovers_of
from analysis.frame import setting_of
from analysis.intervals import with_intervals
from analysis.objectives import Objective, minimised, resolve
from analysis.pareto import OBJECTIVES, front_of
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric

__all__ = ["plot_front"]

_SYMBOLS = {"pruned": "circle", "pareto": "diamond", "final": "square", "ladder": "triangle-up", "retrained": "circle"}
_NUM_AXES = 2


class _Points(NamedTuple):
    """Markers of one colour, on the front or off it; the tuples run in parallel."""

    name: str
    colour: str
    on_front: bool
    x: tuple[float, ...]
    y: tuple[float, ...]
    symbols: tuple[str, ...]
    rows: tuple[int, ...]
    hovers: tuple[str, ...]
    spreads: tuple[tuple[float, float], ...] = ()
    """How far a bar reaches below and above each ``y``; empty where that is not known."""


class _FrontInfo(NamedTuple):
    """The data of the chart."""

    height: int
    x: Metric
    y: Metric
    log_x: bool
    line_shape: str
    line: tuple[tuple[float, float], ...]
    points: tuple[_Points, ...]
    colours: dict[str, str]
    kinds: tuple[str, ...]
    overlay: tuple[tuple[float, float, str, str], ...]
    overlay_name: str
    num_hidden: int


def plot_front(
    frame: pd.DataFrame,
    objectives: Sequence[Objective] = OBJECTIVES,
    colour: Literal["setting", "run", "trial"] = "setting",
    *,
    overlay: pd.DataFrame | None = None,
    overlay_name: str = "published, by other training",
    most_dominated: int | None = None,
) -> go.Figure:
    """Draw all snapshots and their front.

    Networks on the front of all objectives are drawn in full colour, dominated ones faintly. The line joins those on
    the front of the two objectives that are drawn; a point in full colour off the line is on the front because of a
    further objective.

    Args:
        frame: Snapshots as :func:`analysis.frame.load_runs` returns them, retrained networks, or foreign points (see
            :mod:`analysis.interop.tables`).
        objectives: At least two columns with a direction: the vertical axis, the horizontal one, and others that
            count for the front.
        colour: Meaning of the colours: the setting (see :func:`analysis.frame.setting_of`), the run, or the trial.
        overlay: Points to compare with, for example :func:`analysis.published.published_figures`: a column ``name``
            and the first two objectives. They are drawn as open stars and count for nothing.
        overlay_name: What the legend calls them.
        most_dominated: Of more dominated points than that, those which lie under another one are not drawn; the
            legend says how many. None draws all.

    Returns:
        A figure whose markers carry the position of their row in ``frame`` as ``customdata``.

    Raises:
        UserError: If an objective is unknown, has no direction, or there are fewer than two.
    """
    return _figure(
        _front_info(
            frame,
            objectives,
            colour,
            overlay=overlay,
            overlay_name=overlay_name,
            most_dominated=most_dominated,
        )
    )


def _front_info(
    frame: pd.DataFrame,
    objectives: Sequence[Objective],
    colour: str,
    *,
    overlay: pd.DataFrame | None = None,
    overlay_name: str = "",
    most_dominated: int | None = None,
) -> _FrontInfo:
    if len(objectives) < _NUM_AXES:
        raise UserError("objectives", list(objectives), "at least two: the vertical and the horizontal axis")
    frame = frame.reset_index(drop=True)
    vertical, horizontal = resolve(frame, objectives)[:2]
    y, x = vertical.name, horizontal.name
    front = set(front_of(frame, objectives).index)
    line = front_of(frame, objectives[:2])
    drawn = minimised(frame, objectives[:2])
    finite = np.isfinite(drawn).all(axis=1)
    log_x = x in LOGARITHMIC and bool((drawn[finite, 1] > 0).all())
    is_front = frame.index.isin(front)
    shown = finite.copy()
    if most_dominated is not None:
        places = np.column_stack([np.log(drawn[:, 1]) if log_x else drawn[:, 1], drawn[:, 0]])
        shown &= is_front | _on_top(places, finite & ~is_front, most_dominated)
    groups = _groups(frame, colour)
    colours = colours_of(list(groups.cat.categories))
    points = []
    # Columns are taken apart once: of a thousand settings, each would take a millisecond per column.
    codes, kinds, xs, ys = groups.cat.codes.to_numpy(), _kinds(frame), frame[x].tolist(), frame[y].tolist()
    hovers = dict(zip(np.flatnonzero(shown).tolist(), hovers_of(frame[shown]), strict=True))
    for on_front in (False, True):
        for code, name in enumerate(groups.cat.categories):
            rows = np.flatnonzero((codes == code) & (is_front == on_front) & shown).tolist()
            if rows:
                points.append(
                    _Points(
                        name=name,
                        colour=colours[name],
                        on_front=on_front,
                        x=tuple(xs[row] for row in rows),
                        y=tuple(ys[row] for row in rows),
                        symbols=tuple(_SYMBOLS.get(kinds[row], "circle") for row in rows),
                        rows=tuple(rows),
                        hovers=tuple(hovers[row] for row in rows),
                        spreads=_spreads(frame, y, rows),
                    )
                )
    present = set(kinds)
    return _FrontInfo(
        height=height_for(560, colours),
        x=horizontal,
        y=vertical,
        # A logarithm shows a cost over orders of magnitude; shares and zeros have no use for it.
        log_x=log_x,
        # From one network of the front to the next costlier one, the best that can be had stays the same.
        line_shape="hv" if horizontal.minimise else "vh",
        line=tuple(zip(line[x].tolist(), line[y].tolist(), strict=True)),
        points=tuple(points),
        colours=colours,
        kinds=tuple(kind for kind in KINDS if kind in present),
        overlay=() if overlay is None else _overlay(overlay, vertical, horizontal),
        overlay_name=overlay_name,
        num_hidden=int(finite.sum() - shown.sum()),
    )


def _on_top(places: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.bool_]:
    """Tell which of some points are drawn: one per field of the finest grid that has at most ``most`` in use."""
    kept = np.array(rows)
    chosen = np.flatnonzero(rows)
    if len(chosen) <= most:
        return kept
    points = places[chosen]
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    for side in (800, 600, 400, 300, 200, 150, 100, 70, 50, 30, 20):
        first = np.unique((scaled * side).astype(int), axis=0, return_index=True)[1]
        if len(first) <= most:
            break
    kept[:] = False
    kept[chosen[np.sort(first)]] = True
    return kept


def _spreads(frame: pd.DataFrame, y: str, rows: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Return how far bars reach below and above each retrained network; none for other metrics than its accuracy.

    They are the deviations over seeds, or, if each has one seed, the 95 % intervals of counting on some images.
    """
    if y not in ("accuracy", "test_error") or "accuracy_std" not in frame:
        return ()
    chosen = frame.iloc[list(rows)]
    if not chosen["accuracy_std"].isna().all():
        return tuple((spread, spread) for spread in chosen["accuracy_std"].fillna(0.0).tolist())
    if not {"test_error", "num_images"} <= set(chosen):
        return ()
    ends = with_intervals(chosen)
    better, worse = ends["test_error"] - ends["error_low"], ends["error_high"] - ends["test_error"]
    below, above = (better, worse) if y == "test_error" else (worse, better)
    return tuple(zip(below.tolist(), above.tolist(), strict=True))


def _bars(spreads: Sequence[tuple[float, float]]) -> dict[str, Any]:
    below, above = zip(*spreads, strict=True)
    return {"array": above, "arrayminus": below, "symmetric": False, "thickness": 1}


def _kinds(frame: pd.DataFrame) -> list[str]:
    return [str(kind) for kind in frame["kind"]] if "kind" in frame else [""] * len(frame)


def _overlay(points: pd.DataFrame, y: Metric, x: Metric) -> tuple[tuple[float, float, str, str], ...]:
    for name in ("name", x.name, y.name):
        if name not in points:
            raise UserError("overlay", f"no column {name}", f"the columns name, {y.name} and {x.name}")
    values = minimised(points, (y, x))
    finite = np.isfinite(values).all(axis=1)
    overlay = []
    kept = pd.DataFrame(points.loc[finite.tolist()])
    for row in kept.to_dict("records"):
        numbers = " | ".join(f"{entry.label} {format(row[entry.name], entry.format)}" for entry in (y, x))
        lines = [f"<b>{text_of(row['name'])}</b>", text_of(numbers)]
        lines += [text_of(row["source"])] if "source" in row else []
        overlay.append((float(row[x.name]), float(row[y.name]), text_of(row["name"]), "<br>".join(lines)))
    return tuple(sorted(overlay))


def _groups(frame: pd.DataFrame, colour: str) -> pd.Series[Any]:
    if colour == "setting":
        return setting_of(frame)
    if colour == "run":
        return frame["run"].astype("category")
    if colour == "trial":
        return (frame["run"] + " / " + frame["trial"]).astype("category")
    raise UserError("colour", colour, "setting, run or trial")


def _figure(info: _FrontInfo) -> go.Figure:
    axes = {"xaxis": axis(info.x, log=info.log_x), "yaxis": axis(info.y)}
    figure = go.Figure(layout={"template": TEMPLATE, "height": info.height, **axes})
    add_legend(figure, info.colours)
    for part in info.points:
        # Bars would hide the faint points, and there are few retrained networks.
        size, opacity = (9, 0.8) if part.spreads else (7, 0.3)
        figure.add_scatter(
            x=part.x,
            y=part.y,
            mode="markers",
            legendgroup=text_of(part.name),
            showlegend=False,
            marker={
                "color": part.colour,
                "symbol": part.symbols,
                "size": 11 if part.on_front else size,
                "opacity": 1.0 if part.on_front else opacity,
                "line": {"width": 1, "color": "white"},
            },
            customdata=part.rows,
            hovertext=part.hovers,
            hoverinfo="text",
            error_y=_bars(part.spreads) if part.spreads else None,
        )
    if info.line:
        figure.add_scatter(
            x=[x for x, _ in info.line],
            y=[y for _, y in info.line],
            mode="lines",
            name="front",
            line={"shape": info.line_shape, "color": INK, "width": 1.5},
            hoverinfo="skip",
        )
    if info.overlay:
        x, y, names, hovers = zip(*info.overlay, strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers+text",
            name=info.overlay_name,
            text=names,
            # Published points lie close together: neighbours put their names on different sides.
            textposition=[("top center", "bottom center", "middle right", "middle left")[i % 4] for i in range(len(x))],
            textfont={"size": 10, "color": FAINT},
            marker={"symbol": "star-open", "size": 11, "color": FAINT},
            hovertext=hovers,
            hoverinfo="text",
        )
    if info.num_hidden:
        words = f"{info.num_hidden:,} dominated points under others are not drawn"
        figure.add_scatter(x=[None], y=[None], mode="markers", name=words, marker={"color": FAINT, "opacity": 0.3})
    for kind in info.kinds:
        marker = {"symbol": _SYMBOLS[kind], "color": FAINT, "size": 9}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=kind, marker=marker, hoverinfo="skip")
    return figure
