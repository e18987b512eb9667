"""Search spaces: which networks exist, and the width at which they are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import SpaceError
from search_spaces.genotype import NONE, SKELETONS, CellGenotype, Edge, Genotype
from search_spaces.named import SPACES
from search_spaces.named.template import DERIVATIONS, SHARINGS
from search_spaces.ops import check_operations
from search_spaces.stages import reductions

__all__ = ["NAMED_OPERATIONS", "SearchSpace", "space_named"]

NAMED_OPERATIONS: dict[str, tuple[str, ...]] = {
    name: template.operations for name, template in SPACES.items() if template.operations
}
"""Name of a space -> its candidates."""


_PLAIN = "nor_conv_3x3"


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """All candidates: every operation on every earlier state, for every node of every cell.

    Attributes:
        operations: Candidate operations, names in :data:`search_spaces.ops.OPERATIONS`.
        num_cells: Cells L, at least as many as stages.
        num_nodes: Nodes per cell besides its inputs.
        num_stages: Resolutions; each later one begins with a reduction.
        sharing: Which cells have one topology, see :data:`search_spaces.named.template.SHARINGS`.
        derivation: Rule of the derived network, see :data:`search_spaces.named.template.DERIVATIONS`.
        inputs_kept: Inputs that a search leaves each node at least; under the derivation ``inputs`` also at most.
        skeleton: Skeleton around the cells, a name in :data:`search_spaces.genotype.SKELETONS`.
        edge_operations: For each kind of cell (normal, reduction) the candidates of each edge, in the order of
            :meth:`edges`, where edges differ; they must be among ``operations``. None: all on every edge.

    Raises:
        SpaceError: If an operation is unknown or named twice, a number is too small, or stages cannot hold the cells.
    """

    operations: tuple[str, ...]
    num_cells: int
    num_nodes: int
    num_stages: int = 3
    sharing: str = "cell"
    derivation: str = "alive"
    inputs_kept: int = 1
    skeleton: str = "darts"
    edge_operations: tuple[tuple[tuple[str, ...], ...], ...] | None = None

    def __post_init__(self) -> None:
        check_operations(self.operations, "space.operations")
        if not set(self.operations) - {NONE} or len(set(self.operations)) != len(self.operations):
            raise SpaceError("space.operations", list(self.operations), "each operation once, one besides none")
        for name, allowed in (("sharing", SHARINGS), ("derivation", DERIVATIONS), ("skeleton", SKELETONS)):
            if getattr(self, name) not in allowed:
                raise SpaceError(f"space.{name}", getattr(self, name), ", ".join(allowed))
        if self.num_stages < 1:
            raise SpaceError("space.num_stages", self.num_stages, "at least 1")
        if self.num_cells < self.num_stages:
            words = "three" if self.num_stages == 3 else str(self.num_stages)
            raise SpaceError("space.num_cells", self.num_cells, f"at least {self.num_stages} ({words} stages)")
        if self.skeleton == "nas_bench_201" and self.num_cells % self.num_stages:
            allowed_cells = f"a multiple of the {self.num_stages} stages, which are equal in this skeleton"
            raise SpaceError("space.num_cells", self.num_cells, allowed_cells)
        if self.num_nodes < 1:
            raise SpaceError("space.num_nodes", self.num_nodes, "at least 1")
        if self.sharing == "all" and self.skeleton == "darts" and self.num_stages > 1 and self.edge_operations:
            raise SpaceError("space.sharing", self.sharing, "cell or kind, where edges have operations of their own")
        if not 1 <= self.inputs_kept <= self.num_inputs:
            allowed_inputs = f"1 to {self.num_inputs}, what the first node can read"
            raise SpaceError("space.inputs_kept", self.inputs_kept, allowed_inputs)
        if self.edge_operations is not None:
            self._check_edge_operations()

    def _check_edge_operations(self) -> None:
        for name, of_kind in zip(("normal", "reduction"), self.edge_operations or (), strict=True):
            where = f"space.edge_operations of {name} cells"
            if len(of_kind) != len(self.edges()):
                raise SpaceError(
                    where, len(of_kind), f"{len(self.edges())}, one for each edge of {self.num_nodes} nodes"
                )
            for operations in of_kind:
                if not set(operations) - {NONE} or not set(operations) <= set(self.operations):
                    raise SpaceError(where, list(operations), f"one or several of {', '.join(self.operations)}")

    @property
    def num_inputs(self) -> int:
        """States of a cell before its first node."""
        return SKELETONS[self.skeleton]

    @property
    def num_candidates(self) -> int:
        """Candidates of the dense supernet: cells x operations x (2 + 3 + ... over the nodes), if edges are alike."""
        return self.dense().num_operations

    def edges(self) -> list[tuple[int, int]]:
        """Return (node, source) of each edge of a cell, node by node."""
        return [(node, source) for node in range(self.num_nodes) for source in range(self.num_inputs + node)]

    def dense(self) -> Genotype:
        """Return the genotype in which every candidate is alive."""
        if self.edge_operations is None:
            return self.uniform(self.operations)
        return self._genotype([dict(zip(self.edges(), of_kind, strict=True)) for of_kind in self.edge_operations])

    def uniform(self, operations: tuple[str, ...], only_inputs: bool = False) -> Genotype:
        """Return the genotype whose nodes apply ``operations`` to all earlier states, or to the cell's inputs only."""
        chosen = dict.fromkeys(self.edges(), operations)
        if only_inputs:
            chosen = {edge: operations for edge in chosen if edge[1] < self.num_inputs}
        return self._genotype([chosen, chosen])

    def usual_teacher(self) -> Genotype:
        """Return a plain network with the stages of the space: separable convolutions on both inputs of each cell.

        In the residual skeleton it is convolutions 3x3 on all earlier states, or, where edges have operations of their
        own, on all edges that can have one; the others have their first operation. That is a ResNet in the space
        ``device``.
        """
        if self.skeleton == "nas_bench_201" and self.edge_operations is not None:
            of_edges = zip(self.edges(), self.edge_operations[0], strict=True)
            plain = {edge: (_PLAIN if _PLAIN in names else names[0],) for edge, names in of_edges}
            return self._genotype([plain, plain])
        if self.skeleton == "nas_bench_201":
            return self.uniform((_PLAIN,))
        return self.uniform(("sep_conv_3x3",), only_inputs=True)

    def group_of(self, is_reduction: bool, cell: int) -> int:
        """Return a number that is equal for cells that share a topology."""
        return {"cell": cell, "kind": int(is_reduction), "all": 0}[self.sharing]

    def _genotype(self, of_kinds: Sequence[Mapping[tuple[int, int], tuple[str, ...]]]) -> Genotype:
        def cell(is_reduction: bool) -> CellGenotype:
            chosen = of_kinds[is_reduction if self.skeleton == "darts" else 0]
            nodes = tuple(
                tuple(
                    Edge(operation, source)
                    for source in range(self.num_inputs + node)
                    for operation in chosen.get((node, source), ())
                )
                for node in range(self.num_nodes)
            )
            # The output of a cell of NAS-Bench-201 is its last node.
            return CellGenotype(is_reduction, nodes, None if self.skeleton == "darts" else (self.num_nodes - 1,))

        kinds = cell(False), cell(True)
        halving = reductions(self.num_cells, self.num_stages)
        return Genotype(tuple(kinds[index in halving] for index in range(self.num_cells)), self.skeleton)


