"""The supernet: all candidates are alive at first; deleted ones are removed from memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from torch import Tensor, nn

from search_spaces.genotype import NONE, Edge, Genotype
from search_spaces.kernels.bank import Sliced
from search_spaces.network import NetworkOutput, network_from
from search_spaces.shape import NetworkShape
from search_spaces.space import SearchSpace

__all__ = ["Candidate", "Removal", "Supernet", "candidates_of", "groups_of", "subset"]


class Candidate(NamedTuple):
    """One alive candidate of the supernet: an edge into a node of a cell."""

    cell: int
    node: int
    edge: Edge


class Removal(NamedTuple):
    """The result of a removal.

    Attributes:
        kept: The old positions of the candidates that are still alive, ascending.
        sliced: The parameters that lost rows; the optimizer's state for them must lose the same.
    """

    kept: list[int]
    sliced: list[Sliced]


class Supernet(nn.Module):
    """Network of all candidates that are still alive.

    Args:
        space: The search space; all its candidates are alive at first.
        shape: Width, classes and images.
    """

    def __init__(self, space: SearchSpace, shape: NetworkShape) -> None:
        super().__init__()
        self.space = space
        self.network = network_from(space.dense(), shape, searching=True)

    @property
    def genotype(self) -> Genotype:
        """The alive candidates, ``none`` included."""
        return self.network.genotype

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The alive candidates, cell by cell and node by node: the order of the architecture weights."""
        return candidates_of(self.genotype)

    @property
    def groups(self) -> tuple[tuple[int, int, Edge], ...]:
        """For each of :attr:`candidates` its key among the topologies that cells share."""
        return groups_of(self.space, self.genotype)

    def forward(self, images: Tensor, weights: Tensor) -> NetworkOutput:
        """Classify images (N, in_channels, H, W) under architecture weights (num_alive,), see :attr:`candidates`."""
        per_node = iter(weights.split([len(edges) for cell in self.genotype.cells for edges in cell.nodes]))
        per_cell = [list(islice(per_node, len(cell.nodes))) for cell in self.genotype.cells]
        output: NetworkOutput = self.network(images, per_cell)
        return output

    def remove(self, positions: Collection[int]) -> Removal:
        """Delete candidates, and everything that is then on no path from the image to the classifier.

        These are edges from nodes without inputs, and cells that no other cell reads.

        Args:
            positions: Indices into :attr:`candidates`.

        Returns:
            The remaining candidates and parameters.

        Raises:
            ValueError: If no path from the image to the classifier would be left.
        """
        before = self.candidates
        gone = set(positions)
        useful = subset(self.genotype, [item for i, item in enumerate(before) if i not in gone]).pruned()
        if useful.num_operations == 0:
            raise ValueError("removing these candidates would cut the image off from the classifier")
        kept = [i for i, item in enumerate(before) if i not in gone and _stays(item, useful)]
        return Removal(kept, self.network.keep(subset(self.genotype, [before[i] for i in kept])))

    def keep_only(self, genotype: Genotype) -> None:
        """Shrink to the candidates that ``genotype`` has, as a checkpoint recorded them."""
        self.remove(
            [i for i, item in enumerate(self.candidates) if item.edge not in genotype.cells[item.cell].nodes[item.node]]
        )


def _stays(candidate: Candidate, useful: Genotype) -> bool:
    edges = useful.cells[candidate.cell].nodes[candidate.node]
    # `none` computes nothing, but is part of the normalisation of its node while the node has an input.
    return candidate.edge in edges or (candidate.edge.operation == NONE and bool(edges))


def candidates_of(genotype: Genotype) -> tuple[Candidate, ...]:
    """Return the edges of a genotype, cell by cell and node by node."""
    return tuple(
        Candidate(cell, node, edge)
        for cell, topology in enumerate(genotype.cells)
        for node, edges in enumerate(topology.nodes)
        for edge in edges
    )


def groups_of(space: SearchSpace, genotype: Genotype) -> tuple[tuple[int, int, Edge], ...]:
    """Return for each of :func:`candidates_of` a name that is equal in all cells that share a topology.

    The name is (number of the topology, node, edge).
    """
    numbers = [space.group_of(cell.reduction, index) for index, cell in enumerate(genotype.cells)]
    return tuple((numbers[item.cell], item.node, item.edge) for item in candidates_of(genotype))


def subset(genotype: Genotype, candidates: Iterable[Candidate]) -> Genotype:
    """Return a genotype that has only some edges of another."""
    nodes: list[list[list[Edge]]] = [[[] for _ in cell.nodes] for cell in genotype.cells]
    for candidate in candidates:
        nodes[candidate.cell][candidate.node].append(candidate.edge)
    return replace(
        genotype,
        cells=tuple(
            replace(cell, nodes=tuple(map(tuple, lists))) for cell, lists in zip(genotype.cells, nodes, strict=True)
        ),
    )
