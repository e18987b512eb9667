"""Positions of the parts of a drawn architecture, in pixels; no SVG.

The states of a cell are in a row, and every edge is an arc above or below the row. No two arcs share a port, and
overlapping arcs have different heights, so parallel and crossing edges can be told apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from search_spaces.genotype import CellGenotype, Genotype

__all__ = ["Arc", "CellLayout", "NetworkLayout", "State", "layout_of"]

_INPUT_WIDTH, _NODE_WIDTH, _OUTPUT_WIDTH = 50.0, 30.0, 40.0  # least widths: a label fits
_GAP, _MARGIN = 20.0, 14.0
_PITCH, _DENSE_PITCH, _DENSE = 6.0, 4.0, 14  # distance of neighbouring arcs; closer where a state has more ports


class Arc(NamedTuple):
    """One edge: from ``x1`` to ``x2``, ``height`` away from the row of states."""

    operation: str
    source: int
    target: int
    below: bool
    x1: float
    x2: float
    height: float


class State(NamedTuple):
    """An input or a node of a cell: its centre, and whether anything reads it (input) or feeds it (node).

    ``in_output`` tells whether a node is part of the cell's output.
    """

    label: str
    is_input: bool
    used: bool
    x: float
    width: float
    in_output: bool


class CellLayout(NamedTuple):
    """One cell; ``gone`` if no edge of it is alive."""

    number: int
    reduction: bool
    gone: bool
    states: tuple[State, ...]
    arcs: tuple[Arc, ...]


class NetworkLayout(NamedTuple):
    """All cells on one scale: equal states have equal positions in all of them."""

    width: float
    above: float
    below: float
    output_x: float
    output_width: float
    cells: tuple[CellLayout, ...]


class _Edge(NamedTuple):
    source: int
    target: int
    lane: int  # number among the edges that join the same two states
    operation: str
    below: bool  # whether it comes from an input of the cell

    @property
    def span(self) -> tuple[int, int]:
        return self.target - self.source, self.lane


def layout_of(network: Genotype, operations: Sequence[str]) -> NetworkLayout:
    """Place the states and edges of a network.

    Args:
        network: The canonical form of a genotype.
        operations: All operations in the order in which parallel edges stack, inner ones first.
    """
    num_inputs = network.num_inputs
    cells = [_edges(cell, operations, num_inputs) for cell in network.cells]
    num_states = num_inputs + network.num_nodes
    ports = [_ports(edges, num_states) for edges in cells]
    most = [max(len(side) for cell in ports for side in cell[state]) for state in range(num_states)]
    pitch = _DENSE_PITCH if max(most) > _DENSE else _PITCH
    centres, widths, x = [], [], _MARGIN
    for state, count in enumerate(most):
        widths.append(max(_INPUT_WIDTH if state < num_inputs else _NODE_WIDTH, (count + 1) * pitch))
        centres.append(x + widths[-1] / 2)
        x += widths[-1] + _GAP
    arcs = [_arcs(edges, ports[index], centres, pitch) for index, edges in enumerate(cells)]
    heights = [(arc.below, arc.height) for cell in arcs for arc in cell]
    return NetworkLayout(
        width=x + _OUTPUT_WIDTH + _MARGIN,
        above=max((height for below, height in heights if not below), default=0.0) + _MARGIN,
        below=max((height for below, height in heights if below), default=0.0) + _MARGIN,
        output_x=x + _OUTPUT_WIDTH / 2,
        output_width=_OUTPUT_WIDTH,
        cells=tuple(
            CellLayout(
                index,
                cell.reduction,
                not cell.num_operations,
                _states(index, cell, centres, widths, num_inputs),
                arcs[index],
            )
            for index, cell in enumerate(network.cells)
        ),
    )


def _edges(cell: CellGenotype, operations: Sequence[str], num_inputs: int) -> list[_Edge]:
    edges = []
    for node, inputs in enumerate(cell.nodes):
        lanes: dict[int, int] = defaultdict(int)
        for edge in sorted(inputs, key=lambda edge: operations.index(edge.operation)):
            below = edge.source < num_inputs
            edges.append(_Edge(edge.source, num_inputs + node, lanes[edge.source], edge.operation, below))
            lanes[edge.source] += 1
    return edges


def _ports(edges: Iterable[_Edge], num_states: int) -> list[tuple[list[_Edge], list[_Edge]]]:
    """Return for each state its edges above and below, left to right, ordered so that arcs nest and do not cross."""
    sides = []
    for state in range(num_states):
        come = sorted((edge for edge in edges if edge.target == state), key=lambda edge: edge.span)
        leave = sorted((edge for edge in edges if edge.source == state), key=lambda edge: edge.span, reverse=True)
        both = come + leave
        sides.append(([edge for edge in both if not edge.below], [edge for edge in both if edge.below]))
    return sides


def _arcs(
    edges: Iterable[_Edge], ports: Sequence[tuple[list[_Edge], list[_Edge]]], centres: Sequence[float], pitch: float
) -> tuple[Arc, ...]:
    def port(state: int, edge: _Edge) -> float:
        side = ports[state][edge.below]
        return centres[state] + (side.index(edge) - (len(side) - 1) / 2) * pitch

    arcs: list[Arc] = []
    levels: list[int] = []
    ends = {edge: (port(edge.source, edge), port(edge.target, edge)) for edge in edges}
    # Short arcs first: each then lies above all that it encloses, at the lowest height that no other arc has there.
    for edge, (x1, x2) in sorted(ends.items(), key=lambda item: item[1][1] - item[1][0]):
        met = [
            (level, x1 <= arc.x1 and arc.x2 <= x2)
            for arc, level in zip(arcs, levels, strict=True)
            if arc.below == edge.below and arc.x1 < x2 and x1 < arc.x2
        ]
        taken = {level for level, _ in met}
        level = 1 + max((level for level, inside in met if inside), default=0)
        while level in taken:
            level += 1
        levels.append(level)
        arcs.append(Arc(edge.operation, edge.source, edge.target, edge.below, x1, x2, (1 + level) * pitch * 1.2))
    return tuple(sorted(arcs, key=lambda arc: (arc.target, arc.source, arc.height)))


def _states(
    index: int, cell: CellGenotype, centres: Sequence[float], widths: Sequence[float], num_inputs: int
) -> tuple[State, ...]:
    origins = range(index - num_inputs, index)  # input 0 is the older one
    labels = ["stem" if origin < 0 else f"cell {origin}" for origin in origins]
    labels += [str(node) for node in range(len(cell.nodes))]
    used = [cell.reads(state) for state in range(num_inputs)] + [bool(node) for node in cell.nodes]
    return tuple(
        State(
            label,
            state < num_inputs,
            used[state],
            centres[state],
            widths[state],
            state - num_inputs in cell.outputs,
        )
        for state, label in enumerate(labels)
    )
