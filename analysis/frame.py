"""Run folders as tidy frames: a row is a snapshot, or an epoch of a trial; finished or not."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd
from upath import UPath

from dnad_ray.errors import RunFolderError
from dnad_ray.places import address, place
from dnad_ray.records import SNAPSHOT_COLUMNS, EpochReport, Snapshot, metric
from dnad_ray.store import RunContents, read_run

__all__ = [
    "HISTORY_COLUMNS",
    "RunWarning",
    "history_frame",
    "load_history",
    "load_runs",
    "read_runs",
    "setting_of",
    "snapshot_frame",
    "to_records",
]

_Path = str | os.PathLike[str] | UPath
Paths = _Path | Iterable[_Path]

# Snapshots carry what their own trial used, so they overrule the configuration of the run where both speak.
_TWINS = {
    "seed": "seed",
    "shrink.rate": "shrink_rate",
    "distill.kind": "kd_kind",
    "distill.weight": "kd_weight",
    "distill.temperature": "kd_temperature",
}
_SNAPSHOT_TYPES = {field.name: str(field.type) for field in fields(Snapshot)}
_EPOCH_TYPES = {field.name: str(field.type) for field in fields(EpochReport)}
_DTYPES = {"bool": "bool", "int": "int64", "float": "float64", "float | None": "float64"}

HISTORY_COLUMNS: tuple[str, ...] = ("run", "trial", *_EPOCH_TYPES, *_TWINS.values())
"""Columns of :func:`load_history`, in order."""


class RunWarning(UserWarning):
    """Something in a run folder could not be read; everything else was."""


def load_runs(paths: Paths) -> pd.DataFrame:
    """Read run folders, finished or still running, into one frame with a row per snapshot.

    Args:
        paths: A run folder or several, as paths or URLs; a folder that is given twice counts once.

    Returns:
        Columns :data:`dnad_ray.records.SNAPSHOT_COLUMNS`, then ``error`` (1 - ``proxy_accuracy``), ``run_path``
        (absolute folder or URL) and ``config.*``: the resolved configuration that the snapshot's trial ran with, one
        column per key, lists as JSON text. Ordered by run, trial and step. Runs that share a name are told apart
        by the end of their path. No snapshot at all gives a frame without rows.

    Raises:
        RunFolderError: If no folder is given, or one is missing, holds no run or is of a newer schema.

    Warns:
        RunWarning: For each file, snapshot or epoch report that cannot be read.
    """
    return snapshot_frame(read_runs(paths))


def load_history(paths: Paths) -> pd.DataFrame:
    """Read the epoch reports of run folders into one frame with a row per trial and epoch.

    Args:
        paths: A run folder or several, as for :func:`load_runs`.

    Returns:
        Columns :data:`HISTORY_COLUMNS`: run, trial, the fields of :class:`dnad_ray.records.EpochReport`, and what the
        trial's snapshots say about it (seed, shrink rate, imitation), missing while it has none.

    Raises:
        RunFolderError: As :func:`load_runs`.

    Warns:
        RunWarning: As :func:`load_runs`.
    """
    return history_frame(read_runs(paths))


def read_runs(paths: Paths) -> tuple[RunContents, ...]:
    """Read run folders as plain data with unique names; records that are not what they should be are left out.

    Args:
        paths: A run folder or several, as for :func:`load_runs`.

    Returns:
        The contents in the order given. What was left out stands in their ``problems``.

    Raises:
        RunFolderError: As :func:`load_runs`.

    Warns:
        RunWarning: As :func:`load_runs`.
    """
    given = [paths] if isinstance(paths, str | os.PathLike | UPath) else list(paths)
    folders = list(dict.fromkeys(place(path).resolve() for path in given))
    if not folders:
        raise RunFolderError("run folders", given, "at least one run folder")
    runs = _with_unique_names([_checked(read_run(folder)) for folder in folders])
    for run in runs:
        for problem in run.problems:
            warnings.warn(f"run {run.name}: {problem}", RunWarning, stacklevel=3)
    return tuple(runs)


def snapshot_frame(runs: Sequence[RunContents]) -> pd.DataFrame:
    """Return the frame that :func:`load_runs` describes."""
    # The name in the file is not unique among several runs.
    rows = [row | {"run": run.name, "run_path": address(run.path)} for run in runs for row in run.snapshots]
    types = _SNAPSHOT_TYPES | {"run_path": "str"}
    frame = pd.DataFrame({name: _column(rows, name, kind) for name, kind in types.items()})
    frame.insert(len(SNAPSHOT_COLUMNS), "error", 1.0 - frame["proxy_accuracy"])
    configs = {(run.name, trial): _trial_config(run, trial) for run in runs for trial in _trials(run)}
    # Columns and their types follow from all trials and runs, so they are there before the first snapshot.
    known = [*configs.values(), *(_flattened(run.config) for run in runs if not _trials(run))]
    trials = list(zip(frame["run"], frame["trial"], strict=True))
    columns: dict[str, pd.Series[Any]] = {}
    for key in dict.fromkeys(key for config in known for key in config):
        dtype = pd.Series([config.get(key) for config in known]).dtype
        values = [configs[trial].get(key) for trial in trials]
        columns[f"config.{key}"] = pd.Series(values, index=frame.index, dtype=dtype)
    both: pd.DataFrame = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
    return both


def history_frame(runs: Sequence[RunContents]) -> pd.DataFrame:
    """Return the frame that :func:`load_history` describes."""
    rows = []
    for run in runs:
        for trial, history in run.history.items():
            first = next((row for row in run.snapshots if row["trial"] == trial), {})
            about = {"run": run.name, "trial": trial} | {name: first.get(name) for name in _TWINS.values()}
            rows += [entry | about for entry in history]
    types = _SNAPSHOT_TYPES | _EPOCH_TYPES
    frame: pd.DataFrame = pd.DataFrame(
        {name: _column(rows, name, types[name]) for name in HISTORY_COLUMNS if name != "seed"}
    )
    seeds = pd.Series([row["seed"] for row in rows], index=frame.index, dtype="Int64")  # the one integer that may miss
    frame.insert(HISTORY_COLUMNS.index("seed"), "seed", seeds)
    return frame


def setting_of(frame: pd.DataFrame) -> pd.Series[Any]:
    """Name the setting of each snapshot: what differs between the trials of a run, without the seed.

    Args:
        frame: Snapshots as :func:`load_runs` returns them.

    Returns:
        Ordered categories, for example ``Shrink rate 0.05, KD temperature 4``, sorted by value, with the run's name
        in front where there are several; just ``all trials`` where nothing differs. It is one per trial.
    """
    twins = {f"config.{key}" for key in _TWINS} | {"config.seed"}
    config = [name for name in frame if str(name).startswith("config.") and name not in twins]
    names = [name for name in _TWINS.values() if name != "seed"] + [
        str(name) for name in config if not str(name).startswith("config.sweep.")
    ]
    # A controller may change its rate on the way: what a trial began with is what was set.
    first = frame.drop_duplicates(["run", "trial"])
    varied = [name for name in names if first.groupby("run")[name].nunique(dropna=False).gt(1).any()]
    several_runs = first["run"].nunique() > 1
    first = first.sort_values([*(["run"] if several_runs else []), *varied], kind="stable", key=_comparable)
    labels = {}
    for row in first[["run", "trial", *varied]].to_dict("records"):
        parts = [str(row["run"])] * several_runs + [_setting_part(name, row[name]) for name in varied]
        labels[(row["run"], row["trial"])] = ", ".join(part for part in parts if part) or "all trials"
    values = [labels[trial] for trial in zip(frame["run"], frame["trial"], strict=True)]
    categories = list(dict.fromkeys(labels.values()))
    named = pd.Categorical(values, categories, ordered=True)
    settings: pd.Series[Any] = pd.Series(named, index=frame.index, name="setting")
    return settings


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain data for JSON: Python's own numbers, None for what is missing or not finite."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


# -- reading ----------------------------------------------------------------------------------------------------


def _with_unique_names(runs: Sequence[RunContents]) -> list[RunContents]:
    named = []
    for run in runs:
        parts = address(run.path).split("/")
        # Paths are distinct, so the whole path tells the runs apart at the latest.
        others = [address(other.path).split("/") for other in runs if other is not run and other.name == run.name]
        length = next(
            (n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts)
        )
        named.append(replace(run, name=f"{run.name} ({'/'.join(parts[-length:])})") if others else run)
    return named


def _checked(run: RunContents) -> RunContents:
    problems = list(run.problems)
    history: dict[str, list[dict[str, Any]]] = {}
    for trial, entries in run.history.items():
        history[trial] = []
        for number, entry in enumerate(entries, 1):
            try:
                history[trial].append(EpochReport.from_dict(entry).to_dict())
            except (KeyError, TypeError) as error:
                problems.append(f"trial {trial}, epoch report {number} is left out: {error}")
    return replace(run, history=history, problems=tuple(problems))


def _trials(run: RunContents) -> list[str]:
    # A snapshot that is only in the Parquet file has no folder, and thus no status.
    return list(dict.fromkeys([*run.status, *(row["trial"] for row in run.snapshots)]))


def _trial_config(run: RunContents, trial: str) -> dict[str, Any]:
    config = _flattened(run.config)
    overrides = run.status.get(trial, {}).get("overrides")
    if isinstance(overrides, dict):
        config |= _flattened(overrides)
    elif len(_trials(run)) > 1:
        # What a sweep varied and nobody wrote down is not known; the run's own value would be a guess.
        config |= dict.fromkeys((key for key in config if f"sweep.grid.{key}" in config), None)
    first = next((row for row in run.snapshots if row["trial"] == trial), None)
    if first is not None:
        config |= {key: first[column] for key, column in _TWINS.items() if key in config}
    return config


def _flattened(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            scalar = value is None or isinstance(value, str | int | float)
            flat[f"{prefix}{name}"] = value if scalar else json.dumps(value, default=str)
    return flat


# -- frames -----------------------------------------------------------------------------------------------------


def _column(rows: Sequence[Mapping[str, Any]], name: str, kind: str) -> pd.Series[Any]:
    # What has no entry is text, SnapshotKind too; None among numbers becomes NaN.
    column: pd.Series[Any] = pd.Series([row[name] for row in rows], dtype=_DTYPES.get(kind, "str"))
    return column


def _comparable(column: pd.Series[Any]) -> pd.Series[Any]:
    # Values of one key may be of several types (None and text, numbers and text): then their text decides.
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def _setting_part(name: str, value: Any) -> str:
    if pd.isna(value):  # this trial has no such thing, for example no KD temperature
        return ""
    entry = metric(name)
    label = {"kd_kind": "KD"}.get(name, entry.label.removeprefix("config."))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{label} {format(value, entry.format) if number else value}"


def _plain(value: Any) -> Any:
    if pd.isna(value) or value in (math.inf, -math.inf):
        return None
    return value.item() if hasattr(value, "item") else value
