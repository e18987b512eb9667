"""The race: which networks stand at the start, and which go on."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from dnad_ray.errors import ConfigError
from dnad_ray.networks.spec import cost_of
from dnad_ray.retrain.race import Build, Found, entrants, plain_members, survivors
from search_spaces.shape import ImageShape
from search_spaces.space import space_named
from search_spaces.stages import stages
from search_spaces.supernet import candidates_of, subset

SPACE = space_named("device", None, 9, 2)
BUILD = Build(images=ImageShape(in_channels=3, image_size=32, num_classes=10), stem="half")


def _depths(genotype):
    deep = [cell.num_operations > 1 for cell in genotype.cells]
    return tuple(sum(itertools.compress(deep, [s == stage for s in stages(genotype)])) for stage in range(3))


def test_plain_members_are_residual_networks_of_every_depth():
    found = [_depths(genotype) for genotype in plain_members(SPACE)]
    assert found[0] == (3, 3, 3)
    assert found[-1] == (0, 0, 0)
    assert set(found) == {
        depths for depths in itertools.product(range(4), repeat=3) if depths[0] >= depths[1] >= depths[2]
    }
    for genotype in plain_members(SPACE):
        assert {e.operation for c in genotype.cells for n in c.nodes for e in n} <= {"nor_conv_3x3", "skip_connect"}
    assert plain_members(space_named("dnad", None, 5, 3)) == [space_named("dnad", None, 5, 3).usual_teacher()]


def test_lean_members_convolve_pointwise_first_where_the_space_has_that():
    lean = set(plain_members(SPACE, with_lean=True)) - set(plain_members(SPACE))
    assert len(lean) == len(plain_members(SPACE)) - 1  # without a cell there is nothing to make lean
    for genotype in lean:
        nodes = [[edge.operation for edge in node] for cell in genotype.cells for node in cell.nodes]
        assert {*map(tuple, nodes[::2])} <= {(), ("nor_conv_1x1",)}
        assert {*map(tuple, nodes[1::2])} <= {("skip_connect",), ("skip_connect", "nor_conv_3x3")}
    other = space_named("nas-bench-201", None, 9, 3)
    assert plain_members(other, with_lean=True) == plain_members(other)


def test_entrants_use_their_budget_in_steps_of_two_channels():
    budgets = (12_000_000, 3_170_000)
    race = entrants(plain_members(SPACE), (), budgets, BUILD, places=4)
    assert list(race) == list(budgets)
    for budget, specs in race.items():
        assert len({spec.digest for spec in specs}) == 4
        for spec in specs:
            assert spec.origin == "plain"
            assert spec.init_channels % 2 == 0
            wider = replace(spec, init_channels=spec.init_channels + 2)
            assert cost_of(spec, BUILD.images).macs <= budget < cost_of(wider, BUILD.images).macs
    # The shallowest one, of 20 channels, fills 96 % of the budget; 22 channels would be above it.
    assert (_depths(race[3_170_000][0].genotype), race[3_170_000][0].init_channels) == ((0, 0, 0), 20)


def _searched(number, score, cells):
    """A network of a search: separable convolutions in some cells."""
    dense = SPACE.dense()
    kept = [
        item
        for item in candidates_of(dense)
        if item.edge.operation == "skip_connect"
        or (item.node == 0 and item.edge.operation == "dw_conv_3x3")
        or (item.cell in cells and item.edge.operation == ("dw_conv_3x3", "dw_conv_5x5")[number % 2])
    ]
    return Found(genotype=subset(dense, kept).pruned(), macs=3_000_000 + number, score=score)


def test_half_of_the_places_are_for_the_best_scores_of_a_search():
    facts = [(1.0, (0, 1)), (3.0, (0, 1)), (None, (0, 1, 2)), (2.0, (4,))]
    found = [_searched(number, score, cells) for number, (score, cells) in enumerate(facts)]
    specs = entrants(plain_members(SPACE), found, [3_000_000], BUILD, places=4)[3_000_000]
    assert [spec.origin for spec in specs] == ["search", "search", "plain", "plain"]
    assert [spec.digest for spec in specs[:2]] == [found[index].genotype.digest for index in (1, 3)]
    alone = entrants((), found, [3_000_000], BUILD, places=4)[3_000_000]
    assert [spec.digest for spec in alone] == [found[index].genotype.digest for index in (1, 3, 0, 2)]


def test_budgets_without_a_network_are_left_out_and_parameters_are_limited():
    assert entrants(plain_members(SPACE), (), [1_000], BUILD, places=2) == {}
    few = Build(images=BUILD.images, stem="half", max_params=30_000)
    for spec in entrants(plain_members(SPACE), (), [12_000_000], few, places=3)[12_000_000]:
        assert cost_of(spec, BUILD.images).params <= 30_000
    # Both budgets are above what so few parameters cost: their networks differ all the same.
    race = entrants(plain_members(SPACE), (), [12_000_000, 11_000_000], few, places=3)
    specs = [spec for members in race.values() for spec in members]
    assert len(set(specs)) == len(specs) > 3


class _Limit:
    """A limit of channels by operations; that of real clocks is in networks/test_latency."""

    def __init__(self, most, slow=()):
        self.most, self.slow, self.timed = most, slow, []

    def seems_kept(self, spec, images):
        return spec.init_channels * spec.genotype.num_operations <= self.most

    def is_kept(self, spec, images):
        self.timed.append(spec)
        return spec not in self.slow


def test_a_limit_of_latency_makes_networks_narrower_in_steps_and_leaves_out_those_that_are_too_slow():
    free = entrants(plain_members(SPACE), (), [12_000_000], BUILD, places=4)[12_000_000]
    limited = Build(images=BUILD.images, stem="half", latency=_Limit(200))
    specs = entrants(plain_members(SPACE), (), [12_000_000], limited, places=20)[12_000_000]
    assert {spec.init_channels for spec in specs} <= {4, *range(8, 100, 8)}
    for spec in specs:
        assert limited.latency.seems_kept(spec, BUILD.images)
        wider = spec.init_channels + (4 if spec.init_channels == 4 else 8)
        budget = cost_of(replace(spec, init_channels=wider), BUILD.images).macs > 12_000_000
        assert budget or not limited.latency.seems_kept(replace(spec, init_channels=wider), BUILD.images)
    # Most multiply-adds first; a layer costs what the limit says, and nothing on top.
    used = [cost_of(spec, BUILD.images).macs for spec in specs]
    assert used == sorted(used, reverse=True)
    assert not all(limited.latency.seems_kept(spec, BUILD.images) for spec in free)
    # What its own time refutes is left out; the next one is timed, and no more than that.
    doubted = Build(images=BUILD.images, stem="half", latency=_Limit(200, slow=specs[:2]))
    assert entrants(plain_members(SPACE), (), [12_000_000], doubted, places=3)[12_000_000] == specs[2:5]
    assert doubted.latency.timed == specs[:5]
    none = Build(images=BUILD.images, stem="half", latency=_Limit(10))
    assert entrants(plain_members(SPACE), (), [12_000_000], none, places=4) == {}


@pytest.mark.parametrize(
    ("errors", "bins", "keep", "expected"),
    [
        # Within a bin only: the best of the second bin is worse than the worst of the first one, and goes on.
        ({"a": 0.1, "b": 0.2, "c": 0.5, "d": 0.4}, [["a", "b"], ["c", "d"]], 1, [["a"], ["d"]]),
        ({"a": 0.3, "b": 0.3, "c": 0.2}, [["a", "b", "c"]], 2, [["c", "a"]]),  # of equals the first
        ({"a": None, "b": math.nan, "c": 0.9}, [["a", "b", "c"]], 2, [["c"]]),  # what diverged ends
        ({"a": 0.1}, [["a", "b"]], 5, [["a"]]),  # and what has no record
        ({}, [["a"], []], 1, [[], []]),
    ],
)
def test_survivors(errors, bins, keep, expected):
    assert survivors(errors, bins, keep) == expected


def test_somebody_must_go_on():
    with pytest.raises(ConfigError, match="at least 1 of each bin"):
        survivors({"a": 0.1}, [["a"]], 0)
