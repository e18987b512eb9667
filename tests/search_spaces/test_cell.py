"""One cell: sums, weights, zero nodes, unread inputs, and shrinking."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from search_spaces.cell import Cell
from search_spaces.genotype import NONE, CellGenotype, Edge
from search_spaces.ops import FactorizedReduce

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
SHRINK = 1 / math.sqrt(1 + 1e-5)  # what a fresh batch norm does in evaluation


def _genotype(*nodes, reduction=False):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))


def _cell(genotype, channels=2, older_is_larger=False, searching=False):
    """A cell in evaluation mode whose input preprocessing does no more than rectify and shrink a little."""
    torch.manual_seed(0)
    cell = Cell(genotype, (channels, channels), channels, older_is_larger, searching).double().eval()
    for module in cell.preprocess.values():
        if not isinstance(module, FactorizedReduce):
            torch.nn.init.dirac_(module.conv.weight)
    return cell


def _inputs(side=4, older_side=None):
    generator = torch.Generator().manual_seed(1)
    sides = (older_side or side, side)
    return tuple(torch.randn(3, 2, n, n, generator=generator, dtype=torch.float64) for n in sides)


def _weights(*values):
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


def test_forward_is_the_sum_over_edges():
    cell = _cell(_genotype([(SKIP, 0), (SKIP, 1)], [(POOL, 2), (SKIP, 1)]))
    older, newer = _inputs()
    before = older.clone(), newer.clone()
    first, second = F.relu(older) * SHRINK, F.relu(newer) * SHRINK
    expected = torch.cat([first + second, F.max_pool2d(first + second, 3, 1, 1) + second], 1)
    torch.testing.assert_close(cell(older, newer), expected)
    assert torch.equal(older, before[0])
    assert torch.equal(newer, before[1])


def test_forward_weighs_edges_in_the_order_of_the_genotype():
    cell = _cell(_genotype([(SKIP, 1), (NONE, 0), (SKIP, 0)], [(SKIP, 2), (SKIP, 1)]))
    older, newer = _inputs()
    first, second = F.relu(older) * SHRINK, F.relu(newer) * SHRINK
    node = 0.5 * second + 0.2 * first  # `none` has the weight 0.3 and computes nothing
    expected = torch.cat([node, 0.9 * node + 0.1 * second], 1)
    weights = _weights(0.5, 0.3, 0.2, 0.9, 0.1)
    output = cell(older, newer, weights)
    torch.testing.assert_close(output, expected)
    output.sum().backward()
    assert weights[1].grad is None
    torch.testing.assert_close(weights[0].grad, second.sum() * 1.9)
    torch.testing.assert_close(weights[4].grad, second.sum())


def test_forward_rectifies_for_convolutions_only():
    cell = _cell(_genotype([(CONV, 1)], [(CONV, 2), (SKIP, 2)]))
    seen = []
    cell.own["0 1 sep_conv_3x3"].register_forward_hook(lambda *facts: seen.append(facts[2]))
    cell.own["1 2 sep_conv_3x3"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    _, newer = _inputs()
    output = cell(None, newer)
    assert (seen[0] < 0).any()
    torch.testing.assert_close(seen[1], seen[0].clamp_min(0))
    torch.testing.assert_close(output[:, 2:] - cell.own["1 2 sep_conv_3x3"](seen[1]), seen[0])


def test_forward_zero_node_is_zeros():
    cell = _cell(_genotype([], [(SKIP, 1)], []))
    _, newer = _inputs()
    output = cell(None, newer)
    assert output.shape == (3, 6, 4, 4)
    assert not output[:, :2].any()
    assert output[:, 2:4].any()
    assert not output[:, 4:].any()


@pytest.mark.parametrize(("side", "expected"), [(4, 2), (5, 3), (7, 4), (8, 4)])
def test_forward_reduction_halves_edges_from_inputs_only(side, expected):
    cell = _cell(_genotype([(SKIP, 0), (POOL, 1)], [(SKIP, 2), (CONV, 0), (CONV, 2)], reduction=True))
    assert cell(*_inputs(side)).shape == (3, 4, expected, expected)


@pytest.mark.parametrize("older_side", [7, 8])
def test_forward_brings_a_larger_older_input_to_size(older_side):
    cell = _cell(_genotype([(SKIP, 0), (SKIP, 1)]), older_is_larger=True)
    assert isinstance(cell.preprocess["0"], FactorizedReduce)
    older, newer = _inputs(4, older_side)
    expected = cell.preprocess["0"](older.clamp_min(0)) + newer.clamp_min(0) * SHRINK
    torch.testing.assert_close(cell(older, newer), expected)


def test_unread_input_has_no_preprocessing():
    cell = _cell(_genotype([(SKIP, 1), (NONE, 0)], [(SKIP, 2)]))
    assert set(cell.preprocess) == {"1"}
    assert cell(None, _inputs()[1]).shape == (3, 4, 4, 4)


def test_shared_candidates_are_computed_once():
    genotype = _genotype([(POOL, 1)], [(POOL, 1), (CONV, 1)], [(POOL, 1), (CONV, 1)])
    cell = _cell(genotype, searching=True)
    calls = []
    for module in (*cell.shared.values(), *cell.own.values()):
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    cell(*_inputs(), _weights(1.0, 0.5, 0.5, 0.5, 0.5))
    assert sorted(calls) == ["Pool", "SeparableConv", "SeparableConv"]
    assert cell.own["1 1 sep_conv_3x3"] is not cell.own["2 1 sep_conv_3x3"]


def test_keep_drops_modules_that_nothing_uses():
    cell = _cell(_genotype([(CONV, 0), (POOL, 1)], [(CONV, 0), (POOL, 1), (SKIP, 2)]), searching=True)
    smaller = _genotype([(POOL, 1)], [(CONV, 0), (SKIP, 2)])
    kept = cell.own["1 0 sep_conv_3x3"]
    cell.keep(smaller)
    assert cell.genotype == smaller
    assert list(cell.own.values()) == [kept]
    assert set(cell.shared) == {"1 max_pool_3x3", "2 skip_connect"}, "one of two readers of the pool is still there"
    cell.keep(_genotype([(POOL, 1)], [(SKIP, 2)]))
    assert not list(cell.own)
    assert set(cell.preprocess) == {"1"}
    assert cell(None, _inputs()[1], _weights(1.0, 1.0)).shape == (3, 4, 4, 4)
