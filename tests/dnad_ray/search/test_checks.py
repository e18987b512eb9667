"""What is said before a search that will not reach its floor."""

from __future__ import annotations

import pytest

from dnad_ray.search.checks import floor_warnings

CELLS = {"space.name": "nas-bench-201", "space.operations": None, "space.num_nodes": 3, "shrink.pressure": "added"}


def test_floor_that_can_be_reached_is_no_warning(tiny):
    assert floor_warnings(tiny()) == []
    assert floor_warnings(tiny({"shrink.floor.operations": None})) == []


def test_floor_below_what_the_space_keeps(tiny):
    # The floor counts all cells: 15 of 3 nodes, none of which is left without an operation.
    changes = {**CELLS, "space.num_cells": 15, "shrink.floor.operations": 20}
    (words,) = floor_warnings(tiny(changes))
    assert words.startswith(
        "shrink.floor.operations 20 cannot be reached: the space 'nas-bench-201' keeps 45 operations"
    )
    assert "in 15 cells" in words
    assert floor_warnings(tiny({**changes, "shrink.floor.operations": 45})) == []


@pytest.mark.parametrize(
    ("operations", "least"), [(["none", "nor_conv_3x3"], 9), (["nor_conv_1x1", "nor_conv_3x3"], 18)]
)
def test_floor_of_edges_counts_each_edge_where_none_is_no_candidate(operations, least, tiny):
    changes = {**CELLS, "space.num_cells": 3, "space.operations": operations, "shrink.rate": 1.0}
    assert floor_warnings(tiny({**changes, "shrink.floor.operations": least})) == []
    (words,) = floor_warnings(tiny({**changes, "shrink.floor.operations": least - 1}))
    assert f"keeps {least} operations" in words


def test_floor_of_inputs_counts_two_for_each_node(tiny):
    changes = {"space.name": "darts-cells", "space.num_nodes": 2, "space.num_cells": 3, "shrink.floor.operations": 11}
    (words,) = floor_warnings(tiny(changes))
    assert "keeps 12 operations in 3 cells" in words


def test_floor_that_the_rate_does_not_reach_in_time(tiny):
    # 45 candidates, 5 epochs after warm-up: a rate of 0.1 takes 22.5 of them; 37 are to go.
    (words,) = floor_warnings(tiny({"shrink.pressure": "added", "shrink.rate": 0.1}))
    assert words == (
        "shrink.floor.operations 8 cannot be reached in 5 epochs at shrink.rate 0.1: "
        "22 of 45 candidates would be left; a rate of 0.164 would do"
    )
    assert floor_warnings(tiny({"shrink.pressure": "added", "shrink.rate": 0.165})) == []
    assert floor_warnings(tiny({"shrink.rate": 0.1})) == [], "the paper's form deletes faster than it is asked to"
