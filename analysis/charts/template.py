"""Style of all charts: plotly template, colours for colour-blind readers, axes from METRICS."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.colors
import plotly.graph_objects as go

from dnad_ray.run_folder.metrics import Metric

__all__ = [
    "COLOURS",
    "DARK",
    "FAINT",
    "FONT",
    "INK",
    "LOGARITHMIC",
    "MOST_MARKERS",
    "TEMPLATE",
    "add_legend",
    "axis",
    "colours_of",
    "faded",
    "height_for",
    "in_dark",
    "joined",
    "text_of",
]

INK = "#22272e"
FAINT = "#8a9199"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b")
"""Okabe and Ito's palette (2008) in an order of falling contrast on white; its yellow is left out as too pale."""

LOGARITHMIC = frozenset({"macs", "macs_conv_linear", "params", "device_seconds", "latency_p50", "peak_memory"})
"""Costs, which differ by orders of magnitude: their axes are logarithmic where no value is 0."""

MOST_MARKERS = 3000
"""Lines with more points than that are drawn without a marker on each."""

_MOST_SHARE = 1.02
_AXIS = {
    "automargin": True,
    "gridcolor": "#e6e9ec",
    "linecolor": "#b4bbc2",
    "rangemode": "nonnegative",
    "showline": True,
    "ticks": "outside",
    "tickcolor": "#b4bbc2",
    "title": {"standoff": 12},
    "zeroline": False,
}

TEMPLATE = go.layout.Template(
    layout={
        "colorway": COLOURS,
        "font": {"family": FONT, "size": 14, "color": INK},
        "hoverlabel": {
            "align": "left",
            "bgcolor": "white",
            "bordercolor": "#b4bbc2",
            "font": {"size": 13, "color": INK},
        },
        "hovermode": "closest",
        # Below the chart, from edge to edge: names of settings are long and a phone is narrow.
        "legend": {
            "orientation": "h",
            "xref": "container",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "font": {"size": 12},
            "maxheight": 4000,  # pixels: all of it, charts are made high enough; plotly would scroll a long one
        },
        "margin": {"l": 64, "r": 16, "t": 36, "b": 56},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)
"""Template of every figure; it is never made plotly's default."""


DARK = {
    INK: "#e6e9ec",
    FAINT: "#8f979f",
    "white": "#14181d",
    "#e6e9ec": "#2b323a",  # grid
    "#f3f5f6": "#1f252b",  # finer grid
    "#b4bbc2": "#59636d",  # axes
    "#0072b2": "#4aa8e0",
    "#d55e00": "#f0803c",
    "#009e73": "#2fc79b",
    "#5b5b5b": "#a9a9a9",
    # Drawings of architectures: words, lines that were black or navy, bands, boxes, and the reduction cells' amber.
    "#5c6670": "#a2abb4",
    "#000000": "#d5dade",
    "#1b2a6b": "#8fa3ff",
    "#dfe4e9": "#2a323a",
    "#eef1f4": "#1f262d",
    "#c3cad1": "#59636d",
    "#b36b00": "#e0a040",
    "#fff4e0": "#2b2416",
    # The scale of the operations' chart, from none to many.
    "#f4f6f8": "#1b2128",
    "#cfe3f1": "#1d3f58",
    "#5aa5d3": "#2f83b8",
    "#08456f": "#a8d8f6",
}
"""What each colour of the light charts and drawings becomes in dark ones; others are bright enough as they are."""


def in_dark(figure: go.Figure) -> go.Figure:
    """Return a copy of a chart for a dark page: the same marks, colours that stand out on near black.

    Args:
        figure: Any figure of this package.
    """

    def swapped(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: swapped(value) for name, value in part.items()}
        if isinstance(part, list | tuple):
            return [swapped(value) for value in part]
        return _brighter(DARK.get(part, part)) if isinstance(part, str) else part

    return go.Figure(swapped(figure.to_plotly_json()))


def _brighter(colour: str) -> str:
    """Mix the dark end of a scale with white; report.js does the same."""
    match = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    parts = [int(part) for part in match.groups()] if match else [255, 255, 255]
    if 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] >= 95:
        return colour
    return "rgb({}, {}, {})".format(*(round(part + 0.45 * (255 - part)) for part in parts))


def faded(colour: str, opacity: float) -> str:
    """Return a colour of the form ``#rrggbb`` or ``rgb(r, g, b)`` with an opacity, for areas.

    >>> faded("#0072b2", 0.2)
    'rgba(0,114,178,0.2)'
    """
    if colour.startswith("#"):
        red, green, blue = plotly.colors.hex_to_rgb(colour)
    else:
        red, green, blue = (round(part) for part in plotly.colors.unlabel_rgb(colour))
    return f"rgba({red},{green},{blue},{opacity:g})"


def axis(entry: Metric, *, log: bool = False) -> dict[str, Any]:
    """Return the layout of an axis that shows the metric: label, unit and tick format.

    Args:
        entry: The metric, see :data:`dnad_ray.run_folder.metrics.METRICS`.
        log: Whether the axis is logarithmic.
    """
    # d3's trimmed formats: 4.5% instead of 4.50%, 1.2M instead of 1,200,000.
    tick_format = "~%" if entry.format.endswith("%") else "~s" if entry.format.startswith(",") else ""
    unit = f'<br><span style="font-size:12px">{text_of(entry.unit)}</span>' if entry.unit else ""
    layout: dict[str, Any] = {"title": {"text": text_of(entry.label) + unit}, "tickformat": tick_format}
    if entry.unit.startswith("share"):
        # No share is above 1, so no axis of shares goes on to 120 %; a little more is room for half a mark.
        layout["autorangeoptions"] = {"clipmax": _MOST_SHARE}
    if log:
        # Asked for few ticks, plotly writes 1, 2 and 5 of each decade; more of them would overlap on a phone.
        layout |= {"type": "log", "nticks": 3, "minor": {"showgrid": True, "gridcolor": "#f3f5f6"}}
    return layout


def add_legend(figure: go.Figure, colours: Mapping[str, str]) -> None:
    """Add a legend entry for each name, in order, that shows and hides all traces whose ``legendgroup`` is the name."""
    for name, colour in colours.items():
        marker = {"color": colour, "size": 10, "symbol": "square"}
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=text_of(name),
            legendgroup=text_of(name),
            showlegend=True,
            marker=marker,
        )


def joined(lines: Sequence[Sequence[Any]]) -> npt.NDArray[np.object_]:
    """Return several lines as one with gaps between them; an array, which plotly checks in a tenth of a list's time.

    >>> joined([[1, 2], [3]])
    array([1, 2, None, 3], dtype=object)
    """
    values = [value for number, line in enumerate(lines) for value in ([None] * bool(number) + list(line))]
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def height_for(height: int, legend: Sized) -> int:
    """Return the height in pixels of a chart with a legend below it, which is a long column on a phone."""
    return height + 20 * len(legend)


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Give each name its own colour.

    Args:
        names: Names in order; a long list gets shades of one scale, so neighbours should be alike.
    """
    if len(names) <= len(COLOURS):
        return dict(zip(names, COLOURS, strict=False))
    # Viridis keeps its order in grey and to colour-blind readers; its yellow end is too pale on white.
    places = [0.9 * index / (len(names) - 1) for index in range(len(names))]
    return dict(zip(names, plotly.colors.sample_colorscale("Viridis", places), strict=True))


def text_of(value: object) -> str:
    """Return text that plotly shows as it is: it would read tags such as ``<b>`` in names from files."""
    return html.escape(str(value), quote=False)
