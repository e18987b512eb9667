"""Nodes of a cell: sums over their edges, for the derived network and for the supernet."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.genotype import NONE, NUM_INPUTS, Edge
from search_spaces.kernels.bank import Bank, ChainBank, ReductionBank, Sliced, is_grouped, is_unfolded, side_by_side
from search_spaces.kernels.projection import Projection, weighted_sum
from search_spaces.kernels.states import States, bank_key, edge_key
from search_spaces.ops import CHAINS, OPERATIONS, Operation

__all__ = ["PlainNode", "WeightedNode", "compute_ahead", "drop"]


class PlainNode(nn.Module):
    """A node of a derived network: the plain sum of one module per edge.

    Args:
        edges: The edges that it sums; ``none`` adds nothing.
        channels: Width C.
        is_reduction: Whether edges from the cell's inputs have stride 2.
        shared: The cell's operations that candidates on one state share; the node adds those it needs.
    """

    def __init__(self, edges: Sequence[Edge], channels: int, is_reduction: bool, shared: nn.ModuleDict) -> None:
        super().__init__()
        self.edges = edges
        self.own = nn.ModuleDict()
        # Some published cells apply an operation twice to one state; each has its own parameters.
        self.keys = [edge_key(edge, list(edges[:index]).count(edge)) for index, edge in enumerate(edges)]
        for edge, key in zip(edges, self.keys, strict=True):
            factory = OPERATIONS[edge.operation]
            if factory is not None:
                operation = factory(channels, _stride(edge, is_reduction), False)
                if operation.is_shared:
                    shared[edge_key(edge)] = operation
                else:
                    self.own[key] = operation

    def forward(self, states: States, weights: Tensor | None) -> Tensor | None:
        """Return the node (N, C, H, W), None without edges; ``weights`` must be None."""
        assert weights is None
        total = None
        for edge, key in zip(self.edges, self.keys, strict=True):
            if edge.operation != NONE:
                term = _term(edge, self.own, states, key)
                total = term if total is None else total + term
        return total


class WeightedNode(nn.Module):
    """A node of the supernet: the sum of its alive candidates times their architecture weights.

    Args:
        edges: The candidates; ``none`` takes a weight and adds nothing.
        channels: Width C.
        is_reduction: Whether edges from the cell's inputs have stride 2.
        shared: The cell's operations that candidates on one state share; the node adds those it needs.
    """

    def __init__(self, edges: Sequence[Edge], channels: int, is_reduction: bool, shared: nn.ModuleDict) -> None:
        super().__init__()
        self.is_reduction = is_reduction
        self.own, self.banks = nn.ModuleDict(), nn.ModuleDict()
        self._arrange(edges)
        for edge in self.terms:
            factory = OPERATIONS[edge.operation]
            assert factory is not None
            operation = factory(channels, _stride(edge, is_reduction), True)
            (shared if operation.is_shared else self.own)[edge_key(edge)] = operation
        for key, members in self.members.items():
            first = members[0]
            self.banks[key] = (
                ChainBank(CHAINS[first.operation], len(members), channels, _stride(first, is_reduction))
                if first.operation in CHAINS
                else ReductionBank(len(members), channels)
            )
        self._place()

    def forward(self, states: States, weights: Tensor | None) -> Tensor | None:
        """Return the node (N, C, H, W) under architecture weights (num_edges,), None if nothing is added."""
        assert weights is not None
        terms = [_term(edge, self.own, states) for edge in self.terms]
        orders = [self.order[: len(terms)]]
        projections: list[Projection] = []
        summed: list[Tensor] = []
        start = len(terms)
        for key, members in self.members.items():
            bank, sources = cast(Bank, self.banks[key]), self.sources(key)
            if bank not in states.ahead and is_unfolded(states, sources, _stride(members[0], self.is_reduction)):
                summed.append(bank.summed(states, sources, weights))
            else:
                projections += states.ahead.get(bank) or bank(states, sources)
                orders.append(self.order[start : start + len(members)])
            start += len(members)
        if projections or (terms and not summed):
            own = weights.index_select(0, torch.cat(orders) if summed else self.order)
            return functools.reduce(torch.add, summed, weighted_sum(own, terms, projections))
        if not summed:
            return None
        total = functools.reduce(torch.add, summed)
        for term, weight in zip(terms, weights.index_select(0, orders[0]) if terms else (), strict=True):
            total = torch.addcmul(total, term, weight)
        return total

    def keep(self, edges: Sequence[Edge]) -> list[Sliced]:
        """Shrink to a subset of the edges; returns the parameters that lost rows."""
        before = self.members
        self._arrange(edges)
        drop(self.own, {edge_key(edge) for edge in self.terms})
        drop(self.banks, set(self.members))
        sliced: list[Sliced] = []
        for key, members in self.members.items():
            if members != before[key]:
                sliced += cast(Bank, self.banks[key]).keep([before[key].index(edge) for edge in members])
        self._place()
        return sliced

    def sources(self, key: str) -> list[int]:
        """Return the inputs of the candidates of a bank."""
        return [edge.source for edge in self.members[key]]

    def _place(self) -> None:
        """Give the banks the positions of the weights of their candidates."""
        for key, members in self.members.items():
            cast(Bank, self.banks[key]).place([self.edges.index(edge) for edge in members])

    def _arrange(self, edges: Sequence[Edge]) -> None:
        """Sort edges into banks and single terms, and store the positions of their weights."""
        self.edges = tuple(edges)
        self.terms: list[Edge] = []
        self.members: dict[str, list[Edge]] = {}
        for edge in sorted(edges, key=lambda edge: edge.operation not in CHAINS):  # chains first: they fold together
            stride = _stride(edge, self.is_reduction)
            if edge.operation in CHAINS or (edge.operation == "skip_connect" and stride == 2):
                self.members.setdefault(bank_key(edge.operation, stride), []).append(edge)
            elif edge.operation != NONE:
                self.terms.append(edge)
        in_order = [*self.terms, *(edge for members in self.members.values() for edge in members)]
        device = self.order.device if hasattr(self, "order") else None
        order = torch.tensor([self.edges.index(edge) for edge in in_order], dtype=torch.int64, device=device)
        self.register_buffer("order", order, persistent=False)
        self.order: Tensor


def compute_ahead(nodes: Iterable[WeightedNode], states: States) -> None:
    """Compute the small banks of all nodes that read only the inputs of a reduction cell together."""
    together: dict[str, list[tuple[ChainBank, list[int]]]] = {}
    for node in nodes:
        for key, bank in node.banks.items():
            if isinstance(bank, ChainBank) and bank.stride == 2:
                together.setdefault(key, []).append((bank, node.sources(key)))
    for pairs in together.values():
        banks, sources = [bank for bank, _ in pairs], [own for _, own in pairs]
        is_small = all(is_unfolded(states, own, 2) for own in sources)
        if len(banks) > 1 and not is_small and is_grouped(states, list(chain.from_iterable(sources))):
            projections = side_by_side(banks, states, sources)
            states.ahead.update((bank, [entry]) for bank, entry in zip(banks, projections, strict=True))


def drop(modules: nn.ModuleDict, keep: Collection[str]) -> None:
    """Delete every module but those of some keys."""
    for key in [key for key in modules if key not in keep]:
        del modules[key]


def _stride(edge: Edge, is_reduction: bool) -> int:
    return 2 if is_reduction and edge.source < NUM_INPUTS else 1


def _term(edge: Edge, own: nn.ModuleDict, states: States, key: str | None = None) -> Tensor:
    key = key or edge_key(edge)
    if key not in own:
        return states.shared(edge)
    operation = cast(Operation, own[key])
    return cast(Tensor, operation(states.rectified(edge.source) if operation.reads_relu else states.raw(edge.source)))
