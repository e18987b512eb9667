"""Costs of derived networks: by hand, and what the counter does not count."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from dnad_ray.costs.trace import COUNTER, IGNORED_OPERATORS, complexity_of, count, image_of
from dnad_ray.search.relaxation import Relaxation
from search_spaces.errors import GenotypeError
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.ops import OPERATIONS
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet

CONV, SKIP, POOL = "sep_conv_3x3", "skip_connect", "max_pool_3x3"


def _cell(*nodes, reduction=False):
    return CellGenotype(reduction, tuple(tuple(Edge(*edge) for edge in node) for node in nodes))


def _shape(image_size=8, in_channels=1, init_channels=2, stem="cifar"):
    return NetworkShape(
        images=ImageShape(in_channels=in_channels, image_size=image_size, num_classes=3),
        init_channels=init_channels,
        stem=stem,
    )


def _counted(genotype, shape):
    return count(lambda: network_from(genotype, shape), image_of(shape))


def _skipped(genotype, shape):
    return _counted(genotype, shape).skipped


def test_one_separable_convolution_by_hand():
    cost = complexity_of(Genotype((_cell([(CONV, 1)]),)), _shape())
    pixels = 8 * 8
    stem = pixels * 6 * 1 * 9  # 1 to 3C = 6 channels, 3x3
    preprocess = pixels * 6 * 2
    depthwise, pointwise = pixels * 2 * 9, pixels * 2 * 2
    linear = 2 * 3
    assert cost.macs_conv_linear == stem + preprocess + 2 * (depthwise + pointwise) + linear
    norms = 2 * pixels * (6 + 2 + 2 + 2)  # 2 per element
    pool = 2 * pixels  # 1 per input
    assert cost.macs == cost.macs_conv_linear + norms + pool
    assert cost.params == (6 * 9 + 2 * 6) + (6 * 2 + 2 * 2) + 2 * (2 * 9 + 2 * 2 + 2 * 2) + (2 * 3 + 3)


def test_reduction_with_skip_and_pool_by_hand():
    """5x5 images: stem, a cell that is a skip connection, a reduction cell to 3x3 with 2C = 4 channels."""
    genotype = Genotype((_cell([(SKIP, 1)]), _cell([(SKIP, 1), (POOL, 1)], reduction=True)))
    shape = _shape(5, 3)
    cost = complexity_of(genotype, shape)
    stem = 25 * 6 * 3 * 9
    first = 25 * 6 * 2  # 6 to 2 channels; the skip costs nothing
    second = 25 * 2 * 4  # before the stride
    reduce = 2 * 9 * 4 * 2  # two pointwise convolutions of 4 to 2 channels on 3x3 pixels
    assert cost.macs_conv_linear == stem + first + second + reduce + 4 * 3
    norms = 2 * (25 * 6 + 25 * 2 + 25 * 4 + 9 * 4)
    assert cost.macs == cost.macs_conv_linear + norms + 9 * 4
    assert cost.params == (6 * 3 * 9 + 12) + (12 + 4) + (8 + 8) + (2 * 4 * 2 + 8) + (12 + 3)
    assert _skipped(genotype, shape) == {"aten::max_pool2d", "aten::pad", "aten::add"}


@pytest.mark.parametrize("image_size", [8, 7])
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != NONE])
def test_nothing_but_the_known_operators_is_skipped(operation, image_size):
    genotype = SearchSpace(operations=(operation,), num_cells=3, num_nodes=1).dense()
    _, cost, skipped = _counted(genotype, _shape(image_size))
    assert skipped <= IGNORED_OPERATORS
    assert 0 < cost.macs_conv_linear < cost.macs


def test_nothing_but_the_known_operators_is_skipped_with_zero_nodes_and_the_imagenet_stem():
    genotype = Genotype((_cell([], [(CONV, 1), (SKIP, 0)]), _cell([(SKIP, 0)], [], reduction=True)))
    assert _skipped(genotype, _shape(33, 3, stem="imagenet")) <= IGNORED_OPERATORS


def test_every_ignored_operator_occurs_or_is_a_variant():
    genotype = SearchSpace(operations=tuple(OPERATIONS), num_cells=3, num_nodes=1).dense()
    assert _skipped(genotype, _shape(7)) == IGNORED_OPERATORS - {"aten::add_"}


def test_parameters_do_not_depend_on_the_image():
    genotype = SearchSpace(operations=(CONV, SKIP), num_cells=3, num_nodes=2).dense()
    small, large = complexity_of(genotype, _shape(8)), complexity_of(genotype, _shape(16))
    assert small.params == large.params
    classifier = 3 * 2 * 8
    assert 4 * (small.macs_conv_linear - classifier) == large.macs_conv_linear - classifier


def test_dead_parts_cost_nothing():
    alive = Genotype((_cell([(CONV, 1)], []), _cell([(SKIP, 1)], [])))
    padded = Genotype((_cell([(CONV, 1), (NONE, 0)], [(NONE, 2)]), _cell([(SKIP, 1)], [(NONE, 1)])))
    cost = complexity_of(alive, _shape())
    assert complexity_of(padded, _shape()) == cost
    fewer = Genotype((_cell([(CONV, 1)], []), _cell([(CONV, 1)], [], reduction=True), _cell([(SKIP, 0)], [])))
    dead = Genotype((fewer.cells[0], _cell([], [], reduction=True), fewer.cells[2]))
    assert complexity_of(fewer, _shape()) == complexity_of(dead, _shape())


def test_architecture_weights_do_not_matter():
    space = SearchSpace(operations=(CONV, SKIP, NONE), num_cells=3, num_nodes=2)
    supernet = Supernet(space, _shape())
    before = complexity_of(supernet.genotype, _shape())
    relaxation = Relaxation(supernet.candidates)
    optimizer = torch.optim.SGD(relaxation.parameters(), 1.0)
    supernet(torch.randn(2, 1, 8, 8), relaxation.weights()).logits.sum().backward()
    optimizer.step()
    complexity_of.cache_clear()
    assert complexity_of(supernet.genotype, _shape()) == before
    relaxation.keep(supernet.remove([0]).kept)
    after = complexity_of(supernet.genotype, _shape())
    # One separable convolution less: two depthwise 3x3, two pointwise and two affine norms of 2 channels.
    assert before.params - after.params == 2 * (2 * 9 + 4 + 4)
    assert before.macs_conv_linear - after.macs_conv_linear == 2 * 64 * (2 * 9 + 4)
    assert complexity_of(supernet.genotype.pruned(), _shape()) == after


def test_counting_leaves_every_random_stream_alone():
    complexity_of.cache_clear()
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    complexity_of(SearchSpace(operations=(CONV, SKIP), num_cells=3, num_nodes=1).dense(), _shape())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def test_disconnected_genotype_is_refused():
    with pytest.raises(GenotypeError, match="from the image to the classifier"):
        complexity_of(Genotype((_cell([(NONE, 1)]),)), _shape())


def test_counter_says_what_it_counts():
    assert COUNTER.startswith("fvcore-0.1")


class Attends(nn.Module):
    """16 tokens of 8 numbers, one layer of a transformer, the mean."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(self.conv(x).flatten(2).transpose(1, 2)).mean(1)


