"""Kinds of baselines for a search: random networks, one-level DARTS, and known networks."""

from __future__ import annotations

from dnad_ray.errors import ConfigError
from dnad_ray.networks.torchvision_families import VISION_FAMILIES

__all__ = ["BASELINES", "checked_kinds"]

BASELINES = ("random", "darts", *VISION_FAMILIES)
"""Kinds of baselines."""


def checked_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds in a comma-separated list.

    Raises:
        ConfigError: If one is unknown.

    >>> checked_kinds("random, darts")
    ('random', 'darts')
    """
    kinds = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for kind in kinds:
        if kind not in BASELINES:
            raise ConfigError("--kinds", kind, ", ".join(BASELINES))
    if not kinds:
        raise ConfigError("--kinds", text, ", ".join(BASELINES))
    return kinds
