"""Training-free scores on networks so small that each value is worked out by hand."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from dnad_ray.config.run import ScoreName
from dnad_ray.networks.scores import (
    RANKING,
    SCORES,
    Batch,
    grad_norm,
    jacov,
    naswot,
    rank_score,
    scores_of,
    swap,
    synflow,
    zen,
    zico,
)
from dnad_ray.run_folder.metrics import METRICS
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from search_spaces.formats import from_nas_bench_201
from search_spaces.genotype import SKELETONS, CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return layer


def network(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *layers)


def batch(*pixels: list[float], labels: list[int] | None = None) -> Batch:
    """Return images of one pixel and as many channels as numbers."""
    return Batch(torch.tensor(pixels)[:, :, None, None], torch.tensor(labels or [0] * len(pixels)))


IDENTITY = [[float(row == column) for column in range(4)] for row in range(4)]
# Which of four ReLUs the two images switch on: 1100 and 1010.
SWITCHES = batch([1.0, 2.0, -1.0, -1.0], [3.0, -1.0, 1.0, -2.0])


def test_names_of_scores_are_those_of_the_configuration_and_of_snapshots():
    assert get_args(ScoreName) == ("score", *SCORES)
    assert {*RANKING.values()} <= {*SCORES}
    assert RANKING.keys() == SKELETONS.keys()
    assert {*SCORES, "score"} <= set(SNAPSHOT_COLUMNS) & set(METRICS)


def test_rank_score_is_zen_or_cost_and_jacov():
    darts = Genotype((CellGenotype(False, ((Edge("skip_connect", 0),),)),))
    assert rank_score({"zen": 4.5, "jacov": -70.0}, darts, 1000, 64) == 4.5
    assert rank_score({"jacov": -70.0}, darts, 1000, 64) is None
    cell = from_nas_bench_201("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", 3)
    # By hand: ln of a million over 0.4, less ln of 6 over 0.6.
    assert rank_score({"zen": 4.5, "jacov": -70.0}, cell, 10**6, 64) == pytest.approx(34.538776 - 2.986266)
    assert rank_score({"zen": 4.5}, cell, 10**6, 64) is None
    # Images that are all unlike to the network: no more than what rounding makes of it.
    assert rank_score({"jacov": -64.0}, cell, 10**6, 64) == rank_score({"jacov": -63.9}, cell, 10**6, 64)


def test_scores_of_a_genotype_repeat_and_leave_the_random_stream_alone():
    genotype = Genotype((CellGenotype(False, ((Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),)),) * 3)
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=4), init_channels=4)
    images = Batch(torch.rand(8, 1, 8, 8), torch.arange(8) % 4)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = scores_of(genotype, shape, images, tuple(SCORES))
    assert torch.rand(1) == expected
    assert list(first) == list(SCORES)
    assert scores_of(genotype, shape, images, tuple(SCORES)) == first
    few = Batch(images.images[:4], images.labels[:4])
    assert list(scores_of(genotype, shape, few, ("zico", "zen"))) == ["zen"]  # ZiCo needs eight images
    alike = Batch(images.images[:1].repeat(8, 1, 1, 1), images.labels)
    assert "naswot" not in scores_of(genotype, shape, alike, ("naswot",))  # minus infinity for equal images


def test_jacov_rows_that_do_not_correlate():
    # The gradients are (1, 1, 0, 0) and (1, 0, 1, 0); less their means they are orthogonal: both eigenvalues are 1.
    value = jacov(network(linear(*IDENTITY), nn.ReLU()), SWITCHES)
    assert value == pytest.approx(-2 * (math.log(1 + 1e-5) + 1 / (1 + 1e-5)), abs=1e-6)


def test_jacov_equal_rows():
    # A linear network has one gradient for all images: eigenvalues 2 and 0.
    value = jacov(network(linear([1.0, 2.0, 3.0, 5.0])), SWITCHES)
    assert value == pytest.approx(-(math.log(2) + 0.5 + math.log(1e-5) + 1e5), rel=1e-4)


def test_naswot_two_images():
    # Each image agrees with itself in 4 outputs, with the other one in 2: the determinant is 4 * 4 - 2 * 2.
    assert naswot(network(linear(*IDENTITY), nn.ReLU()), SWITCHES) == pytest.approx(math.log(12))


def test_naswot_counts_every_relu():
    # The second ReLU sees what the first let through, and is on where that one is: all numbers double.
    assert naswot(network(linear(*IDENTITY), nn.ReLU(), nn.ReLU()), SWITCHES) == pytest.approx(math.log(48))


def test_naswot_equal_images_have_the_least_score():
    same = Batch(SWITCHES.images[:1].repeat(2, 1, 1, 1), SWITCHES.labels)
    assert naswot(network(linear(*IDENTITY), nn.ReLU()), same) == -math.inf


def test_swap_counts_the_patterns_of_units():
    # Over the two images the units are on-on, on-off, off-on, off-off; over two equal images on-on and off-off.
    relus = network(linear(*IDENTITY), nn.ReLU())
    assert swap(relus, SWITCHES) == 4
    assert swap(relus, Batch(SWITCHES.images[:1].repeat(2, 1, 1, 1), SWITCHES.labels)) == 2


def test_swap_more_images_than_one_number_holds():
    # Two units which differ on the last image of 130 alone.
    pixels = [[1.0, 1.0]] * 129 + [[1.0, -1.0]]
    assert swap(network(nn.ReLU()), batch(*pixels)) == 2


def test_synflow_two_layers():
    # With absolute weights R = 5 (1 + 2) + 6 (3 + 4) = 57, and the weights of either layer carry all of it.
    value = synflow(network(linear([1.0, -2.0], [3.0, 4.0]), linear([-5.0, 6.0])), batch([7.0, -8.0]))
    assert value == pytest.approx(math.log(2 * 57))


def test_grad_norm_one_layer():
    # Both classes have probability 0.5: the gradient is (-0.5, 0.5) times the image (3, 4).
    value = grad_norm(network(linear([0.0, 0.0], [0.0, 0.0])), batch([3.0, 4.0]))
    assert value == pytest.approx(math.sqrt(0.5) * 5)


def test_zen_of_a_linear_network_is_the_norm_of_its_change():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, generator=generator)
    torch.randn(2, 2, generator=generator)  # the images
    change = 0.01 * torch.randn(2, 2, generator=generator) @ weight.T
    value = zen(network(linear([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])), batch([0.0, 0.0], [0.0, 0.0]))
    assert value == pytest.approx(math.log(float(change.norm(dim=1).mean())), abs=1e-4)


def test_zen_adds_what_batch_norms_take_away():
    # One channel: the norm divides by s, whose logarithm is added again.
    images = Batch(torch.zeros(64, 3, 8, 8), torch.zeros(64, dtype=torch.int64))
    bare = nn.Sequential(nn.Conv2d(3, 1, 3, bias=False), nn.Flatten())
    normed = nn.Sequential(nn.Conv2d(3, 1, 3, bias=False), nn.BatchNorm2d(1), nn.Flatten())
    assert zen(normed, images) == pytest.approx(zen(bare, images), abs=0.02)


def test_zico_one_layer():
    # The gradients of the two weights are (-0.5, 0.5) times the mean pixel of each part, 1, 1, 3 and 3: sizes of mean 1
    # and deviation 0.5 in either weight, so twice 2.
    pixels = [[1.0], [1.0], [0.0], [2.0], [3.0], [3.0], [2.0], [4.0]]
    assert zico(network(linear([0.0], [0.0])), batch(*pixels)) == pytest.approx(math.log(4))


def test_zico_refuses_a_batch_that_has_no_four_parts():
    with pytest.raises(ValueError, match="at least 8 images, got 2"):
        zico(network(linear([0.0], [0.0])), batch([1.0], [2.0]))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    cell = CellGenotype(reduction=False, nodes=((Edge("sep_conv_3x3", 0),), (Edge("skip_connect", 2),)))
    torch.manual_seed(0)
    shape = NetworkShape(images=ImageShape(in_channels=3, image_size=8, num_classes=10), init_channels=4)
    return network_from(Genotype((cell, CellGenotype(True, cell.nodes))), shape)


@pytest.mark.parametrize("name", SCORES)
def test_score_leaves_the_network_as_it_was_and_repeats(name: str, small: nn.Module):
    generator = torch.Generator().manual_seed(0)
    images = Batch(torch.randn(16, 3, 8, 8, generator=generator), torch.arange(16) % 10)
    before: dict[str, Tensor] = {key: value.clone() for key, value in small.state_dict().items()}
    pixels, stream = images.images.clone(), torch.get_rng_state()
    small.eval()
    value = SCORES[name](small, images)
    assert math.isfinite(value)
    assert SCORES[name](small, images) == value
    assert not small.training
    assert all(parameter.grad is None for parameter in small.parameters())
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())
    assert torch.equal(images.images, pixels)
    assert torch.equal(torch.get_rng_state(), stream)
