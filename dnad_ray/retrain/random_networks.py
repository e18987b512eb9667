"""Random networks of the size and cost of another one: what a search is compared with."""

from __future__ import annotations

import numpy as np

from dnad_ray.costs.table import costs_of
from dnad_ray.errors import ConfigError
from dnad_ray.networks.spec import ImageShape, NetworkSpec
from dnad_ray.retrain.baselines import _of
from search_spaces.genotype import NONE, Genotype
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate

__all__ = ["random_like"]

_TRIES = 1000
_NEAR = 0.05


def random_like(spec: NetworkSpec, space: SearchSpace, images: ImageShape, seed: int) -> NetworkSpec:
    """Return a random architecture of a space with the operations (or a few more) and the cost of another network.

    Candidates are drawn without regard to anything but their number, until the multiply-adds at the same width are
    within 5 %; after 1,000 draws the nearest one is taken, and its own cost stands in its record.

    Args:
        spec: A network of the space.
        space: The space.
        images: For which costs are counted.
        seed: Seed of the draws.

    Raises:
        ConfigError: If no draw leads from the image to the classifier.
    """
    assert spec.genotype is not None
    shape = spec.shape(images)
    target, number = costs_of(spec.genotype, shape).macs, spec.genotype.pruned().num_operations
    dense = space.dense()
    everything = [
        Candidate(c, n, edge)
        for c, cell in enumerate(dense.cells)
        for n, edges in enumerate(cell.nodes)
        for edge in edges
        if edge.operation != NONE
    ]
    generator = np.random.default_rng((seed, int(spec.digest, 16) % 2**32))
    best: tuple[float, Genotype] | None = None
    for _ in range(_TRIES):
        genotype = _grown(dense, everything, number, generator)
        if genotype is None:
            continue
        distance = abs(costs_of(genotype, shape).macs - target) / target
        if best is None or distance < best[0]:
            best = (distance, genotype)
        if distance <= _NEAR:
            break
    if best is None:
        raise ConfigError("random baseline of operations", number, "enough of them to lead from image to classifier")
    return NetworkSpec(origin="random", genotype=best[1], init_channels=spec.init_channels, stem=spec.stem)


def _grown(
    dense: Genotype, everything: list[Candidate], number: int, generator: np.random.Generator
) -> Genotype | None:
    """Return the network of random candidates that has ``number`` useful ones; None where there is none so large."""
    order = generator.permutation(len(everything))
    low, high = number, len(order)
    result = None
    # Some of those drawn read nothing or are read by nobody: draw on until enough of them count.
    while low <= high:
        middle = (low + high) // 2
        genotype = _of(dense, [everything[index] for index in order[:middle]])
        if genotype.num_operations >= number:
            result, high = genotype, middle - 1
        else:
            low = middle + 1
    return result
