"""Which networks a run holds, with the images that each takes: those of its front, and those that it retrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dnad_ray.config.run import RunConfig
from dnad_ray.data.named_datasets import NAMED_DATASETS
from dnad_ray.errors import RunFolderError
from dnad_ray.networks.network_file import read_network
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.run_folder.genotypes import found_in_front
from dnad_ray.run_folder.jobs import read_retrained
from dnad_ray.run_folder.layout import job_folder
from dnad_ray.storage.places import Place, address
from search_spaces.shape import ImageShape

__all__ = ["networks_of"]


def networks_of(run: Place, config: RunConfig, front: Sequence[dict[str, Any]]) -> list[tuple[NetworkSpec, ImageShape]]:
    """Return the networks of a run, each once.

    Args:
        run: The run folder.
        config: Its configuration.
        front: Records of its front, none where nothing was searched.

    Raises:
        RunFolderError: If there is no network, if a network of the front has no genotype, or if nothing says how many
            channels its images have.
    """
    trained = [read_network(job_folder(run, record["job"])) for record in read_retrained(run)[0]]
    pairs = []
    for found in found_in_front(list(front), run, address(run)) if front else []:
        images = ImageShape(
            in_channels=found.in_channels or _channels(run, config, [network.images for network in trained]),
            image_size=found.image_size or 32,
            num_classes=found.num_classes or 10,
        )
        width = found.init_channels or config.evaluation.init_channels
        spec = NetworkSpec(origin="search", genotype=found.genotype, init_channels=width, stem=config.space.stem)
        pairs.append((spec, images))
    pairs += [(network.spec, network.images) for network in trained]
    if not pairs:
        raise RunFolderError("RUN", address(run), "a run with snapshots or with retrained networks")
    return list(dict.fromkeys(pairs))


def _channels(run: Place, config: RunConfig, trained: Sequence[ImageShape]) -> int:
    """Return the channels of the images of a run whose snapshots are of a version that did not say."""
    if config.data.name in NAMED_DATASETS:
        return NAMED_DATASETS[config.data.name].channels
    if len({images.in_channels for images in trained}) == 1:  # a folder, which may be gone
        return trained[0].in_channels
    allowed = "a run that says the channels of its images; `dnad-ray retrain` of one of its networks writes them down"
    raise RunFolderError("RUN", address(run), allowed)
