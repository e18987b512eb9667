"""Random networks of the size and cost of a given network: a baseline for searches."""

from __future__ import annotations

import math

import numpy as np

from dnad_ray.costs.table import costs_of
from dnad_ray.errors import ConfigError
from dnad_ray.networks.spec import NetworkSpec
from search_spaces.derivation import derived_network
from search_spaces.genotype import NONE, Genotype
from search_spaces.shape import ImageShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate, candidates_of, groups_of, subset

__all__ = ["random_like"]

_TRIES = 1000
_NEAR = 0.05


def random_like(spec: NetworkSpec, space: SearchSpace, images: ImageShape, seed: int) -> NetworkSpec:
    """Return a random architecture of a space with about the multiply-adds of another network.

    If the space keeps all alive candidates, candidates are drawn uniformly; they are added until at least as many
    operations are alive as in the given network. If the space keeps some inputs of each node, or one operation on each
    edge, the network is derived from random architecture weights. Cells that share a topology get the same one. Draws
    are repeated until the multiply-adds at the same width agree within 5 %; if none does, the nearest network is taken;
    its record holds its own cost.

    Args:
        spec: A network of the space.
        space: The space.
        images: Shape of the images, for counting costs.
        seed: Seed of the draws.

    Raises:
        ConfigError: If no drawn network connects the image with the classifier.
    """
    assert spec.genotype is not None
    shape = spec.shape(images)
    target, number = costs_of(spec.genotype, shape).macs, spec.genotype.pruned().num_operations
    dense = space.dense()
    shared = _shared_candidates(space, dense)
    generator = np.random.default_rng((seed, int(spec.digest, 16) % 2**32))
    best: tuple[float, Genotype] | None = None
    for _ in range(_TRIES):
        if space.derivation == "alive":
            genotype = _grown(dense, shared, number, generator)
        else:
            genotype = _derived(space, dense, generator)
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


def _shared_candidates(space: SearchSpace, dense: Genotype) -> list[list[Candidate]]:
    """Return the candidates except ``none``, grouped: a group is one candidate of a shared topology."""
    members: dict[object, list[Candidate]] = {}
    for candidate, name in zip(candidates_of(dense), groups_of(space, dense), strict=True):
        if candidate.edge.operation != NONE:
            members.setdefault(name, []).append(candidate)
    return list(members.values())


def _derived(space: SearchSpace, dense: Genotype, generator: np.random.Generator) -> Genotype | None:
    """Return the network derived from random architecture weights; None if it does not connect image and classifier."""
    names = groups_of(space, dense)
    topology = list(dict.fromkeys(names))
    weights = dict(zip(topology, generator.random(len(topology)).tolist(), strict=True))
    genotype, _ = derived_network(space, dense, [weights[name] for name in names])
    return genotype if genotype.num_operations else None


def _grown(
    dense: Genotype, shared: list[list[Candidate]], number: int, generator: np.random.Generator
) -> Genotype | None:
    """Return a network of random candidates with at least ``number`` alive operations; None if none is that large."""
    order = generator.permutation(len(shared))
    low, high = math.ceil(number / max(map(len, shared))), len(order)
    result = None
    # Some drawn candidates have no input, or no reader: continue until enough operations are alive.
    while low <= high:
        middle = (low + high) // 2
        genotype = subset(dense, [candidate for index in order[:middle] for candidate in shared[index]]).pruned()
        if genotype.num_operations >= number:
            result, high = genotype, middle - 1
        else:
            low = middle + 1
    return result
