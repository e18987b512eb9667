"""ONE cell, for the supernet and for the derived network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.genotype import NONE, NUM_INPUTS, CellGenotype, Edge
from search_spaces.ops import OPERATIONS, FactorizedReduce, Operation, ReluConvNorm

__all__ = ["Cell"]


class Cell(nn.Module):
    """A cell that computes the edges of its genotype, and only those.

    Node ``j`` is the sum over its edges of ``weight * operation(state)`` (paper, section 3.1); the output is the
    concatenation of the nodes. A node without edges is zero.

    Args:
        genotype: The alive edges.
        in_channels: Channels of the two inputs, older first.
        channels: Width C of the cell; the output has ``num_nodes * C`` channels.
        older_is_larger: Whether the older input still has twice the resolution, because the cell between reduced.
        searching: See :mod:`search_spaces.ops`.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        in_channels: tuple[int, int],
        channels: int,
        older_is_larger: bool,
        searching: bool,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        # Input preprocessing exists only where a candidate reads it: an unread input costs nothing.
        self.preprocess = nn.ModuleDict()
        for source, width in enumerate(in_channels):
            if genotype.reads(source):
                if source == 0 and older_is_larger:
                    self.preprocess[str(source)] = FactorizedReduce(width, channels, searching)
                else:
                    self.preprocess[str(source)] = ReluConvNorm(width, channels, searching)
        # Keys of ModuleDict must be text; the edges themselves stay data, in ``genotype``.
        self.own = nn.ModuleDict()
        self.shared = nn.ModuleDict()
        for node, edges in enumerate(genotype.nodes):
            for edge in edges:
                factory = OPERATIONS[edge.operation]
                if factory is None:
                    continue
                stride = 2 if genotype.reduction and edge.source < NUM_INPUTS else 1
                operation = factory(channels, stride, searching)
                if operation.is_shared:
                    self.shared[_shared_key(edge)] = operation  # one module a source, whoever comes last
                else:
                    self.own[_own_key(node, edge)] = operation

    def forward(self, older: Tensor | None, newer: Tensor | None, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the cell.

        Args:
            older: Output of the cell before the previous one (N, C0, H, W), None if nothing here reads it.
            newer: Output of the previous cell (N, C1, H, W), None if nothing here reads it.
            weights: One scalar tensor per edge in the order of ``genotype.nodes``; None is the plain sum.

        Returns:
            (N, num_nodes * C, H', W') with H' = ceil(H / 2) in a reduction cell and H otherwise.
        """
        states: list[Tensor | None] = [None, None]
        if "0" in self.preprocess:
            # FactorizedReduce expects ReLU of its input, as every operation with weights; ReluConvNorm does its own.
            module = self.preprocess["0"]
            states[0] = module(F.relu(cast(Tensor, older)) if isinstance(module, FactorizedReduce) else older)
        if "1" in self.preprocess:
            states[1] = self.preprocess["1"](newer)
        rectified: dict[int, Tensor] = {}
        computed: dict[str, Tensor] = {}
        position = 0
        for node, edges in enumerate(self.genotype.nodes):
            terms: list[Tensor] = []
            for edge in edges:
                weight = None if weights is None else weights[position]
                position += 1
                if edge.operation == NONE:
                    continue
                state = cast(Tensor, states[edge.source])
                key = _shared_key(edge)
                if key in self.shared:
                    if key not in computed:
                        computed[key] = self.shared[key](state)
                    terms.append(computed[key] if weight is None else computed[key] * weight)
                    continue
                operation = cast(Operation, self.own[_own_key(node, edge)])
                if operation.reads_relu:
                    if edge.source not in rectified:
                        rectified[edge.source] = F.relu(state)
                    state = rectified[edge.source]
                terms.append(operation(state, weight))
            states.append(_sum(terms) if terms else None)
        nodes = states[NUM_INPUTS:]
        filled = next(state for state in nodes if state is not None)
        return torch.cat([torch.zeros_like(filled) if state is None else state for state in nodes], 1)

    def keep(self, genotype: CellGenotype) -> None:
        """Shrink to ``genotype``, a subset of the present edges; modules that nothing uses any more are dropped."""
        self.genotype = genotype
        own = {_own_key(node, edge) for node, edges in enumerate(genotype.nodes) for edge in edges}
        shared = {_shared_key(edge) for edges in genotype.nodes for edge in edges}
        _drop(self.own, own)
        _drop(self.shared, shared)
        _drop(self.preprocess, {str(source) for source in range(NUM_INPUTS) if genotype.reads(source)})


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _drop(modules: nn.ModuleDict, keep: Collection[str]) -> None:
    for key in [key for key in modules if key not in keep]:
        del modules[key]


def _own_key(node: int, edge: Edge) -> str:
    return f"{node} {edge.source} {edge.operation}"


def _shared_key(edge: Edge) -> str:
    return f"{edge.source} {edge.operation}"
