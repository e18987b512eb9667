"""Costs of derived networks as sums over a table. fvcore counts each entry of the table once.

The sum equals :func:`dnad_ray.costs.trace.complexity_of`, a trace of the whole network, to the last digit, because in
fvcore's convention nothing between the modules of a network costs anything (ReLU, sums, concatenations). The
rules are: parts that the canonical form of a genotype lacks cost nothing (dead cells, ``none``, edges that read zeros).
The preprocessing of a cell's input costs something only if an edge of the cell reads that input. An operation that a
cell computes once for several edges costs once. An unused output of a stem costs no MACs, but its parameters count. No
entry is a formula: each is the module that the network would contain, built and counted when a network first needs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from dnad_ray.costs.trace import Complexity, complexity_of, count, image_of
from search_spaces.errors import SpaceError
from search_spaces.genotype import NONE, NUM_INPUTS, CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.ops import OPERATIONS, FactorizedReduce, Operation, PointwiseNorm, check_operations
from search_spaces.residual import STEMS_OF_RESIDUAL, ResidualBlock, ResidualHead, ResidualStem
from search_spaces.shape import NetworkShape
from search_spaces.stem_head import HALVINGS, STEMS, Classifier

__all__ = ["CostTable", "PartTable", "cost_table_for", "costs_of"]

Build = Callable[[], nn.Module]
_Cost = TypeVar("_Cost")


class PartTable(ABC, Generic[_Cost]):
    """Costs of the parts of all networks of one shape. Entries are added when a network first needs them.

    Args:
        shape: Width, classes and images.
    """

    def __init__(self, shape: NetworkShape) -> None:
        self.shape = shape
        self._image = _State(shape.images.in_channels, shape.images.image_size)
        self._operations: dict[tuple[int, int, int], _Operations[_Cost]] = {}
        self._others: dict[tuple[Any, ...], _Cost] = {}

    @abstractmethod
    def _priced(self, build: Build, size: tuple[int, int, int]) -> tuple[_Cost, nn.Module]:
        """Build a part and return its cost with it; ``size`` is (C, H, W) of its one input."""

    def _between(self, cell: CellGenotype, num_rectified: int, size: tuple[int, int, int]) -> list[_Cost]:
        """Return what a cell costs between its operations; nothing, unless a table says otherwise.

        Args:
            cell: The cell.
            num_rectified: States of which operations read the ReLU.
            size: (C, H, W) of a state.
        """
        del cell, num_rectified, size
        return []

    def _parts_of(self, genotype: Genotype) -> list[_Cost]:
        """Return the costs of all parts of the derived network of a genotype.

        Raises:
            GenotypeError: If no operation connects the image with the classifier.
            SpaceError: If an operation that counts is unknown.
        """
        canonical = genotype.pruned()
        is_residual = canonical.skeleton == "nas_bench_201"
        stems = STEMS_OF_RESIDUAL if is_residual else STEMS
        if not canonical.num_operations or self.shape.stem not in stems:
            network_from(genotype, self.shape)  # which raises the error
        return self._residual(canonical) if is_residual else self._of_cells(canonical)

    def _of_cells(self, canonical: Genotype, as_written: bool = False) -> list[_Cost]:
        """Return the costs of the parts of a :class:`search_spaces.network.CellNetwork`."""
        older, newer, older_is_larger, adaptive_pool = self._stem
        first, second = canonical.cells[0], canonical.cells[1:2]
        read_of_stem = first.reads(0), first.reads(1) or any(cell.reads(0) for cell in second)
        if as_written:
            read_of_stem = True, True
        costs = [self._other(_Stem, (self.shape, read_of_stem), self._image)]
        channels = self.shape.init_channels
        for cell in canonical.cells:
            channels *= 2 if cell.reduction else 1
            side = -(-newer.side // 2) if cell.reduction else newer.side  # as operations and dead cells do
            of_inputs = self._operations_at(channels, 2 if cell.reduction else 1, newer.side)
            read = self._add_edges(costs, cell, of_inputs, self._operations_at(channels, 1, side), NUM_INPUTS)
            if as_written:
                read |= {0, 1}
            if 0 in read:
                kind = FactorizedReduce if older_is_larger else PointwiseNorm
                costs.append(self._other(kind, (older.channels, channels, False), older))
            if 1 in read:
                costs.append(self._other(PointwiseNorm, (newer.channels, channels, False), newer))
            older, newer = newer, _State(len(cell.outputs) * channels, side)
            older_is_larger = cell.reduction
        costs.append(self._other(Classifier, (newer.channels, self.shape.images.num_classes, adaptive_pool), newer))
        return costs

    @cached_property
    def _stem(self) -> tuple[_State, _State, bool, bool]:
        """The states behind a stem of two outputs, whether the older is larger, and the classifier's kind of pool."""
        cost, module = self._priced(partial(_Stem, self.shape, (True, True)), image_of(self.shape))
        stem = cast(_Stem, module).stem
        with torch.no_grad():
            older, newer = map(_state_like, stem(torch.zeros(1, *image_of(self.shape))))
        self._others[_Stem, (self.shape, (True, True)), self._image] = cost
        return older, newer, stem.older_is_larger, stem.adaptive_pool

    def _residual(self, canonical: Genotype) -> list[_Cost]:
        """Return the costs of the parts of a :class:`search_spaces.residual.ResidualNetwork`."""
        halvings = HALVINGS[self.shape.stem]
        state = _State(self.shape.init_channels, -(-self.shape.images.image_size // 2**halvings))
        costs = [self._other(ResidualStem, (self.shape.images.in_channels, state.channels, halvings), self._image)]
        for cell in canonical.cells:
            if cell.reduction:
                costs.append(self._other(ResidualBlock, (state.channels,), state))
                state = _State(2 * state.channels, -(-state.side // 2))
            of_nodes = self._operations_at(state.channels, 1, state.side)
            self._add_edges(costs, cell, of_nodes, of_nodes, canonical.num_inputs)
        costs.append(self._other(ResidualHead, (state.channels, self.shape.images.num_classes), state))
        return costs

    def _add_edges(
        self,
        costs: list[_Cost],
        cell: CellGenotype,
        of_inputs: _Operations[_Cost],
        of_nodes: _Operations[_Cost],
        num_inputs: int,
    ) -> set[int]:
        """Add the costs of the edges of a cell; returns the states that they read."""
        seen: set[Edge] = set()
        rectified: set[int] = set()
        for edge in chain.from_iterable(cell.nodes):
            if edge.operation == NONE:
                continue
            part = (of_inputs if edge.source < num_inputs else of_nodes)[edge.operation]
            if not (part.is_shared and edge in seen):
                costs.append(part.cost)
            seen.add(edge)
            if part.reads_relu:
                rectified.add(edge.source)
        costs += self._between(cell, len(rectified), (of_nodes.channels, of_nodes.side, of_nodes.side))
        return {edge.source for edge in seen}

    def _operations_at(self, channels: int, stride: int, side: int) -> _Operations[_Cost]:
        key = channels, stride, side
        if key not in self._operations:
            self._operations[key] = _Operations(self._priced, *key)
        return self._operations[key]

    def _other(self, kind: Callable[..., nn.Module], arguments: tuple[Any, ...], state: _State) -> _Cost:
        key = kind, arguments, state
        if key not in self._others:
            self._others[key], _ = self._priced(partial(kind, *arguments), (state.channels, state.side, state.side))
        return self._others[key]


class CostTable(PartTable[Complexity]):
    """Multiply-adds and parameters, as fvcore counts them."""

    def complexity_of(self, genotype: Genotype) -> Complexity:
        """Return the cost of the derived network of a genotype, canonical or not, without auxiliary head.

        Raises:
            GenotypeError: If no operation connects the image with the classifier.
            SpaceError: If an operation that counts is unknown.
        """
        return Complexity(*map(sum, zip(*self._parts_of(genotype), strict=True)))

    def as_written(self, genotype: Genotype) -> Complexity:
        """Return the cost of a network that builds and runs everything its genotype names, dead or alive.

        The code of papers does so: it preprocesses inputs that no operation reads, and NAS-Bench-201's tables count
        dead operations.

        Raises:
            SpaceError: If an operation is unknown, or the stem does not fit the skeleton.
        """
        if genotype.skeleton != "nas_bench_201":
            costs = self._of_cells(genotype, as_written=True)
        elif self.shape.stem not in STEMS_OF_RESIDUAL:
            raise SpaceError("stem", self.shape.stem, ", ".join(STEMS_OF_RESIDUAL))
        else:
            costs = self._residual(genotype)
        return Complexity(*map(sum, zip(*costs, strict=True)))

    def _priced(self, build: Build, size: tuple[int, int, int]) -> tuple[Complexity, nn.Module]:
        counted = count(build, size)
        return counted.cost, counted.module


class _State(NamedTuple):
    """Size of the output of a cell."""

    channels: int
    side: int


def _state_like(x: Tensor) -> _State:
    return _State(x.shape[1], x.shape[2])


class _Stem(nn.Module):
    """A stem without unused outputs, because the tracer drops unused operations."""

    def __init__(self, shape: NetworkShape, read: tuple[bool, bool]) -> None:
        super().__init__()
        self.stem = STEMS[shape.stem](shape.images.in_channels, shape.init_channels)
        self.read = read

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(state for state, is_read in zip(self.stem(images), self.read, strict=True) if is_read)


@dataclass(frozen=True)
class _Part(Generic[_Cost]):
    """An operation: its cost, and what :class:`search_spaces.ops.Operation` says of it."""

    cost: _Cost
    is_shared: bool
    reads_relu: bool


class _Operations(dict[str, _Part[_Cost]], Generic[_Cost]):
    """The operations by name, at one width, stride and input side."""

    def __init__(
        self,
        priced: Callable[[Build, tuple[int, int, int]], tuple[_Cost, nn.Module]],
        channels: int,
        stride: int,
        side: int,
    ) -> None:
        super().__init__()
        self.priced, self.channels, self.stride, self.side = priced, channels, stride, side

    def __missing__(self, name: str) -> _Part[_Cost]:
        check_operations([name], "genotype operation")
        factory = OPERATIONS[name]
        assert factory is not None, f"a canonical genotype holds {name}"
        build = partial(factory, self.channels, self.stride, False)
        cost, module = self.priced(build, (self.channels, self.side, self.side))
        operation = cast(Operation, module)
        self[name] = _Part(cost, operation.is_shared, operation.reads_relu)
        return self[name]


@lru_cache(maxsize=64)
def cost_table_for(shape: NetworkShape) -> CostTable:
    """Return the table of a shape. There is one per process, so that each entry is counted only once."""
    return CostTable(shape)


def costs_of(genotype: Genotype, shape: NetworkShape, traced: bool = False) -> Complexity:
    """Return the costs of a derived network from the table.

    Args:
        genotype: The architecture, canonical or not.
        shape: Width, classes and images.
        traced: Whether to confirm the costs by a trace of the whole network, which takes a thousand times as long.

    Raises:
        GenotypeError: If no operation connects the image with the classifier.
    """
    cost = cost_table_for(shape).complexity_of(genotype)
    if not traced:
        return cost
    by_trace = complexity_of(genotype, shape)
    assert by_trace == cost, f"{genotype.digest} costs {cost} by the table and {by_trace} by a trace"
    return by_trace  # the result of the trace, also if assertions are disabled
