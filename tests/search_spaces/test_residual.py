"""The skeleton of NAS-Bench-201 against the same network written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from search_spaces.errors import GenotypeError, SpaceError
from search_spaces.formats import from_nas_bench_201
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.residual import ResidualBlock, ResidualNetwork
from search_spaces.shape import NetworkShape
from search_spaces.space import space_named
from search_spaces.supernet import Supernet

TEXT = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _shape(**changes):
    data = {"in_channels": 3, "image_size": 8, "num_classes": 5, "init_channels": 4, "stem": "cifar", **changes}
    return NetworkShape.from_dict(data)


def _randomised(network):
    """Norms that do something, so that a forgotten one is seen."""
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "running_mean"):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.weight is not None:
                    module.weight.normal_()
                    module.bias.normal_()
    return network.double().eval()


def _norm(norm, x):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _conv_norm(operation, x):
    weight = operation.conv.weight
    return _norm(operation.norm, F.conv2d(F.relu(x), weight, padding=weight.shape[2] // 2))


def _by_hand(network, images):
    x = _norm(network.stem.norm, F.conv2d(images, network.stem.conv.weight, padding=1))
    for index in range(3):
        if index:
            block = network.blocks[str(index)]
            inner = _norm(block.first_norm, F.conv2d(F.relu(x), block.first.weight, stride=2, padding=1))
            inner = _norm(block.second_norm, F.conv2d(F.relu(inner), block.second.weight, padding=1))
            x = inner + F.conv2d(F.avg_pool2d(x, 2), block.shortcut.weight)
        own = [node.own for node in network.cells[str(index)].nodes]
        first = _conv_norm(own[0]["nor_conv_3x3_from_0"], x)
        second = _conv_norm(own[1]["nor_conv_1x1_from_0"], x) + first
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = pooled + _conv_norm(own[2]["nor_conv_1x1_from_1"], first) + second
    features = F.relu(_norm(network.head.norm, x)).mean((2, 3))
    return F.linear(features, network.head.classifier.linear.weight, network.head.classifier.linear.bias)


def test_network_is_that_of_the_paper():
    network = _randomised(network_from(from_nas_bench_201(TEXT, 3), _shape()))
    assert isinstance(network, ResidualNetwork)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    output = network(images)
    assert torch.allclose(output.logits, _by_hand(network, images))
    assert [tap.shape for tap in output.taps] == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2)]
    assert network.tap_channels == (4, 8, 16)


def test_block_rounds_odd_sides_up():
    assert ResidualBlock(4)(torch.randn(1, 4, 5, 7)).shape == (1, 8, 3, 4)


def test_network_without_a_way_through_is_refused_and_so_is_another_stem():
    dead = from_nas_bench_201("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", 3)
    with pytest.raises(GenotypeError, match="from the image to the classifier"):
        network_from(dead, _shape())
    with pytest.raises(SpaceError, match="stem: got 'imagenet'"):
        network_from(from_nas_bench_201(TEXT, 3), _shape(stem="imagenet", image_size=32))


def test_network_whose_cells_have_several_outputs_is_refused():
    cell = CellGenotype(False, ((Edge("nor_conv_3x3", 0),), (Edge("nor_conv_3x3", 0),)))
    with pytest.raises(GenotypeError, match=r"cells\[0\]\.concat: got \[0, 1\]; allowed: one node"):
        network_from(Genotype((cell, cell), "nas_bench_201"), _shape())


def test_supernet_is_the_weighted_sum_and_shrinks_to_the_derived_topology():
    space = space_named("nas-bench-201", None, 3, 3)
    supernet = Supernet(space, _shape()).double().eval()
    weights = torch.rand(len(supernet.candidates), dtype=torch.float64)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    keep = [item.edge.operation != "nor_conv_1x1" for item in supernet.candidates]
    masked = weights * torch.tensor(keep)
    expected = supernet(images, masked).logits
    removal = supernet.remove([position for position, is_kept in enumerate(keep) if not is_kept])
    assert removal.kept == [position for position, is_kept in enumerate(keep) if is_kept]
    assert torch.allclose(supernet(images, weights[removal.kept]).logits, expected)
    assert supernet.genotype.skeleton == "nas_bench_201"
    assert {cell.outputs for cell in supernet.genotype.cells} == {(2,)}
