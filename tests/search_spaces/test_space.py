"""Search spaces: which candidates there are, in which order, and which sizes are refused."""

from __future__ import annotations

import dataclasses

import pytest

from search_spaces.errors import SpaceError
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.ops import OPERATIONS
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import NAMED_OPERATIONS, SearchSpace, reductions, space_named
from search_spaces.stages import stages

SHAPE = {"in_channels": 1, "image_size": 8, "num_classes": 2, "init_channels": 2, "stem": "cifar"}


def _space(operations=("sep_conv_3x3", "skip_connect"), num_cells=3, num_nodes=2):
    return SearchSpace(operations=operations, num_cells=num_cells, num_nodes=num_nodes)


@pytest.mark.parametrize(
    ("num_cells", "expected"), [(3, (1, 2)), (4, (1, 2)), (5, (1, 3)), (6, (2, 4)), (8, (2, 5)), (14, (4, 9))]
)
def test_reductions_at_thirds(num_cells, expected):
    assert reductions(num_cells) == expected
    dense = _space(num_cells=num_cells).dense()
    assert tuple(index for index, cell in enumerate(dense.cells) if cell.reduction) == expected


@pytest.mark.parametrize(
    ("operations", "num_cells", "num_nodes", "expected"),
    [
        (("skip_connect",), 3, 1, 6),  # 3 cells x 1 operation x 2 inputs
        (("skip_connect", "sep_conv_3x3"), 3, 2, 30),  # 3 x 2 x (2 + 3)
        (NAMED_OPERATIONS["dnad"], 8, 4, 336),  # 8 x 3 x (2 + 3 + 4 + 5), as in the release
        (NAMED_OPERATIONS["darts"], 8, 4, 784),
    ],
)
def test_num_candidates(operations, num_cells, num_nodes, expected):
    space = _space(operations, num_cells, num_nodes)
    assert space.num_candidates == expected
    assert space.dense().num_operations == expected


def test_dense_order_is_by_source_then_operation():
    cell = _space().dense().cells[0]
    assert cell.nodes == (
        (Edge("sep_conv_3x3", 0), Edge("skip_connect", 0), Edge("sep_conv_3x3", 1), Edge("skip_connect", 1)),
        (
            *(Edge("sep_conv_3x3", 0), Edge("skip_connect", 0), Edge("sep_conv_3x3", 1), Edge("skip_connect", 1)),
            *(Edge("sep_conv_3x3", 2), Edge("skip_connect", 2)),
        ),
    )


def test_uniform_only_inputs():
    genotype = _space().uniform(("max_pool_3x3",), only_inputs=True)
    node = (Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1))
    assert genotype.cells == tuple(CellGenotype(index in (1, 2), (node, node)) for index in range(3))


def test_space_named_has_its_own_operations():
    space = space_named("dnad", None, 4, 2)
    assert space == _space(("sep_conv_3x3", "skip_connect", "dil_conv_5x5"), 4, 2)
    assert set().union(*NAMED_OPERATIONS.values()) <= set(OPERATIONS)


def test_space_named_takes_other_operations():
    assert space_named("dnad", ("max_pool_3x3",), 3, 2).operations == ("max_pool_3x3",)


def test_space_named_unknown():
    with pytest.raises(SpaceError, match=r"space.name: got 'nasnet'; allowed: dnad, darts"):
        space_named("nasnet", None, 3, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": ("conv_9x9",)}, "space.operations: got 'conv_9x9'"),
        ({"operations": ("skip_connect", "skip_connect")}, "each operation once"),
        ({"operations": ()}, "one besides none"),
        ({"operations": ("none",)}, "one besides none"),
        ({"num_cells": 2}, "space.num_cells: got 2; allowed: at least 3"),
        ({"num_nodes": 0}, "space.num_nodes: got 0; allowed: at least 1"),
    ],
)
def test_impossible_space(settings, message):
    with pytest.raises(SpaceError, match=message):
        _space(**settings)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _space().num_cells = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        NetworkShape.from_dict(SHAPE).stem = "imagenet"
    with pytest.raises(dataclasses.FrozenInstanceError):
        NetworkShape.from_dict(SHAPE).images.image_size = 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "mnist"}, "stem: got 'mnist'; allowed: cifar, half, quarter, imagenet"),
        ({"image_size": 3}, "image size for the cifar stem: got 3; allowed: at least 4"),
        ({"image_size": 31, "stem": "imagenet"}, "image size for the imagenet stem: got 31; allowed: at least 32"),
    ],
)
def test_impossible_shape(changes, message):
    with pytest.raises(SpaceError, match=message):
        NetworkShape.from_dict(SHAPE | changes)


def test_shape_holds_that_of_its_images_and_is_written_on_one_level():
    images = ImageShape(in_channels=1, image_size=8, num_classes=2)
    shape = NetworkShape(images=images, init_channels=2)
    assert shape.to_dict() == SHAPE
    assert list(shape.to_dict()) == list(SHAPE)  # the order in which teachers have always been described
    assert NetworkShape.from_dict(SHAPE) == shape
    assert ImageShape.from_dict(SHAPE) == images
    with pytest.raises(KeyError):
        NetworkShape.from_dict({"in_channels": 1})
    with pytest.raises(TypeError, match="width"):
        NetworkShape.from_dict(SHAPE | {"width": 2})
    with pytest.raises(TypeError):
        ImageShape.from_dict(SHAPE | {"image_size": None})


def test_stages_count_reductions():
    def genotype(*halving):
        return Genotype(tuple(CellGenotype(flag, ((Edge("skip_connect", 1),),)) for flag in halving))

    assert stages(genotype(False, False, True, False, True)) == (0, 0, 1, 1, 2)
    assert stages(genotype(True, False)) == (1, 1)
    assert stages(genotype(False)) == (0,)
