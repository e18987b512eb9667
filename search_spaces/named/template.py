"""The data that tells one search space from another."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DERIVATIONS", "SHARINGS", "SpaceTemplate"]

SHARINGS = ("cell", "kind", "all")
"""Which cells have one topology: each its own; all normal cells one and all reduction cells another; all of them."""

DERIVATIONS = ("alive", "inputs", "edges")
"""What a derived network keeps: all that is alive; the strongest operation of the strongest inputs of each node; the
strongest operation of each edge."""


@dataclass(frozen=True, kw_only=True)
class SpaceTemplate:
    """A search space without its size.

    Attributes:
        summary: One line for a list.
        operations: Candidates on every edge; empty where a configuration must name them.
        sharing: One of :data:`SHARINGS`.
        derivation: One of :data:`DERIVATIONS`.
        inputs_kept: Inputs that each node keeps at least, and under the derivation ``inputs`` at most.
        num_stages: Resolutions.
        skeleton: Name in :data:`search_spaces.genotype.SKELETONS`.
        num_cells: Usual number of cells.
        num_nodes: Usual number of nodes besides the inputs of a cell.
        init_channels: Usual width of the supernet.
        edge_operations: See :class:`search_spaces.space.SearchSpace`; holds at the usual number of nodes only.
    """

    summary: str
    operations: tuple[str, ...]
    sharing: str = "cell"
    derivation: str = "alive"
    inputs_kept: int = 1
    num_stages: int = 3
    skeleton: str = "darts"
    num_cells: int = 8
    num_nodes: int = 4
    init_channels: int = 16
    edge_operations: tuple[tuple[tuple[str, ...], ...], ...] | None = None
