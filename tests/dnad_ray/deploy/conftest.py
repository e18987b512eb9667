"""Small trained networks of any cells."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from dnad_ray.data.images import Split
from dnad_ray.deploy.formats import FORMATS
from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.networks.spec import NetworkSpec, build
from search_spaces.genotype import CellGenotype, Genotype
from search_spaces.shape import ImageShape


@pytest.fixture(scope="session")
def network_of() -> Callable[..., TrainedNetwork]:
    """A function that makes a network for gray images of 8 pixels, whose statistics are those of no initialisation."""

    def make(*cells: CellGenotype, skeleton: str = "darts") -> TrainedNetwork:
        images = ImageShape(in_channels=1, image_size=8, num_classes=3)
        spec = NetworkSpec(origin="search", genotype=Genotype(cells, skeleton), init_channels=4)
        torch.manual_seed(0)
        network = build(spec, images).train()
        network(torch.randn(8, 1, 8, 8))
        return TrainedNetwork(network.eval(), spec, images, ("ant", "bee", "cow"), (0.4,), (0.3,), {})

    return make


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], Split]:
    """A function that makes so many random images for these networks, by a seed."""

    def make(number: int, seed: int) -> Split:
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (number, 1, 8, 8)).astype(np.uint8)
        return Split(images=pixels, labels=rng.integers(0, 3, number).astype(np.int64))

    return make


@pytest.fixture
def installed(kind: str) -> None:
    """Skip the test of a format whose packages are not installed; those of the others are in the extra `dev`."""
    missing = [name for name in FORMATS[kind].packages if find_spec(name) is None]
    if missing == ["openvino"]:
        pytest.skip("the extra openvino is not installed")
