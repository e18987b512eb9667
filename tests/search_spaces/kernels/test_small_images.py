"""Cells and stems on small images against the same ones computed as those on large images are."""

from __future__ import annotations

import copy
import gc
import random
import weakref

import pytest
import torch
from torch import nn

from search_spaces.cell import Cell
from search_spaces.genotype import NONE, CellGenotype, Edge
from search_spaces.kernels import small_images
from search_spaces.kernels.small_images import is_small, small_stem
from search_spaces.ops import CHAINS
from search_spaces.stem_head import CifarStem

OPERATIONS = (*CHAINS, "max_pool_3x3", "avg_pool_3x3", "skip_connect", NONE)
N, C, SIDE = 2, 4, 6


def _genotype(*nodes, reduction=False, concat=None):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes), concat)


def _dense(reduction=False, num_nodes=2):
    nodes = [[(name, source) for source in range(2 + node) for name in OPERATIONS] for node in range(num_nodes)]
    return _genotype(*nodes, reduction=reduction)


def _cell(genotype, channels=C, older_is_larger=False):
    torch.manual_seed(0)
    return Cell(genotype, (6, 5), channels, older_is_larger, True).double()


def _inputs(side=SIDE, older_side=None, num_images=N):
    generator = torch.Generator().manual_seed(1)
    sizes = ((6, older_side or side), (5, side))
    images = [torch.randn(num_images, width, n, n, generator=generator, dtype=torch.float64) for width, n in sizes]
    return [x.relu().requires_grad_() for x in images]


def _weights(genotype):
    generator = torch.Generator().manual_seed(2)
    return [
        torch.rand(len(edges), generator=generator, dtype=torch.float64).requires_grad_() for edges in genotype.nodes
    ]


def _run(cell, inputs, limit, monkeypatch):
    """Return output, gradients of inputs, weights and parameters, and the buffers, computed up to a size by hand."""
    monkeypatch.setattr(small_images, "SMALL_UP_TO", limit)
    cell, weights = copy.deepcopy(cell), _weights(cell.genotype)
    output = cell(*inputs, weights)
    assert ("_SmallCell" in type(output.grad_fn).__name__) == bool(limit and cell.training)
    generator = torch.Generator().manual_seed(3)
    gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    leaves = [*(x for x in inputs if x is not None), *weights, *cell.parameters()]
    gradients = torch.autograd.grad(output, leaves, gradient, allow_unused=True)
    return output, [torch.zeros(0) if entry is None else entry for entry in gradients], dict(cell.named_buffers())


def _check(cell, inputs, monkeypatch):
    ours, theirs = (_run(cell, inputs, limit, monkeypatch) for limit in (10**9, 0))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize(("side", "older_side"), [(6, 6), (5, 10), (3, 5), (8, 8), (1, 1)])
def test_dense_cell_is_as_on_large_images(side, older_side, reduction, monkeypatch):
    cell = _cell(_dense(reduction), older_is_larger=older_side != side)
    _check(cell, _inputs(side, older_side, num_images=4), monkeypatch)


@pytest.mark.parametrize("seed", range(8))
def test_sparse_cells_are_as_on_large_images(seed, monkeypatch):
    chance, nodes, filled = random.Random(seed), [], [0, 1]
    for node in range(3):
        edges = [(name, source) for source in filled for name in OPERATIONS]
        nodes.append([] if node == seed % 4 else chance.sample(edges, chance.randrange(1, 5)))
        if any(name != NONE for name, _ in nodes[-1]):
            filled.append(2 + node)
    genotype = _genotype(*nodes, reduction=seed % 2 == 1, concat=(0, 2) if seed % 3 == 0 else None)
    assert genotype.reads(0) or genotype.reads(1)
    older, newer = _inputs()
    _check(_cell(genotype), [older if genotype.reads(0) else None, newer if genotype.reads(1) else None], monkeypatch)


def test_nodes_without_edges_are_zeros(monkeypatch):
    cell = _cell(_genotype([("sep_conv_3x3", 1)], [], [(NONE, 0), (NONE, 1)]))
    monkeypatch.setattr(small_images, "SMALL_UP_TO", 10**9)
    output = cell(*_inputs(), _weights(cell.genotype))
    assert output[:, :C].any()
    assert not output[:, C:].any()


