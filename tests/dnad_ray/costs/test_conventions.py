"""Published networks counted to the last digit, under every convention that papers follow."""

from __future__ import annotations

import json
import random

import pytest

from dnad_ray.costs.conventions import CONVENTIONS, SETTINGS, conventions_of, count_published, elements_of
from dnad_ray.costs.table import costs_of
from dnad_ray.costs.trace import Complexity
from search_spaces.errors import GenotypeError, SpaceError
from search_spaces.formats import parse_any_genotype
from search_spaces.named.nas_bench_201 import NAS_BENCH_201_OPERATIONS
from search_spaces.published import published, published_named

# (parameters, multiply-adds of convolutions and linear layers in thousands): from the papers or, where they round to
# one digit, from what the authors' or other codes print for them (the comments in FairDARTS's and SGAS's genotypes).
CHECK_FIGURES = [
    ("darts-v2", "cifar10", 3_349_342, 528_359, 539_123),
    ("darts-v2", "imagenet", 4_718_752, 529_912, 538_191),
    ("pc-darts-imagenet", "imagenet", 5_342_464, 581_627, None),
]


def _network(name, setting):
    entry = published_named(name)
    usual = SETTINGS[setting, entry.genotype().skeleton]
    return entry.genotype(usual.num_cells), usual.shape()


@pytest.mark.parametrize(("name", "setting", "params", "macs", "total"), CHECK_FIGURES)
def test_check_figures(name, setting, params, macs, total):
    cost = costs_of(*_network(name, setting), traced=True)
    assert cost.params == params
    assert round(cost.macs_conv_linear / 1000) == macs
    assert total is None or round(cost.macs / 1000) == total


@pytest.mark.parametrize(
    ("name", "setting", "millions"),
    [
        *(("darts-v2", "cifar10", 3.3), ("darts-v2", "imagenet", 4.7)),
        *(("gdas-v1", "cifar10", 3.4), ("p-darts", "cifar10", 3.4), ("p-darts", "imagenet", 4.9)),
        *(
            ("pc-darts-cifar", "cifar10", 3.6),
            ("pc-darts-cifar", "imagenet", 5.3),
            ("pc-darts-imagenet", "imagenet", 5.3),
        ),
        *(("drnas-cifar", "cifar10", 4.1), ("drnas-imagenet", "imagenet", 5.7), ("sdarts-adv", "cifar10", 3.3)),
        *(("sgas-cri1", "cifar10", 3.80), ("sgas-cri1", "imagenet", 5.29), ("sgas-cri2", "cifar10", 4.09)),
        *(("sgas-cri2", "imagenet", 5.70), ("sgas-cri2-imagenet", "cifar10", 3.91)),
        *(("sgas-cri2-imagenet", "imagenet", 5.44), ("mdenas", "cifar10", 3.78)),
        # The last two as FairDARTS counted these cells in the network of DARTS.
        *(("nasnet-a", "cifar10", 3.83), ("enas", "cifar10", 4.02)),
    ],
)
def test_parameters_are_those_that_were_published(name, setting, millions):
    digits = len(f"{millions}".partition(".")[2])
    assert round(costs_of(*_network(name, setting)).params / 1e6, digits) == millions


@pytest.mark.parametrize(
    ("name", "published_params"), [("fairdarts-b", 3.88), ("fairdarts-d", 3.84), ("fairdarts-f", 3.62)]
)
def test_fairdarts_published_its_parameters_with_the_auxiliary_head(name, published_params):
    """Its head: convolution 5x5 pooled, 1x1 to 128, 2x2 to 768, two norms, a linear layer; C is 36 in 4 nodes, x4."""
    head = 4 * 4 * 36 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + (768 * 10 + 10)
    params = costs_of(*_network(name, "cifar10")).params
    # 3.627 M was printed as 3.62.
    assert (params + head) / 1e6 == pytest.approx(published_params, abs=0.008)


@pytest.mark.parametrize(
    ("name", "setting", "millions"),
    [
        ("pc-darts-imagenet", "imagenet", 597),
        ("pc-darts-cifar", "imagenet", 586),
        ("p-darts", "imagenet", 557),
    ],
)
def test_figures_of_papers_that_count_norms_and_relus(name, setting, millions):
    assert round(conventions_of(elements_of(*_network(name, setting)))["norm2_relu1"] / 1e6) == millions


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        *(("darts-v2", 528), ("gdas-v1", 519), ("p-darts", 532), ("snas-mild", 422), ("mdenas", 599)),
        *(("fairdarts-b", 536), ("fairdarts-d", 532), ("fairdarts-f", 497)),
        # These have average pools, without which they would come to 603, 556 and 622.
        *(("nasnet-a", 608), ("pc-darts-cifar", 558), ("enas", 627)),
    ],
)
def test_figures_that_count_average_pools_besides_convolutions(name, millions):
    """As FairDARTS's genotypes.py notes them, cut off after the point."""
    assert conventions_of(elements_of(*_network(name, "cifar10")))["average_pool4"] // 10**6 == millions


