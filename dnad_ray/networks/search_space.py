"""Conversion of a configuration section to a search space."""

from __future__ import annotations

from dnad_ray.config.run import SpaceConfig
from search_spaces.space import SearchSpace, space_named

__all__ = ["space_of"]


def space_of(config: SpaceConfig) -> SearchSpace:
    """Return the space that a configuration describes; settings that it omits are those of the named space.

    Raises:
        SpaceError: If the space does not exist, or its size or operations are impossible.
    """
    return space_named(
        config.name,
        config.operations,
        config.num_cells,
        config.num_nodes,
        sharing=config.sharing,
        derivation=config.derivation,
        inputs_kept=config.inputs_kept,
        num_stages=config.num_stages,
    )
