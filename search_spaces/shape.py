"""The shape of a network: width, stem and image shape."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.errors import SpaceError
from search_spaces.stem_head import STEMS

__all__ = ["NetworkShape"]


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Everything besides the topology that is needed to build a network.

    Attributes:
        in_channels: Channels of the images.
        image_size: Side of the images in pixels.
        num_classes: Outputs of the classifier.
        init_channels: Width C before the first doubling.
        stem: Name in :data:`search_spaces.stem_head.STEMS`.

    Raises:
        SpaceError: If the stem is unknown, or images are too small for it.
    """

    in_channels: int
    image_size: int
    num_classes: int
    init_channels: int
    stem: str = "cifar"

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise SpaceError("stem", self.stem, ", ".join(STEMS))
        smallest = 32 if self.stem == "imagenet" else 4
        if self.image_size < smallest:
            raise SpaceError(f"image size for the {self.stem} stem", self.image_size, f"at least {smallest} pixels")
