"""Checks of a configuration before a search begins."""

from __future__ import annotations

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ConfigError
from dnad_ray.networks.search_space import space_of
from dnad_ray.search.losses import dense_sparsity
from search_spaces.genotype import NONE
from search_spaces.residual import STEMS_OF_RESIDUAL
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.stem_head import STEMS

__all__ = ["check_buildable", "floor_warnings"]


def check_buildable(config: RunConfig) -> None:
    """Check that the search space of a configuration can be built; builds no network.

    Raises:
        SpaceError: If the configured space, operations or stem do not exist.
        ConfigError: If the dense supernet is already below the floor, so that nothing would be deleted.
    """
    named = config.space
    space = space_of(named)
    needed = len(config.distill.stage_ratios)
    if config.distill.uses_features and space.num_stages != needed:
        raise ConfigError(
            "space.num_stages", space.num_stages, f"{needed} where features are imitated, one for each end"
        )
    stems = STEMS_OF_RESIDUAL if space.skeleton == "nas_bench_201" else tuple(STEMS)
    if named.stem not in stems:
        raise ConfigError("space.stem", named.stem, f"{', '.join(stems)} in the space {named.name!r}")
    if config.evaluation.keep_weights and space.skeleton != "darts":
        allowed = "false: what is shared in the residual skeleton does not carry over to a derived network"
        raise ConfigError("evaluation.keep_weights", True, allowed)
    floor = config.shrink.floor
    if floor.operations is not None and floor.operations >= space.num_candidates:
        raise ConfigError(
            "shrink.floor.operations", floor.operations, f"less than the {space.num_candidates} candidates"
        )
    dense = dense_sparsity(space)
    if floor.sparsity is not None and floor.sparsity >= dense:
        raise ConfigError("shrink.floor.sparsity", floor.sparsity, f"less than {dense:.1f}, that of the dense supernet")
    if config.data.image_size is not None:
        images = ImageShape(in_channels=1, image_size=config.data.image_size, num_classes=2)
        NetworkShape(images=images, init_channels=2, stem=named.stem)


def floor_warnings(config: RunConfig) -> list[str]:
    """Return the reasons why a search cannot reach its floor, one sentence each; empty if it can.

    The floor counts the operations of all cells. A search ends above it if its space allows no smaller network, or if
    it has too few epochs.
    """
    space, shrink = space_of(config.space), config.shrink
    wanted = shrink.floor.operations
    if wanted is None:
        return []
    least, words = _least_operations(space), []
    if wanted < least:
        words.append(
            f"shrink.floor.operations {wanted} cannot be reached: the space {config.space.name!r} keeps {least} "
            f"operations in {space.num_cells} cells, and the search ends there"
        )
    epochs = config.train.epochs - config.train.warmup_epochs
    left = space.num_candidates - shrink.rate * space.num_candidates * epochs
    if shrink.pressure == "added" and left > max(wanted, least):
        rate = (1 - max(wanted, least) / space.num_candidates) / epochs
        words.append(
            f"shrink.floor.operations {wanted} cannot be reached in {epochs} epochs at shrink.rate {shrink.rate:g}: "
            f"{left:.0f} of {space.num_candidates} candidates would be left; a rate of {rate:.3g} would do"
        )
    return words


def _least_operations(space: SearchSpace) -> int:
    """Return the smallest number of operations that deletions can leave, if no cell becomes dead."""
    if space.derivation == "edges":
        # An edge may end as `none`; the weights decide this during the search.
        kept = [1 if NONE in space.operations else node + space.num_inputs for node in range(space.num_nodes)]
    else:
        kept = [min(space.inputs_kept, node + space.num_inputs) for node in range(space.num_nodes)]
    return space.num_cells * sum(kept)
