"""The table of costs is the trace of the whole network, to the last digit, for any genotype."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnad_ray.costs import table as cost_table
from dnad_ray.costs import trace as complexity
from dnad_ray.costs.table import CostTable, cost_table_for, costs_of
from dnad_ray.costs.trace import complexity_of
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.loop import SearchState, search
from search_spaces.errors import GenotypeError, SpaceError
from search_spaces.genotype import NONE, NUM_INPUTS, CellGenotype, Edge, Genotype
from search_spaces.ops import OPERATIONS, Operation
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import NAMED_OPERATIONS, SearchSpace

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
ALL = tuple(OPERATIONS)
NUM_GENOTYPES = 2
FIRST_SEED = 371  # one under which every awkward case occurs; a test says so


def _space(operations, num_cells, num_nodes):
    return SearchSpace(operations=operations, num_cells=num_cells, num_nodes=num_nodes)


# Space, stem, image size, channels of the images, width.
SETTINGS = [
    (_space(NAMED_OPERATIONS["dnad"], 8, 4), "cifar", 8, 1, 4),
    (_space(NAMED_OPERATIONS["dnad"], 5, 2), "cifar", 7, 3, 3),
    (_space(NAMED_OPERATIONS["darts"], 5, 2), "cifar", 32, 3, 6),
    (_space(NAMED_OPERATIONS["darts"], 3, 3), "imagenet", 32, 3, 5),
    (_space(NAMED_OPERATIONS["darts"], 5, 2), "imagenet", 33, 3, 4),
    (_space(ALL, 3, 2), "cifar", 7, 1, 2),
    (_space(ALL, 5, 2), "cifar", 5, 3, 8),
    (_space(ALL, 5, 2), "imagenet", 64, 1, 2),
]


def _cell(*nodes, reduction=False):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))


def _shape(image_size=8, in_channels=1, init_channels=2, stem="cifar"):
    return NetworkShape(
        images=ImageShape(in_channels=in_channels, image_size=image_size, num_classes=3),
        init_channels=init_channels,
        stem=stem,
    )


def _random_genotypes(space, seed):
    """Connected genotypes, each cell with a density of its own, edges in any order."""
    rng = random.Random(seed)
    dense = space.dense()
    found = []
    while len(found) < NUM_GENOTYPES:
        cells = []
        for cell in dense.cells:
            density = rng.choice([0.0, 0.1, 0.2, 0.4, 0.8])
            nodes = [[edge for edge in node if rng.random() < density] for node in cell.nodes]
            for node in nodes:
                rng.shuffle(node)
            cells.append(CellGenotype(cell.reduction, tuple(map(tuple, nodes))))
        genotype = Genotype(tuple(cells))
        if genotype.is_connected:
            found.append(genotype)
    return found


COLLECTION = [
    (genotype, _shape(image_size, in_channels, init_channels, stem))
    for seed, (space, stem, image_size, in_channels, init_channels) in enumerate(SETTINGS, FIRST_SEED)
    for genotype in _random_genotypes(space, seed)
]


def _cases(genotype, shape):
    """What is special about a genotype, or is not."""
    canonical = genotype.pruned()
    live = canonical.live_cells()
    cells = canonical.cells
    older_is_larger = [shape.stem == "imagenet", *(cell.reduction for cell in cells)]
    edges = [(index, *edge) for index, cell in enumerate(genotype.cells) for node in cell.nodes for edge in node]
    skips = [edge for edge in edges if edge[1] == SKIP and live[edge[0]] and not genotype.cells[edge[0]].reduction]
    yield "older stem unread", shape.stem == "imagenet" and not cells[0].reads(0)
    yield "newer stem unread", shape.stem == "imagenet" and not cells[0].reads(1) and not cells[1].reads(0)
    yield "none", any(operation == NONE for _, operation, _ in edges)
    yield "the same skip in two nodes", len(skips) > len(set(skips))
    for index, cell in enumerate(cells):
        yield "dead cell", not live[index]
        yield "dead reduction", not live[index] and cell.reduction
        yield "dead with edges", not live[index] and genotype.cells[index].num_operations > 0
        yield "older unread", live[index] and not cell.reads(0)
        yield "newer unread", live[index] and not cell.reads(1)
        yield "larger input", live[index] and cell.reads(0) and older_is_larger[index]
        yield "larger input in a reduction", live[index] and cell.reads(0) and older_is_larger[index] and cell.reduction
        yield "larger input over a dead cell", live[index] and cell.reads(0) and index > 0 and not live[index - 1]
        yield "empty node", live[index] and not all(cell.nodes)
        empty = {NUM_INPUTS + node for node, edges in enumerate(cell.nodes) if not edges}
        given = {edge for node in genotype.cells[index].nodes for edge in node if edge.operation != NONE}
        yield "edge from an empty node", live[index] and any(edge.source in empty for edge in given)


def test_random_genotypes_have_every_awkward_case():
    cases = [case for genotype, shape in COLLECTION for case in _cases(genotype, shape)]
    assert {name for name, is_so in cases if is_so} == {name for name, _ in cases}


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_table_is_the_trace_of_the_whole_network(number):
    part = COLLECTION[number * NUM_GENOTYPES : (number + 1) * NUM_GENOTYPES]
    table = CostTable(part[0][1])
    by_table = [table.complexity_of(genotype) for genotype, _ in part]
    assert by_table == [complexity_of(genotype, shape) for genotype, shape in part]
    assert [table.complexity_of(genotype.pruned()) for genotype, _ in part] == by_table
    assert all(type(number) is int for cost in by_table for number in cost)


def test_table_is_the_trace_of_the_densest_network():
    """Every operation on every kind of edge: the network of any other space is a part of it."""
    dense, shape = _space(ALL, 3, 2).dense(), _shape(7, 3)
    assert CostTable(shape).complexity_of(dense) == complexity_of(dense, shape)


def test_stem_output_that_nothing_reads_is_in_no_trace_but_its_parameters_are_in_the_network():
    """33x33 images, C = 4: the second ImageNet stem makes 5x5 pixels that only input 1 of the first cell reads."""
    shape = _shape(33, 3, 4, "imagenet")
    table = CostTable(shape)
    both, older = (Genotype((_cell([(SKIP, 0), *more]),)) for more in ([(SKIP, 1)], []))
    fewer = [ours - theirs for ours, theirs in zip(table.complexity_of(both), table.complexity_of(older), strict=True)]
    preprocessing = 25 * 4 * 4
    assert fewer[1] == 25 * 4 * 4 * 9 + preprocessing
    assert fewer[2] == 4 * 4 + 8  # the preprocessing's alone
    assert [table.complexity_of(genotype) for genotype in (both, older)] == [
        complexity_of(genotype, shape) for genotype in (both, older)
    ]


def test_larger_input_over_a_dead_reduction_by_hand():
    """5x5 images, C = 2: a separable convolution, a dead reduction cell, a skip connection from before it."""
    genotype = Genotype((_cell([(CONV, 1)]), _cell([], reduction=True), _cell([(SKIP, 0)])))
    cost = CostTable(_shape(5)).complexity_of(genotype)
    stem = 25 * 6 * 9
    first = 25 * 6 * 2 + 2 * (25 * 2 * 9 + 25 * 2 * 2)
    third = 9 * 2 * 2 * 2  # two pointwise convolutions of 2 to 2 channels, from 5x5 to 3x3 pixels
    assert cost.macs_conv_linear == stem + first + third + 4 * 3
    norms = 2 * (25 * 6 + 25 * 2 + 2 * 25 * 2 + 9 * 4)
    assert cost.macs == cost.macs_conv_linear + norms + 9 * 4
    assert cost.params == (6 * 9 + 12) + (12 + 4) + 2 * (18 + 4 + 4) + (2 * 2 * 2 + 8) + (12 + 3)


@pytest.fixture
def traces(monkeypatch):
    """The modules that fvcore was given, in order."""
    modules = []
    real = complexity.FlopCountAnalysis

    def analysis(module, *inputs):
        modules.append(module.module)
        return real(module, *inputs)

    monkeypatch.setattr(complexity, "FlopCountAnalysis", analysis)
    return modules


def test_every_part_is_counted_once_and_a_second_genotype_not_at_all(traces):
    dense = _space((CONV,), 3, 2).dense()
    table = CostTable(_shape())
    first = table.complexity_of(dense)
    # Stem and classifier. The first cell: one preprocessing for both inputs, which are alike, and one convolution. The
    # two reduction cells: two preprocessings and two convolutions each, one of stride 2 and one of stride 1.
    num_parts = 2 + (1 + 1) + 2 * (2 + 2)
    assert len(traces) == num_parts
    assert [type(module).__name__ for module in traces].count("FactorizedReduce") == 1
    thinner = Genotype(tuple(_cell([(CONV, 1)], [(CONV, 0)], reduction=cell.reduction) for cell in dense.cells))
    assert table.complexity_of(thinner).params < first.params
    assert table.complexity_of(dense) == first
    assert len(traces) == num_parts


class _FixedBlur(Operation):
    """Costs something and trains nothing, which no operation of the table does yet."""

    is_shared = True

    def __init__(self, channels, stride, searching):
        super().__init__()
        self.stride = stride
        self.register_buffer("kernel", torch.ones(channels, 1, 3, 3) / 9)

    def forward(self, x):
        return F.conv2d(x, self.kernel, stride=self.stride, padding=1, groups=x.shape[1])


def test_new_operation_is_counted_as_it_is_and_a_shared_one_once_a_state(monkeypatch):
    monkeypatch.setitem(OPERATIONS, "blur", _FixedBlur)
    genotype = Genotype((_cell([("blur", 1)], [("blur", 1), ("blur", 0)]), _cell([("blur", 1)], [], reduction=True)))
    shape = _shape(7)
    without = Genotype((_cell([(SKIP, 1)], [(SKIP, 1), (SKIP, 0)]), _cell([(POOL, 1)], [], reduction=True)))
    table = CostTable(shape)
    cost = table.complexity_of(genotype)
    assert cost == complexity_of(genotype, shape)
    more = cost.macs - table.complexity_of(without).macs
    assert more == 2 * (49 * 2 * 9) + 16 * 4 * 9


def test_genotype_that_is_refused_is_refused_in_the_same_words():
    shape = _shape()
    for genotype, kind in (
        (Genotype((_cell([(NONE, 1)]),)), GenotypeError),
        (Genotype((_cell([(CONV, 1)]), _cell([]), _cell([]))), GenotypeError),
        (Genotype((_cell([("sep_conv", 1)]),)), SpaceError),
    ):
        with pytest.raises(kind) as by_trace:
            complexity_of(genotype, shape)
        with pytest.raises(kind) as by_table:
            CostTable(shape).complexity_of(genotype)
        assert str(by_table.value) == str(by_trace.value)


def test_table_leaves_every_random_stream_alone():
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    CostTable(_shape()).complexity_of(_space((CONV, SKIP), 3, 1).dense())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def test_costs_of_shares_one_table_a_shape(traces):
    genotype, shape = _space((CONV,), 3, 1).dense(), _shape(9)
    first = costs_of(genotype, shape)
    assert traces
    traces.clear()
    assert costs_of(genotype, _shape(9)) == first
    assert not traces
    assert cost_table_for(shape) is cost_table_for(_shape(9))
    assert costs_of(genotype, _shape(10)) != first


def test_costs_of_asks_the_trace_only_where_told_and_believes_it(monkeypatch):
    genotype, shape = _space((CONV,), 3, 1).dense(), _shape()
    cost = costs_of(genotype, shape)
    asked = []

    def trace(genotype, shape):
        asked.append(genotype)
        return cost if len(asked) == 1 else cost._replace(macs=cost.macs + 1)

    monkeypatch.setattr(cost_table, "complexity_of", trace)
    assert costs_of(genotype, shape) == cost
    assert not asked
    assert costs_of(genotype, shape, traced=True) == cost
    with pytest.raises(AssertionError, match=f"{genotype.digest} costs .* by the table and .* by a trace"):
        costs_of(genotype, shape, traced=True)


def _snapshots(config, data):
    events = search(SearchState.start(config, data, run="r", trial="t"))
    return [event for event in events if isinstance(event, Snapshot)]


@pytest.fixture(scope="module")
def usual(tiny, digits, timeless):
    """The snapshots of the usual search."""
    return timeless(_snapshots(tiny(), digits))


@pytest.mark.parametrize("trace", ["none", "final", "all"])
def test_search_traces_the_networks_that_it_is_told_to(trace, usual, tiny, digits, monkeypatch, timeless):
    traced = []

    def spy(genotype, shape):
        traced.append(genotype.digest)
        return complexity_of(genotype, shape)

    monkeypatch.setattr(cost_table, "complexity_of", spy)
    found = _snapshots(tiny({"evaluation.trace": trace}), digits)
    expected = {"none": [], "final": found[-1:], "all": found}[trace]
    assert [snapshot for snapshot in found if snapshot.costs_traced] == expected
    assert traced == [snapshot.digest for snapshot in expected]
    # To trace or not changes nothing else, costs included; the default is to trace what a search ends with.
    assert [record["costs_traced"] for record in usual] == [False] * (len(usual) - 1) + [True]
    records = timeless(found)
    assert [{**record, "costs_traced": None} for record in records] == [
        {**record, "costs_traced": None} for record in usual
    ]
