"""How a found network is trained from scratch: settings, and the recipes of the papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dnad_ray.config.section import Count, NonNegative, Positive, RefusedError, Section, Share, config_error
from dnad_ray.errors import ConfigError

__all__ = ["RETRAIN_RECIPES", "RetrainConfig", "retrain_recipe", "with_settings"]


class RetrainConfig(Section):
    """One protocol: what is equal for all networks that are to be compared."""

    epochs: Count = 600
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2)] = 96
    """Images per step."""
    learning_rate: Positive = 0.025
    """Peak step size of SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 3e-4
    """L2 weight decay, on all parameters."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the step size falls to zero, step by step."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the step size first rises linearly."""
    grad_clip: Positive = 5.0
    """Largest gradient norm."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of the auxiliary head's loss; 0 builds none."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Drop-path probability of the last epoch for a network of 8 operations a cell or fewer; it rises from 0."""
    drop_path_per_operation: NonNegative = 0.15 / 112
    """What each operation beyond 8 a cell adds to it."""
    augment: Literal["auto", "none", "imagenet"] = "auto"
    """`auto` as in the search; `imagenet` random resized crops, mirror images and colour jitter."""
    cutout: Annotated[int, Field(ge=0)] = 16
    """Side of the square that is blanked in each training image, in pixels of a 32 x 32 image; scaled with the size."""
    init_channels: Annotated[int, Field(ge=2, le=1024)] | None = 36
    """Width C; None takes that at which the run counted its networks."""
    ema_decay: Share | None = None
    """Decay per step of the moving average of the weights that is measured; None measures the weights themselves."""
    kd_weight: NonNegative = 0.0
    """Weight of imitating the logits of the run's teacher; 0 for no teacher."""
    kd_temperature: Positive = 4.0
    """Temperature of that imitation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs convolutions in half precision, norms and losses in full; verified on CPUs only."""
    num_processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that share every batch by DistributedDataParallel, each on a GPU or CPUs of its own."""
    recalibration_images: Annotated[int, Field(ge=0)] = 1024
    """Training images on which batch-norm statistics of inherited or averaged weights are re-estimated."""

    @model_validator(mode="after")
    def _fits(self) -> RetrainConfig:
        if self.warmup_epochs >= self.epochs:
            raise RefusedError("warmup_epochs", self.warmup_epochs, f"less than epochs ({self.epochs})")
        if self.batch_size % self.num_processes or self.batch_size < 2 * self.num_processes:
            allowed = f"what divides batch_size ({self.batch_size}) into parts of 2 images or more"
            raise RefusedError("num_processes", self.num_processes, allowed)
        return self


def cifar() -> RetrainConfig:
    """The CIFAR protocol of DARTS and DNAD: 600 epochs, C = 36, cutout, auxiliary head, drop-path, cosine."""
    return RetrainConfig()


def imagenet_mobile() -> RetrainConfig:
    """The ImageNet-mobile protocol: 250 epochs, C = 48, batch 512, label smoothing, warm-up, linear decay."""
    return RetrainConfig(
        epochs=250,
        batch_size=512,
        learning_rate=0.25,
        weight_decay=3e-5,
        schedule="linear",
        warmup_epochs=5,
        label_smoothing=0.1,
        drop_path=0.0,
        drop_path_per_operation=0.0,
        augment="imagenet",
        cutout=0,
        init_channels=48,
    )


def quick() -> RetrainConfig:
    """A small budget: 30 epochs at the run's own width, without auxiliary head, drop-path and cutout."""
    return RetrainConfig(
        epochs=30,
        batch_size=64,
        learning_rate=0.05,
        auxiliary_weight=0.0,
        drop_path=0.0,
        drop_path_per_operation=0.0,
        cutout=0,
        init_channels=None,
    )


RETRAIN_RECIPES: dict[str, Callable[[], RetrainConfig]] = {
    "cifar": cifar,
    "imagenet-mobile": imagenet_mobile,
    "quick": quick,
}
"""Name -> function that returns complete settings."""


def retrain_recipe(name: str) -> RetrainConfig:
    """Return the settings of a recipe.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in RETRAIN_RECIPES:
        raise ConfigError("--recipe", name, ", ".join(RETRAIN_RECIPES))
    return RETRAIN_RECIPES[name]()


def with_settings(config: RetrainConfig, overrides: Mapping[str, Any], origin: str = "--set") -> RetrainConfig:
    """Return a copy with some settings replaced, validated as a whole.

    Raises:
        ConfigError: If a setting does not exist or a value is impossible.

    >>> with_settings(quick(), {"epochs": 3}).epochs
    3
    """
    for name in overrides:
        if name not in RetrainConfig.model_fields:
            raise ConfigError(origin, name, ", ".join(RetrainConfig.model_fields))
    try:
        return RetrainConfig.model_validate(config.model_dump() | dict(overrides))
    except ValidationError as error:
        raise config_error(error, RetrainConfig, f"{origin} ") from None
