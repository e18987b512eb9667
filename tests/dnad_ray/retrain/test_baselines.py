"""Baselines: of the same size and space, derived as DARTS does, and compared in words that the numbers bear."""

from __future__ import annotations

import pytest
import torch

from analysis.comparison import compare_front, compare_network
from dnad_ray.errors import ConfigError
from dnad_ray.networks import torchvision_families as families
from dnad_ray.networks.search_space import space_of
from dnad_ray.networks.spec import NetworkSpec, cost_of, scaled_to
from dnad_ray.networks.torchvision_families import VISION_FAMILIES, vision_network
from dnad_ray.retrain.baselines import checked_kinds
from dnad_ray.retrain.one_level_darts import darts_genotype
from dnad_ray.retrain.random_networks import random_like
from dnad_ray.runtime.torchvision_import import torchvision_models
from search_spaces.derivation import is_member
from search_spaces.named import SPACES
from search_spaces.shape import ImageShape
from search_spaces.space import space_named

IMAGES = ImageShape(in_channels=1, image_size=8, num_classes=10)
SPACE = space_named("dnad", ("sep_conv_3x3", "max_pool_3x3", "skip_connect"), 3, 3)


def some_network():
    return NetworkSpec(
        origin="search", genotype=SPACE.uniform(("sep_conv_3x3", "skip_connect"), only_inputs=True), init_channels=6
    )


