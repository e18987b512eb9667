"""The named spaces: what each of them is, against its paper."""

from __future__ import annotations

import pytest

from search_spaces.errors import SpaceError
from search_spaces.named import SPACES
from search_spaces.space import SearchSpace, space_named

CONV, SKIP = "sep_conv_3x3", "skip_connect"


def _named(name, num_cells=None, num_nodes=None, **changes):
    template = SPACES[name]
    operations = template.operations or (CONV, SKIP)
    return space_named(
        name,
        None if template.operations else operations,
        num_cells or template.num_cells,
        num_nodes or template.num_nodes,
        **changes,
    )


@pytest.mark.parametrize(
    ("name", "num_candidates"),
    [
        ("dnad", 8 * 14 * 3),
        ("dnad-paper", 8 * 14 * 10),
        ("darts", 8 * 14 * 7),
        ("darts-cells", 8 * 14 * 7),
        ("s1", 8 * 14 * 2),
        ("s2", 8 * 14 * 2),
        ("s3", 8 * 14 * 3),
        ("s4", 8 * 14 * 2),
        ("nas-bench-201", 15 * 6 * 5),  # six edges
    ],
)
def test_number_of_candidates_at_the_usual_size(name, num_candidates):
    assert _named(name).num_candidates == num_candidates


@pytest.mark.parametrize("name", SPACES)
def test_cells_that_share_are_alike_and_every_space_can_be_small(name):
    space = _named(name, 3, 4 if name == "s1" else 2)
    dense = space.dense()
    for first in range(3):
        for second in range(3):
            groups = [space.group_of(dense.cells[cell].reduction, cell) for cell in (first, second)]
            if groups[0] == groups[1]:
                assert dense.cells[first].nodes == dense.cells[second].nodes


def test_s1_has_other_operations_on_other_edges():
    dense = _named("s1").dense()
    normal, reduction = dense.cells[0], dense.cells[2]
    assert [edge.operation for edge in normal.nodes[0]] == [SKIP, "dil_conv_3x3", SKIP, "dil_conv_5x5"]
    assert [edge.operation for edge in reduction.nodes[0]][:2] == ["max_pool_3x3", "avg_pool_3x3"]
    assert {len(node) for node in normal.nodes} == {4, 6, 8, 10}
    assert space_named("s1", None, 3, 2).edge_operations is None  # the table is of four nodes


def test_nas_bench_201_is_a_chain_of_15_cells_whose_output_is_the_last_node():
    dense = _named("nas-bench-201").dense()
    assert dense.skeleton == "nas_bench_201"
    assert [index for index, cell in enumerate(dense.cells) if cell.reduction] == [5, 10]
    assert {cell.outputs for cell in dense.cells} == {(2,)}


def test_changes_go_before_the_name_and_none_is_no_change():
    space = _named("darts-cells", sharing="cell", derivation=None, inputs_kept=1, num_stages=2)
    assert (space.sharing, space.derivation, space.inputs_kept, space.num_stages) == ("cell", "inputs", 1, 2)
    assert _named("darts-cells", derivation="alive").inputs_kept == 1


def test_own_space_names_its_operations():
    with pytest.raises(SpaceError, match=r"space.operations: got None; allowed: the candidates"):
        space_named("own", None, 3, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sharing": "some"}, "space.sharing: got 'some'; allowed: cell, kind, all"),
        ({"derivation": "best"}, "space.derivation: got 'best'"),
        ({"skeleton": "resnet"}, "space.skeleton: got 'resnet'"),
        ({"inputs_kept": 3}, "space.inputs_kept: got 3; allowed: 1 to 2"),
        ({"inputs_kept": 2, "skeleton": "nas_bench_201"}, "allowed: 1 to 1"),
        ({"num_stages": 0}, "space.num_stages: got 0"),
        ({"num_stages": 4}, "space.num_cells: got 3; allowed: at least 4"),
        ({"num_cells": 4, "skeleton": "nas_bench_201"}, "a multiple of the 3 stages"),
        ({"edge_operations": (((CONV,),) * 4, ((CONV,),) * 5)}, "normal cells: got 4; allowed: 5"),
        ({"edge_operations": (((CONV,),) * 5, (("none",),) * 5)}, "reduction cells: got"),
        ({"edge_operations": (((CONV,),) * 5,) * 2, "sharing": "all"}, "space.sharing: got 'all'"),
    ],
)
def test_space_that_is_impossible(changes, words):
    fields = {"operations": (CONV, SKIP), "num_cells": 3, "num_nodes": 2, **changes}
    with pytest.raises(SpaceError, match=words):
        SearchSpace(**fields)
