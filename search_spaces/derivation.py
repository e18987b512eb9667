"""Derivation: the candidates of a supernet that make the derived network, by the rule of the space."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.genotype import NONE
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate

__all__ = ["derived"]


def derived(space: SearchSpace, candidates: Sequence[Candidate], weights: Sequence[float]) -> list[int]:
    """Return the positions of the candidates that make the derived network, ascending.

    ``alive``: all of them (DNAD). ``inputs``: of each node the strongest operation on each state, ``none`` aside, and
    of those the ``inputs_kept`` strongest (DARTS, arXiv 1806.09055, section 2.4). ``edges``: the strongest operation on
    each edge, which is no edge where ``none`` is the strongest (NAS-Bench-201); a node that would lose all its edges so
    keeps its strongest one. Of equal weights the first one wins.

    Args:
        space: The search space.
        candidates: Alive candidates of the supernet.
        weights: Their architecture weights (num_alive,).
    """
    if space.derivation == "alive":
        return list(range(len(candidates)))
    nodes: dict[tuple[int, int], list[int]] = {}
    for position, item in enumerate(candidates):
        nodes.setdefault((item.cell, item.node), []).append(position)
    chosen: list[int] = []
    for members in nodes.values():
        ranked = sorted(members, key=lambda position: -weights[position])
        operations = [position for position in ranked if candidates[position].edge.operation != NONE]
        if space.derivation == "inputs":
            chosen += _first_of_each_source(candidates, operations)[: space.inputs_kept]
        else:
            strongest = _first_of_each_source(candidates, ranked)
            kept = [position for position in strongest if candidates[position].edge.operation != NONE]
            chosen += kept or operations[:1]
    return sorted(chosen)


def _first_of_each_source(candidates: Sequence[Candidate], ranked: Sequence[int]) -> list[int]:
    first: dict[int, int] = {}
    for position in ranked:
        first.setdefault(candidates[position].edge.source, position)
    return list(first.values())
