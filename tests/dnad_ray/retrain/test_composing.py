"""Networks composed from two others, edge by edge."""

from __future__ import annotations

from dnad_ray.retrain.composing import composed, shares_of
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.supernet import Candidate

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"


def genotype(*nodes):
    cells = [CellGenotype(False, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))]
    return Genotype(tuple(cells))


SMALL = genotype([(SKIP, 1)], [])
LARGE = genotype([(CONV, 0), (CONV, 1), (SKIP, 1)], [(POOL, 2), (SKIP, 0)])


def edges(found):
    return {(node, *edge) for node, members in enumerate(found.cells[0].nodes) for edge in members}


def test_shares_are_those_of_the_networks_that_have_an_edge():
    shares = shares_of([SMALL, LARGE])
    assert shares[Candidate(0, 0, Edge(SKIP, 1))] == 1.0
    assert shares[Candidate(0, 1, Edge(POOL, 2))] == 0.5


def test_edges_that_most_networks_have_come_first_and_each_that_fits():
    often = genotype([(CONV, 1), (SKIP, 1)], [(SKIP, 0)])
    shares = shares_of([SMALL, LARGE, often])

    def at_most(number, costly=()):
        return lambda tried: sum(5 if edge in costly else 1 for edge in edges(tried)) <= number

    found = composed(SMALL, LARGE, shares, at_most(3))
    assert edges(found) == {(0, SKIP, 1), (0, CONV, 1), (1, SKIP, 0)}
    # The first one is too costly; those after it are tried all the same.
    found = composed(SMALL, LARGE, shares, at_most(3, costly={(0, CONV, 1)}))
    assert edges(found) == {(0, SKIP, 1), (1, SKIP, 0), (0, CONV, 0)}
    assert composed(SMALL, LARGE, shares, at_most(1)) is SMALL
    assert composed(SMALL, LARGE, shares, at_most(99)) == LARGE.pruned()


def test_an_edge_waits_for_the_one_that_its_state_is_made_of():
    chain = genotype([(SKIP, 0)], [(SKIP, 0), (CONV, 2)])
    start = genotype([], [(SKIP, 0)])
    shares = {Candidate(0, 1, Edge(CONV, 2)): 1.0, Candidate(0, 0, Edge(SKIP, 0)): 0.1}
    assert composed(start, chain, shares, lambda tried: True) == chain.pruned()