def test_a_cut_cell_is_as_on_large_images(monkeypatch):
    """What the cell noted of its parts is noted anew."""
    cell = _cell(_dense(reduction=True))
    _run(cell, _inputs(), 10**9, monkeypatch)
    cell(*_inputs(), _weights(cell.genotype))
    cell.keep(_genotype([("dil_conv_5x5", 0), ("skip_connect", 0)], [("max_pool_3x3", 0)], reduction=True))
    older, _ = _inputs()
    _check(cell, [older, None], monkeypatch)


def test_a_moved_cell_notes_its_parameters_anew():
    cell = _cell(_dense()).float()
    for _ in range(2):
        output = cell(*(x.to(next(cell.parameters()).dtype) for x in _inputs()), _weights_like(cell))
        output.sum().backward()
        assert all(parameter.grad is not None for parameter in cell.parameters())
        cell = cell.double()
        cell.zero_grad()


def _weights_like(cell):
    return [entry.to(next(cell.parameters()).dtype) for entry in _weights(cell.genotype)]


def test_evaluation_is_left_to_the_general_way(monkeypatch):
    _check(_cell(_dense()).eval(), _inputs(), monkeypatch)


@pytest.mark.parametrize(
    ("genotype", "channels"),
    [(_dense(), 3), (_genotype([("conv_7x1_1x7", 0)], [("skip_connect", 1)]), C), (_genotype([("noise", 0)]), C)],
    ids=["odd width", "full convolution", "noise"],
)
def test_cells_with_other_parts_are_left_to_the_general_way(genotype, channels):
    cell = _cell(genotype, channels)
    output = cell(*_inputs(), _weights(genotype))
    assert "_SmallCell" not in type(output.grad_fn).__name__


def test_small_is_up_to_eight_by_eight_and_a_number_of_numbers(monkeypatch):
    monkeypatch.setattr(small_images, "SMALL_UP_TO", 3 * C * 64)
    assert is_small(torch.zeros(3, 1, 8, 8), C)
    assert not is_small(torch.zeros(4, 1, 8, 8), C)
    assert not is_small(torch.zeros(3, 1, 8, 8), C + 1)
    assert not is_small(torch.zeros(1, 1, 8, 9), C)
    assert is_small(torch.zeros(3, 1, 16, 16), C, is_halved=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_small(torch.zeros(3, 1, 8, 8), C)


def test_gradients_can_be_had_only_once():
    cell = _cell(_dense())
    total = cell(*_inputs(), _weights(cell.genotype)).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        total.backward()


def test_what_goes_in_and_what_comes_back_is_left_as_it_is():
    """Steps overwrite gradients: never those that others hold, too."""
    cell = _cell(_dense())
    inputs, weights = _inputs(), _weights(cell.genotype)
    before = [x.detach().clone() for x in (*inputs, *weights)]
    output = cell(*inputs, weights)
    result, gradient = output.detach().clone(), torch.randn_like(output)
    sent = gradient.clone()
    output.backward(gradient)
    assert torch.equal(gradient, sent)
    assert torch.equal(output, result)
    assert all(torch.equal(x, old) for x, old in zip((*inputs, *weights), before, strict=True))


@pytest.mark.parametrize("has_gradients", [True, False])
def test_a_pass_without_a_way_back_is_forgotten_at_once(has_gradients):
    cell = _cell(_dense())
    inputs = [x.detach() for x in _inputs()]
    with torch.set_grad_enabled(has_gradients):
        cell(*inputs, _weights(cell.genotype))
        gc.collect()
        gc.disable()
        try:
            watched = weakref.ref(inputs[0])
            output = cell(*inputs, _weights(cell.genotype))
            del output, inputs
            assert watched() is None
        finally:
            gc.enable()


@pytest.mark.parametrize(("side", "in_channels"), [(8, 1), (5, 3)])
def test_stem_is_as_on_large_images(side, in_channels):
    torch.manual_seed(0)
    theirs = CifarStem(in_channels, C).double()
    nn.init.uniform_(theirs.norm.weight)
    nn.init.uniform_(theirs.norm.bias)
    ours, images = copy.deepcopy(theirs), torch.randn(N, in_channels, side, side).double()
    expected, result = theirs(images)[0], small_stem(ours.conv, ours.norm, images)
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    result.backward(gradient)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-10)
    for own, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
