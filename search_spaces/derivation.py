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
    each edge; if that is ``none``, the edge is left out (NAS-Bench-201), but a node always keeps its strongest edge. Of
    equal weights the first one is taken.

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
        The genotype, and the positions of its candidates, ascending.
    """
    candidates = candidates_of(alive)
    chosen = derived(space, candidates, weights)
    return subset(alive, [candidates[position] for position in chosen]).pruned(), chosen


def is_member(space: SearchSpace, genotype: Genotype) -> bool:
    """Return whether a search of the space could have derived a network.

    It must have the skeleton, the stages and only candidates of the space. Cells that share a topology must be equal,
    except for edges without a path to the classifier. Each node must keep the limits of the derivation.
    """
    network = genotype.pruned()
    dense = space.dense()
    used = set(groups_of(space, network))
    shared = [item for item, name in zip(candidates_of(dense), groups_of(space, dense), strict=True) if name in used]
    # Give each cell the edges of all cells of its topology. If that changes the network, its cells were not shared.
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
