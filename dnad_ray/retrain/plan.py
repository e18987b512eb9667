"""Build retraining jobs from a user's request: networks, widths, protocol and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dnad_ray.config.retrain import RetrainConfig
from dnad_ray.config.run import RunConfig
from dnad_ray.data.images import ImageData
from dnad_ray.errors import ConfigError, GenotypeError
from dnad_ray.networks.spec import NetworkSpec, check_image_size, scaled_to
from dnad_ray.retrain.jobs import Job, job_of
from dnad_ray.run_folder.genotypes import NamedGenotype

__all__ = ["Request", "chosen", "jobs_for", "specs_for"]


_MOST_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's request for retraining.

    Attributes:
        config: The protocol.
        recipe: The recipe that the protocol is based on.
        seeds: Number of seeds.
        first_seed: The first seed.
        max_macs: Scale the width of each network to at most this many multiply-adds; None for no limit.
        max_params: The same for parameters.
        digests: Prefixes of the digests of the networks to train; empty for all networks.
        limit: Largest number of networks, spread evenly over the front by cost; None for all.
        transfer: Whether to train on other images than those of the search.
    """

    config: RetrainConfig
    recipe: str
    seeds: int = 1
    first_seed: int = 0
    max_macs: int | None = None
    max_params: int | None = None
    digests: tuple[str, ...] = ()
    limit: int | None = None
    transfer: bool = False

    def __post_init__(self) -> None:
        for name, value in (("--seeds", self.seeds), ("--networks", self.limit)):
            if value is not None and value < 1:
                raise ConfigError(name, value, "at least 1")
        for name, value in (("--max-macs", self.max_macs), ("--max-params", self.max_params)):
            if value is not None and value < 1:
                raise ConfigError(name, value, "at least 1")
        if self.seeds > _MOST_SEEDS:
            raise ConfigError("--seeds", self.seeds, f"1 to {_MOST_SEEDS:,}")
        if not 0 <= self.first_seed < 2**31 - self.seeds:
            raise ConfigError("--seed", self.first_seed, f"0 to {2**31 - self.seeds - 1}")


def chosen(found: Sequence[NamedGenotype], request: Request) -> list[NamedGenotype]:
    """Return the requested networks of a front, in the order of the front.

    Raises:
        GenotypeError: If no network has a requested digest.
    """
    result = list(found)
    if request.digests:
        digests = [entry.genotype.digest for entry in found]
        for wanted in request.digests:
            if sum(digest.startswith(wanted) for digest in digests) != 1:
                raise GenotypeError("--digest", wanted, f"the beginning of exactly one of {', '.join(digests)}")
        result = [e for e in found if any(e.genotype.digest.startswith(wanted) for wanted in request.digests)]
    if request.limit is not None and request.limit < len(result):
        last = len(result) - 1
        places = [round(i * last / max(1, request.limit - 1)) for i in range(request.limit)]
        result = [result[place] for place in places]
    return result


def specs_for(found: Sequence[NamedGenotype], request: Request, run: RunConfig, data: ImageData) -> list[NetworkSpec]:
    """Return the networks at the width at which they are trained.

    Raises:
        GenotypeError: If a network does not fit the images, or was searched on other images and no transfer was
            requested.
        ConfigError: If a network cannot be made small enough.
    """
    images = data.shape
    specs = []
    for entry in found:
        searched = (entry.image_size or data.image_size, entry.num_classes or data.num_classes)
        if not request.transfer and searched != (data.image_size, data.num_classes):
            raise GenotypeError(
                f"images for network {entry.genotype.digest}",
                f"{data.num_classes} classes of {data.image_size} pixels",
                f"{searched[1]} classes of {searched[0]} pixels, for which it was searched; --data or --image-size "
                "say that others are meant",
            )
        width = request.config.init_channels or entry.init_channels or run.evaluation.init_channels
        spec = NetworkSpec(
            origin=entry.origin, genotype=entry.genotype.pruned(), init_channels=width, stem=run.space.stem
        )
        check_image_size(spec, images)
        if request.max_macs is not None or request.max_params is not None:
            spec = scaled_to(spec, images, max_macs=request.max_macs, max_params=request.max_params)
        specs.append(spec)
    return specs


def jobs_for(
    specs: Sequence[NetworkSpec],
    request: Request,
    run: RunConfig,
    scores: dict[str, float] | None = None,
    inherited: dict[str, bytes] | None = None,
    *,
    other_images: str = "",
) -> list[Job]:
    """Return a job for every network and seed, ordered by seed: a stop then leaves complete rounds of all networks.

    Args:
        specs: The networks.
        request: The user's request.
        run: The run; its data are used for training.
        scores: Proxy accuracies by digest.
        inherited: Initial weights from snapshots, by digest.
        other_images: Fingerprint of images that are not those of the run folder; empty for its own.
    """
    return [
        job_of(
            spec,
            request.config,
            request.recipe,
            request.first_seed + number,
            run.data,
            proxy_accuracy=(scores or {}).get(spec.digest),
            inherited=(inherited or {}).get(spec.digest, b""),
            other_images=other_images,
        )
        for number in range(request.seeds)
        for spec in specs
    ]
