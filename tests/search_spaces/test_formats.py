"""Every written form of a genotype: what it means, and every refusal."""

from __future__ import annotations

import json

import pytest

from search_spaces.errors import GenotypeError
from search_spaces.formats import from_nas_bench_201, parse_any_genotype, to_nas_bench_201
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.named.nas_bench_201 import NAS_BENCH_201_OPERATIONS
from search_spaces.ops import OPERATIONS
from search_spaces.stages import reductions

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
INDEX_0 = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"


def _form(**changes):
    return {
        "normal": [[CONV, 0], [SKIP, 1], [POOL, 2], [CONV, 2]],
        "normal_concat": [2, 3],
        "reduce": [[POOL, 0], [POOL, 1], [SKIP, 2], [POOL, 1]],
        "reduce_concat": [2, 3],
        **changes,
    }


def _parse(form, num_cells=4):
    return parse_any_genotype(json.dumps(form), "mine", num_cells)


def test_names_are_those_of_the_table_of_operations():
    for name in OPERATIONS:
        edges = [
            (edge.operation, edge.source)
            for edge in _parse(_form(normal=[[name, 0], *_form()["normal"][1:]])).cells[0].nodes[0]
        ]
        assert (name, 0) in edges
    with pytest.raises(GenotypeError, match="allowed: ") as caught:
        _parse(_form(normal=[["conv_9x9", 0], *_form()["normal"][1:]]))
    assert set(caught.value.allowed.split(", ")) == set(OPERATIONS)


def test_cell_form_has_two_entries_for_each_node():
    genotype = _parse(_form())
    normal = CellGenotype(False, ((Edge(CONV, 0), Edge(SKIP, 1)), (Edge(POOL, 2), Edge(CONV, 2))))
    reduction = CellGenotype(True, ((Edge(POOL, 0), Edge(POOL, 1)), (Edge(SKIP, 2), Edge(POOL, 1))))
    assert genotype.cells == (normal, reduction, reduction, normal)
    assert len(parse_any_genotype(json.dumps(_form())).cells) == 20


def test_cell_form_with_pairs_grouped_by_node_is_the_same():
    grouped = {
        name: [_form()[name][:2], _form()[name][2:]] if name in ("normal", "reduce") else _form()[name]
        for name in _form()
    }
    assert _parse(grouped) == _parse(_form())


TEXT = """DARTS = Genotype(
    normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ("max_pool_3x3", 2), ('sep_conv_3x3', 2)],
    normal_concat=range(2, 4),
    reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1)],
    reduce_concat=[2, 3])
"""


def test_text_that_codes_print_is_the_same():
    assert parse_any_genotype(TEXT, num_cells=4) == _parse(_form())
    assert parse_any_genotype(TEXT.replace("DARTS = ", "").encode(), num_cells=4) == _parse(_form())


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("range(2, 4)", "range(2, 10**9)"),
        TEXT.replace("range(2, 4)", "range(2, 4000000)"),
        TEXT.replace("range(2, 4)", "open('/etc/passwd')"),
        TEXT.replace("range(2, 4)", "[2, 3.5]"),
        TEXT.replace("range(2, 4)", "[2, True]"),
        TEXT + "print(1)",
        TEXT[:-3],
        "Genotype([], [], [], [])",
        "Genotype(**{})",
        "Genotype(" * 300 + ")" * 300,
        "Genotype(normal=" + "[" * 5000,
        "Genotype(normal=" + "-" * 100_000 + "1)",
    ],
)
def test_text_that_is_no_plain_genotype(text):
    with pytest.raises(GenotypeError):
        parse_any_genotype(text)


LINE = " ".join(TEXT.split()).removeprefix("DARTS = ")
FOUR = [_form()[name] for name in ("normal", "normal_concat", "reduce", "reduce_concat")]


