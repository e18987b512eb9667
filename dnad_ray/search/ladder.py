"""The ladder: networks of several sizes that the present weights imply, recorded from the first interval on.

Deletion alone leaves nothing behind before it begins, and what it leaves then is of one size at a time. What a search
knows early is so kept at every size, from the dense supernet down to what the space allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from search_spaces.derivation import derived
from search_spaces.genotype import NONE
from search_spaces.ops import PARAMETER_FREE
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate

__all__ = ["rungs", "score_images"]

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Candidates per node; steps of a third to a half, as costs are looked at on a logarithmic axis."""

_SHARE = 0.04
"""Share of the time of training that scoring a ladder takes at most."""


def rungs(space: SearchSpace, candidates: Sequence[Candidate], worth: Sequence[float]) -> list[list[int]]:
    """Return the candidates of each network of the ladder, smallest network first.

    Where all that is alive makes the network, rung ``k`` is the strongest ``k`` candidates of each node; where nodes
    keep a number of inputs, the strongest up to that number. Where each edge keeps one operation, rung ``k`` keeps the
    strongest one on ``k`` edges of each cell, those where it leads most over the strongest one that has no parameters,
    which stands on the others.

    Args:
        space: The search space.
        candidates: Alive candidates of the supernet.
        worth: What each of them is worth (num_alive,): its weight, or a measurement.

    Returns:
        Positions, ascending, of each rung; the last one is what the space derives of the supernet as it is.
    """
    whole = derived(space, candidates, worth)
    if space.derivation == "edges":
        lower = _with_free_edges(candidates, worth, whole)
    else:
        lower = _strongest_per_node(candidates, worth, whole)
    return [*(positions for positions in lower if positions != whole), whole]


def score_images(num_train_images: int, num_rungs: int, interval_epochs: int) -> int:
    """Return how many images each rung is scored on, so that all of them take 4 % of the time of training at most.

    A training step costs three forward passes. A batch needs some images for its statistics, though.

    >>> score_images(num_train_images=40_000, num_rungs=6, interval_epochs=1)
    512
    >>> score_images(num_train_images=6_000, num_rungs=6, interval_epochs=1)
    120
    """
    return max(64, min(512, int(_SHARE * 3 * num_train_images * interval_epochs / max(1, num_rungs))))


def _strongest_per_node(
    candidates: Sequence[Candidate], worth: Sequence[float], whole: Sequence[int]
) -> Iterator[list[int]]:
    nodes: dict[tuple[int, int], list[int]] = {}
    for position in sorted(whole, key=lambda position: -worth[position]):
        item = candidates[position]
        if item.edge.operation != NONE:
            nodes.setdefault((item.cell, item.node), []).append(position)
    most = max(map(len, nodes.values()), default=0)
    for size in takewhile(lambda size: size < most, _SIZES):
        yield sorted(position for members in nodes.values() for position in members[:size])


def _with_free_edges(
    candidates: Sequence[Candidate], worth: Sequence[float], whole: Sequence[int]
) -> Iterator[list[int]]:
    free: dict[tuple[int, int, int], int] = {}
    ranked = sorted(range(len(candidates)), key=lambda position: -worth[position])
    for position in ranked:
        item = candidates[position]
        if item.edge.operation in PARAMETER_FREE:
            free.setdefault(_edge_of(item), position)

    def lead(position: int) -> float:
        rival = free.get(_edge_of(candidates[position]))
        return worth[position] - (0.0 if rival is None else worth[rival])

    chosen = set(whole)
    costly: dict[int, list[int]] = {}
    for position in sorted(whole, key=lambda position: -lead(position)):
        if candidates[position].edge.operation not in PARAMETER_FREE:
            costly.setdefault(candidates[position].cell, []).append(position)
    most = max(map(len, costly.values()), default=0)
    for size in range(most):
        cut = {position for members in costly.values() for position in members[size:]}
        instead = {free[edge] for position in cut if (edge := _edge_of(candidates[position])) in free}
        # An edge on which nothing free is alive any more stays without an operation, if its node has another.
        left = (chosen - cut) | instead
        if _feeds_every_node(candidates, left, chosen):
            yield sorted(left)


def _edge_of(item: Candidate) -> tuple[int, int, int]:
    return item.cell, item.node, item.edge.source


def _feeds_every_node(candidates: Sequence[Candidate], left: set[int], chosen: set[int]) -> bool:
    def nodes(positions: set[int]) -> set[tuple[int, int]]:
        return {(candidates[position].cell, candidates[position].node) for position in positions}

    return nodes(left) == nodes(chosen)
