"""A most latency of networks: estimated by a table, and confirmed by timing the network itself."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import lru_cache

import torch

from dnad_ray.networks.latency import latency_table_for, milliseconds_in
from dnad_ray.networks.spec import NetworkSpec, build
from search_spaces.genotype import Genotype
from search_spaces.shape import ImageShape

__all__ = ["LatencyLimit", "measured_milliseconds"]

_DOUBT = 1.05
"""Multiple of the limit up to which an estimate is worth a confirmation."""


@dataclass(frozen=True)
class LatencyLimit:
    """The most milliseconds that a network may take for an image, on one thread of this machine.

    Attributes:
        milliseconds: The limit.
        runtime: One of :data:`dnad_ray.networks.latency.RUNTIMES`.
        whole: A network of the space of those that are asked about, see :class:`LatencyTable`.
    """

    milliseconds: float
    runtime: str
    whole: Genotype

    def seems_kept(self, spec: NetworkSpec, images: ImageShape) -> bool:
        """Whether the estimate of a genotype's network is within the limit, or so near that it may be."""
        assert spec.genotype is not None
        table = latency_table_for(spec.shape(images), self.whole, self.runtime)
        return table.milliseconds_of(spec.genotype) <= _DOUBT * self.milliseconds

    def is_kept(self, spec: NetworkSpec, images: ImageShape) -> bool:
        """Whether a network is within the limit, by its own time."""
        return measured_milliseconds(spec, images, self.runtime) <= self.milliseconds


@lru_cache(maxsize=1024)
def measured_milliseconds(spec: NetworkSpec, images: ImageShape, runtime: str) -> float:
    """Return the median time of a network for an image, on one thread; weights do not matter."""
    with torch.random.fork_rng(devices=[]):
        network = build(spec, images)
    image = torch.zeros(1, images.in_channels, images.image_size, images.image_size)
    return statistics.median(milliseconds_in(runtime, network, image))
