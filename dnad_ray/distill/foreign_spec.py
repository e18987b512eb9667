"""Description of a foreign teacher, without its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dnad_ray.config.run import TeacherConfig
from dnad_ray.data.images import ImageData
from dnad_ray.errors import ConfigError
from search_spaces.shape import ImageShape
from search_spaces.stem_head import HALVINGS

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ForeignSpec", "stage_sides"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of torchvision's pretrained weights, from its documentation."""


@dataclass(frozen=True, kw_only=True)
class ForeignSpec:
    """Description of a foreign teacher, without its weights; plain data.

    Attributes:
        source: ``torchvision`` or ``module``.
        model: Name of the model, or ``module:factory``.
        images: The run's images.
        input_size: Side to which images are resized for the model; None for no resizing.
        sides: Sides in pixels of the student's stage ends.
        taps: Names of the modules whose outputs are imitated; None to find them by their sides.
        scale: Factor for each channel from the run's normalisation to the model's, one or as many as channels.
        shift: Summand after the factor.
    """

    source: str
    model: str
    images: ImageShape
    input_size: int | None
    sides: tuple[int, ...]
    taps: tuple[str, ...] | None
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def of(cls, settings: TeacherConfig, data: ImageData, stem: str) -> ForeignSpec:
        """Return the outline that a configuration describes.

        Raises:
            ConfigError: If the normalisation has another number of channels.
        """
        mean, std = settings.mean, settings.std
        if mean is None and settings.source == "torchvision" and settings.weights is not None:
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        scale: tuple[float, ...] = (1.0,)
        shift: tuple[float, ...] = (0.0,)
        if mean is not None and std is not None:
            if data.in_channels not in (1, len(mean)):
                raise ConfigError("distill.teacher.mean", mean, f"{data.in_channels} values, one per channel")
            pairs = [(data.mean[i % data.in_channels], data.std[i % data.in_channels]) for i in range(len(mean))]
            scale = tuple(ours / theirs for (_, ours), theirs in zip(pairs, std, strict=True))
            shift = tuple((ours - theirs) / width for (ours, _), theirs, width in zip(pairs, mean, std, strict=True))
        return cls(
            source=settings.source,
            model=settings.model or "",
            images=data.shape,
            input_size=settings.input_size,
            sides=stage_sides(data.image_size, stem),
            taps=settings.taps,
            scale=scale,
            shift=shift,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ForeignSpec:
        """Build an outline from :meth:`to_dict`; raises TypeError or KeyError for other data."""
        taps, size = data["taps"], data["input_size"]
        return cls(
            source=str(data["source"]),
            model=str(data["model"]),
            images=ImageShape.from_dict(data),
            input_size=None if size is None else int(size),
            sides=tuple(map(int, data["sides"])),
            taps=None if taps is None else tuple(map(str, taps)),
            scale=tuple(map(float, data["scale"])),
            shift=tuple(map(float, data["shift"])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, all on one level."""
        data = asdict(self)
        head = {name: data.pop(name) for name in ("source", "model")}
        return {**head, **data.pop("images"), **data}


def stage_sides(image_size: int, stem: str, num_stages: int = 3) -> tuple[int, ...]:
    """Return the sides in pixels of a network of ours at its stage ends: each reduction halves, rounded up.

    >>> stage_sides(28, "cifar"), stage_sides(224, "imagenet")
    ((28, 14, 7), (28, 14, 7))
    """
    side = image_size
    for _ in range(HALVINGS[stem]):
        side = -(-side // 2)
    return tuple(-(-side // 2**stage) for stage in range(num_stages))
