"""One trial of a run: its name, its setting, and its complete configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dnad_ray.config.run import RunConfig, with_overrides
from dnad_ray.trials.sampling import corners, trial_configs

__all__ = ["TrialSpec", "setting_of", "spec_of", "trials_of"]


@dataclass(frozen=True)
class TrialSpec:
    """One trial of a run.

    Attributes:
        name: Name of its folder.
        overrides: Changes of the run's configuration, with at least the seed. Empty until a sampler that learns from
            results has chosen.
        config: Its complete configuration.
    """

    name: str
    overrides: Mapping[str, Any]
    config: RunConfig

    @property
    def is_chosen(self) -> bool:
        """Whether the setting of the trial is known yet."""
        return bool(self.overrides)

    @property
    def setting(self) -> str:
        """Setting of the trial: equal for trials that differ only in their seed."""
        return setting_of(self.overrides)

    @property
    def label(self) -> str:
        """The overrides as a short text for a progress line."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.overrides.items())


def spec_of(config: RunConfig, name: str, overrides: Mapping[str, Any]) -> TrialSpec:
    """Return the trial of a run that changes its configuration so.

    Raises:
        ConfigError: If an override is impossible.
    """
    return TrialSpec(name, dict(overrides), with_overrides(config, overrides, name))


def setting_of(overrides: Mapping[str, Any]) -> str:
    """Return the canonical text of overrides without their seed."""
    return json.dumps({key: value for key, value in overrides.items() if key != "seed"}, sort_keys=True)


def trials_of(config: RunConfig) -> list[TrialSpec]:
    """Return the trials of a sweep, in the order in which they start; those of Optuna are not chosen yet.

    Raises:
        ConfigError: If a combination of what is varied is impossible or has no effect.
    """
    pairs = list(trial_configs(config))
    if config.sweep.sampler == "optuna":
        # Before the settings are chosen, a trial counts as one with a teacher if it can become one.
        likely = next((corner for corner in corners(config) if corner.distill.uses_teacher), config)
        pairs = [({}, likely)] * (config.sweep.num_trials or 0)
    digits = max(2, len(str(len(pairs) - 1)))
    return [TrialSpec(f"t{i:0{digits}d}", overrides, trial) for i, (overrides, trial) in enumerate(pairs)]