@pytest.mark.parametrize("is_recording", [False, True])
def test_attention_is_counted_by_its_layers(is_recording):
    with torch.set_grad_enabled(is_recording):
        counted = count(Attends, (1, 4, 4))
    of_attention = 16 * 8 * 24 + 16 * 8 * 8  # three projections in, one out
    assert counted.cost.macs_conv_linear == 16 * 8 + of_attention + 2 * 16 * 8 * 16
    assert "aten::scaled_dot_product_attention" in counted.skipped, "fvcore does not count its two matrix products"
    assert all(parameter.grad is None for parameter in counted.module.parameters())


def test_deprecation_in_another_category_is_not_shown(monkeypatch):
    real = torch.jit._get_trace_graph

    def deprecated(*arguments, **options):
        warnings.warn("`torch.jit.trace` is deprecated", FutureWarning, stacklevel=2)
        return real(*arguments, **options)

    monkeypatch.setattr(torch.jit, "_get_trace_graph", deprecated)
    assert count(lambda: nn.Conv2d(1, 2, 1), (1, 4, 4)).cost.macs == 2 * 16


def test_deprecation_in_another_category_is_not_shown_on_import():
    program = """
import warnings
import torch
real = torch.jit.script
def deprecated(*arguments, **options):
    warnings.warn("`torch.jit.script` is deprecated", FutureWarning)
    return real(*arguments, **options)
torch.jit.script = deprecated
import dnad_ray.costs.trace
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
