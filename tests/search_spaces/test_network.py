"""Derived networks: what is built, what is left out, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.errors import GenotypeError, SpaceError
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.ops import OPERATIONS, BatchNorm, FactorizedReduce
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace, space_named
from search_spaces.supernet import Supernet

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "avg_pool_3x3"
SHRINK = 1 / math.sqrt(1 + 1e-5)  # what a fresh batch norm does in evaluation
SHAPE = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=3), init_channels=2)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _cell(*nodes, reduction=False):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))


def _genotype(*cells):
    return Genotype(tuple(cells))


def _images(side=8, channels=1):
    return torch.randn(2, channels, side, side)


def test_shapes_of_logits_and_taps():
    genotype = SearchSpace(operations=(CONV, SKIP), num_cells=5, num_nodes=2).dense()
    network = network_from(genotype, SHAPE)
    output = network(_images())
    assert output.logits.shape == (2, 3)
    assert [tap.shape for tap in output.taps] == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2)]
    assert network.tap_channels == (4, 8, 16)
    assert network.stages == (0, 1, 1, 2, 2)


def test_taps_are_the_last_live_cells_of_their_stages():
    genotype = _genotype(
        _cell([(SKIP, 1)]),
        _cell([(SKIP, 0)]),  # last live cell of stage 0
        _cell([(CONV, 1)]),  # nothing reads it
        _cell([(SKIP, 0)], reduction=True),
        _cell([(CONV, 1)]),  # last of stage 1
        _cell([(SKIP, 0)], reduction=True),  # nothing reads it: cell 6 reads across
        _cell([(SKIP, 0)], reduction=True),
    )
    network = network_from(genotype, SHAPE)
    outputs = {}
    for name, cell in network.cells.items():
        cell.register_forward_hook(lambda module, inputs, output, name=name: outputs.setdefault(name, output))
    taps = network(_images()).taps
    assert list(outputs) == ["1", "3", "4", "6"]
    assert taps[0] is outputs["1"]
    assert taps[1] is outputs["4"]
    assert taps[2] is None
    assert taps[3] is outputs["6"]
    assert network.tap_channels == (2, 4, 8, 16)


def test_dead_cells_are_not_built():
    genotype = _genotype(_cell([(CONV, 1)], []), _cell([(CONV, 1)], [], reduction=True), _cell([(CONV, 0)], []))
    network = network_from(genotype, SHAPE)
    assert set(network.cells) == {"0", "2"}
    assert network(_images()).logits.shape == (2, 3)


def test_dead_reduction_cell_still_halves_for_whoever_reads_across():
    genotype = _genotype(_cell([(SKIP, 1)]), _cell([(SKIP, 0)], reduction=True), _cell([(SKIP, 0)]))
    network = network_from(genotype, SHAPE).eval()
    assert isinstance(network.cells["2"].preprocess["0"], FactorizedReduce)
    output = network(_images())
    assert [None if tap is None else tuple(tap.shape) for tap in output.taps] == [(2, 2, 8, 8), (2, 4, 4, 4)]
    # The tap of stage 1 is the skip connection in the last cell.
    torch.testing.assert_close(output.taps[1], network.cells["2"].preprocess["0"](F.relu(output.taps[0])))


def test_cell_without_inputs_that_a_later_cell_reads_is_not_built():
    genotype = _genotype(_cell([], []), _cell([(CONV, 1), (SKIP, 0)], []), _cell([(SKIP, 1)], []))
    network = network_from(genotype, SHAPE)
    assert set(network.cells) == {"1", "2"}
    assert network.genotype == genotype.pruned()
    assert network(_images()).logits.shape == (2, 3)


def test_zero_nodes_are_zeros():
    genotype = _genotype(_cell([], [(CONV, 1)]), _cell([(SKIP, 1)], [(NONE, 1)]))
    taps = network_from(genotype, SHAPE)(_images()).taps
    assert taps[0].shape == (2, 4, 8, 8)
    assert taps[0][:, :2].any()
    assert not taps[0][:, 2:].any()


def test_canonical_form_is_what_is_built():
    genotype = _genotype(
        _cell([(SKIP, 1), (NONE, 0), (CONV, 0)], [(SKIP, 2)]),
        _cell([(CONV, 1)], [(NONE, 0)], reduction=True),
        _cell([(POOL, 1), (SKIP, 0)], [(SKIP, 2)]),
    )
    images = _images()
    networks = []
    for version in (genotype, genotype.pruned()):
        torch.manual_seed(5)
        networks.append(network_from(version, SHAPE))
    ours, theirs = (network.state_dict() for network in networks)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(networks[0](images).logits, networks[1](images).logits)


def test_logits_by_hand():
    """Stem, one cell that adds the stem to its pooled self, classifier; every batch norm in evaluation."""
    network = network_from(_genotype(_cell([(SKIP, 1), (POOL, 0)])), SHAPE).eval()
    cell, images = network.cells["0"], _images()
    stem = F.conv2d(images, network.stem.conv.weight, padding=1) * SHRINK
    first, second = (F.conv2d(F.relu(stem), cell.preprocess[name].conv.weight) * SHRINK for name in ("0", "1"))
    node = second + F.avg_pool2d(first, 3, 1, 1, count_include_pad=False)
    expected = F.linear(node.mean((2, 3)), network.classifier.linear.weight, network.classifier.linear.bias)
    torch.testing.assert_close(network(images).logits, expected)


def test_batch_norms_are_affine_and_pools_bare():
    network = network_from(SearchSpace(operations=(CONV, POOL), num_cells=3, num_nodes=1).dense(), SHAPE)
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    # Stem 1, then in each cell two inputs, and two convolutions with two norms each.
    assert len(norms) == 1 + 3 * (2 + 2 * 2)
    assert all(norm.weight is not None for norm in norms)


@pytest.mark.parametrize(("side", "sides"), [(32, [4, 2, 1]), (64, [8, 4, 2])])
def test_imagenet_stem(side, sides):
    genotype = SearchSpace(operations=(SKIP,), num_cells=3, num_nodes=2).dense()
    shape = NetworkShape(
        images=ImageShape(in_channels=3, image_size=side, num_classes=5), init_channels=4, stem="imagenet"
    )
    network = network_from(genotype, shape)
    output = network(_images(side, 3))
    assert isinstance(network.cells["0"].preprocess["0"], FactorizedReduce)
    assert not isinstance(network.cells["0"].preprocess["1"], FactorizedReduce)
    assert output.logits.shape == (2, 5)
    assert [tap.shape for tap in output.taps] == [(2, 8 * 2**stage, size, size) for stage, size in enumerate(sides)]


@pytest.mark.parametrize("side", [4, 5, 7])
def test_odd_sizes(side):
    operations = (CONV, "dil_conv_3x3", "conv_7x1_1x7", POOL, "max_pool_3x3", SKIP)
    genotype = SearchSpace(operations=operations, num_cells=4, num_nodes=2).dense()
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=side, num_classes=3), init_channels=2)
    taps = network_from(genotype, shape)(_images(side)).taps
    half = -(-side // 2)
    assert [tap.shape[-1] for tap in taps] == [side, half, -(-half // 2)]


@pytest.mark.parametrize(
    "genotype",
    [
        _genotype(_cell([]), _cell([]), _cell([])),
        _genotype(_cell([(CONV, 1)]), _cell([(CONV, 1)]), _cell([(NONE, 0)])),
        _genotype(_cell([], [(CONV, 2)]), _cell([], [(CONV, 2)])),
    ],
)
def test_disconnected_genotype_is_refused(genotype):
    with pytest.raises(GenotypeError, match="from the image to the classifier"):
        network_from(genotype, SHAPE)


def test_unknown_operation_is_refused():
    with pytest.raises(SpaceError, match="genotype operation: got 'conv_9x9'"):
        network_from(_genotype(_cell([("conv_9x9", 0), (SKIP, 1)])), SHAPE)


def test_unknown_operation_is_refused_in_a_dead_cell_too():
    genotype = _genotype(_cell([("conv_9x9", 0)]), _cell([(SKIP, 0)], reduction=True))
    with pytest.raises(SpaceError, match="conv_9x9"):
        network_from(genotype, SHAPE)


def test_output_of_some_nodes_has_their_channels_and_an_edge_twice_counts_twice():
    """Two nodes of which the second is the output: twice a pool, and a convolution twice with weights of its own."""
    pool, conv = Edge("avg_pool_3x3", 1), Edge("nor_conv_1x1", 1)
    cell = CellGenotype(False, ((conv, conv), (pool, pool, Edge("skip_connect", 2))), (1,))
    shape = NetworkShape(images=ImageShape(in_channels=3, image_size=4, num_classes=2), init_channels=5)
    network = network_from(Genotype((cell,)), shape).double().eval()
    built = network.cells["0"]
    assert set(built.nodes[0].own) == {"nor_conv_1x1_from_1", "nor_conv_1x1_from_1_1"}
    assert network.tap_channels == (5,)
    x = torch.randn(2, 15, 4, 4, dtype=torch.float64)
    state = built.preprocess["1"](x)
    pooled = torch.nn.functional.avg_pool2d(state, 3, 1, 1, count_include_pad=False)
    convolved = sum(operation(state.relu()) for operation in built.nodes[0].own.values())
    assert torch.allclose(built(None, x), 2 * pooled + convolved)


@pytest.mark.parametrize(("num_cells", "halving"), [(3, (1, 2)), (4, (1, 2)), (5, (1, 3))])
def test_dead_reduction_cell_still_halves_and_doubles_for_whoever_reads_across_it(num_cells, halving):
    """The rule: nothing is built of the dead cell, and its reader takes the older input by a factorized reduction."""
    dead = halving[0]
    across = CellGenotype(dead + 1 in halving, ((Edge("skip_connect", 0),),))
    plain = [CellGenotype(index in halving, ((Edge("skip_connect", 1),),)) for index in range(num_cells)]
    plain[dead + 1] = across
    genotype = Genotype(tuple(plain))
    assert genotype.live_cells() == tuple(index != dead for index in range(num_cells))
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=2), init_channels=4)
    network = network_from(genotype, shape)
    assert str(dead) not in network.cells
    assert isinstance(network.cells[str(dead + 1)].preprocess["0"], FactorizedReduce)
    output = network(torch.randn(2, 1, 8, 8))
    assert output.taps[-1].shape == (2, 16, 2, 2), "two reductions: a quarter of the side, four times the channels"
    assert output.logits.shape == (2, 2)


@pytest.mark.parametrize("searching", [False, True])
def test_no_convolution_pads_by_name_and_names_are_identifiers(searching):
    """Counters take "same" for no padding; pnnx and others write programs with the names."""
    names = tuple(OPERATIONS)
    spaces = (
        (SearchSpace(operations=names, num_cells=3, num_nodes=2), "cifar"),
        (SearchSpace(operations=names, num_cells=3, num_nodes=2), "imagenet"),
        (space_named("nas-bench-201", None, 3, 3), "cifar"),
    )
    for space, stem in spaces:
        shape = NetworkShape(images=ImageShape(in_channels=3, image_size=32, num_classes=2), init_channels=4, stem=stem)
        network = Supernet(space, shape).network if searching else network_from(space.dense(), shape)
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert convolutions
        assert all(isinstance(conv.padding, tuple) for conv in convolutions)
        parts = {part for name, _ in network.named_modules() for part in name.split(".")} - {""}
        assert all(part.isidentifier() or part.isdigit() for part in parts), parts
