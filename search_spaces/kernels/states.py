"""The states of a cell in a forward pass, with values that several edges need, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.genotype import Edge
from search_spaces.kernels.depthwise import Arranged
from search_spaces.kernels.pixels import even_pixels, halves
from search_spaces.kernels.projection import Projection

__all__ = ["States", "edge_key"]

_Computed = TypeVar("_Computed")


class States:
    """Inputs and nodes of a cell, and values computed from them.

    Attributes:
        ahead: By bank the projections that were computed before their node.

    Args:
        shared: By :func:`edge_key` the operations that all candidates of a kind on one state share.
    """

    def __init__(self, shared: nn.ModuleDict) -> None:
        self._shared = shared
        self._states: list[Tensor | None] = []
        self._computed: dict[object, object] = {}
        self.ahead: dict[nn.Module, list[Projection]] = {}

    def append(self, state: Tensor | None) -> None:
        """Add the next state, None if it is empty or no edge reads it."""
        self._states.append(state)

    def raw(self, source: int) -> Tensor:
        """Return a state (N, C, H, W)."""
        return cast(Tensor, self._states[source])

    def rectified(self, source: int) -> Tensor:
        """Return ReLU of a state."""
        return self._once(("relu", source), lambda: F.relu(self.raw(source)))

    def side_by_side(self, sources: Sequence[int]) -> Tensor:
        """Return the rectified states of some sources along the channels (N, num_sources * C, H, W)."""
        if len(sources) == 1:
            return self.rectified(sources[0])
        return self._once(tuple(sources), lambda: torch.cat([self.rectified(source) for source in sources], 1))

    def for_chains(self, sources: Sequence[int], is_even: bool) -> tuple[Tensor, Arranged]:
        """Return the input of depthwise chains: rectified states along the channels, or their even pixels only."""

        def compute() -> tuple[Tensor, Arranged]:
            x = self.side_by_side(sources)
            return (even_pixels(x) if is_even else x), Arranged()

        return self._once(("chains", is_even, *sources), compute)

    def halves(self, source: int) -> Tensor:
        """Return even and odd pixels of a rectified state side by side, see :mod:`search_spaces.kernels.pixels`."""
        return self._once(("halves", source), lambda: halves(self.rectified(source)))

    def shared(self, edge: Edge) -> Tensor:
        """Return the output of an operation that all its candidates on one state share."""
        key = edge_key(edge)
        return self._once(key, lambda: cast(Tensor, self._shared[key](self.raw(edge.source))))

    def _once(self, key: object, compute: Callable[[], _Computed]) -> _Computed:
        if key not in self._computed:
            self._computed[key] = compute()
        return cast(_Computed, self._computed[key])


def edge_key(edge: Edge, number: int = 0) -> str:
    """Return a name of an edge within its node, for the keys of ModuleDict, which must be text.

    Args:
        edge: The edge.
        number: How many equal edges the node has before it.
    """
    return f"{edge.source} {edge.operation} {number}" if number else f"{edge.source} {edge.operation}"
