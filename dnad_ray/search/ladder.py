"""The ladder: networks of several sizes that the present weights imply, recorded from the first interval on.

Deletion alone records nothing before the first deletion, and after it one size at a time. With the ladder, a search
also records early networks of every size, from the dense supernet down to the smallest that the space allows.
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
"""Candidates per node; each size is a third to a half larger than the one before, for a logarithmic cost axis."""

_SHARE = 0.04
"""Largest time for scoring a ladder, as a share of the training time."""


def rungs(space: SearchSpace, candidates: Sequence[Candidate], worth: Sequence[float]) -> list[list[int]]:
    """Return the candidates of each network of the ladder, smallest network first.

    If the space keeps all alive candidates, rung ``k`` has the strongest ``k`` candidates of each node. If nodes keep
    a fixed number of inputs, ``k`` is at most that number. If each edge keeps one operation, rung ``k`` has the
    strongest operation on ``k`` edges of each cell: the edges where its lead over the strongest operation without
    parameters is largest. The other edges have that operation without parameters.

    Args:
        space: The search space.
        candidates: Alive candidates of the supernet.
        worth: The worth of each candidate (num_alive,): its weight, or a measurement.

    Returns:
        Positions, ascending, of each rung; the last rung is the network that the space derives from the supernet.
    """
    whole = derived(space, candidates, worth)
    if space.derivation == "edges":
        lower = _with_free_edges(candidates, worth, whole)
    else:
        lower = _strongest_per_node(candidates, worth, whole)
    return [*(positions for positions in lower if positions != whole), whole]


def score_images(num_train_images: int, num_rungs: int, interval_epochs: int) -> int:
    """Return the number of images to score each rung on; all rungs together take at most 4 % of the training time.

    A training step costs three forward passes. The number has a lower bound, because batch statistics need images.

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
        # An edge without an alive parameter-free operation stays empty, if its node has another edge.
        left = (chosen - cut) | instead
        if _feeds_every_node(candidates, left, chosen):
            yield sorted(left)


def _edge_of(item: Candidate) -> tuple[int, int, int]:
    return item.cell, item.node, item.edge.source


def _feeds_every_node(candidates: Sequence[Candidate], left: set[int], chosen: set[int]) -> bool:
    def nodes(positions: set[int]) -> set[tuple[int, int]]:
        return {(candidates[position].cell, candidates[position].node) for position in positions}

    return nodes(left) == nodes(chosen)
