"""The cell, for both the supernet and the derived network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.genotype import NUM_INPUTS, CellGenotype, Edge
from search_spaces.kernels.bank import Sliced
from search_spaces.kernels.small_images import Parts, compute_small, has_small_inputs, parts_of
from search_spaces.kernels.states import States, edge_key, present_name
from search_spaces.node import PlainNode, WeightedNode, compute_ahead, drop
from search_spaces.ops import FactorizedReduce, PointwiseNorm

__all__ = ["Cell"]


class Cell(nn.Module):
    """A cell that computes the edges of its genotype, and only those.

    Node ``j`` is the sum over its edges of ``weight * operation(state)`` (paper, section 3.1); the output is the
    concatenation of the nodes. A node without edges is zero.

    Args:
        genotype: The alive edges.
        in_channels: Channels of the two inputs, older first; None for a cell whose nodes read its one input, of C
            channels, as it is.
        channels: Width C of the cell; the output has C channels for each node in ``genotype.outputs``.
        older_is_larger: Whether the older input still has twice the resolution, because the cell between reduced.
        searching: See :mod:`search_spaces.ops`.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        in_channels: tuple[int, int] | None,
        channels: int,
        older_is_larger: bool,
        searching: bool,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.reads_raw = in_channels is None
        self.has_strides = genotype.reduction and not self.reads_raw
        edges = [edge for node in genotype.nodes for edge in node]
        is_identity = len(edges) == len(genotype.outputs) == 1 and edges[0] == Edge("skip_connect", 0)
        # Most cells of a shallow residual network are such.
        self._passes_on = is_identity and self.reads_raw and not searching
        # An input that no candidate reads has no preprocessing, so it costs nothing.
        self.preprocess = nn.ModuleDict()
        for source, width in enumerate(in_channels or ()):
            if genotype.reads(source):
                preprocess = FactorizedReduce if source == 0 and older_is_larger else PointwiseNorm
                self.preprocess[str(source)] = preprocess(width, channels, searching)
        self.shared = nn.ModuleDict()
        self._channels = channels
        self._parts: Parts | None = None
        self._is_listed = False
        node = WeightedNode if searching else PlainNode
        self.nodes = nn.ModuleList(node(edges, channels, self.has_strides, self.shared) for edges in genotype.nodes)
        self.register_load_state_dict_pre_hook(_take_present_names)  # type: ignore[no-untyped-call]

    def forward(self, older: Tensor | None, newer: Tensor | None, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Compute the cell.

        Args:
            older: ReLU of the output of the cell before the previous one (N, C0, H, W); None if no edge reads it.
            newer: ReLU of the output of the previous cell (N, C1, H, W), None if nothing reads it; the one input as it
                is (N, C, H, W) where there is one.
            weights: For each node the weights (num_edges,) of its edges; None is the plain sum.

        Returns:
            (N, num_outputs * C, H', W') with H' = ceil(H / 2) in a reduction cell of two inputs and H otherwise.
        """
        if self._passes_on:
            assert newer is not None
            return newer
        if self.training and weights is not None:
            parts = self._listed()
            if parts is not None and has_small_inputs(parts, (older, newer)):
                return compute_small(parts, (older, newer), weights)
        states = States(self.shared)
        if self.reads_raw:
            states.append(newer)
        else:
            for source, x in enumerate((older, newer)):
                states.append(self.preprocess[str(source)](x) if str(source) in self.preprocess else None)
        if weights is not None and self.has_strides:
            compute_ahead(cast("Iterable[WeightedNode]", self.nodes), states)
        nodes: list[Tensor | None] = []
        for index, node in enumerate(self.nodes):
            nodes.append(node(states, None if weights is None else weights[index]))
            states.append(nodes[-1])
        filled = next(node for node in nodes if node is not None)
        found = [nodes[index] for index in self.genotype.outputs]
        outputs = [torch.zeros_like(filled) if node is None else node for node in found]
        return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]  # of one, it would be a copy

    def keep(self, genotype: CellGenotype) -> list[Sliced]:
        """Shrink to ``genotype``, a subset of the present edges; returns the parameters that lost rows.

        Unused modules are removed.
        """
        self.genotype, self._is_listed = genotype, False
        drop(self.shared, {edge_key(edge) for edges in genotype.nodes for edge in edges})
        drop(self.preprocess, {str(source) for source in range(NUM_INPUTS) if genotype.reads(source)})
        nodes = cast("Iterable[WeightedNode]", self.nodes)
        return [sliced for node, edges in zip(nodes, genotype.nodes, strict=True) for sliced in node.keep(edges)]

    def _listed(self) -> Parts | None:
        # Stored, because walking through all modules is slow.
        if not self._is_listed:
            self._parts = parts_of(self, self.genotype.outputs, self._channels, self.has_strides)
            self._is_listed = True
        return self._parts

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        self._is_listed = False  # it may replace parameters
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]


def _take_present_names(_cell: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Rename the tensors of a state dictionary that an older version saved."""
    for name in [name for name in state if " " in name]:
        state[present_name(name)] = state.pop(name)