def test_random_network_is_of_the_space_and_near_in_cost_and_depends_on_its_seed():
    spec = some_network()
    found = [random_like(spec, SPACE, IMAGES, seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0].digest != found[2].digest
    for network in found:
        assert {e.operation for c in network.genotype.cells for n in c.nodes for e in n} <= set(SPACE.operations)
        assert network.genotype.num_operations >= spec.genotype.pruned().num_operations
        assert cost_of(network, IMAGES).macs == pytest.approx(cost_of(spec, IMAGES).macs, rel=0.05)
        assert network.init_channels == spec.init_channels


# Each named space at a small size, and one of two stages; S1 says what is on each edge, which holds for 4 nodes only.
SMALL = {
    name: {"name": name, "num_cells": 4, "num_nodes": 4 if name == "s1" else 2, "init_channels": 2}
    | ({"operations": ("sep_conv_3x3", "skip_connect", "none")} if name == "own" else {})
    | ({"num_cells": 3, "num_nodes": 3} if name == "nas-bench-201" else {})
    | ({"num_cells": 3} if name == "device" else {})
    for name in SPACES
} | {
    "two stages": {"name": "dnad", "num_cells": 4, "num_nodes": 2, "init_channels": 2, "num_stages": 2},
    "all alike": {"name": "darts-cells", "num_cells": 4, "num_nodes": 2, "init_channels": 2, "sharing": "all"},
    "one input": {"name": "darts-cells", "num_cells": 4, "num_nodes": 2, "init_channels": 2, "inputs_kept": 1},
}


def in_space(tiny, name):
    nothing = dict.fromkeys(("operations", "sharing", "derivation", "inputs_kept", "num_stages"))
    sections = {f"space.{key}": value for key, value in (nothing | SMALL[name]).items()}
    return tiny({**sections, "train.epochs": 1, "train.warmup_epochs": 0})


def check_membership(genotype, space, name):
    is_residual = name in ("nas-bench-201", "device")
    assert genotype.skeleton == ("nas_bench_201" if is_residual else "darts")
    # Stages begin at L // 3 and 2 L // 3, or at L // 2.
    halving = {"two stages": [2]}.get(name, [1, 2])
    assert [index for index, cell in enumerate(genotype.cells) if cell.reduction] == halving
    assert {cell.concat for cell in genotype.cells} == {(space.num_nodes - 1,) if is_residual else None}
    offered = space.dense().cells
    for cell, all_edges in zip(genotype.cells, offered, strict=True):
        for edges, allowed in zip(cell.nodes, all_edges.nodes, strict=True):
            assert set(edges) <= set(allowed)
            if space.derivation != "alive":
                # One operation, or none, on each edge; as many of them as the derivation keeps.
                most = {"nas-bench-201": 3, "one input": 1}.get(name, 2)
                assert len({edge.source for edge in edges}) == len(edges) <= most
    for kind in {"kind": (False, True), "all": (None,)}.get(space.sharing, ()):
        alike = {cell.nodes for cell in genotype.cells if cell.num_operations and kind in (None, cell.reduction)}
        assert len(alike) == 1
    assert is_member(space, genotype)


@pytest.mark.parametrize("name", SMALL)
def test_random_network_is_a_member_of_its_space(tiny, name):
    config = in_space(tiny, name)
    space = space_of(config.space)
    plain = dict.fromkeys(("nas-bench-201", "device"), "nor_conv_3x3")
    operation = {**plain, "s1": "skip_connect"}.get(name, "sep_conv_3x3")
    spec = NetworkSpec(origin="search", genotype=space.uniform((operation,), only_inputs=True), init_channels=2)
    drawn = [random_like(spec, space, IMAGES, seed).genotype for seed in (0, 1)]
    for genotype in drawn:
        check_membership(genotype, space, name)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("name", SMALL)
def test_darts_network_is_a_member_of_its_space(tiny, digits, name):
    config = in_space(tiny, name)
    genotype = darts_genotype(config, digits, 0)
    check_membership(genotype, space_of(config.space), name)
    # DARTS deletes nothing: in a space that keeps all that is alive it derives by its own rule, two inputs per node.
    most = {"nas-bench-201": 3, "one input": 1}.get(name, 2)
    assert all(len({e.source for e in n}) == len(n) <= most for c in genotype.cells for n in c.nodes)


def test_random_networks_of_shared_cells_grow_by_whole_topologies(tiny):
    """A candidate of DNAD's operations with one topology for all cells is alive in all of them, or in none."""
    space = space_named("dnad", None, 4, 2, sharing="all")
    spec = NetworkSpec(origin="search", genotype=space.uniform(("sep_conv_3x3",)), init_channels=2)
    genotype = random_like(spec, space, IMAGES, 0).genotype
    assert len({cell.nodes for cell in genotype.cells if cell.num_operations}) == 1
    assert genotype.num_operations >= spec.genotype.num_operations == 20  # 4 cells x (2 + 3) states


def test_scaled_network_is_the_widest_within_its_budget():
    spec = scaled_to(some_network(), IMAGES, max_macs=500_000)
    wider = NetworkSpec(origin="search", genotype=spec.genotype, init_channels=spec.init_channels + 1)
    assert cost_of(spec, IMAGES).macs <= 500_000 < cost_of(wider, IMAGES).macs
    spec = scaled_to(some_network(), IMAGES, max_macs=500_000, max_params=5_000)
    assert cost_of(spec, IMAGES).params <= 5_000


# Published on torchvision's pages for 1000 classes at 224 x 224; its "GFLOPS" are multiply-adds.
@pytest.mark.parametrize(
    ("family", "params", "macs"),
    [("resnet18", 11_689_512, 1.81e9), ("mobilenet_v3_small", 2_542_856, 0.06e9), ("efficientnet_b0", 5_288_548, None)],
)
def test_networks_of_torchvision_have_their_published_sizes(family, params, macs):
    images = ImageShape(in_channels=3, image_size=224, num_classes=1000)
    network = vision_network(family, 1.0, images)
    assert sum(parameter.numel() for parameter in network.parameters()) == params
    if macs is not None:  # to count the third one takes a quarter of a minute
        cost = cost_of(NetworkSpec(origin="torchvision", model=family), images)
        assert cost.macs_conv_linear == pytest.approx(macs, rel=0.08)


@pytest.mark.parametrize("family", VISION_FAMILIES)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3)])
def test_networks_of_torchvision_fit_small_images(family, size, channels):
    network = vision_network(family, 0.25, ImageShape(in_channels=channels, image_size=size, num_classes=7)).eval()
    found = []
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    last.register_forward_hook(lambda *arguments: found.append(arguments[2].shape[-1]))
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)
    assert found[0] >= (1 if family == "resnet18" and size == 8 else 4)


def test_projections_of_a_resnet_are_those_of_torchvision_without_a_strided_convolution(monkeypatch):
    network = vision_network("resnet18", 1.0, ImageShape(in_channels=3, image_size=96, num_classes=5)).double().eval()
    original = torchvision_models().resnet18(num_classes=5).double().eval()
    original.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 95, 97, dtype=torch.float64)
    with torch.no_grad():
        expected = original(images)
        strides = {}

        def conv2d(inputs, weight, bias=None, stride=(1, 1), *arguments):
            strides.setdefault(weight.shape[-1], set()).add(tuple(stride))
            return torch.conv2d(inputs, weight, bias, stride, *arguments)

        monkeypatch.setattr(families.F, "conv2d", conv2d)
        torch.testing.assert_close(network(images), expected)
    assert strides == {7: {(2, 2)}, 3: {(1, 1), (2, 2)}, 1: {(1, 1)}}


def test_running_statistics_of_mobile_networks_follow_within_short_trainings():
    torch.manual_seed(0)
    network = vision_network("mobilenet_v3_small", 0.25, ImageShape(in_channels=1, image_size=8, num_classes=4))
    images = 5 + torch.randn(32, 1, 8, 8)
    first = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen = []
    first.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].mean((0, 2, 3))))
    for _ in range(40):
        network(images)
    # 1 - 0.9 ** 40 of the way; with torchvision's momentum of 0.01 it would be a third of it.
    assert torch.allclose(first.running_mean, seen[0], rtol=0.03)