@pytest.mark.parametrize(
    "text",
    [
        f"# from run 7\nMINE = {LINE}",
        f"\ufefffrom collections import namedtuple\n\nGenotype = namedtuple('Genotype', 'normal')\n\nA = {LINE}\n",
        f'"""Found on Tuesday."""\nimport genotypes\nPRIMITIVES = ["none"]\nA = genotypes.{LINE}\nB = A\n',
        f"A = {LINE.replace('max_pool', 'avg_pool')}\nA = {LINE}\n",
        f"11/20 10:32:11 AM genotype = {LINE}",
        f"INFO epoch 3\n12:00 genotype = {LINE.replace('max', 'avg')}\nvalid 91.2\n13:00 genotype = {LINE}\nend",
        f"[11/20 10:32] INFO: {LINE}\r\n",
        LINE.replace("range(2, 4)", "list(range(2, 4))").replace("[2, 3]", "tuple([2, 3])"),
        LINE.replace("1)", "np.int64(1))").replace("2)", "numpy.int64(2))").replace("range(2, 4numpy", "range(2, 4"),
        json.dumps(FOUR),
    ],
)
def test_genotype_as_codes_and_logs_have_it(text):
    assert parse_any_genotype(text, num_cells=4) == _parse(_form())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"A = {LINE}\nB = {LINE}\n", "got '2 genotypes: A, B'; allowed: one Genotype"),
        (f"12:00 a = {LINE}\n13:00 b = {LINE}\n", "got '2 genotypes: a, b'"),
        (f"import os\nos.remove('x')\nA = {LINE}\n", r"got \"os.remove\('x'\)\""),
        (LINE.replace("range(2, 4)", "list(range(2, 10**9))"), "allowed: one Genotype"),
        (LINE.replace("range(2, 4)", "list(range(2, 4), 3)"), "allowed: one Genotype"),
        (LINE.replace("range(2, 4)", "np.int64('2')"), "allowed: one Genotype"),
        (json.dumps(FOUR[:3]), "mine"),
        (json.dumps([[], [], [], []]), "mine normal"),
        ("Genotype(\n" * 100_000, "allowed: one Genotype"),
        ("Genotype(" * 100_000 + "\n+", "allowed: one Genotype"),
        ("=" * 500_000 + "Genotype(", "allowed: one Genotype"),
    ],
)
def test_text_of_codes_and_logs_without_one_genotype(text, words):
    with pytest.raises(GenotypeError, match=words) as caught:
        parse_any_genotype(text, "mine")
    assert "\n" not in str(caught.value)


def test_edge_form_has_any_number_of_inputs_for_each_node():
    genotype = _parse(_form(normal=[[CONV, 3, 0], [CONV, 2, 1], [SKIP, 3, 2], [POOL, 3, 1]]))
    assert genotype.cells[0].nodes == ((Edge(CONV, 1),), (Edge(CONV, 0), Edge(SKIP, 2), Edge(POOL, 1)))


def test_kinds_of_cells_may_have_different_numbers_of_nodes_and_outputs():
    genotype = _parse(_form(normal=[[CONV, 0], [SKIP, 1]], normal_concat=[2], reduce_concat=[3]))
    assert genotype.cells[0] == CellGenotype(False, ((Edge(CONV, 0), Edge(SKIP, 1)), ()), (0,))
    assert genotype.cells[1].outputs == (1,)


def test_our_own_form_is_read_and_its_own_number_of_cells_stands():
    genotype = _parse(_form())
    assert parse_any_genotype(genotype.to_json(), num_cells=20) == genotype
    assert parse_any_genotype(genotype.to_json().encode(), num_cells=20) == genotype


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normal": [["conv_9x9", 0], [SKIP, 1]]}, "normal operation: got 'conv_9x9'; allowed: sep_conv_3x3"),
        ({"normal": [[CONV, 0], [SKIP, 2]]}, "input of node 2: got 2; .*cycle"),
        ({"normal": [[CONV, 0], [SKIP, 7]]}, "input of node 2: got 7"),
        ({"normal": [[CONV, 0], [SKIP, -1]]}, "input of node 2: got -1"),
        ({"normal": [[CONV, 2, 3], [SKIP, 3, 2]]}, "input of node 2: got 3; .*cycle"),
        ({"normal": [[CONV, 2, 0], [SKIP, 4, 2]], "normal_concat": [2, 4]}, "node 3 without inputs"),
        ({"normal_concat": [2, 3, 4]}, "node 4 without inputs"),
        ({"normal": [[CONV, 1, 0], [SKIP, 2, 1]]}, "an edge into 1"),
        ({"normal": [[CONV, 0], [SKIP, 1], [POOL, 0]]}, "3 entries.*two for each node"),
        ({"normal": [[CONV, 0], [SKIP, 2, 1]]}, "entries that are all"),
        ({"normal": [[CONV, True], [SKIP, 1]]}, "entries that are all"),
        ({"normal": [[CONV, "0"], [SKIP, 1]]}, "entries that are all"),
        ({"normal": []}, "mine normal: got '\\[\\]'"),
        ({"normal": "sep"}, "mine normal"),
        ({"normal": [[[], []]]}, "entries that are all"),
        ({"normal": [[CONV, 10**9, 0]]}, "at most 64 nodes"),
        ({"normal_concat": [10**9]}, "at most 64 nodes"),
        ({"normal_concat": []}, "normal_concat"),
        ({"normal_concat": [2, 2]}, "each node once"),
        ({"normal_concat": [1, 2]}, "nodes being numbered from 2"),
        ({"normal": [[CONV, 0]] * 3000}, "3000 entries"),
    ],
)
def test_cell_form_that_is_none(changes, words):
    with pytest.raises(GenotypeError, match=words):
        _parse(_form(**changes))


def test_network_that_would_take_too_long_to_build():
    with pytest.raises(GenotypeError, match="up to 40000 edges in 200 cells"):
        _parse(_form(normal=[[CONV, 2, 0]] * 200, normal_concat=[2]), 200)


def test_field_that_is_missing():
    form = _form()
    del form["reduce_concat"]
    with pytest.raises(GenotypeError, match="no reduce_concat"):
        _parse(form)


