"""Rules by which a supernet becomes a network, worked out by hand."""

from __future__ import annotations

from search_spaces.derivation import derived
from search_spaces.genotype import NONE, Edge
from search_spaces.space import SearchSpace
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
