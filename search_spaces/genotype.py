"""Genotypes: frozen architectures with a digest, read and written as JSON (standard library only).

A genotype says which operations are alive, cell by cell and node by node. It says nothing about width, image
size or classes: those belong to the network that is built from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from search_spaces.errors import GenotypeError
from search_spaces.json_reader import JsonError, parse_json

__all__ = ["MAX_BYTES", "NONE", "NUM_INPUTS", "SCHEMA_VERSION", "SKELETONS", "CellGenotype", "Edge", "Genotype"]

SCHEMA_VERSION = 1
NUM_INPUTS = 2  # states 0 and 1 of a cell: the outputs of the cell before the previous one, and of the previous one
SKELETONS = {"darts": NUM_INPUTS, "nas_bench_201": 1}  # name of the skeleton -> inputs of a cell
NONE = "none"  # the candidate "no connection"; no derived network has it
_KIND = "dnad-ray genotype"
MAX_BYTES = 2**20  # of a file; 336 candidates have 30,000
_MOST_CELLS, _MOST_NODES, _MOST_EDGES = 200, 64, 20_000  # of what is read; beyond it, to build would take too long


class Edge(NamedTuple):
    """One operation that a node applies to one earlier state of its cell.

    States are numbered as in DARTS: 0 and 1 are the cell's inputs (older first), ``NUM_INPUTS + k`` is node ``k``. In
    a cell with one input (:attr:`Genotype.num_inputs`), 0 is that input and ``1 + k`` is node ``k``.
    """

    operation: str
    source: int


@dataclass(frozen=True)
class CellGenotype:
    """The alive edges of one cell.

    Attributes:
        reduction: Whether the resolution is halved and the channels are doubled: by edges of stride 2 from the cell's
            inputs, or by a residual block before the cell in the skeleton ``nas_bench_201``.
        nodes: For each intermediate node, the edges that it sums; an edge may occur twice, as in NASNet-A.
        concat: The nodes whose concatenation is the output, ascending; None is all of them.

    Raises:
        GenotypeError: If ``concat`` names no node, one that does not exist, or one twice.
    """

    reduction: bool
    nodes: tuple[tuple[Edge, ...], ...]
    concat: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.concat is None:
            return
        chosen = set(self.concat)
        if not chosen or len(chosen) != len(self.concat) or not chosen <= set(range(len(self.nodes))):
            allowed = f"each node once, at least one, from 0 to {len(self.nodes) - 1}"
            raise GenotypeError("concat", list(self.concat), allowed)
        # Sorted, because the order only permutes channels.
        whole = len(chosen) == len(self.nodes)
        object.__setattr__(self, "concat", None if whole else tuple(sorted(chosen)))

    @property
    def outputs(self) -> tuple[int, ...]:
        """The nodes whose concatenation is the output."""
        return tuple(range(len(self.nodes))) if self.concat is None else self.concat

    @property
    def num_operations(self) -> int:
        """Number of alive edges."""
        return sum(len(node) for node in self.nodes)

    def reads(self, state: int) -> bool:
        """Whether any node of the cell applies an operation other than ``none`` to ``state``."""
        return any(edge.source == state and edge.operation != NONE for node in self.nodes for edge in node)


@dataclass(frozen=True)
class Genotype:
    """An architecture: one topology per cell (DNAD, arXiv 2504.20080; where a space shares topologies, they are equal).

    Attributes:
        cells: The cells in order from the stem to the classifier.
        skeleton: Skeleton around the cells, a name in :data:`SKELETONS`.

    Raises:
        GenotypeError: If there is no cell, the skeleton is unknown, cells differ in their number of nodes, or an edge
            reads a state that does not exist yet.
    """

    cells: tuple[CellGenotype, ...]
    skeleton: str = "darts"

    def __post_init__(self) -> None:
        if self.skeleton not in SKELETONS:
            raise GenotypeError("skeleton", self.skeleton, ", ".join(SKELETONS))
        if not self.cells:
            raise GenotypeError("cells", [], "at least one cell")
        for index, cell in enumerate(self.cells):
            if len(cell.nodes) != len(self.cells[0].nodes) or not cell.nodes:
                raise GenotypeError(
                    f"cells[{index}].nodes", len(cell.nodes), "the same number of nodes, at least 1, in every cell"
                )
            for node, edges in enumerate(cell.nodes):
                for edge in edges:
                    if not 0 <= edge.source < self.num_inputs + node:
                        raise GenotypeError(
                            f"cells[{index}].nodes[{node}] source", edge.source, f"0 to {self.num_inputs + node - 1}"
                        )

    @property
    def num_inputs(self) -> int:
        """Number of states of a cell before its first node."""
        return SKELETONS[self.skeleton]

    @property
    def num_nodes(self) -> int:
        """Number of intermediate nodes in each cell."""
        return len(self.cells[0].nodes)

    @property
    def num_operations(self) -> int:
        """Number of alive edges in the whole network."""
        return sum(cell.num_operations for cell in self.cells)

    @property
    def is_connected(self) -> bool:
        """Whether any path leads from the image to the classifier."""
        return self.pruned().num_operations > 0

    def live_cells(self) -> tuple[bool, ...]:
        """Return for each cell whether its output reaches the classifier.

        The last cell is live. Another cell is live if the next cell is live and reads its newer input, or the one
        after that is live and reads its older input.
        """
        live = [False] * len(self.cells)
        live[-1] = True
        newer = self.num_inputs - 1
        for index in range(len(self.cells) - 2, -1, -1):
            follower = index + 1
            live[index] = live[follower] and self.cells[follower].reads(newer)
            if newer and index + 2 < len(self.cells):
                live[index] = live[index] or (live[index + 2] and self.cells[index + 2].reads(newer - 1))
        return tuple(live)

    def pruned(self) -> Genotype:
        """Return the canonical form: only the edges that carry the image to the classifier.

        It leaves out the operation ``none``, edges from states that are always zero (nodes without inputs, cells with
        empty nodes only), edges into nodes that are in no output and that no edge reads, and all edges of cells that
        no other cell reads. Edges are sorted, so two genotypes of the same network have equal canonical forms.
        """
        alive: list[CellGenotype] = []
        first = self.num_inputs
        carries = [True] * first  # whether the states before each cell (stem, stem, cell 0, ...) can be non-zero
        for cell in self.cells:
            states = carries[-first:]
            nodes: list[tuple[Edge, ...]] = []
            for node in cell.nodes:
                edges = (edge for edge in node if edge.operation != NONE and states[edge.source])
                kept = tuple(sorted(edges, key=lambda edge: (edge.source, edge.operation)))
                nodes.append(kept)
                states.append(bool(kept))
            needed = {first + node for node in cell.outputs}
            for index in range(len(nodes) - 1, -1, -1):
                if first + index not in needed:
                    nodes[index] = ()
                needed.update(edge.source for edge in nodes[index])
            alive.append(replace(cell, nodes=tuple(nodes)))
            carries.append(any(nodes[index] for index in cell.outputs))
        forward = replace(self, cells=tuple(alive))
        empty: tuple[tuple[Edge, ...], ...] = ((),) * self.num_nodes
        return replace(
            self,
            cells=tuple(
                cell if live else replace(cell, nodes=empty)
                for cell, live in zip(forward.cells, forward.live_cells(), strict=True)
            ),
        )

    @cached_property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical form: the architecture's name everywhere."""
        canonical: Any = _cells_to_json(self.pruned())
        if self.skeleton != "darts":
            canonical = {"skeleton": self.skeleton, "cells": canonical}
        return hashlib.sha256(json.dumps(canonical, separators=(",", ":")).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the schema's version."""
        head: dict[str, Any] = {"kind": _KIND, "schema": SCHEMA_VERSION, "digest": self.digest}
        # Older versions, without skeletons and `concat`, refuse such a file, because they compute another digest.
        if self.skeleton != "darts":
            head["skeleton"] = self.skeleton
        return {**head, "cells": _cells_to_json(self)}

    def to_json(self) -> str:
        """Return the genotype as a JSON document that ends with a line break."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_dict(cls, data: Any, origin: str = "genotype") -> Genotype:
        """Build a genotype from what :meth:`to_dict` returned.

        Args:
            data: Plain data as read from JSON.
            origin: Where the data came from, for error messages.

        Raises:
            GenotypeError: If the data are not a genotype, are of a newer schema, or do not match their digest.
        """
        if not isinstance(data, dict) or data.get("kind") != _KIND:
            raise GenotypeError(origin, _short(data), f"an object with kind {_KIND!r}")
        schema = data.get("schema")
        if not isinstance(schema, int) or not 1 <= schema <= SCHEMA_VERSION:
            raise GenotypeError(
                f"{origin} schema", schema, f"1 to {SCHEMA_VERSION} (newer files need a newer dnad-ray)"
            )
        try:
            cells = tuple(
                CellGenotype(
                    _boolean(cell["reduction"]),
                    tuple(tuple(Edge(_text(op), _integer(source)) for op, source in node) for node in cell["nodes"]),
                    tuple(map(_integer, cell["concat"])) if "concat" in cell else None,
                )
                for cell in data["cells"]
            )
            skeleton = _text(data.get("skeleton", "darts"))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, GenotypeError):
                raise
            raise GenotypeError(
                origin, _short(data), 'cells as [{"reduction": bool, "nodes": [[[operation, source], ...], ...]}, ...]'
            ) from error
        sizes = (len(cells), max((len(cell.nodes) for cell in cells), default=0), sum(c.num_operations for c in cells))
        if any(size > most for size, most in zip(sizes, (_MOST_CELLS, _MOST_NODES, _MOST_EDGES), strict=True)):
            allowed = f"at most {_MOST_CELLS} cells of at most {_MOST_NODES} nodes, and {_MOST_EDGES} edges in all"
            raise GenotypeError(origin, "{} cells, {} nodes, {} edges".format(*sizes), allowed)
        genotype = cls(cells, skeleton)
        if "digest" in data and data["digest"] != genotype.digest:
            raise GenotypeError(f"{origin} digest", data["digest"], f"{genotype.digest}, the digest of its cells")
        return genotype

    @classmethod
    def from_json(cls, text: str | bytes, origin: str = "genotype") -> Genotype:
        """Parse what :meth:`to_json` returned; raises :class:`GenotypeError` as :meth:`from_dict` does."""
        try:
            data = parse_json(text, origin, MAX_BYTES)
        except JsonError as error:
            raise GenotypeError(error.argument, error.given, error.allowed) from None
        return cls.from_dict(data, origin)


def _cells_to_json(genotype: Genotype) -> list[dict[str, Any]]:
    def nodes(cell: CellGenotype) -> Iterable[list[list[str | int]]]:
        return ([[edge.operation, edge.source] for edge in node] for node in cell.nodes)

    return [
        {"reduction": cell.reduction, "nodes": list(nodes(cell))}
        | ({} if cell.concat is None else {"concat": list(cell.concat)})
        for cell in genotype.cells
    ]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _short(data: object) -> str:
    text = data if isinstance(data, str) else repr(data)
    return text if len(text) <= 80 else text[:77] + "..."
