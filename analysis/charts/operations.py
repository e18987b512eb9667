"""Chart: operations by depth, for the cheap, middle and costly networks of a front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.charts.template import TEMPLATE, text_of
from dnad_ray.errors import UserError
from search_spaces.genotype import Genotype

__all__ = ["plot_operations"]

_NAMES = ("cheapest third", "middle third", "costliest third")


class _Part(NamedTuple):
    """Networks of similar cost: operations by (operation, cell), each the mean number of edges of a network."""

    title: str
    counts: tuple[tuple[float, ...], ...]


class _OperationsInfo(NamedTuple):
    """The data of the chart."""

    operations: tuple[str, ...]
    cells: tuple[str, ...]
    parts: tuple[_Part, ...]


def plot_operations(genotypes: Sequence[Genotype] | Mapping[str, Genotype]) -> go.Figure:
    """Draw how many edges of each operation networks have, cell by cell from the stem to the classifier.

    Args:
        genotypes: Networks from the cheapest to the costliest, for example of a front as
            :func:`analysis.pareto.front_of` sorts it. From three on they are cut into thirds. Those of another number
            of cells than the first are refused: their depths do not compare.

    Raises:
        UserError: If networks differ in their number of cells.
    """
    return _figure(_operations_info(genotypes))


def _operations_info(genotypes: Sequence[Genotype] | Mapping[str, Genotype]) -> _OperationsInfo:
    networks = [genotype.pruned() for genotype in (genotypes.values() if isinstance(genotypes, Mapping) else genotypes)]
    sizes = sorted({len(network.cells) for network in networks})
    if len(sizes) > 1:
        raise UserError("genotypes", f"networks of {', '.join(map(str, sizes))} cells", "one number of cells")
    if not networks:
        return _OperationsInfo((), (), ())
    tables = [_counts(network) for network in networks]
    total: Counter[str] = Counter()
    for table in tables:
        for (operation, _), count in table.items():
            total[operation] += count
    operations = tuple(sorted(total, key=lambda name: (-total[name], name)))
    size, parts = len(networks), []
    bounds = [0, size] if size < 3 else [0, size // 3, size - size // 3, size]
    for index, (start, end) in enumerate(pairwise(bounds)):
        title = "all networks" if size < 3 else _NAMES[index]
        counts = tuple(
            tuple(sum(table[name, cell] for table in tables[start:end]) / (end - start) for cell in range(sizes[0]))
            for name in operations
        )
        parts.append(_Part(f"{title} ({end - start} network{'' if end - start == 1 else 's'})", counts))
    cells = tuple(f"{index}{' r' if cell.reduction else ''}" for index, cell in enumerate(networks[0].cells))
    return _OperationsInfo(operations, cells, tuple(parts))


def _counts(network: Genotype) -> Counter[tuple[str, int]]:
    return Counter(
        (edge.operation, index) for index, cell in enumerate(network.cells) for node in cell.nodes for edge in node
    )


def _figure(info: _OperationsInfo) -> go.Figure:
    rows = max(1, len(info.parts))
    titles = [text_of(part.title) for part in info.parts]
    height = 114 + rows * (60 + 26 * max(3, len(info.operations)))
    space = 60 / height if rows > 1 else 0
    figure = make_subplots(rows=rows, shared_xaxes=True, vertical_spacing=space, subplot_titles=titles or None)
    figure.update_layout(template=TEMPLATE, height=height, margin={"t": 64})
    figure.update_annotations(font={"size": 14})
    most = max((value for part in info.parts for row in part.counts for value in row), default=1.0)
    for row, part in enumerate(info.parts, 1):
        figure.add_heatmap(
            x=info.cells,
            y=[text_of(name) for name in info.operations],
            z=part.counts,
            zmin=0,
            zmax=most,
            # One hue from the page's own white: a missing operation is an empty field.
            colorscale=[[0, "#f4f6f8"], [0.15, "#cfe3f1"], [0.5, "#5aa5d3"], [1, "#08456f"]],
            showscale=row == 1,
            colorbar={"title": {"text": "edges"}, "thickness": 12, "len": 1.0},
            xgap=1,
            ygap=1,
            hovertemplate="<b>%{y}</b>, cell %{x}<br>%{z:.2f} edges per network<extra></extra>",
            row=row,
            col=1,
        )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_xaxes(title={"text": "Cell (r: reduction)"}, row=rows)
    return figure