def space_named(
    name: str, operations: tuple[str, ...] | None, num_cells: int, num_nodes: int, **changes: Any
) -> SearchSpace:
    """Return the named space at a size.

    Args:
        name: In :data:`search_spaces.named.SPACES`.
        operations: Candidates; None takes those of the name.
        num_cells: Cells.
        num_nodes: Nodes besides the inputs of a cell.
        changes: Other fields of :class:`SearchSpace` that differ from those of the name; None is no difference.

    Raises:
        SpaceError: If the name is unknown or the size impossible.
    """
    if name not in SPACES:
        raise SpaceError("space.name", name, ", ".join(SPACES))
    template = SPACES[name]
    fields: dict[str, Any] = {
        "num_stages": template.num_stages,
        "sharing": template.sharing,
        "derivation": template.derivation,
        "inputs_kept": template.inputs_kept,
    }
    if operations is None and not template.operations:
        raise SpaceError("space.operations", None, f"the candidates of the space {name!r}")
    if operations is None and num_nodes == template.num_nodes:
        fields["edge_operations"] = template.edge_operations
    fields |= {key: value for key, value in changes.items() if value is not None}
    if fields["derivation"] != "inputs" and changes.get("inputs_kept") is None:
        fields["inputs_kept"] = 1
    return SearchSpace(
        operations=template.operations if operations is None else operations,
        num_cells=num_cells,
        num_nodes=num_nodes,
        skeleton=template.skeleton,
        **fields,
    )
