"""The kinds of baselines that a search is compared with: chance, one-level DARTS, and known networks."""

from __future__ import annotations

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ConfigError
from dnad_ray.networks.torchvision_families import VISION_FAMILIES
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.space import SearchSpace, space_named
from search_spaces.supernet import Candidate

__all__ = ["BASELINES", "checked_kinds", "space_of"]

BASELINES = ("random", "darts", *VISION_FAMILIES)
"""Kinds of baselines."""


def checked_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds that a user lists.

    Raises:
        ConfigError: If one is unknown.

    >>> checked_kinds("random, darts")
    ('random', 'darts')
    """
    kinds = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for kind in kinds:
        if kind not in BASELINES:
            raise ConfigError("--kinds", kind, ", ".join(BASELINES))
    if not kinds:
        raise ConfigError("--kinds", text, ", ".join(BASELINES))
    return kinds


def space_of(config: RunConfig) -> SearchSpace:
    """Return the space that a run searched."""
    return space_named(config.space.name, config.space.operations, config.space.num_cells, config.space.num_nodes)


def _of(dense: Genotype, chosen: list[Candidate]) -> Genotype:
    nodes: list[list[list[Edge]]] = [[[] for _ in cell.nodes] for cell in dense.cells]
    for candidate in chosen:
        nodes[candidate.cell][candidate.node].append(candidate.edge)
    return Genotype(
        tuple(
            CellGenotype(cell.reduction, tuple(map(tuple, lists)))
            for cell, lists in zip(dense.cells, nodes, strict=True)
        )
    ).pruned()
