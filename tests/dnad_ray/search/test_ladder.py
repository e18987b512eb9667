"""The rungs of the ladder, worked out by hand."""

from __future__ import annotations

from dnad_ray.search.ladder import rungs, score_images
from search_spaces.genotype import NONE, Edge
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate

CONV, SMALL, SKIP = "nor_conv_3x3", "nor_conv_1x1", "skip_connect"


def _space(derivation, **changes):
    operations = (CONV, SMALL, SKIP, NONE)
    return SearchSpace(operations=operations, num_cells=3, num_nodes=2, derivation=derivation, **changes)


def _candidates(*edges):
    return [Candidate(cell, node, Edge(name, source)) for cell, node, name, source in edges]


def test_rungs_of_all_that_is_alive_are_the_strongest_of_each_node():
    candidates = _candidates(
        *((0, 0, CONV, 0), (0, 0, SKIP, 0), (0, 0, NONE, 0), (0, 0, CONV, 1)),
        *((0, 1, CONV, 0), (0, 1, SKIP, 1)),
    )
    # `none` is no operation; the second node has two, so that it stays as it is from the second rung on.
    worth = [0.2, 0.1, 0.6, 0.1, 0.3, 0.7]
    assert rungs(_space("alive"), candidates, worth) == [[0, 5], [0, 1, 4, 5], [0, 1, 2, 3, 4, 5]]


def test_rungs_of_inputs_end_at_what_the_space_keeps():
    candidates = _candidates((0, 0, CONV, 0), (0, 0, SKIP, 0), (0, 0, SKIP, 1), (0, 0, CONV, 2))
    assert rungs(_space("inputs", inputs_kept=2), candidates, [0.4, 0.3, 0.2, 0.1]) == [[0], [0, 2]]


def test_rungs_of_edges_turn_the_weakest_into_what_costs_nothing():
    candidates = _candidates(
        *((0, 0, CONV, 0), (0, 0, SKIP, 0)),
        *((0, 1, SMALL, 0), (0, 1, SKIP, 0), (0, 1, CONV, 1), (0, 1, SKIP, 1)),
    )
    worth = [0.9, 0.1, 0.3, 0.2, 0.5, 0.1]
    # All skips; then the convolution of 0.9; then that of 0.5 too; last what the space derives.
    assert rungs(_space("edges"), candidates, worth) == [[1, 3, 5], [0, 3, 5], [0, 3, 4], [0, 2, 4]]


def test_rungs_of_edges_give_way_first_where_the_least_is_lost():
    candidates = _candidates(
        *((0, 0, CONV, 0), (0, 0, SKIP, 0)),
        *((0, 1, CONV, 0), (0, 1, SKIP, 0), (0, 1, CONV, 1), (0, 1, SKIP, 1)),
    )
    # The strongest convolution, 0.9, is only 0.1 ahead of its skip; the others are 0.2 and 0.3 ahead of theirs.
    worth = [0.9, 0.8, 0.4, 0.2, 0.5, 0.2]
    assert rungs(_space("edges"), candidates, worth) == [[1, 3, 5], [1, 3, 4], [1, 2, 4], [0, 2, 4]]


def test_rungs_of_edges_leave_a_node_its_last_operation():
    candidates = _candidates((0, 0, CONV, 0), (0, 1, SMALL, 0), (0, 1, CONV, 1))
    # Nothing free is left: without an operation no node may be, so the rungs of none and of one are none.
    assert rungs(_space("edges"), candidates, [0.9, 0.3, 0.5]) == [[0, 2], [0, 1, 2]]


def test_rungs_of_each_cell_by_itself():
    candidates = [item for cell in (0, 1) for item in _candidates((cell, 0, CONV, 0), (cell, 0, SKIP, 0))]
    assert rungs(_space("edges"), candidates, [0.6, 0.4, 0.1, 0.9]) == [[1, 3], [0, 3]]


def test_score_images_stay_within_four_percent_of_training():
    # A step costs three passes: 0.04 x 3 x 10,000 images make 1,200, or 300 for each of four rungs.
    assert score_images(10_000, 4, 1) == 300
    assert score_images(10_000, 4, 2) == 512, "no more than are of use"
    assert score_images(100, 4, 1) == 64, "no fewer than a batch needs for its statistics"
