"""Genotypes as data: canonical form, digest, JSON, and every refusal."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random

import pytest

from search_spaces.errors import GenotypeError, UserError
from search_spaces.genotype import NONE, SCHEMA_VERSION, CellGenotype, Edge, Genotype

CONV, SKIP = "sep_conv_3x3", "skip_connect"


def _cell(*nodes, reduction=False):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))


def _genotype(*cells):
    return Genotype(tuple(cells))


def _example():
    """Three cells of two nodes, of which everything is alive."""
    return _genotype(
        _cell([(CONV, 0), (SKIP, 1)], [(SKIP, 2)]),
        _cell([(SKIP, 0), (CONV, 1)], [(CONV, 0)], reduction=True),
        _cell([(CONV, 1)], [(SKIP, 0), (CONV, 2)], reduction=True),
    )


def _plain(**changes):
    return _example().to_dict() | changes


def _random_genotype(generator):
    def node(number):
        edges = [Edge(name, source) for name in (CONV, SKIP, NONE) for source in range(2 + number)]
        return tuple(generator.sample(edges, generator.choice((0, 0, 1, 1, 2))))

    return Genotype(tuple(CellGenotype(generator.random() < 0.4, tuple(map(node, range(2)))) for _ in range(5)))


def _alive_by_search(genotype):
    """Edges on a path from the stem to the classifier, found by plain graph search from both ends."""
    arcs = []
    for index, cell in enumerate(genotype.cells):
        for number, edges in enumerate(cell.nodes):
            arcs.append(((index, 2 + number), ("out", index)))
            arcs += [((index, edge.source), (index, 2 + number)) for edge in edges if edge.operation != NONE]
        arcs += [(("out", index - 2), (index, 0)), (("out", index - 1), (index, 1))]

    def reached(starts, pairs):
        found, queue = set(starts), list(starts)
        for state in queue:
            for begin, end in pairs:
                if begin == state and end not in found:
                    found.add(end)
                    queue.append(end)
        return found

    carries = reached([("out", -2), ("out", -1)], arcs)
    matters = reached([("out", len(genotype.cells) - 1)], [(end, begin) for begin, end in arcs])
    return {
        (index, number, edge)
        for index, cell in enumerate(genotype.cells)
        for number, edges in enumerate(cell.nodes)
        for edge in edges
        if edge.operation != NONE and (index, edge.source) in carries and (index, 2 + number) in matters
    }


def test_counts_of_example():
    genotype = _example()
    assert (genotype.num_nodes, genotype.num_operations) == (2, 9)
    assert [cell.num_operations for cell in genotype.cells] == [3, 3, 3]
    assert genotype.is_connected
    assert genotype.pruned() == _genotype(
        genotype.cells[0], genotype.cells[1], _cell([(CONV, 1)], [(SKIP, 0), (CONV, 2)], reduction=True)
    )


def test_cell_reads_only_what_an_operation_is_applied_to():
    cell = _cell([(NONE, 0), (SKIP, 1)], [(NONE, 2)])
    assert [cell.reads(state) for state in range(3)] == [False, True, False]


def test_frozen_and_hashable():
    genotype = _example()
    for thing, name in ((genotype, "cells"), (genotype.cells[0], "nodes"), (genotype.cells[0], "reduction")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, ())
    with pytest.raises(AttributeError):
        genotype.cells[0].nodes[0][0].source = 1
    assert len({genotype, _example()}) == 1


def test_pruned_drops_none():
    genotype = _genotype(_cell([(NONE, 0), (SKIP, 1)], [(CONV, 2), (NONE, 1)]))
    assert genotype.pruned() == _genotype(_cell([(SKIP, 1)], [(CONV, 2)]))
    assert genotype.num_operations == 4, "the genotype itself stays as it is"


def test_pruned_zero_node_cascades_within_and_across_cells():
    genotype = _genotype(
        _cell([(NONE, 0)], [(SKIP, 2)]),  # node 0 is zero, so is node 1, which reads it, and so is the cell
        _cell([(CONV, 1), (SKIP, 0)], [(CONV, 2)]),  # reads the zero cell as 1, the stem as 0
        _cell([(SKIP, 0)], [(CONV, 1), (SKIP, 0)]),  # reads the zero cell as 0
    )
    assert genotype.pruned() == _genotype(_cell([], []), _cell([(SKIP, 0)], [(CONV, 2)]), _cell([], [(CONV, 1)]))


def test_pruned_drops_cells_that_nothing_reads():
    genotype = _genotype(
        _cell([(SKIP, 1)], []),
        _cell([(SKIP, 1)], [], reduction=True),  # read by cell 3 only, which nothing reads
        _cell([(SKIP, 0)], []),  # reads cell 0
        _cell([(SKIP, 0)], []),  # reads cell 1
        _cell([(SKIP, 0)], []),  # reads cell 2
    )
    assert genotype.live_cells() == (True, False, True, False, True)
    # A dead cell still says that it halves the resolution.
    dead = _cell([], [], reduction=True)
    assert genotype.pruned() == _genotype(genotype.cells[0], dead, genotype.cells[2], _cell([], []), genotype.cells[4])


def test_pruned_drops_what_only_a_dead_end_needs():
    genotype = _genotype(
        _cell([(SKIP, 1)], []),
        _cell([], [(SKIP, 2), (SKIP, 1)]),  # reads a zero node, and cell 0
        _cell([(NONE, 1)], [(SKIP, 0)]),  # reads cell 0; cell 1 only by `none`
    )
    assert genotype.live_cells() == (True, False, True)
    assert genotype.pruned() == _genotype(genotype.cells[0], _cell([], []), _cell([], [(SKIP, 0)]))


def test_pruned_agrees_with_a_graph_search():
    generator = random.Random(0)
    sizes = set()
    for _ in range(300):
        genotype = _random_genotype(generator)
        pruned = genotype.pruned()
        edges = {
            (index, number, edge)
            for index, cell in enumerate(pruned.cells)
            for number, node in enumerate(cell.nodes)
            for edge in node
        }
        assert edges == _alive_by_search(genotype)
        assert pruned.pruned() == pruned
        assert pruned.digest == genotype.digest
        assert genotype.is_connected == bool(edges)
        sizes.add(len(edges))
    assert len(sizes) > 5, "the examples are of many kinds"


def test_is_connected_refuses_a_path_that_ends():
    assert not _genotype(_cell([]), _cell([])).is_connected
    assert not _genotype(_cell([(SKIP, 1)]), _cell([(NONE, 1)])).is_connected
    # The last cell reads only a node that is always zero.
    assert not _genotype(_cell([(SKIP, 1)], []), _cell([], [(SKIP, 2)])).is_connected
    assert _genotype(_cell([]), _cell([(SKIP, 0)])).is_connected, "the second cell's older input is the stem"


def test_digest_is_of_the_canonical_form():
    genotype = _genotype(_cell([(SKIP, 1), (CONV, 0), (NONE, 0)]))
    text = '[{"reduction":false,"nodes":[[["sep_conv_3x3",0],["skip_connect",1]]]}]'
    assert genotype.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_digest_ignores_order_and_dead_parts():
    plain = _genotype(_cell([(CONV, 0), (SKIP, 1)], []), _cell([(SKIP, 1)], []))
    same = _genotype(_cell([(SKIP, 1), (CONV, 0)], [(NONE, 1)]), _cell([(SKIP, 1)], [(NONE, 0)]))
    assert plain != same
    assert plain.digest == same.digest


def test_digest_tells_topologies_apart():
    genotypes = [
        _genotype(_cell([(CONV, 0)], []), _cell([(SKIP, 1)], [])),
        _genotype(_cell([(CONV, 1)], []), _cell([(SKIP, 1)], [])),
        _genotype(_cell([(SKIP, 0)], []), _cell([(SKIP, 1)], [])),
        _genotype(_cell([], [(CONV, 0)]), _cell([(SKIP, 1)], [])),
        _genotype(_cell([(CONV, 0)], [], reduction=True), _cell([(SKIP, 1)], [])),
        _genotype(_cell([(CONV, 0)]), _cell([(SKIP, 1)])),
    ]
    assert len({genotype.digest for genotype in genotypes}) == len(genotypes)


def test_json_round_trip_keeps_everything():
    genotype = _genotype(_cell([(NONE, 1), (SKIP, 0)], [(CONV, 2)], reduction=True), _cell([], [(SKIP, 1), (CONV, 0)]))
    text = genotype.to_json()
    assert Genotype.from_json(text) == genotype
    assert Genotype.from_json(text).to_json() == text
    assert text.endswith("}\n")
    data = json.loads(text)
    assert (data["kind"], data["schema"], data["digest"]) == ("dnad-ray genotype", 1, genotype.digest)
    assert data["cells"][0] == {"reduction": True, "nodes": [[[NONE, 1], [SKIP, 0]], [[CONV, 2]]]}


def test_from_dict_leaves_its_input_alone():
    data = _plain()
    before = copy.deepcopy(data)
    Genotype.from_dict(data)
    assert data == before


def test_from_dict_takes_data_without_digest():
    data = _plain()
    del data["digest"]
    assert Genotype.from_dict(data) == _example()


@pytest.mark.parametrize("data", [None, 3, [], {}, {"cells": []}, _plain(kind="another genotype")])
def test_from_dict_refuses_foreign_data(data):
    with pytest.raises(GenotypeError, match=r"my file: got .*kind 'dnad-ray genotype'"):
        Genotype.from_dict(data, "my file")


@pytest.mark.parametrize("schema", [SCHEMA_VERSION + 1, 0, "1", None])
def test_from_dict_refuses_another_schema(schema):
    with pytest.raises(GenotypeError, match=r"my file schema: got .*newer"):
        Genotype.from_dict(_plain(schema=schema), "my file")


@pytest.mark.parametrize(
    "cells",
    [
        None,
        5,
        "text",
        {"0": {}},
        [[]],
        [{}],
        [{"reduction": False}],
        [{"reduction": 0, "nodes": [[]]}],
        [{"reduction": False, "nodes": 3}],
        [{"reduction": False, "nodes": [["ab"]]}],
        [{"reduction": False, "nodes": [[[SKIP]]]}],
        [{"reduction": False, "nodes": [[[SKIP, 0, 1]]]}],
        [{"reduction": False, "nodes": [[[0, SKIP]]]}],
        [{"reduction": False, "nodes": [[[SKIP, True]]]}],
        [{"reduction": False, "nodes": [[[SKIP, 0.0]]]}],
    ],
)
def test_from_dict_refuses_malformed_cells(cells):
    with pytest.raises(GenotypeError, match=r"my file: got .*\"nodes\""):
        Genotype.from_dict(_plain(cells=cells), "my file")


def test_from_dict_refuses_a_missing_list_of_cells():
    data = _plain()
    del data["cells"]
    with pytest.raises(GenotypeError, match="my file"):
        Genotype.from_dict(data, "my file")


def test_from_dict_refuses_a_wrong_digest():
    with pytest.raises(GenotypeError, match=f"digest: got '0123'; allowed: {_example().digest}"):
        Genotype.from_dict(_plain(digest="0123"))


@pytest.mark.parametrize("text", ["", "{", "[1,", "not JSON", "[" * 100_000])
def test_from_json_refuses_what_is_not_json(text):
    with pytest.raises(GenotypeError, match=r"my file: got .*; allowed: a JSON document") as caught:
        Genotype.from_json(text, "my file")
    assert len(str(caught.value)) < 200, "a large file is not repeated in the message"


@pytest.mark.parametrize(("node", "source", "most"), [(0, 2, 1), (1, 3, 2), (0, -1, 1)])
def test_source_out_of_range(node, source, most):
    nodes = [[], []]
    nodes[node] = [(SKIP, source)]
    with pytest.raises(GenotypeError, match=rf"cells\[1\]\.nodes\[{node}\] source: got {source}; allowed: 0 to {most}"):
        _genotype(_cell([], []), _cell(*nodes))


def test_an_edge_twice_is_kept_twice():
    genotype = _genotype(_cell([(SKIP, 0), (CONV, 0), (SKIP, 0)]))
    assert genotype.pruned().cells[0].nodes[0] == (Edge(CONV, 0), Edge(SKIP, 0), Edge(SKIP, 0))
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert genotype.digest != _genotype(_cell([(SKIP, 0), (CONV, 0)])).digest


def test_concat_of_some_nodes_drops_what_reaches_no_output():
    """Node 1 is the output and reads node 0; node 2 leads nowhere."""
    cell = CellGenotype(False, ((Edge(CONV, 0),), (Edge(SKIP, 2),), (Edge(CONV, 3),)), (1,))
    genotype = _genotype(cell)
    assert genotype.pruned().cells[0].nodes == ((Edge(CONV, 0),), (Edge(SKIP, 2),), ())
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert genotype.to_dict()["cells"][0]["concat"] == [1]
    everything = dataclasses.replace(cell, concat=(2, 0, 1))
    assert everything.concat is None
    assert "concat" not in _genotype(everything).to_dict()["cells"][0]
    assert _genotype(cell).digest != _genotype(everything).digest


@pytest.mark.parametrize("concat", [(), (0, 0), (3,), (-1,)])
def test_impossible_concat(concat):
    with pytest.raises(GenotypeError, match=r"concat: got .* from 0 to 1"):
        CellGenotype(False, ((), ()), concat)


def test_cell_of_no_output_that_is_filled_is_dead_for_its_reader():
    first = CellGenotype(False, ((Edge(CONV, 1),), ()), (1,))
    assert not _genotype(first, _cell([(SKIP, 1)], [])).is_connected


def test_one_input_per_cell_in_the_other_skeleton():
    chain = tuple(_cell([(SKIP, 0)], [(CONV, 1)]) for _ in range(2))
    genotype = Genotype(chain, "nas_bench_201")
    assert (genotype.num_inputs, genotype.live_cells()) == (1, (True, True))
    assert Genotype.from_json(genotype.to_json()) == genotype
    with pytest.raises(GenotypeError, match="source: got 1; allowed: 0 to 0"):
        Genotype((_cell([(SKIP, 1)]),), "nas_bench_201")
    with pytest.raises(GenotypeError, match="skeleton: got 'other'"):
        Genotype(chain, "other")
    assert Genotype(chain).digest != genotype.digest


def test_skeleton_that_is_no_text():
    data = {**_genotype(_cell([(SKIP, 1)])).to_dict(), "skeleton": 3}
    with pytest.raises(GenotypeError):
        Genotype.from_dict(data)


@pytest.mark.parametrize("cells", [(), (_cell(),), (_cell([]), _cell([], [])), (_cell([]), _cell())])
def test_impossible_numbers_of_cells_and_nodes(cells):
    with pytest.raises(GenotypeError, match="at least"):
        Genotype(cells)


def test_error_is_a_user_error_that_can_be_sent_to_another_process():
    error = GenotypeError("a file", [1], "another")
    again = copy.copy(error)  # by __reduce__, as it is pickled
    assert again is not error
    assert type(again) is GenotypeError
    assert isinstance(again, UserError)
    assert isinstance(again, ValueError)
    assert str(again) == str(error) == "a file: got [1]; allowed: another"
    assert (again.argument, again.given, again.allowed) == ("a file", [1], "another")
