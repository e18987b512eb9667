"""One cell: sums, weights, zero nodes, unread inputs, and shrinking."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import search_spaces.kernels.bank
from search_spaces.cell import Cell
from search_spaces.genotype import NONE, CellGenotype, Edge
from search_spaces.ops import FactorizedReduce

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
SHRINK = 1 / math.sqrt(1 + 1e-5)  # what a fresh batch norm does in evaluation


def _genotype(*nodes, reduction=False):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))


def _cell(genotype, channels=2, older_is_larger=False, searching=False):
    """A cell in evaluation mode whose input preprocessing does no more than shrink a little."""
    torch.manual_seed(0)
    cell = Cell(genotype, (channels, channels), channels, older_is_larger, searching).double().eval()
    for module in cell.preprocess.values():
        if not isinstance(module, FactorizedReduce):
            torch.nn.init.dirac_(module.conv.weight)
    return cell


def _inputs(side=4, older_side=None):
    """Whoever calls a cell rectifies; these are below zero in places so that a second ReLU would show."""
    generator = torch.Generator().manual_seed(1)
    sides = (older_side or side, side)
    return tuple(torch.randn(3, 2, n, n, generator=generator, dtype=torch.float64) for n in sides)


def _weights(*nodes):
    return [torch.tensor(node, dtype=torch.float64, requires_grad=True) for node in nodes]


def test_forward_is_the_sum_over_edges():
    cell = _cell(_genotype([(SKIP, 0), (SKIP, 1)], [(POOL, 2), (SKIP, 1)]))
    older, newer = _inputs()
    before = older.clone(), newer.clone()
    first, second = older * SHRINK, newer * SHRINK
    expected = torch.cat([first + second, F.max_pool2d(first + second, 3, 1, 1) + second], 1)
    torch.testing.assert_close(cell(older, newer), expected)
    assert torch.equal(older, before[0])
    assert torch.equal(newer, before[1])


def test_forward_weighs_edges_in_the_order_of_the_genotype():
    cell = _cell(_genotype([(SKIP, 1), (NONE, 0), (SKIP, 0)], [(SKIP, 2), (POOL, 1)]), searching=True)
    older, newer = _inputs()
    before = older.clone(), newer.clone()
    first, second = older * SHRINK, newer * SHRINK
    pooled = F.max_pool2d(second, 3, 1, 1) * SHRINK  # while searching pools have a norm
    node = 0.5 * second + 0.2 * first  # `none` has the weight 0.3 and computes nothing
    expected = torch.cat([node, 0.9 * node + 0.1 * pooled], 1)
    weights = _weights([0.5, 0.3, 0.2], [0.9, 0.1])
    output = cell(older, newer, weights)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    torch.testing.assert_close(
        weights[0].grad, torch.stack([second.sum() * 1.9, second.new_zeros(()), first.sum() * 1.9])
    )
    torch.testing.assert_close(weights[1].grad, torch.stack([node.sum(), pooled.sum()]))
    assert torch.equal(older, before[0])
    assert torch.equal(newer, before[1])


@pytest.mark.parametrize("searching", [True, False])
def test_forward_rectifies_for_convolutions_only(searching):
    cell = _cell(_genotype([(CONV, 1)], [(CONV, 2), (SKIP, 2)]), searching=searching)
    _, newer = _inputs()
    output = cell(None, newer, _weights([1.0], [1.0, 1.0]) if searching else None)
    node = output[:, :2].detach()
    assert (node < 0).any()
    # The convolution in the second node is the same function of the node as of its ReLU; the skip is not.
    last = cell.nodes[1]
    convolution = last.banks["sep_conv_3x3_stride_1"] if searching else last.own["sep_conv_3x3_from_2"]
    layers = [[*convolution.depthwise], [*convolution.pointwise]]
    if not searching:
        layers = [[layer.weight for layer in kind] for kind in layers]
    (depthwise1, depthwise2), (pointwise1, pointwise2) = layers
    pointwise1, pointwise2 = pointwise1.view(2, 2, 1, 1), pointwise2.view(2, 2, 1, 1)
    inner = F.conv2d(F.conv2d(node.clamp_min(0), depthwise1, padding=1, groups=2), pointwise1) * SHRINK
    outer = F.conv2d(F.conv2d(inner.clamp_min(0), depthwise2, padding=1, groups=2), pointwise2) * SHRINK
    torch.testing.assert_close(output[:, 2:], outer + node)


@pytest.mark.parametrize("searching", [True, False])
def test_forward_zero_node_is_zeros(searching):
    cell = _cell(_genotype([], [(SKIP, 1)], []), searching=searching)
    _, newer = _inputs()
    output = cell(None, newer, _weights([], [1.0], []) if searching else None)
    assert output.shape == (3, 6, 4, 4)
    assert not output[:, :2].any()
    assert output[:, 2:4].any()
    assert not output[:, 4:].any()


@pytest.mark.parametrize("searching", [True, False])
@pytest.mark.parametrize(("side", "expected"), [(4, 2), (5, 3), (7, 4), (8, 4)])
def test_forward_reduction_halves_edges_from_inputs_only(side, expected, searching):
    genotype = _genotype([(SKIP, 0), (POOL, 1)], [(SKIP, 2), (CONV, 0), (CONV, 2)], reduction=True)
    cell = _cell(genotype, searching=searching)
    weights = _weights([0.5, 0.5], [0.2, 0.3, 0.5]) if searching else None
    assert cell(*_inputs(side), weights).shape == (3, 4, expected, expected)


@pytest.mark.parametrize("older_side", [7, 8])
def test_forward_brings_a_larger_older_input_to_size(older_side):
    cell = _cell(_genotype([(SKIP, 0), (SKIP, 1)]), older_is_larger=True)
    assert isinstance(cell.preprocess["0"], FactorizedReduce)
    older, newer = _inputs(4, older_side)
    expected = cell.preprocess["0"](older) + newer * SHRINK
    torch.testing.assert_close(cell(older, newer), expected)


def test_unread_input_has_no_preprocessing():
    cell = _cell(_genotype([(SKIP, 1), (NONE, 0)], [(SKIP, 2)]))
    assert set(cell.preprocess) == {"1"}
    assert cell(None, _inputs()[1]).shape == (3, 4, 4, 4)


@pytest.mark.parametrize("searching", [True, False])
def test_shared_candidates_are_computed_once(searching, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "UNFOLDED_UP_TO", 0)  # what is unfolded is no call that a hook sees
    cell = _cell(_genotype([(POOL, 1)], [(POOL, 1), (CONV, 1)], [(POOL, 1), (CONV, 1)]), searching=searching)
    of_nodes = [
        node.banks["sep_conv_3x3_stride_1"] if searching else node.own["sep_conv_3x3_from_1"] for node in cell.nodes[1:]
    ]
    calls = []
    for module in (*cell.shared.values(), *of_nodes):
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    cell(*_inputs(), _weights([1.0], [0.5, 0.5], [0.5, 0.5]) if searching else None)
    assert sorted(calls) == [*["ChainBank"] * (2 * searching), "Pool", *["SeparableConv"] * (2 * (not searching))]
    assert of_nodes[0] is not of_nodes[1]


def test_keep_drops_modules_that_nothing_uses():
    cell = _cell(_genotype([(CONV, 0), (POOL, 1)], [(CONV, 0), (POOL, 1), (SKIP, 2)]), searching=True)
    smaller = _genotype([(POOL, 1)], [(CONV, 0), (SKIP, 2)])
    kept = cell.nodes[1].banks["sep_conv_3x3_stride_1"]
    assert cell.keep(smaller) == []
    assert cell.genotype == smaller
    assert [[*node.banks.values()] for node in cell.nodes] == [[], [kept]]
    assert set(cell.shared) == {"max_pool_3x3_from_1", "skip_connect_from_2"}, (
        "one of two readers of the pool is still there"
    )
    assert set(cell.preprocess) == {"0", "1"}
    cell.keep(_genotype([(POOL, 1)], [(SKIP, 2)]))
    assert not [bank for node in cell.nodes for bank in node.banks]
    assert set(cell.preprocess) == {"1"}
    assert cell(None, _inputs()[1], _weights([1.0], [1.0])).shape == (3, 4, 4, 4)
    cell.keep(_genotype([(POOL, 1)], []))
    assert set(cell.shared) == {"max_pool_3x3_from_1"}


def test_keep_returns_what_lost_rows():
    cell = _cell(_genotype([(CONV, 0), (CONV, 1)], [(CONV, 0), (CONV, 1), (CONV, 2)]), searching=True)
    first, second = (node.banks["sep_conv_3x3_stride_1"] for node in cell.nodes)
    sliced = cell.keep(_genotype([(CONV, 1)], [(CONV, 0), (CONV, 2)]))
    expected = [(first, [2, 3])] * 4 + [(second, [0, 1, 4, 5])] * 4  # two channels each; two layers of two parameters
    for (parameter, rows), (bank, kept) in zip(sliced, expected, strict=True):
        assert any(parameter is own for own in bank.parameters())
        assert rows.tolist() == kept
        assert len(parameter) == len(kept)
    assert len({id(parameter) for parameter, _ in sliced}) == 8


def test_cell_of_one_skip_passes_its_one_input_on_and_one_output_is_no_copy():
    newer = _inputs()[1]
    for nodes in ([[], [(SKIP, 0)]], [[(SKIP, 0)], [(SKIP, 1)]]):
        genotype = CellGenotype(False, tuple(tuple(Edge(*edge) for edge in node) for node in nodes), concat=(1,))
        cell = Cell(genotype, None, 2, False, searching=False).eval()
        assert cell(None, newer) is newer
    twice = CellGenotype(False, ((Edge(SKIP, 0),), (Edge(SKIP, 0), Edge(SKIP, 1))), concat=(1,))
    assert torch.equal(Cell(twice, None, 2, False, searching=False)(None, newer), 2 * newer)
    weighted = Cell(_one_skip(), None, 2, False, searching=True)
    assert torch.equal(weighted(None, newer, _weights([], [0.5])), 0.5 * newer)


def _one_skip():
    return CellGenotype(False, ((), (Edge(SKIP, 0),)), concat=(1,))
