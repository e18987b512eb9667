"""Stages of a network: which cells reduce, and which stage each cell belongs to."""

from __future__ import annotations

from search_spaces.genotype import Genotype

__all__ = ["NUM_STAGES", "reductions", "stages"]

NUM_STAGES = 3


def reductions(num_cells: int, num_stages: int = NUM_STAGES) -> tuple[int, ...]:
    """Return the cells that begin a later stage: those at L//S, 2L//S, ... for S stages.

    >>> reductions(8)
    (2, 5)
    >>> reductions(8, 2)
    (4,)
    """
    return tuple(sorted({stage * num_cells // num_stages for stage in range(1, num_stages)}))


def stages(genotype: Genotype) -> tuple[int, ...]:
    """Return for each cell its stage: how many reduction cells there are up to and including it."""
    stage = 0
    result = []
    for cell in genotype.cells:
        stage += cell.reduction
        result.append(stage)
    return tuple(result)
