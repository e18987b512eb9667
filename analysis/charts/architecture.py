"""Drawing of an architecture: every cell with its inputs, nodes, output and operations.

It is SVG and not a plotly figure: hundreds of curves stay small and sharp, and the cells are laid out in as many
columns as fit on the page.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import NamedTuple

from analysis.charts.layout import Arc, CellLayout, NetworkLayout, layout_of
from analysis.charts.template import COLOURS, FAINT, FONT, INK
from search_spaces.genotype import Genotype

__all__ = ["Drawing", "draw_architecture"]

_BLUE, _VERMILLION, _GREEN, _PURPLE, _ORANGE, _SKY, _GREY = COLOURS
# Colour and dashes both tell operations apart: convolutions solid, dilated ones dashed, pools dotted.
_STYLES = {
    "sep_conv_3x3": (_BLUE, ""),
    "sep_conv_5x5": (_SKY, ""),
    "sep_conv_7x7": ("#1b2a6b", ""),
    "conv_7x1_1x7": ("#000000", "9 3 2 3"),
    "dil_conv_3x3": (_VERMILLION, "7 3"),
    "dil_conv_5x5": (_ORANGE, "7 3"),
    "max_pool_3x3": (_GREEN, "2 3"),
    "avg_pool_3x3": (_PURPLE, "2 3"),
    "skip_connect": (_GREY, ""),
    "noise": ("#000000", "1 4"),
    "nor_conv_1x1": (_SKY, ""),
    "nor_conv_3x3": (_BLUE, ""),
    "group_conv_3x3": (_VERMILLION, ""),
    "dw_conv_3x3": (_GREEN, ""),
    "dw_conv_5x5": (_ORANGE, ""),
}
_AMBER, _PALE, _BORDER = "#b36b00", "#fff4e0", "#c3cad1"
_HEADER, _BOX = 30, 26  # heights of a cell's title and of a state, in pixels


class Drawing(NamedTuple):
    """A drawn architecture that a notebook shows by itself.

    Attributes:
        html: Self-contained HTML: a legend, then one SVG per cell.
    """

    html: str

    def _repr_html_(self) -> str:
        return self.html


class _Style(NamedTuple):
    """How one operation is drawn, and how often it occurs."""

    operation: str
    colour: str
    dashes: str
    num_edges: int


class _ArchitectureInfo(NamedTuple):
    """The data of the chart."""

    styles: tuple[_Style, ...]
    layout: NetworkLayout


def draw_architecture(genotype: Genotype) -> Drawing:
    """Draw the network that is derived from a genotype: without dead edges and dead cells.

    Within a cell everything flows from left to right. Edges from the cell's inputs run below the states, edges
    between nodes above them. Cells and nodes are numbered from 0, as in the genotype's JSON.

    Args:
        genotype: Any genotype; its canonical form is drawn.
    """
    return Drawing(_html(_architecture_info(genotype)))


def _architecture_info(genotype: Genotype) -> _ArchitectureInfo:
    network = genotype.pruned()
    counts = Counter(edge.operation for cell in network.cells for node in cell.nodes for edge in node)
    others = sorted(set(counts) - set(_STYLES))
    styles = _STYLES | {name: (COLOURS[i % len(COLOURS)], "10 3 2 3 2 3") for i, name in enumerate(others)}
    return _ArchitectureInfo(
        styles=tuple(_Style(name, *look, counts[name]) for name, look in styles.items() if counts[name]),
        layout=layout_of(network, operations=tuple(styles)),
    )


def _html(info: _ArchitectureInfo) -> str:
    layout = info.layout
    columns = f"repeat(auto-fill,minmax(min(100%,{0.8 * layout.width:.0f}px),1fr))"
    cells = "".join(_cell(cell, info) for cell in layout.cells)
    return (
        # Paper of its own: a notebook or a page around it may be dark, and its words are not.
        f'<div style="font:13px {escape(FONT)};color:{INK};background:white;padding:10px;border-radius:8px">'
        f"{_legend(info)}"
        f'<div style="display:grid;gap:12px;grid-template-columns:{columns}">{cells}</div></div>'
    )


def _legend(info: _ArchitectureInfo) -> str:
    entries = "".join(
        '<span style="white-space:nowrap"><svg width="34" height="10" aria-hidden="true">'
        f'<path d="M1 5H33" {_stroke(style)}/></svg> {escape(style.operation)} '
        f'<span style="color:#5c6670">x {style.num_edges}</span></span>'
        for style in info.styles
    )
    band = (
        '<span style="white-space:nowrap"><svg width="34" height="12" aria-hidden="true"><rect width="34" height="12" '
        'rx="4" fill="#dfe4e9"/></svg> concatenated to the cell\'s output</span>'
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 12px">{entries}{band}</div>'


def _cell(cell: CellLayout, info: _ArchitectureInfo) -> str:
    layout = info.layout
    height = _HEADER + layout.above + _BOX + layout.below
    colour = FAINT if cell.gone else _AMBER if cell.reduction else _BORDER
    words = f"Cell {cell.number}" + (", reduction" if cell.reduction else "")
    count = "gone" if cell.gone else f"{len(cell.arcs)} operation{'' if len(cell.arcs) == 1 else 's'}"
    frame = (
        f'<rect x="1" y="1" width="{layout.width - 2:g}" height="{height - 2:g}" rx="8" fill="white" stroke="{colour}" '
        + ('stroke-dasharray="5 5" opacity=".55"/>' if cell.gone else f'stroke-width="{2 if cell.reduction else 1}"/>')
    )
    title = (
        f'<text x="12" y="21" font-weight="600" fill="{FAINT if cell.gone else INK}">Cell {cell.number}</text>'
        f'<text x="{layout.width - 12:g}" y="21" text-anchor="end" fill="#5c6670">{"" if cell.gone else count}</text>'
    )
    if cell.reduction:
        title += (
            f'<g opacity="{0.5 if cell.gone else 1}"><rect x="62" y="7" width="72" height="20" rx="10" fill="{_PALE}" '
            f'stroke="{_AMBER}"/><text x="98" y="21" text-anchor="middle" fill="{_AMBER}">reduction</text></g>'
        )
    body = (
        f'<text x="{layout.width / 2:g}" y="{height / 2 + 8:g}" text-anchor="middle" fill="{FAINT}">gone</text>'
        if cell.gone
        else f'<g transform="translate(0 {_HEADER + layout.above:g})">{_states(cell, layout)}{_arcs(cell, info)}</g>'
    )
    return (
        f'<svg viewBox="0 0 {layout.width:g} {height:g}" role="img" aria-label="{words}, {count}" '
        f'style="width:100%;max-width:{1.5 * layout.width:.0f}px;display:block" font-size="13">'
        f"{frame}{title}{body}</svg>"
    )


def _states(cell: CellLayout, layout: NetworkLayout) -> str:
    nodes = [state for state in cell.states if not state.is_input]
    first = next(state for state in nodes if state.in_output)
    left, right = first.x - first.width / 2 - 5, layout.output_x + layout.output_width / 2
    boxes = [
        f'<rect x="{left:g}" y="-4" width="{right - left:g}" height="{_BOX + 8}" rx="8" fill="#dfe4e9"/>',
        f'<text x="{layout.output_x:g}" y="17" text-anchor="middle" fill="{INK}">out</text>',
    ]
    boxes += [
        # The band has a gap behind a node that is not part of the output.
        f'<rect x="{state.x - state.width / 2 - 10:g}" y="-5" width="{state.width + 20:g}" height="{_BOX + 10}" '
        'fill="white"/>'
        for state in nodes
        if not state.in_output and state.x > left
    ]
    for state in cell.states:
        look = f'fill="{"#eef1f4" if state.is_input else "white"}" stroke="{INK}"'
        if not state.used:
            look = f'fill="white" stroke="{FAINT}" stroke-dasharray="3 3"'
        boxes.append(
            f'<rect x="{state.x - state.width / 2:g}" width="{state.width:g}" height="{_BOX}" '
            f'rx="{4 if state.is_input else 13}" {look}/><text x="{state.x:g}" y="17" text-anchor="middle" '
            f'fill="{INK if state.used else FAINT}">{escape(state.label)}</text>'
        )
    return "".join(boxes)


def _arcs(cell: CellLayout, info: _ArchitectureInfo) -> str:
    groups = []
    for style in info.styles:
        paths = "".join(_path(arc, cell) for arc in cell.arcs if arc.operation == style.operation)
        if paths:
            groups.append(f"<g {_stroke(style)}>{paths}</g>")
    return "".join(groups)


def _path(arc: Arc, cell: CellLayout) -> str:
    start = _BOX if arc.below else 0
    reach = start + (arc.height if arc.below else -arc.height) * 4 / 3  # a cubic curve reaches 3/4 of its handles
    ends = f"{_name(cell, arc.source)} to {_name(cell, arc.target)}"
    return (
        f'<path d="M{arc.x1:g} {start}C{arc.x1:g} {reach:.4g} {arc.x2:g} {reach:.4g} {arc.x2:g} {start}">'
        f"<title>{escape(arc.operation)}: {escape(ends)}</title></path>"
    )


def _name(cell: CellLayout, state: int) -> str:
    entry = cell.states[state]
    return entry.label if entry.is_input else f"node {entry.label}"


def _stroke(style: _Style) -> str:
    dashes = f' stroke-dasharray="{style.dashes}"' if style.dashes else ""
    return f'fill="none" stroke="{style.colour}" stroke-width="2"{dashes}'
