"""Schedules of KD weight and KD temperature over a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from dnad_ray.config.distill import DistillConfig

__all__ = ["SCHEDULES", "Strength", "changes", "strength_at"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 0.0,
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}
"""Name -> function from the completed share of the search to the position between first (0) and last value (1)."""


class Strength(NamedTuple):
    """How strongly a teacher is imitated in a step.

    Attributes:
        weight: KD weight lambda.
        temperature: KD temperature T; None if no kind has one.
    """

    weight: float
    temperature: float | None


def strength_at(config: DistillConfig, progress: float) -> Strength:
    """Return weight and temperature of a step.

    Args:
        config: First and last values.
        progress: Completed steps divided by the number of steps before the last one, 0 to 1. A search that ends early
            at its floor does not reach the end of a schedule.

    >>> strength_at(DistillConfig(kind="logits", weight_schedule="linear"), 0.25)
    Strength(weight=0.75, temperature=4.0)
    """
    way = SCHEDULES[config.weight_schedule](progress)
    weight = _between(config.weight, config.weight_end or 0.0, way)
    if config.temperature is None:
        return Strength(weight, None)
    end = 1.0 if config.temperature_end is None else config.temperature_end
    return Strength(weight, _between(config.temperature, end, SCHEDULES[config.temperature_schedule](progress)))


def changes(config: DistillConfig) -> bool:
    """Whether weight or temperature differ between steps."""
    return {config.weight_schedule, config.temperature_schedule} != {"constant"}


def _between(first: float, last: float, way: float) -> float:
    return first if way == 0 else last if way == 1 else first + (last - first) * way
