"""The shape of a network: width, stem and image shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search_spaces.errors import SpaceError
from search_spaces.stem_head import HALVINGS

__all__ = ["ImageShape", "NetworkShape"]


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """The shape of the images of a network, and its number of classes.

    Attributes:
        in_channels: Their channels.
        image_size: Their side in pixels.
        num_classes: Their classes.
    """

    in_channels: int
    image_size: int
    num_classes: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImageShape:
        """Build one from plain data, ignoring other keys; raises KeyError, TypeError or ValueError for wrong data."""
        return cls(**{name: int(data[name]) for name in ("in_channels", "image_size", "num_classes")})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Everything besides the topology that is needed to build a network.

    Attributes:
        images: Channels and side of the images, and outputs of the classifier.
        init_channels: Width C before the first doubling.
        stem: Name in :data:`search_spaces.stem_head.HALVINGS`.

    Raises:
        SpaceError: If the stem is unknown, or images are too small for it.
    """

    images: ImageShape
    init_channels: int
    stem: str = "cifar"

    def __post_init__(self) -> None:
        if self.stem not in HALVINGS:
            raise SpaceError("stem", self.stem, ", ".join(HALVINGS))
        smallest, side = 4 * 2 ** HALVINGS[self.stem], self.images.image_size
        if side < smallest:
            raise SpaceError(f"image size for the {self.stem} stem", side, f"at least {smallest} pixels")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkShape:
        """Build one from :meth:`to_dict`.

        Raises:
            KeyError: If a key of the images is missing.
            TypeError: If there is an unknown key, or a value of another type.
            ValueError: If a value is impossible.
        """
        images = ImageShape.from_dict(data)
        return cls(images=images, **{name: value for name, value in data.items() if name not in images.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, all on one level."""
        return {**self.images.to_dict(), "init_channels": self.init_channels, "stem": self.stem}
