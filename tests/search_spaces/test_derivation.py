"""Rules by which a supernet becomes a network, worked out by hand."""

from __future__ import annotations

import pytest

from search_spaces.derivation import derived, derived_network, is_member
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.space import SearchSpace, space_named
from search_spaces.supernet import Candidate

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"


def _space(**changes):
    return SearchSpace(operations=(CONV, SKIP, NONE), num_cells=3, num_nodes=2, **changes)


def _candidates(*edges):
    return [Candidate(0, 1, Edge(*edge)) for edge in edges]


CANDIDATES = _candidates((CONV, 0), (SKIP, 0), (NONE, 0), (CONV, 1), (NONE, 1), (SKIP, 2), (CONV, 2))
WEIGHTS = [0.30, 0.10, 0.05, 0.04, 0.20, 0.16, 0.15]


def test_all_that_is_alive():
    assert derived(_space(), CANDIDATES, WEIGHTS) == list(range(7))


def test_strongest_inputs_of_each_node_with_one_operation_each():
    """0.30 on input 0, 0.16 on input 2; `none` on input 1 is the strongest there, and is not looked at."""
    assert derived(_space(derivation="inputs", inputs_kept=2), CANDIDATES, WEIGHTS) == [0, 5]
    assert derived(_space(derivation="inputs", inputs_kept=1), CANDIDATES, WEIGHTS) == [0]


def test_one_operation_on_each_edge_unless_none_is_the_strongest():
    assert derived(_space(derivation="edges"), CANDIDATES, WEIGHTS) == [0, 5]


def test_node_that_none_would_take_whole_keeps_its_strongest_operation():
    candidates = _candidates((CONV, 0), (NONE, 0), (SKIP, 1), (NONE, 1))
    assert derived(_space(derivation="edges"), candidates, [0.1, 0.4, 0.2, 0.3]) == [2]


def test_equal_weights_take_the_first():
    assert derived(_space(derivation="inputs", inputs_kept=2), CANDIDATES, [1 / 7] * 7) == [0, 3]


def test_nodes_are_judged_one_by_one():
    candidates = [Candidate(cell, node, Edge(SKIP, 0)) for cell in range(2) for node in range(2)]
    assert derived(_space(derivation="inputs", inputs_kept=2), candidates, [0.9, 0.1, 0.5, 0.2]) == [0, 1, 2, 3]


def test_network_of_the_chosen_candidates_is_canonical():
    space = _space(derivation="inputs", inputs_kept=1)
    alive = space.dense()
    weights = [float(edge.operation == SKIP) for cell in alive.cells for node in cell.nodes for edge in node]
    network, chosen = derived_network(space, alive, weights)
    # Skip connections on state 0 only: of three cells the first and the last lead on, the middle one nothing reads.
    skip = (Edge(SKIP, 0),)
    assert [cell.nodes for cell in network.cells] == [(skip, skip), ((), ()), (skip, skip)]
    assert len(chosen) == 6


def _cells(*nodes, skeleton="darts"):
    """Three cells, of which the second and the third reduce, alike or each with nodes of its own."""
    each = nodes if len(nodes) == 3 else nodes * 3
    concat = None if skeleton == "darts" else (2,)
    kinds = zip(each, (False, True, True), strict=True)
    return Genotype(tuple(CellGenotype(kind, tuple(of), concat) for of, kind in kinds), skeleton)


BOTH = (Edge(CONV, 0), Edge(SKIP, 1))
TWICE = (Edge(CONV, 1), Edge(SKIP, 1))
THREE = (Edge(CONV, 0), Edge(CONV, 1), Edge(CONV, 2))


@pytest.mark.parametrize(
    ("changes", "genotype", "expected"),
    [
        ({}, _cells((BOTH, THREE)), True),
        ({}, _cells((TWICE, THREE)), True),
        ({}, _cells((BOTH, (Edge("max_pool_3x3", 0),))), False),  # not a candidate
        ({}, _cells((BOTH,)), False),  # a node too few
        ({"num_stages": 2}, _cells((BOTH, THREE)), False),  # reduces twice
        ({}, _cells(((), ())), False),  # leads nowhere
        ({"derivation": "inputs", "inputs_kept": 2}, _cells((BOTH, BOTH)), True),
        ({"derivation": "inputs", "inputs_kept": 2}, _cells((BOTH, THREE)), False),
        ({"derivation": "inputs", "inputs_kept": 2}, _cells((BOTH, TWICE)), False),
        ({"derivation": "edges"}, _cells((BOTH, THREE)), True),
        ({"derivation": "edges"}, _cells((BOTH, TWICE)), False),
        ({"sharing": "all"}, _cells((BOTH, THREE)), True),
        ({"sharing": "all"}, _cells((BOTH, THREE), (BOTH, BOTH), (BOTH, THREE)), False),
        ({"sharing": "kind"}, _cells((BOTH, THREE), (BOTH, BOTH), (BOTH, BOTH)), True),
        ({"sharing": "kind"}, _cells((BOTH, THREE), (BOTH, BOTH), (BOTH, THREE)), False),
    ],
)
def test_member_has_the_candidates_stages_topologies_and_limits_of_its_space(changes, genotype, expected):
    assert is_member(_space(**changes), genotype) is expected


def test_member_of_shared_cells_may_lack_what_nothing_reads():
    """The middle one of three equal cells is read by nobody: in canonical form it is empty."""
    alike = (Edge(CONV, 0),), (Edge(CONV, 0),)
    assert [cell.num_operations for cell in _cells(alike).pruned().cells] == [2, 0, 2]
    assert is_member(_space(sharing="all"), _cells(alike).pruned())


def test_member_of_nas_bench_201_has_one_operation_an_edge_and_its_skeleton():
    space = space_named("nas-bench-201", None, 3, 3)
    conv, pool = "nor_conv_3x3", "avg_pool_3x3"
    nodes = ((Edge(conv, 0),), (Edge(conv, 0), Edge(pool, 1)), (Edge(SKIP, 0), Edge(conv, 2)))
    assert is_member(space, _cells(nodes, skeleton="nas_bench_201"))
    assert not is_member(space, _cells(nodes))
    doubled = ((Edge(conv, 0), Edge(pool, 0)), *nodes[1:])
    assert not is_member(space, _cells(doubled, skeleton="nas_bench_201"))
