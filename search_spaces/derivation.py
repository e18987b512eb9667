"""Derivation: the candidates of a supernet that make the derived network, by the rule of the space."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.genotype import NONE, Genotype
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate, candidates_of, groups_of, subset

__all__ = ["derived", "derived_network", "is_member"]


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


def derived_network(space: SearchSpace, alive: Genotype, weights: Sequence[float]) -> tuple[Genotype, list[int]]:
    """Return the network that the space derives of a supernet, in canonical form.

    Args:
        space: The search space.
        alive: Alive candidates of the supernet.
        weights: Their architecture weights (num_alive,).

    Returns:
        The genotype, and the positions of the candidates that make it, ascending.
    """
    candidates = candidates_of(alive)
    chosen = derived(space, candidates, weights)
    return subset(alive, [candidates[position] for position in chosen]).pruned(), chosen


def is_member(space: SearchSpace, genotype: Genotype) -> bool:
    """Return whether a search of the space could have derived a network.

    It must have the skeleton, the stages and only candidates of the space; cells that share a topology must be equal,
    but for what carries nothing to the classifier; and each node must stay within the limits of the derivation.
    """
    network = genotype.pruned()
    dense = space.dense()
    used = set(groups_of(space, network))
    shared = [item for item, name in zip(candidates_of(dense), groups_of(space, dense), strict=True) if name in used]
    # What the network has in one cell, all cells of that topology have: if this is another network, it was not shared.
    whole = subset(dense, shared)
    if whole.pruned() != network or network.num_operations == 0:
        return False
    if space.derivation == "alive":
        return True
    most = space.inputs_kept if space.derivation == "inputs" else space.num_inputs + space.num_nodes
    nodes = [[edge.source for edge in node] for cell in whole.cells for node in cell.nodes]
    return all(len(set(sources)) == len(sources) <= most for sources in nodes)


def _first_of_each_source(candidates: Sequence[Candidate], ranked: Sequence[int]) -> list[int]:
    first: dict[int, int] = {}
    for position in ranked:
        first.setdefault(candidates[position].edge.source, position)
    return list(first.values())
