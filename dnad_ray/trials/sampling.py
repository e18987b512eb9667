"""Settings of a sweep: every combination of a grid, or values drawn from ranges."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.errors import ConfigError
from dnad_ray.text import install_command

__all__ = ["check_sampler", "corners", "trial_configs"]

# Set once per run: varied, they would have no effect, or would not fit the one teacher.
_SHARED = ("seed", "sweep", "watch", "data", "space.stem", "distill.teacher", "train.num_processes")
_MOST_CORNERS = 256


def trial_configs(config: RunConfig) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    """Yield the trials of a sweep that are known before it begins, as (overrides, resolved config).

    A grid is repeated under one seed after the other. Trials that are drawn at random all have the run's seed, so
    that they differ by their setting only; what is drawn depends on that seed and on nothing else. The trials of
    Optuna depend on results: none is known beforehand.

    Raises:
        ConfigError: If an unknown key is varied, or a value is impossible or without effect.
    """
    _check_keys(config)
    if config.sweep.sampler == "random":
        generator = np.random.default_rng(config.seed)
        for _ in range(config.sweep.num_trials or 0):
            overrides = {key: entry.draw(generator) for key, entry in config.sweep.ranges.items()}
            overrides["seed"] = config.seed
            yield overrides, with_overrides(config, overrides, "sweep.ranges")
    elif config.sweep.sampler == "grid":
        yield from _grid(config)


def corners(config: RunConfig) -> Iterator[RunConfig]:
    """Yield the configurations at the ends of all ranges, because an impossible range is nearly always so at an end.

    Raises:
        ConfigError: If one of them is impossible.
    """
    ends = {key: entry.values for key, entry in config.sweep.ranges.items()}
    for corner in itertools.islice(itertools.product(*ends.values()), _MOST_CORNERS if ends else 0):
        yield with_overrides(config, dict(zip(ends, corner, strict=True)), "sweep.ranges")


def check_sampler(config: RunConfig) -> None:
    """Check what is varied: the keys, the ends of all ranges together, and that the sampler is installed.

    Raises:
        ConfigError: If a key or a value is impossible, or a package is missing.
    """
    _check_keys(config)
    list(corners(config))
    if config.sweep.sampler == "optuna" and find_spec("optuna") is None:
        raise ConfigError(
            "sweep.sampler", "optuna", f"grid or random, or the package it needs: {install_command('optuna')}"
        )


def _check_keys(config: RunConfig) -> None:
    for name in ("grid", "ranges"):
        for key in getattr(config.sweep, name):
            if any(f"{key}.".startswith(f"{shared}.") for shared in _SHARED):
                shared = "what all trials share (data.*, space.stem, distill.teacher.*, train.num_processes)"
                raise ConfigError(
                    f"sweep.{name}",
                    key,
                    f"any key but seed (see sweep.num_trials, --more-seeds), sweep.*, watch.*, and {shared}",
                )


def _grid(config: RunConfig) -> Iterator[tuple[dict[str, Any], RunConfig]]:
    keys = list(config.sweep.grid)
    for key in keys:
        if not config.sweep.grid[key]:
            raise ConfigError(f"sweep.grid.{key}", [], "at least one value")
        values = list(config.sweep.grid[key])
        if any(value in values[:index] for index, value in enumerate(values)):
            allowed = "different values; sweep.num_trials repeats a grid under more seeds"
            raise ConfigError(f"sweep.grid.{key}", values, allowed)
    settings = list(itertools.product(*(config.sweep.grid[key] for key in keys)))
    for index in range(config.sweep.num_trials or len(settings)):
        setting: Sequence[Any] = settings[index % len(settings)]
        overrides = dict(zip(keys, setting, strict=True)) | {"seed": config.seed + index // len(settings)}
        yield overrides, with_overrides(config, overrides, "sweep.grid")