@pytest.mark.parametrize("num_cells", [2, 0, -1, 201])
def test_number_of_cells_that_stages_cannot_hold(num_cells):
    with pytest.raises(GenotypeError, match=f"number of cells: got {num_cells}; allowed: 3"):
        _parse(_form(), num_cells)


@pytest.mark.parametrize("num_cells", [2, 4, 16, 0, 300])
def test_number_of_cells_that_the_stages_of_the_benchmark_cannot_hold(num_cells):
    with pytest.raises(GenotypeError, match="a multiple of the 3 stages"):
        from_nas_bench_201(INDEX_0, num_cells)


def test_newer_schema_and_unknown_operation_in_our_own_form():
    data = _parse(_form()).to_dict()
    with pytest.raises(GenotypeError, match=r"schema: got 99.*newer"):
        _parse({**data, "schema": 99})
    text = json.dumps({**data, "digest": None}).replace(POOL, "pool")
    with pytest.raises(GenotypeError):
        parse_any_genotype(text)
    no_digest = {name: value for name, value in data.items() if name != "digest"}
    with pytest.raises(GenotypeError, match="operation: got 'pool'"):
        parse_any_genotype(json.dumps(no_digest).replace(POOL, "pool"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '"op"', b"\xff\xfe", "|", "||||", "null"])
def test_text_that_is_no_genotype(text):
    with pytest.raises(GenotypeError):
        parse_any_genotype(text)


def test_string_of_the_benchmark_as_text_and_in_json():
    genotype = parse_any_genotype(f"{INDEX_0}\n")
    assert parse_any_genotype(json.dumps(INDEX_0)) == genotype
    assert parse_any_genotype(json.dumps({"arch_str": INDEX_0, "params": 129306})) == genotype
    assert genotype.skeleton == "nas_bench_201"
    assert [index for index, cell in enumerate(genotype.cells) if cell.reduction] == [5, 10]
    assert genotype.cells[0].outputs == (2,)
    assert genotype.cells[0].nodes[1] == (Edge("nor_conv_1x1", 0), Edge("skip_connect", 1))


@pytest.mark.parametrize("seed", range(20))
def test_string_of_the_benchmark_goes_both_ways(seed):
    names = [NAS_BENCH_201_OPERATIONS[(seed * 7 + step * (seed + 1)) % 5] for step in range(6)]
    text = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*names)
    assert to_nas_bench_201(from_nas_bench_201(text)) == text


def test_string_of_pruned_cells_has_none_where_something_is_gone():
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    pruned = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    assert to_nas_bench_201(from_nas_bench_201(text).pruned()) == pruned


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|none~0|+|none~0|none~1|", "allowed: |op~0|"),
        ("|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 operation: got 'sep_conv_3x3'"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 input: got 1; allowed: 0 to 0.*cycle"),
        ("|none~0|+|none~0|none~2|+|none~0|none~1|none~2|", "node 2 input: got 2"),
        ("|none~0|+||+|none~0|none~1|none~2|", "node 2: got '||'; allowed: at least one input"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "node 2: .* one operation for each input"),
        ("|none~0|+|none~0none~1|+|none~0|none~1|none~2|", "node 2: got"),
        ("|none~x|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1: got"),
    ],
)
def test_string_that_is_none(text, words):
    with pytest.raises(GenotypeError, match=words.replace("|", r"\|")):
        parse_any_genotype(text, "mine")


def test_network_that_no_string_can_say():
    with pytest.raises(GenotypeError, match="a network of NAS-Bench-201"):
        to_nas_bench_201(_parse(_form()))
    cell = CellGenotype(False, ((Edge(SKIP, 0), Edge("nor_conv_3x3", 0)), (Edge(SKIP, 1),), (Edge(SKIP, 2),)), (2,))
    with pytest.raises(GenotypeError, match="several operations"):
        to_nas_bench_201(Genotype((cell,), "nas_bench_201"))
    other = CellGenotype(False, ((Edge(CONV, 0),), (Edge(SKIP, 1),), (Edge(SKIP, 2),)), (2,))
    with pytest.raises(GenotypeError, match=CONV):
        to_nas_bench_201(Genotype((other,), "nas_bench_201"))
    third = CellGenotype(False, ((Edge(SKIP, 0),), (Edge(SKIP, 1),), (Edge(SKIP, 2),)), (2,))
    fourth = CellGenotype(False, ((Edge("nor_conv_1x1", 0),), (Edge(SKIP, 1),), (Edge(SKIP, 2),)), (2,))
    with pytest.raises(GenotypeError, match="one topology"):
        to_nas_bench_201(Genotype((third, fourth), "nas_bench_201"))


@pytest.mark.parametrize(("num_stages", "expected"), [(1, ()), (2, (10,)), (3, (6, 13)), (4, (5, 10, 15))])
def test_reductions_of_stages(num_stages, expected):
    assert reductions(20, num_stages) == expected
