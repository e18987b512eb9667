"""Weights of a supernet in the derived network: the same function where that is possible, and close to it elsewhere."""

from __future__ import annotations

import pytest
import torch

from search_spaces.genotype import Edge
from search_spaces.inherit import inherited_network
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet


def without_constants(module):
    """The constant in the norms is the one thing that a positive factor does not pass through."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eps = 1e-12
    return module


def shrunken(operations, stem="cifar", size=8, most_bare=1, seed=0):
    """A supernet with statistics of its own, in which every node has few terms and at most so many bare ones."""
    torch.manual_seed(seed)
    shape = NetworkShape(images=ImageShape(in_channels=2, image_size=size, num_classes=3), init_channels=4, stem=stem)
    supernet = Supernet(SearchSpace(operations=operations, num_cells=4, num_nodes=3), shape)
    without_constants(supernet)
    generator = torch.Generator().manual_seed(seed)
    gone, bare = [], {}
    for position, item in enumerate(supernet.candidates):
        reduces = supernet.genotype.cells[item.cell].reduction and item.edge.source < 2
        is_bare = item.edge.operation.endswith("pool_3x3") or (item.edge.operation == "skip_connect" and not reduces)
        taken = bare.get((item.cell, item.node), 0)
        if (is_bare and taken >= most_bare) or (not is_bare and torch.rand(1, generator=generator) < 0.3):
            gone.append(position)
        elif is_bare:
            bare[item.cell, item.node] = taken + 1
    supernet.remove(gone)
    weights = torch.rand(len(supernet.candidates), generator=generator) + 0.1
    supernet.train()
    for _ in range(4):
        supernet(torch.randn(16, 2, size, size, generator=generator), weights)
    return supernet, weights, shape


IMAGES = {8: torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(1))}


@pytest.mark.parametrize(
    "operations",
    [
        ("sep_conv_3x3", "dil_conv_5x5"),
        ("sep_conv_5x5", "skip_connect", "none"),
        ("conv_7x1_1x7", "dil_conv_3x3", "skip_connect"),
    ],
)
def test_inherited_network_computes_what_the_supernet_computes(operations):
    supernet, weights, shape = shrunken(operations)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    network = without_constants(inherited_network(supernet, supernet.genotype.pruned(), weights, shape))
    with torch.no_grad():
        expected = supernet.eval()(IMAGES[8], weights).logits
        found = network.eval()(IMAGES[8]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert network.genotype == supernet.genotype.pruned()
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_inherited_network_behind_the_imagenet_stem():
    supernet, weights, shape = shrunken(("sep_conv_3x3", "skip_connect"), "imagenet", 32)
    images = torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    network = without_constants(inherited_network(supernet, supernet.genotype.pruned(), weights, shape))
    with torch.no_grad():
        expected = supernet.eval()(images, weights).logits
        torch.testing.assert_close(network.eval()(images).logits, expected, rtol=1e-4, atol=1e-4)


def test_inherited_network_with_pools_is_near_and_not_the_same():
    supernet, weights, shape = shrunken(("sep_conv_3x3", "max_pool_3x3", "skip_connect"), most_bare=2)
    network = without_constants(inherited_network(supernet, supernet.genotype.pruned(), weights, shape))
    with torch.no_grad():
        expected = supernet.eval()(IMAGES[8], weights).logits
        found = network.eval()(IMAGES[8]).logits
    assert not torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(found).all()


def test_inherited_network_leaves_the_random_stream_alone_and_shares_nothing():
    supernet, weights, shape = shrunken(("sep_conv_3x3", "skip_connect"))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    network = without_constants(inherited_network(supernet, supernet.genotype.pruned(), weights, shape))
    assert torch.equal(torch.rand(2), expected)
    stem = supernet.network.stem.conv.weight
    before = stem.clone()
    with torch.no_grad():
        network.stem.conv.weight.zero_()
    assert torch.equal(stem, before)
    assert all(isinstance(edge, Edge) for cell in network.genotype.cells for node in cell.nodes for edge in node)
