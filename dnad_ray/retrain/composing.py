"""A network for a budget between two that a search recorded, from what all recorded networks have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from search_spaces.genotype import Genotype
from search_spaces.supernet import Candidate, candidates_of, subset

__all__ = ["composed", "shares_of"]


def shares_of(recorded: Iterable[Genotype]) -> dict[Candidate, float]:
    """Return for each edge the share of the recorded networks that have it: what searches keep longest has most.

    Args:
        recorded: Networks of one space, each once.
    """
    networks = list(recorded)
    counted = Counter(candidate for genotype in networks for candidate in set(candidates_of(genotype)))
    return {candidate: number / len(networks) for candidate, number in counted.items()}


def composed(
    smaller: Genotype, larger: Genotype, shares: dict[Candidate, float], fits: Callable[[Genotype], bool]
) -> Genotype:
    """Return the smaller network with edges of the larger one, those first that most recorded networks have.

    Each edge that fits the budget is added, also after one that did not.

    Args:
        smaller: A network that fits.
        larger: One of the same space, which need not contain the other.
        shares: As :func:`shares_of` returns them; edges that are not there come last.
        fits: Whether a network is within the budget.

    Returns:
        The network in its canonical form; ``smaller`` itself where no edge fits.
    """
    kept, found = set(candidates_of(smaller)), smaller
    missing = [candidate for candidate in candidates_of(larger) if candidate not in kept]
    missing.sort(key=lambda candidate: (-shares.get(candidate, 0.0), candidate))
    was_added = True
    while was_added:  # an edge may wait for another one, which its state is made of
        was_added = False
        for candidate in missing:
            if candidate in kept:
                continue
            tried = subset(larger, sorted({*kept, candidate})).pruned()
            if candidate in candidates_of(tried) and fits(tried):
                kept.add(candidate)
                found, was_added = tried, True
    return found
