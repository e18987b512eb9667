"""The states of a cell in a forward pass, with values that several edges need, computed once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.genotype import Edge
from search_spaces.kernels.depthwise import Arranged
from search_spaces.kernels.pixels import even_pixels, halves
from search_spaces.kernels.projection import Projection

__all__ = ["States", "bank_key", "edge_key", "former_name", "present_name"]

_Computed = TypeVar("_Computed")
_FORMER_EDGE = re.compile(r"(?P<source>[0-9]{1,3}) (?P<operation>[a-z]\w*)(?: (?P<number>[0-9]{1,3}))?")
_PRESENT_EDGE = re.compile(r"^([a-z]\w*)_from_([0-9]{1,3})(?:_([0-9]{1,3}))?$")
_FORMER_BANK = re.compile(r"(?P<operation>[a-z]\w*) (?P<stride>[0-9])")


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
    """Return a name of an edge within its node, for the keys of ModuleDict: an identifier, as programs write them.

    Args:
        edge: The edge.
        number: How many equal edges the node has before it.
    """
    return f"{edge.operation}_from_{edge.source}" + (f"_{number}" if number else "")


def bank_key(operation: str, stride: int) -> str:
    """Return a name of a bank within its node, likewise."""
    return f"{operation}_stride_{stride}"


def present_name(name: str) -> str:
    """Return the name that a parameter or buffer of a file has now; those of older files had spaces in them.

    >>> present_name("cells.0.nodes.1.own.2 sep_conv_3x3 1.norms.0.weight")
    'cells.0.nodes.1.own.sep_conv_3x3_from_2_1.norms.0.weight'
    >>> present_name("cells.0.nodes.1.banks.skip_connect 2.norms.0.running_mean")
    'cells.0.nodes.1.banks.skip_connect_stride_2.norms.0.running_mean'
    """
    return ".".join(map(_present_part, name.split("."))) if " " in name else name


def _present_part(part: str) -> str:
    edge, bank = _FORMER_EDGE.fullmatch(part), _FORMER_BANK.fullmatch(part)
    if edge is not None:
        return edge_key(Edge(edge["operation"], int(edge["source"])), int(edge["number"] or 0))
    return part if bank is None else bank_key(bank["operation"], int(bank["stride"]))


def former_name(name: str) -> str:
    """Return the name that :func:`present_name` takes a name from, for digests over names that must not change.

    >>> former_name("cells.0.nodes.1.own.sep_conv_3x3_from_2_1.norms.0.weight")
    'cells.0.nodes.1.own.2 sep_conv_3x3 1.norms.0.weight'
    """
    return ".".join(_PRESENT_EDGE.sub(r"\2 \1 \3", part).rstrip() for part in name.split("."))