@pytest.mark.parametrize("name", sorted(published()))
def test_table_trace_and_modules_agree_on_every_published_network(name):
    """With few cells, channels and pixels: every edge is in it, and a trace takes a moment only."""
    entry = published_named(name)
    genotype = entry.genotype(3)
    small = {"image_size": 8, "init_channels": 4}
    shape = SETTINGS["cifar10", genotype.skeleton]._replace(**small).shape()
    cost = costs_of(genotype, shape, traced=True)
    totals = conventions_of(elements_of(genotype, shape))
    assert (totals["conv_linear"], totals["fvcore"]) == (cost.macs_conv_linear, cost.macs)
    assert count_published(genotype, shape) == (cost, cost)


def test_index_0_of_nas_bench_201():
    genotype, shape = _network("nas-bench-201-0", "cifar10")
    assert count_published(genotype, shape)[0].params == 129_306
    assert conventions_of(elements_of(genotype, shape))["nas_bench_201"] == 15_647_370


def _benchmark_figures(operations):
    """Parameters and FLOPs by the closed form of the benchmark's skeleton: every operation counts, dead or not."""
    params = 432 + 32 + 128 + 650  # stem, its norm, last norm, classifier
    flops = 432 * 1024 + 650
    for wide, pixels in ((32, 256), (64, 64)):
        thin = wide // 2
        params += 9 * thin * wide + 9 * wide * wide + thin * wide + 4 * wide
        flops += pixels * (9 * thin * wide + 9 * wide * wide + thin * wide)
    for channels, pixels in ((16, 1024), (32, 256), (64, 64)):
        for operation in operations:
            taps = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(operation, 0)
            params += 5 * (taps * channels**2 + (2 * channels if taps else 0))
            flops += 5 * taps * channels**2 * pixels
    return params, flops


@pytest.mark.parametrize("seed", range(25))
def test_any_string_of_nas_bench_201_counts_as_in_its_table(seed):
    operations = random.Random(seed).choices(NAS_BENCH_201_OPERATIONS, k=6)
    text = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*operations)
    written, alive = count_published(parse_any_genotype(text), SETTINGS["cifar10", "nas_bench_201"].shape())
    assert (written.params, written.macs_conv_linear + 10) == _benchmark_figures(operations)
    assert alive.params <= written.params


def test_known_extremes_of_nas_bench_201():
    shape = SETTINGS["cifar10", "nas_bench_201"].shape()
    nothing = parse_any_genotype("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    written, alive = count_published(nothing, shape)
    assert (written.params, written.macs_conv_linear + 10) == (73_306, 7_783_050)
    assert alive == Complexity(0, 0, 0)
    with pytest.raises(GenotypeError, match="from the image to the classifier"):
        costs_of(nothing, shape)
    conv = "nor_conv_3x3"
    most = f"|{conv}~0|+|{conv}~0|{conv}~1|+|{conv}~0|{conv}~1|{conv}~2|"
    assert count_published(parse_any_genotype(most), shape)[0].params == 1_531_546


def test_what_is_dead_costs_nothing_alive_and_its_price_as_written():
    """The older input is never read: 20 preprocessings are written, and lead nowhere."""
    form = {
        "normal": [["skip_connect", 1], ["sep_conv_3x3", 1]],
        "normal_concat": [2],
        "reduce": [["skip_connect", 1], ["max_pool_3x3", 1]],
        "reduce_concat": [2],
    }
    genotype = parse_any_genotype(json.dumps(form), num_cells=3)
    shape = SETTINGS["cifar10", "darts"].shape()
    written, alive = count_published(genotype, shape)
    older = [(3 * 36, 36), (3 * 36, 72), (36, 144)]  # channels of the older input -> width of the cell
    assert written.params - alive.params == sum(wide * narrow + 2 * narrow for wide, narrow in older)


def test_conventions_by_hand():
    """One skip connection on a 4x4 image with two channels, C = 2, three classes."""
    genotype = parse_any_genotype(
        '{"kind": "dnad-ray genotype", "schema": 1, "cells": [{"reduction": false, "nodes": [[["skip_connect", 1]]]}]}'
    )
    shape = SETTINGS["cifar10", "darts"]._replace(init_channels=2, image_size=4, num_classes=3).shape()
    elements = elements_of(genotype, shape)
    assert elements.conv == 16 * (6 * 3 * 9 + 6 * 2)
    assert (elements.linear, elements.linear_bias) == (6, 3)
    assert elements.norm == 16 * (6 + 2)
    assert elements.relu == 16 * 6
    assert (elements.average_pool, elements.global_pool, elements.global_pool_outputs) == (0, 32, 2)
    assert set(conventions_of(elements)) == set(CONVENTIONS)


def test_average_pools_are_counted_for_each_edge():
    form = {
        "normal": [["avg_pool_3x3", 1], ["avg_pool_3x3", 1]],
        "normal_concat": [2],
        "reduce": [["skip_connect", 0], ["skip_connect", 1]],
        "reduce_concat": [2],
    }
    shape = SETTINGS["cifar10", "darts"]._replace(init_channels=2, image_size=4).shape()
    assert elements_of(parse_any_genotype(json.dumps(form), num_cells=3), shape).average_pool == 2 * 2 * 16


def test_stem_that_the_benchmark_does_not_have():
    genotype = published_named("nas-bench-201-0").genotype()
    shape = SETTINGS["imagenet", "darts"].shape()
    for counted in (count_published, elements_of, costs_of):
        with pytest.raises(SpaceError, match="stem: got 'imagenet'"):
            counted(genotype, shape)
