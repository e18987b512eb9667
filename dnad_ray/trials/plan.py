"""The trials of a run: those of its configuration, and those that were added to its folder later.

A trial that does not follow from the configuration (chosen by Optuna, or a new seed of a setting on the front) is
stored with its changes before it starts. A resume reads and validates them like any other configuration, and never
needs the state of a sampler.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from dnad_ray.config.run import RunConfig
from dnad_ray.config.section import MOST_TRIALS
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.run_folder.layout import checkpoints_folder, snapshots_folder, trial_folder
from dnad_ray.run_folder.reading import RunContents, read_status
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import write_status
from dnad_ray.storage.places import Place, address
from dnad_ray.trials.dominance import Trajectories, Verdict
from dnad_ray.trials.spec import TrialSpec, spec_of, trials_of

__all__ = [
    "Sampler",
    "choose",
    "end_dominated",
    "end_trial",
    "is_complete",
    "more_seeds",
    "recorded_before",
    "register",
    "trials_in",
    "unfinished",
]


class Sampler(Protocol):
    """Chooses settings and learns from their results."""

    def ask(self, trial_id: str) -> dict[str, Any]:
        """Return the config values to try next, without a seed."""

    def tell(self, trial_id: str, spec: TrialSpec, has_failed: bool) -> None:
        """Report the end of a trial, also of one whose settings were not chosen here."""


def trials_in(config: RunConfig, stored: RunContents | None) -> list[TrialSpec]:
    """Return the trials of a run in the order in which they start: as planned, then those that were added.

    Args:
        config: The run.
        stored: The run folder; None for a run that has none yet.

    Raises:
        ConfigError: If what is varied, or what the folder says that a trial changes, is impossible.
        RunFolderError: If the folder has records of a trial, but not its setting.
    """
    planned = {spec.name: spec for spec in trials_of(config)}
    recorded = {}
    for name, status in ({} if stored is None else stored.status).items():
        overrides = status.get("overrides")
        if isinstance(overrides, dict) and overrides and not (name in planned and planned[name].is_chosen):
            recorded[name] = spec_of(config, name, overrides)
    if stored is not None:
        chosen = {name for name, spec in planned.items() if spec.is_chosen}
        _check_settings(stored, stored.status.keys() - recorded.keys() - chosen)
    added = sorted((name for name in recorded if name not in planned), key=lambda name: (len(name), name))
    return [recorded.get(name, spec) for name, spec in planned.items()] + [recorded[name] for name in added]


def _check_settings(stored: RunContents, names: Collection[str]) -> None:
    """Check that no trial without a known setting has records: a new one of its name would continue them."""
    for name in sorted(names):
        if _has_records(stored.path, name):
            given = f"{address(stored.path)}, whose trial {name} has records, but no setting in its status.json"
            allowed = f"a run whose trials have settings; remove {address(trial_folder(stored.path, name))} to go on"
            raise RunFolderError("--resume with --out", given, allowed)


def _has_records(folder: Place, trial: str) -> bool:
    """Whether a trial has left anything to continue from, or to show."""
    return any(
        next(iter(part.glob("*")), None)
        for part in (checkpoints_folder(folder, trial), snapshots_folder(folder, trial))
    )


def register(folder: Place, spec: TrialSpec) -> None:
    """Store a trial that is about to start, unless it is stored already."""
    if read_status(folder, spec.name)["state"] is TrialState.UNKNOWN:
        write_status(folder, spec.name, TrialState.PENDING, overrides=dict(spec.overrides))


def choose(config: RunConfig, folder: Place, name: str, sampler: Sampler, trial_id: str) -> TrialSpec:
    """Let a sampler choose the setting of a trial, and store it before the trial starts.

    Args:
        config: The run.
        folder: The run folder.
        name: The trial.
        sampler: Chooses.
        trial_id: The name of the trial for the sampler.

    Raises:
        ConfigError: If it chose an impossible value.
    """
    spec = spec_of(config, name, {**sampler.ask(trial_id), "seed": config.seed})
    register(folder, spec)
    return spec


def recorded_before(
    config: RunConfig, specs: Sequence[TrialSpec], num_images: int, stored: RunContents | None
) -> Trajectories:
    """Return the snapshots that the trials recorded in earlier commands, for samplers and the Pareto scheduler.

    Args:
        config: The run.
        specs: All its trials.
        num_images: Validation images.
        stored: The run folder; None for a new run.
    """
    known = Trajectories(num_images, config.sweep.noise_factor, config.sweep.patience)
    settings = {spec.name: spec.setting for spec in specs}
    for row in [] if stored is None else stored.snapshots:
        if row["kind"] != "ladder":  # a trial is judged by what it is, not by what it might become
            known.add(row["trial"], settings.get(row["trial"], ""), row["step"], row["macs"], 1 - row["proxy_accuracy"])
    return known


def end_trial(folder: Place, name: str, state: TrialState, reason: str, **more: Any) -> None:
    """Store why a trial ended from outside of its search; what its status says besides stays."""
    known = {key: value for key, value in read_status(folder, name).items() if key not in ("state", "reason")}
    write_status(folder, name, state, reason=reason, **(known | more))


def end_dominated(folder: Place, name: str, verdict: Verdict, device_seconds: float) -> None:
    """Store that a trial was stopped because it is dominated; it never continues.

    Args:
        folder: The run folder.
        name: The trial.
        verdict: Why.
        device_seconds: Its compute up to its last record.
    """
    end_trial(folder, name, TrialState.DOMINATED, str(verdict), device_seconds=device_seconds)


def more_seeds(
    config: RunConfig, specs: Sequence[TrialSpec], names: Collection[str], num_seeds: int
) -> list[TrialSpec]:
    """Return new trials: each setting that some trials have, under seeds that it has not had yet.

    Args:
        config: The run.
        specs: All its trials.
        names: Trials whose settings are wanted, for example those on the front.
        num_seeds: New seeds for each setting.

    Raises:
        ConfigError: If none of these trials exists, or the run would have too many.
    """
    wanted = {spec.setting: spec for spec in reversed(specs) if spec.name in names and spec.is_chosen}
    if not wanted:
        raise ConfigError("--more-seeds", num_seeds, "a run with snapshots on its front")
    if len(specs) + num_seeds * len(wanted) > MOST_TRIALS:
        raise ConfigError("--more-seeds", num_seeds, f"so few that the run has at most {MOST_TRIALS:,} trials")
    width = len(specs[-1].name) - 1
    added: list[TrialSpec] = []
    for setting, spec in reversed(wanted.items()):
        last = max(other.config.seed for other in specs if other.setting == setting)
        for seed in range(last + 1, last + 1 + num_seeds):
            name = f"t{len(specs) + len(added):0{width}d}"
            added.append(spec_of(config, name, {**spec.overrides, "seed": seed}))
    return added


def is_complete(specs: Sequence[TrialSpec], stored: RunContents | None) -> bool:
    """Whether all trials of a run have ended."""
    return not unfinished(specs, stored)


def unfinished(specs: Sequence[TrialSpec], stored: RunContents | None) -> list[TrialSpec]:
    """Return the trials that have not ended, by what the run folder held; None for a run that has none yet."""
    status = {} if stored is None else stored.status
    return [spec for spec in specs if not status.get(spec.name, {"state": TrialState.UNKNOWN})["state"].is_finished]