def test_darts_searches_and_derives_one_network(tiny, digits):
    config = tiny({"train.epochs": 2})
    found = [darts_genotype(config, digits, seed) for seed in (0, 0)]
    assert found[0] == found[1]
    assert all(len({e.source for e in n}) == len(n) <= 2 for c in found[0].cells for n in c.nodes)


def test_darts_tells_of_its_epochs_and_is_not_changed_by_it(tiny, digits):
    config = tiny({"train.epochs": 3, "evaluation.recalibration_images": 64})
    epochs = []
    observed = darts_genotype(config, digits, 0, on_epoch=epochs.append)
    assert observed == darts_genotype(config, digits, 0)
    assert [entry.epoch for entry in epochs] == [1, 2, 3]
    assert all(0 <= share <= 1 for entry in epochs for share in entry[1:])
    # A share of the validation images is a whole number of them, and one of three epochs has learned something.
    assert all((e.validation_accuracy * len(digits.validation)) % 1 == pytest.approx(0, abs=1e-6) for e in epochs)
    assert epochs[-1].train_accuracy > epochs[0].train_accuracy


def test_kinds_unknown_are_refused():
    with pytest.raises(ConfigError, match="--kinds: got 'vgg'; allowed: random, darts, resnet18"):
        checked_kinds("random,vgg")


def records(kind, digest, macs, *accuracies, inherited=False):
    origin, model = ("torchvision", kind) if kind == "resnet18" else (kind, "genotype")
    return [
        {"origin": origin, "model": model, "digest": digest, "macs": macs, "accuracy": a, "inherited": inherited}
        | {"num_images": 10_000}
        for a in accuracies
    ]


def test_verdict_says_who_wins_by_how_much_and_where_nothing_can_be_said():
    rows = [
        *records("search", "aa", 1000, 0.90, 0.92),
        *records("random", "bb", 900, 0.85, 0.86),
        *records("random", "cc", 9000, 0.99, 0.99),  # too large to be the one to compare with
        *records("darts", "dd", 1100, 0.905, 0.915),
        *records("resnet18", "ee", 1000, 0.96, 0.97),
        *records("search", "aa", 1000, 0.99, inherited=True),  # not from scratch: never counted
    ]
    (line,) = compare_network(rows)
    assert "network aa (1,000 MACs, 91.00 % +- 1.41, 2 seeds)" in line
    assert "random (0.90x MACs, 85.50 % +- 0.71): wins by 5.50 +- 2.24 points" in line
    assert "darts (1.10x MACs, 91.00 % +- 0.71): no clear difference (+0.00 +- 2.24 points)" in line
    assert "resnet18 (1.00x MACs, 96.50 % +- 0.71): loses by 5.50 +- 2.24 points" in line


def test_summary_says_whether_where_and_by_how_much_the_front_wins():
    rows = [
        *records("search", "aa", 1000, 0.90, 0.90),
        *records("search", "bb", 2000, 0.93, 0.93),
        *records("search", "cc", 3000, 0.94, 0.94),
        *records("random", "dd", 1000, 0.88, 0.88),
        *records("random", "ee", 2000, 0.90, 0.90),
        *records("random", "ff", 3000, 0.94, 0.94),
        *records("resnet18", "gg", 1000, 0.95, 0.95),
    ]
    assert compare_front(rows) == [
        "against random, the front wins at 2 of 3 sizes (1,000 to 2,000 MACs, +2.00 to +3.00 points); "
        "shows no clear difference at 1 of 3 sizes (3,000 MACs, +0.00 points)",
        "against resnet18, the front loses at 3 of 3 sizes (1,000 to 3,000 MACs, -5.00 to -1.00 points)",
    ]
    one_seed = [row for row in rows if row["digest"] != "gg"] + records("resnet18", "gg", 1000, 0.95)
    assert "only that of the images" in compare_front(one_seed)[-1]
    assert compare_front(rows[:2]) == []


def test_verdict_of_one_seed_knows_the_noise_of_the_images_only():
    # Standard error of 0.9 of 10,000 images is 0.3 points, of a difference 0.42: 0.8 points are no clear one.
    (line,) = compare_network([*records("search", "aa", 1000, 0.908), *records("random", "bb", 1000, 0.9)])
    assert "no clear difference (+0.80 +- 0.83 points)" in line
    (line,) = compare_network([*records("search", "aa", 1000, 0.909), *records("random", "bb", 1000, 0.9)])
    assert "wins by 0.90 +- 0.83 points" in line
    assert "1 seed)" in line
    assert compare_network(records("search", "aa", 1000, 0.9)) == []
