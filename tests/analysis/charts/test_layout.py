from __future__ import annotations

import itertools

import pytest

from analysis.charts.layout import layout_of
from search_spaces.genotype import CellGenotype, Edge, Genotype

OPERATIONS = ("sep_conv_3x3", "dil_conv_5x5", "skip_connect")
DARTS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "skip_connect")


@pytest.mark.parametrize(("num_cells", "num_nodes", "operations"), [(3, 3, OPERATIONS), (2, 4, DARTS), (1, 1, DARTS)])
def test_layout_no_two_arcs_fall_into_one_line(dense, num_cells, num_nodes, operations):
    layout = layout_of(dense(num_cells, num_nodes, operations), operations)
    for cell in layout.cells:
        for first, second in itertools.combinations(cell.arcs, 2):
            if first.below != second.below:
                continue
            ends = {(first.source, first.x1), (first.target, first.x2)}
            assert not ends & {(second.source, second.x1), (second.target, second.x2)}
            if first.x1 < second.x2 and second.x1 < first.x2:
                assert first.height != second.height


def test_layout_parallel_edges_nest_in_the_order_of_operations(dense):
    cell = layout_of(dense(1, 1, OPERATIONS), OPERATIONS).cells[0]
    parallel = [arc for arc in cell.arcs if arc.source == 1]
    assert [arc.operation for arc in parallel] == list(OPERATIONS)
    for inner, outer in itertools.pairwise(parallel):
        assert outer.x1 < inner.x1 < inner.x2 < outer.x2
        assert inner.height < outer.height


def test_layout_everything_has_room(dense):
    layout = layout_of(dense(2, 4, DARTS), DARTS)
    for cell in layout.cells:
        lefts = [state.x - state.width / 2 for state in cell.states]
        rights = [state.x + state.width / 2 for state in cell.states]
        assert lefts[0] > 0
        assert all(right < left for right, left in zip(rights, lefts[1:], strict=False))
        assert rights[-1] < layout.output_x - layout.output_width / 2
        assert layout.output_x + layout.output_width / 2 < layout.width
        for arc in cell.arcs:
            for state, x in ((arc.source, arc.x1), (arc.target, arc.x2)):
                assert lefts[state] < x < rights[state]
            assert arc.height < (layout.below if arc.below else layout.above)


def test_layout_says_where_inputs_come_from_and_what_is_unused():
    network = Genotype(
        (
            CellGenotype(False, ((Edge("skip_connect", 1),), ())),
            CellGenotype(True, ((Edge("skip_connect", 1),), ())),
            CellGenotype(False, ((), ())),
            CellGenotype(False, ((Edge("skip_connect", 0),), (Edge("skip_connect", 2),))),
        )
    ).pruned()
    cells = layout_of(network, ["skip_connect"]).cells
    assert [[state.label for state in cell.states[:2]] for cell in cells] == [
        ["stem", "stem"],
        ["stem", "cell 0"],
        ["cell 0", "cell 1"],
        ["cell 1", "cell 2"],
    ]
    assert [cell.gone for cell in cells] == [False, False, True, False]
    assert [cell.reduction for cell in cells] == [False, True, False, False]
    assert [state.used for state in cells[0].states] == [False, True, True, False]
    assert [state.used for state in cells[3].states] == [True, False, True, True]
    assert [(arc.source, arc.target, arc.below) for arc in cells[3].arcs] == [(0, 2, True), (2, 3, False)]
