"""What can be checked of a configuration before a search begins."""

from __future__ import annotations

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import ConfigError
from dnad_ray.networks.search_space import space_of
from dnad_ray.search.losses import dense_sparsity
from search_spaces.residual import STEM_OF_RESIDUAL
from search_spaces.shape import ImageShape, NetworkShape

__all__ = ["check_buildable"]


def check_buildable(config: RunConfig) -> None:
    """Check what only the space can tell; costs nothing.

    Raises:
        SpaceError: If the configured space, operations or stem do not exist.
        ConfigError: If the dense supernet is below its floor already, so that nothing would ever be deleted.
    """
    named = config.space
    space = space_of(named)
    needed = len(config.distill.stage_ratios)
    if config.distill.uses_features and space.num_stages != needed:
        raise ConfigError(
            "space.num_stages", space.num_stages, f"{needed} where features are imitated, one for each end"
        )
    if space.skeleton == "nas_bench_201" and named.stem != "cifar":
        raise ConfigError("space.stem", named.stem, STEM_OF_RESIDUAL)
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
