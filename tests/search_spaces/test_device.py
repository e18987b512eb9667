"""The space `device`: a ResNet written out by hand, its costs, stems of half and a quarter, and depth by deletion."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dnad_ray.costs.table import costs_of
from search_spaces.errors import SpaceError
from search_spaces.network import network_from
from search_spaces.ops import GROUP_WIDTH, OPERATIONS
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import space_named
from search_spaces.supernet import Supernet

SPACE = space_named("device", None, 9, 2)
CONVOLUTIONS = ("nor_conv_3x3", "group_conv_3x3", "nor_conv_1x1", "dw_conv_3x3", "dw_conv_5x5")


def _shape(stem="half", channels=16, size=32):
    images = ImageShape(in_channels=3, image_size=size, num_classes=10)
    return NetworkShape(images=images, init_channels=channels, stem=stem)


def test_candidates_are_five_convolutions_on_two_edges_and_a_skip():
    assert SPACE.num_candidates == 9 * (5 + 1 + 5)
    for cell in SPACE.dense().cells:
        first, second = cell.nodes
        assert [edge.operation for edge in first] == list(CONVOLUTIONS)
        assert [(edge.operation, edge.source) for edge in second if edge.source == 0] == [("skip_connect", 0)]
        assert [edge.operation for edge in second if edge.source == 1] == list(CONVOLUTIONS)


def _norm(x, norm):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def _by_hand(network, images, strides):
    """A pre-activation ResNet, from the parameters of a network."""
    x = _norm(F.conv2d(images, network.stem.conv.weight, stride=strides[0], padding=1), network.stem.norm)
    if len(strides) > 1:
        x = F.conv2d(F.relu(x), network.stem.second.weight, stride=strides[1], padding=1)
        x = _norm(x, network.stem.second_norm)
    for index, cell in network.cells.items():
        if index in network.blocks:
            block = network.blocks[index]
            inner = _norm(F.conv2d(F.relu(x), block.first.weight, stride=2, padding=1), block.first_norm)
            inner = _norm(F.conv2d(F.relu(inner), block.second.weight, padding=1), block.second_norm)
            x = inner + F.conv2d(F.avg_pool2d(x, 2), block.shortcut.weight)
        first, second = (node.own[f"nor_conv_3x3_from_{source}"] for source, node in enumerate(cell.nodes))
        inner = _norm(F.conv2d(F.relu(x), first.conv.weight, padding=1), first.norm)
        x = x + _norm(F.conv2d(F.relu(inner), second.conv.weight, padding=1), second.norm)
    return network.head.classifier.linear(F.relu(_norm(x, network.head.norm)).mean((2, 3)))


@pytest.mark.parametrize(("stem", "strides"), [("cifar", (1,)), ("half", (2,)), ("quarter", (2, 2))])
def test_usual_teacher_is_a_residual_network(stem, strides):
    torch.manual_seed(0)
    network = network_from(SPACE.usual_teacher(), _shape(stem, channels=4)).double().eval()
    for module in network.modules():
        if hasattr(module, "running_mean"):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(images).logits, _by_hand(network, images, strides))


def test_costs_are_those_of_the_convolutions():
    # One cell of two convolutions in the first stage, and the two blocks that halve the resolution: a small ResNet.
    supernet = Supernet(SPACE, _shape())
    supernet.remove(
        [
            position
            for position, item in enumerate(supernet.candidates)
            if item.edge.operation != "skip_connect"
            and (item.cell or item.edge.operation != "nor_conv_3x3")
            # The last convolution of a node without readers goes with its readers.
            and not (item.node == 0 and item.edge.operation == "nor_conv_3x3")
        ]
    )
    cost = costs_of(supernet.genotype, _shape(), traced=True)
    first = 3 * 16 * 9 * 16**2 + 2 * 16 * 16 * 9 * 16**2
    second = (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 8**2
    third = (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 4**2
    assert cost.macs_conv_linear == first + second + third + 64 * 10
    assert [cell.num_operations for cell in supernet.genotype.pruned().cells] == [3, *[1] * 8]


@pytest.mark.parametrize(("channels", "groups"), [(16, 2), (12, 3), (7, 7), (8, 1)])
def test_grouped_convolution_has_groups_of_eight_channels_or_their_common_divisor(channels, groups):
    assert GROUP_WIDTH == 8
    operation = OPERATIONS["group_conv_3x3"](channels, 1, False)
    assert operation.conv.groups == groups
    assert operation(torch.zeros(1, channels, 5, 5)).shape == (1, channels, 5, 5)


def test_stems_of_other_skeletons_are_refused():
    with pytest.raises(SpaceError, match="stem: got 'half'; allowed: cifar, imagenet"):
        network_from(space_named("dnad", None, 3, 2).dense(), _shape("half"))
    with pytest.raises(SpaceError, match="stem: got 'imagenet'; allowed: cifar, half, quarter"):
        network_from(SPACE.dense(), _shape("imagenet"))
    with pytest.raises(SpaceError, match="image size for the quarter stem: got 12; allowed: at least 16 pixels"):
        _shape("quarter", size=12)
