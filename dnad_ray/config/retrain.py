"""Settings for training a network from scratch, and recipes with the settings of the papers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dnad_ray.config.section import (
    Count,
    CountOrZero,
    Decay,
    NonNegative,
    Positive,
    RefusedError,
    Section,
    Share,
    config_error,
)
from dnad_ray.errors import ConfigError

__all__ = ["RETRAIN_RECIPES", "RetrainConfig", "retrain_recipe", "with_settings"]


class RetrainConfig(Section):
    """A training protocol: the settings that are equal for all networks of a comparison."""

    epochs: Count = 600
    """Number of training epochs."""
    batch_size: Annotated[Count, Field(ge=2)] = 96
    """Images per training step."""
    learning_rate: Positive = 0.025
    """Peak learning rate of SGD."""
    momentum: Decay = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 3e-4
    """L2 weight decay of all parameters."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's."""
    schedule: Literal["cosine", "linear", "one_cycle"] = "cosine"
    """Decay of the learning rate to zero, at every step. `one_cycle`: it rises in the first 30 % of the steps, and the
    momentum falls by 0.1 meanwhile."""
    warmup_epochs: CountOrZero = 0
    """Epochs at the start in which the learning rate rises linearly."""
    grad_clip: Positive = 5.0
    """Maximum gradient norm; larger gradients are scaled down to it."""
    label_smoothing: Decay = 0.0
    """Label smoothing: share of the target that is distributed over all classes."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of the auxiliary head's loss. 0: no auxiliary head."""
    drop_path: Decay = 0.3
    """Drop-path probability in the last epoch (it rises from 0), for networks of at most 8 operations per cell."""
    drop_path_per_operation: NonNegative = 0.15 / 112
    """Additional drop-path probability for each operation per cell beyond 8."""
    augment: Literal["auto", "none", "imagenet"] = "auto"
    """`auto`: as in the search. `imagenet`: random resized crops, horizontal flips and colour jitter. `none`: none."""
    cutout: CountOrZero = 16
    """Side of the cutout square in pixels of a 32 x 32 image; it is scaled with the image size. 0: no cutout."""
    init_channels: Annotated[int, Field(ge=2, le=1024)] | None = 36
    """Width C. None takes the width in the front's record, or else `evaluation.init_channels` of the run."""
    ema_decay: Share | None = None
    """Decay per step of the moving average of the weights, which is then tested. None tests the weights themselves."""
    kd_weight: NonNegative = 0.0
    """Weight of the KD loss on the logits of the run's teacher. 0: no teacher."""
    kd_temperature: Positive = 4.0
    """Temperature of that KD loss."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` uses a GPU if there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: convolutions in half precision, norms and losses in float32; tested on CPUs only."""
    num_processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Number of processes that share each batch (DistributedDataParallel). Each has its own GPU or CPUs."""
    recalibration_images: CountOrZero = 1024
    """Training images for new batch-norm statistics, if weights are inherited or averaged."""

    @model_validator(mode="after")
    def _fits(self) -> RetrainConfig:
        if self.warmup_epochs and self.schedule == "one_cycle":
            why = "which has no effect with schedule 'one_cycle'"
            raise RefusedError("warmup_epochs", self.warmup_epochs, "0, or another schedule", why)
        if self.warmup_epochs >= self.epochs:
            raise RefusedError("warmup_epochs", self.warmup_epochs, f"less than epochs ({self.epochs})")
        if self.batch_size % self.num_processes or self.batch_size < 2 * self.num_processes:
            allowed = f"what divides batch_size ({self.batch_size}) into parts of 2 images or more"
            raise RefusedError("num_processes", self.num_processes, allowed)
        if self.nesterov and not self.momentum:
            raise RefusedError("nesterov", self.nesterov, "false without a momentum")
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
    """A small budget: 30 epochs in one cycle at the run's own width, without auxiliary head, drop-path and cutout."""
    return RetrainConfig(
        epochs=30,
        batch_size=64,
        learning_rate=0.1,
        momentum=0.95,
        nesterov=True,
        weight_decay=5e-4,
        schedule="one_cycle",
        label_smoothing=0.1,
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
"""The recipes by name."""


def retrain_recipe(name: str) -> RetrainConfig:
    """Return the settings of a recipe.

    Raises:
        ConfigError: If there is no recipe of this name.
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
        raise config_error(error, RetrainConfig, f"{origin}: ") from None
