"""Settings chosen by Optuna's multi-objective search, through Tune (may import ray; needs the package optuna).

A trial is not one point but a trajectory of networks. Its objectives are therefore the lowest errors that it reached
within each of a few levels of MACs (``sweep.cost_levels``, shares of the dense network's), all minimised: a setting
beats another if it is better for small and for large networks. A trial without a network as small as a level has an
error of 1 there.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.optuna import OptunaSearch

from dnad_ray.config.run import RunConfig
from dnad_ray.config.sweep import Range
from dnad_ray.costs.table import costs_of
from dnad_ray.data.loading import ImageData
from dnad_ray.errors import ConfigError
from dnad_ray.networks.search_space import space_of
from dnad_ray.trials.dominance import Trajectories, lowest_errors
from dnad_ray.trials.spec import TrialSpec
from search_spaces.json_reader import parse_json
from search_spaces.shape import NetworkShape

__all__ = ["OptunaSampler"]

_STUDY = "dnad-ray"


@final
class OptunaSampler:
    """Asks Optuna through Tune's ``OptunaSearch``. After a resume, the trials in the run folder are added first.

    Args:
        config: The run: its ranges, levels and seed.
        ended: Finished trials.
        trajectories: The snapshots of all trials, those of ``ended`` included.
        data: Images; their shape gives the costs of networks.

    Raises:
        ConfigError: If a finished trial has a value outside the ranges.
    """

    def __init__(
        self, config: RunConfig, ended: Sequence[TrialSpec], trajectories: Trajectories, data: ImageData
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._ranges, self._trajectories = config.sweep.ranges, trajectories
        dense = _dense_macs(config, data)
        self._levels = [share * dense for share in config.sweep.cost_levels]
        self._space = {key: _distribution(entry) for key, entry in self._ranges.items()}
        # With the same seed, a resumed sampler would choose the settings of the first trials again.
        seed = int(np.random.SeedSequence([config.seed, len(ended)]).generate_state(1)[0])
        storage = optuna.storages.InMemoryStorage()
        names, modes = [f"error_{number}" for number in range(len(self._levels))], ["min"] * len(self._levels)
        self._search = OptunaSearch(
            self._space, metric=names, mode=modes, storage=storage, study_name=_STUDY, seed=seed
        )
        self._names, self._asked = names, set[str]()
        self._study = optuna.load_study(study_name=_STUDY, storage=storage)
        for spec in ended:
            self._add(spec)

    def ask(self, trial_id: str) -> dict[str, Any]:
        """Return the config values to try next, without a seed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            values: dict[str, Any] = self._search.suggest(trial_id) or {}
        self._asked.add(trial_id)
        return {
            key: parse_json(value.encode(), key) if self._ranges[key].choice is not None else value
            for key, value in values.items()
        }

    def tell(self, trial_id: str, spec: TrialSpec, has_failed: bool) -> None:
        """Report the end of a trial, also of one whose settings an earlier command chose."""
        if trial_id in self._asked:
            result = None if has_failed else dict(zip(self._names, self._values(spec), strict=True))
            self._search.on_trial_complete(trial_id, result, has_failed)
        elif not has_failed:
            self._add(spec)

    def _add(self, spec: TrialSpec) -> None:
        known = {key: spec.overrides[key] for key in self._ranges if key in spec.overrides}
        params = {key: json.dumps(value) if self._ranges[key].choice else value for key, value in known.items()}
        try:
            trial = optuna.trial.create_trial(
                values=self._values(spec), params=params, distributions={key: self._space[key] for key in known}
            )
        except ValueError as error:
            raise ConfigError(f"what {spec.name} changes", known, f"values within sweep.ranges ({error})") from error
        self._study.add_trial(trial)

    def _values(self, spec: TrialSpec) -> list[float]:
        return lowest_errors(self._trajectories.of(spec.name), self._levels)


def _dense_macs(config: RunConfig, data: ImageData) -> int:
    named = config.space
    shape = NetworkShape(images=data.shape, init_channels=config.evaluation.init_channels, stem=named.stem)
    dense = space_of(named).dense()
    return int(costs_of(dense, shape).macs)


def _distribution(entry: Range) -> BaseDistribution:
    if entry.choice is not None:
        # Optuna takes plain values only, so a list such as train.betas becomes JSON text.
        return CategoricalDistribution([json.dumps(value) for value in entry.choice])
    low, high = entry.values
    if entry.integer is not None:
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=entry.loguniform is not None)
