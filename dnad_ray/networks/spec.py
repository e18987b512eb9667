"""Description of a network to train, measure or export: a genotype at a width, or a torchvision network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dnad_ray.costs.table import costs_of
from dnad_ray.costs.trace import Complexity, count, image_of
from dnad_ray.errors import ConfigError, GenotypeError
from dnad_ray.networks.torchvision_families import VISION_FAMILIES, vision_network
from dnad_ray.run_folder.records import ORIGINS
from dnad_ray.storage.digests import digest_of_data
from search_spaces.genotype import Genotype
from search_spaces.network import NetworkOutput, network_from
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.stages import stages
from search_spaces.stem_head import HALVINGS

__all__ = [
    "GENOTYPE",
    "NetworkSpec",
    "build",
    "check_image_size",
    "cost_of",
    "logits_of",
    "scaled_to",
]


GENOTYPE = "genotype"
_MOST_CHANNELS = 1024
_MOST_WIDTH = 16.0


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network, without the shape of its images.

    Attributes:
        origin: One of :data:`dnad_ray.run_folder.records.ORIGINS`.
        model: :data:`GENOTYPE`, or a name in :data:`dnad_ray.networks.torchvision_families.VISION_FAMILIES`.
        genotype: Its topology; None for a torchvision network.
        init_channels: Width C of a genotype's network, else 0.
        width: Width factor of a torchvision network, else 1.
        stem: Stem of a genotype's network.

    Raises:
        ConfigError: If origin or model are unknown, or do not fit each other.
    """

    origin: str
    model: str = GENOTYPE
    genotype: Genotype | None = None
    init_channels: int = 0
    width: float = 1.0
    stem: str = "cifar"

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ConfigError("origin", self.origin, ", ".join(ORIGINS))
        if self.model != GENOTYPE and self.model not in VISION_FAMILIES:
            raise ConfigError("model", self.model, ", ".join([GENOTYPE, *VISION_FAMILIES]))
        if (self.model == GENOTYPE) != (self.genotype is not None):
            raise ConfigError("model", self.model, f"{GENOTYPE} with a genotype, or a family without one")
        if self.genotype is not None and not 2 <= self.init_channels <= _MOST_CHANNELS:
            raise ConfigError("init_channels", self.init_channels, f"2 to {_MOST_CHANNELS}")
        if self.genotype is None and not 0 < self.width <= _MOST_WIDTH:
            raise ConfigError("width", self.width, f"above 0, at most {_MOST_WIDTH:g}")

    @property
    def digest(self) -> str:
        """The genotype's digest; for a torchvision network a digest of family and width."""
        if self.genotype is not None:
            return self.genotype.digest
        return digest_of_data({"model": self.model, "width": self.width})

    def shape(self, images: ImageShape) -> NetworkShape:
        """Return the shape of a genotype's network."""
        return NetworkShape(images=images, init_channels=self.init_channels, stem=self.stem)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "origin": self.origin,
            "model": self.model,
            "genotype": None if self.genotype is None else self.genotype.pruned().to_dict(),
            "init_channels": self.init_channels,
            "width": self.width,
            "stem": self.stem,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NetworkSpec:
        """Build one from :meth:`to_dict`.

        Raises:
            KeyError: If a field is missing.
            UserError: If a value is impossible.
        """
        genotype = data["genotype"]
        return cls(
            origin=str(data["origin"]),
            model=str(data["model"]),
            genotype=None if genotype is None else Genotype.from_dict(genotype, "genotype of the network"),
            init_channels=int(data["init_channels"]),
            width=float(data["width"]),
            stem=str(data["stem"]),
        )


def build(spec: NetworkSpec, images: ImageShape) -> nn.Module:
    """Build the network with the initial weights that torch's random stream gives it.

    Raises:
        UserError: If it cannot be built for these images.
    """
    if spec.genotype is not None:
        return network_from(spec.genotype, spec.shape(images))
    return vision_network(spec.model, spec.width, images)


def check_image_size(spec: NetworkSpec, images: ImageShape) -> None:
    """Check that a genotype's network can process images of that size.

    Raises:
        GenotypeError: If its reductions leave less than one pixel, or it is not connected.
        SpaceError: If an operation is unknown, or the images are too small for the stem.
    """
    if spec.genotype is None:
        return
    reductions = stages(spec.genotype)[-1]
    least = 2**reductions * 2 ** HALVINGS[spec.stem]
    if images.image_size < least:
        raise GenotypeError(
            f"genotype {spec.digest} with images of",
            f"{images.image_size} pixels",
            f"at least {least} pixels: it halves them {reductions} times behind the {spec.stem} stem",
        )
    with torch.device("meta"):
        build(spec, images)


def cost_of(spec: NetworkSpec, images: ImageShape) -> Complexity:
    """Return what the network costs for one image, without auxiliary head."""
    if spec.genotype is not None:
        return costs_of(spec.genotype, spec.shape(images))
    return _vision_cost(spec.model, spec.width, images)


def scaled_to(
    spec: NetworkSpec, images: ImageShape, *, max_macs: int | None = None, max_params: int | None = None
) -> NetworkSpec:
    """Return the widest version of a network that costs no more than a budget.

    Args:
        spec: The network; its own width is ignored.
        images: Shape of the images, for counting costs.
        max_macs: Most multiply-adds (fvcore total), None for no limit.
        max_params: Most parameters, None for no limit.

    Raises:
        ConfigError: If there is no limit, or the narrowest network is above it.
    """
    if max_macs is None and max_params is None:
        raise ConfigError("--max-macs and --max-params", None, "at least one of them, to scale a network to it")

    def at(step: int) -> NetworkSpec:
        fields = {"init_channels": 1 + step} if spec.genotype is not None else {"width": step / 64}
        return NetworkSpec(**{**spec.__dict__, **fields})

    def fits(step: int) -> bool:
        cost = cost_of(at(step), images)
        return (max_macs is None or cost.macs <= max_macs) and (max_params is None or cost.params <= max_params)

    low, high = 1, 2
    if not fits(low):
        cost = cost_of(at(low), images)
        raise ConfigError(
            "--max-macs" if max_macs is not None and cost.macs > max_macs else "--max-params",
            max_macs if max_macs is not None and cost.macs > max_macs else max_params,
            f"at least {cost.macs:,} multiply-adds and {cost.params:,} parameters, those of {spec.model} "
            f"{spec.digest} at its narrowest",
        )
    most = _MOST_CHANNELS - 1 if spec.genotype is not None else int(_MOST_WIDTH * 64)
    while high < most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return at(low)


@lru_cache(maxsize=1024)
def _vision_cost(model: str, width: float, images: ImageShape) -> Complexity:
    shape = NetworkShape(images=images, init_channels=2)
    make = partial(vision_network, model, width, images)
    return count(make, image_of(shape)).cost


def logits_of(output: Any) -> Tensor:
    """Return the logits from the output of any kind of network."""
    return cast(Tensor, output.logits if isinstance(output, NetworkOutput) else output)
