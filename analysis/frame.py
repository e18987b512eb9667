"""Run folders as data frames: a row per snapshot, or per epoch of a trial. Unfinished runs can be read too."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from analysis.trials import run_and_trial
from dnad_ray.errors import DamagedRunError, RunFolderError, one_line
from dnad_ray.run_folder.fields import FieldKind, checked, kinds_of
from dnad_ray.run_folder.images import changes
from dnad_ray.run_folder.metrics import metric
from dnad_ray.run_folder.reading import RunContents, in_few, read_run
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS, EpochReport, Snapshot
from dnad_ray.storage.places import absolute, address, place
from dnad_ray.text import dotted

__all__ = [
    "HISTORY_COLUMNS",
    "WEIGHT_COLUMNS",
    "RunWarning",
    "history_frame",
    "load_history",
    "load_runs",
    "load_weights",
    "read_runs",
    "series_of",
    "setting_of",
    "snapshot_frame",
    "to_records",
    "unlike_images",
    "weight_frame",
]

_Path = str | os.PathLike[str] | UPath | RunContents
Paths = _Path | Iterable[_Path]

# Snapshots have the settings of their trial, which are preferred to those of the run.
_TWINS = {
    "seed": "seed",
    "shrink.rate": "shrink_rate",
    "distill.kind": "kd_kind",
    "distill.weight": "kd_weight",
    "distill.temperature": "kd_temperature",
}
_SNAPSHOT_KINDS = kinds_of(Snapshot)
_EPOCH_KINDS = {name: kind for name, kind in kinds_of(EpochReport).items() if name != "operation_weights"}

HISTORY_COLUMNS: tuple[str, ...] = ("run", "trial", *_EPOCH_KINDS, *_TWINS.values())
"""Columns of :func:`load_history`, in order."""


WEIGHT_COLUMNS = ("run", "trial", "step", "epoch", "cell", "operation", "weight")
"""Columns of :func:`load_weights`, in order."""


class RunWarning(UserWarning):
    """A part of a run folder could not be read; the rest was."""


def load_runs(paths: Paths, *, config: bool = True) -> pd.DataFrame:
    """Read run folders, finished or still running, into one frame with a row per snapshot.

    Args:
        paths: A run folder or several, as paths, URLs, or contents that :func:`read_run` returned; a folder that is
            given twice counts once.
        config: Whether to add the ``config.*`` columns; a million rows take a third of the memory without them.

    Returns:
        Those of :mod:`dnad_ray.run_folder.records`, then ``error`` (1 - ``proxy_accuracy``), ``run_path``
        (absolute folder or URL) and ``config.*``: the resolved configuration that the snapshot's trial ran with, one
        column per key, lists as JSON text. Ordered by run, trial and step. Runs that share a name are told apart
        by the end of their path. No snapshot at all gives a frame without rows.

    Raises:
        RunFolderError: If no folder is given, or one is missing, holds no run or is of a newer schema, or no run can
            be read.

    Warns:
        RunWarning: For each file, snapshot or epoch report that cannot be read, of many the first few and the number
            of the others; and for a run whose ``run.json`` cannot be read, beside others.
    """
    return snapshot_frame(read_runs(paths), config=config)


def load_history(paths: Paths) -> pd.DataFrame:
    """Read the epoch reports of run folders into one frame with a row per trial and epoch.

    Args:
        paths: A run folder or several, as for :func:`load_runs`.

    Returns:
        Columns :data:`HISTORY_COLUMNS`: run, trial, the fields of an ``EpochReport``, and what the
        trial's snapshots say about it (seed, shrink rate, imitation), missing while it has none.

    Raises:
        RunFolderError: As :func:`load_runs`.

    Warns:
        RunWarning: As :func:`load_runs`.
    """
    return history_frame(read_runs(paths))


def load_weights(paths: Paths) -> pd.DataFrame:
    """Read architecture weights over time: a row per trial, epoch, cell and operation.

    Args:
        paths: A run folder or several, as for :func:`load_runs`.

    Returns:
        Columns :data:`WEIGHT_COLUMNS`; ``weight`` is the mean over the cell's nodes of the summed weights of the
        operation's edges, so that a cell adds up to 1. No row where the version that searched did not keep them.

    Raises:
        RunFolderError: As :func:`load_runs`.
    """
    return weight_frame(read_runs(paths))


def read_runs(paths: Paths) -> tuple[RunContents, ...]:
    """Read run folders as plain data with unique names; wrong records are left out.

    Args:
        paths: A run folder or several, as for :func:`load_runs`.

    Returns:
        The contents in the order given. Their ``problems`` list the left-out records. Of several runs, one whose
        marker cannot be read is left out.

    Raises:
        RunFolderError: As :func:`load_runs`.

    Warns:
        RunWarning: As :func:`load_runs`, and for each run that was made with other images than the first one.
    """
    given = [paths] if isinstance(paths, str | os.PathLike | UPath | RunContents) else list(paths)
    opened = {path.path: path for path in given if isinstance(path, RunContents)}
    folders = dict.fromkeys(path.path if isinstance(path, RunContents) else absolute(place(path)) for path in given)
    if not folders:
        raise RunFolderError("run folders", given, "at least one run folder")
    found, damaged = [], []
    for folder in folders:
        try:
            found.append(_checked(opened.get(folder) or read_run(folder)))
        except DamagedRunError as error:
            damaged.append(error)
    if damaged and not found:
        raise damaged[0]
    runs = _with_unique_names(found)
    for problem in map(one_line, damaged):
        warnings.warn(f"a run is left out: {problem}", RunWarning, stacklevel=3)
    for run in runs:
        for problem in run.problems:
            warnings.warn(f"run {run.name}: {problem}", RunWarning, stacklevel=3)
    for caution in unlike_images(runs):
        warnings.warn(caution, RunWarning, stacklevel=3)
    return tuple(runs)


def unlike_images(runs: Sequence[RunContents]) -> list[str]:
    """Return a caution for each run that was made with other images than the first one.

    Args:
        runs: As :func:`read_runs` returns them. Those of a version that kept no record of the images are compared by
            the name and folder of their data.
    """
    first, *others = runs
    ours, cautions = _images_of(first), []
    for run in others:
        if first.images is not None and run.images is not None:
            words = changes(first.images, run.images)
        else:
            theirs = _images_of(run)
            words = f"{theirs}, not {ours}" if ours != theirs else ""
        if words:
            cautions.append(f"run {run.name} has other images than {first.name} ({words}): errors cannot be compared")
    return cautions


def _images_of(run: RunContents) -> str:
    """Return where the images of a run are, as its configuration says; folders matter for images of the user's own."""
    data = run.config.get("data")
    name, root = (data.get(key) if isinstance(data, dict) else None for key in ("name", "root"))
    return f"{name} {root}" if name == "imagefolder" else str(name)


def snapshot_frame(runs: Sequence[RunContents], *, config: bool = True) -> pd.DataFrame:
    """Return the frame that :func:`load_runs` describes."""
    tables = [run.table for run in runs]
    frame = pd.DataFrame({name: _stacked(tables, name, kind) for name, kind in _SNAPSHOT_KINDS.items()})
    sizes = [table.num_rows for table in tables]
    # The name in the file is not unique among several runs.
    frame["run"] = _repeated([run.name for run in runs], sizes)
    frame.insert(len(SNAPSHOT_COLUMNS), "error", 1.0 - frame["proxy_accuracy"])
    frame.insert(len(SNAPSHOT_COLUMNS) + 1, "run_path", _repeated([address(run.path) for run in runs], sizes))
    both: pd.DataFrame = pd.concat([frame, _config_columns(runs, frame)], axis=1) if config else frame
    return both


def history_frame(runs: Sequence[RunContents]) -> pd.DataFrame:
    """Return the frame that :func:`load_history` describes."""
    rows = []
    for run in runs:
        firsts = _first_rows(run)
        for trial, history in run.history.items():
            first = firsts.get(trial, {})
            about = {"run": run.name, "trial": trial} | {name: first.get(name) for name in _TWINS.values()}
            rows += [entry | about for entry in history]
    kinds = {**_SNAPSHOT_KINDS, **_EPOCH_KINDS}
    frame: pd.DataFrame = pd.DataFrame(
        {name: series_of([row[name] for row in rows], kinds[name]) for name in HISTORY_COLUMNS if name != "seed"}
    )
    seeds = pd.Series([row["seed"] for row in rows], index=frame.index, dtype="Int64")  # the one integer that may miss
    frame.insert(HISTORY_COLUMNS.index("seed"), "seed", seeds)
    return frame


def weight_frame(runs: Sequence[RunContents]) -> pd.DataFrame:
    """Return the frame that :func:`load_weights` describes."""
    rows = [
        (run.name, trial, entry["step"], entry["epoch"], cell, operation, float(weight))
        for run in runs
        for trial, history in run.history.items()
        for entry in history
        for operation, weights in (entry.get("operation_weights") or {}).items()
        for cell, weight in enumerate(weights)
    ]
    types = {"run": "str", "trial": "str", "step": "int64", "epoch": "int64", "cell": "int64", "operation": "str"}
    table: pd.DataFrame = pd.DataFrame(rows, columns=list(WEIGHT_COLUMNS)).astype(types | {"weight": "float64"})
    return table


def setting_of(frame: pd.DataFrame) -> pd.Series[Any]:
    """Name the setting of each snapshot: what differs between the trials of a run, without the seed.

    Args:
        frame: Snapshots as :func:`load_runs` returns them.

    Returns:
        Ordered categories, for example ``Shrink rate 0.05, KD temperature 4``, sorted by value, with the run's name
        in front where there are several; just ``all trials`` where nothing differs. It is one per trial. Points
        without run and trial are of the run ``points``, all of one setting.
    """
    names_of_trials = run_and_trial(frame)
    frame = frame.assign(run=names_of_trials["run"], trial=names_of_trials["trial"])
    twins = {f"config.{key}" for key in _TWINS} | {"config.seed"}
    config = [name for name in frame if str(name).startswith("config.") and name not in twins]
    names = [name for name in _TWINS.values() if name != "seed" and name in frame] + [
        str(name) for name in config if not str(name).startswith("config.sweep.")
    ]
    # A controller may change its rate; the setting is the value at the start.
    trials = frame.groupby(["run", "trial"], sort=False).ngroup().to_numpy()
    first = frame.iloc[np.unique(trials, return_index=True)[1]].reset_index(drop=True)
    # Most columns hold one value, which is found out ten times as fast without groups.
    several = [name for name in names if first[name].nunique(dropna=False) > 1]
    varied = [name for name in several if first.groupby("run")[name].nunique(dropna=False).gt(1).any()]
    several_runs = first["run"].nunique() > 1
    first = first.sort_values([*(["run"] if several_runs else []), *varied], kind="stable", key=_comparable)
    labels = []
    for row in first[["run", *varied]].to_dict("records"):
        parts = [str(row["run"])] * several_runs + [_setting_part(name, row[name]) for name in varied]
        labels.append(", ".join(part for part in parts if part) or "all trials")
    by_trial = pd.Series(labels, index=first.index, dtype=object).sort_index().to_numpy()
    named = pd.Categorical(by_trial[trials], list(dict.fromkeys(labels)), ordered=True)
    settings: pd.Series[Any] = pd.Series(named, index=frame.index, name="setting")
    return settings


def to_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain data for JSON: Python's own numbers, None for missing and infinite values."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


# -- reading ----------------------------------------------------------------------------------------------------


def _with_unique_names(runs: Sequence[RunContents]) -> list[RunContents]:
    alike: dict[str, list[list[str]]] = {}
    for run in runs:
        alike.setdefault(run.name, []).append(address(run.path).split("/"))
    ends = {
        name: Counter("/".join(parts[-n:]) for parts in paths for n in range(1, len(parts)))
        for name, paths in alike.items()
    }
    named = []
    for run in runs:
        parts = address(run.path).split("/")
        # Paths are distinct, so the whole path tells the runs apart at the latest.
        others = ends[run.name]
        end = next((end for n in range(1, len(parts)) if others[end := "/".join(parts[-n:])] == 1), "/".join(parts))
        named.append(replace(run, name=f"{run.name} ({end})") if len(alike[run.name]) > 1 else run)
    return named


def _checked(run: RunContents) -> RunContents:
    problems = list(run.problems)
    history: dict[str, list[dict[str, Any]]] = {}
    for trial, entries in run.history.items():
        history[trial], wrong = [], list[str]()
        for number, entry in enumerate(entries, 1):
            try:
                history[trial].append(checked(EpochReport, entry))
            except (KeyError, TypeError) as error:
                wrong.append(f"trial {trial}, epoch report {number} is left out: {one_line(error)}")
        problems += in_few(wrong, f"epoch reports of trial {trial} are left out")
    return replace(run, history=history, problems=tuple(problems))


def _first_rows(run: RunContents) -> dict[str, dict[str, Any]]:
    """Return the setting of each trial, from its first snapshot."""
    if not run.table.num_rows:
        return {}
    trials = run.table.column("trial").combine_chunks()
    codes = (trials if pa.types.is_dictionary(trials.type) else trials.dictionary_encode()).indices
    rows = np.sort(np.unique(codes.to_numpy(zero_copy_only=False), return_index=True)[1])
    first = run.table.select(["trial", *_TWINS.values()]).take(pa.array(rows))
    return {row["trial"]: row for row in first.to_pylist()}


def _trial_configs(run: RunContents) -> dict[str, dict[str, Any]]:
    """Return the flat configuration of each trial of a run."""
    firsts = _first_rows(run)
    # A snapshot that is only in the Parquet file has no folder, and thus no status.
    trials = list(dict.fromkeys([*run.status, *firsts]))
    base = _flattened(run.config)
    configs = {}
    for trial in trials:
        config = dict(base)
        overrides = run.status.get(trial, {}).get("overrides")
        if isinstance(overrides, dict):
            config |= _flattened(overrides)
        elif len(trials) > 1:
            # A varied setting that the trial did not store is unknown; the run's own value would be a guess.
            config |= dict.fromkeys((key for key in config if f"sweep.grid.{key}" in config), None)
        if trial in firsts:
            config |= {key: firsts[trial][column] for key, column in _TWINS.items() if key in config}
        configs[trial] = config
    return configs


def _config_columns(runs: Sequence[RunContents], frame: pd.DataFrame) -> pd.DataFrame:
    """Return the ``config.*`` columns: one value per trial, spread over its rows."""
    configs = {(run.name, trial): config for run in runs for trial, config in _trial_configs(run).items()}
    # Columns and their types follow from all trials and runs, so they are there before the first snapshot.
    empty = [_flattened(run.config) for run in runs if run.name not in {name for name, _ in configs}]
    known = [*configs.values(), *empty]
    places = (
        pd.MultiIndex.from_tuples([*configs], names=["run", "trial"])
        if configs
        else pd.MultiIndex.from_arrays([[], []], names=["run", "trial"])
    )
    codes = places.get_indexer(pd.MultiIndex.from_frame(frame[["run", "trial"]]))
    columns = {}
    for key in dict.fromkeys(key for config in known for key in config):
        values: pd.Series[Any] = pd.Series([config.get(key) for config in known])
        columns[f"config.{key}"] = values.take(codes).set_axis(frame.index)
    table: pd.DataFrame = pd.DataFrame(columns, index=frame.index)
    return table


def _flattened(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys and single values: lists as JSON, and no column for a section without keys."""
    return {
        key: value if value is None or isinstance(value, str | int | float) else json.dumps(value, default=str)
        for key, value in dotted(data).items()
        if value != {}
    }


# -- frames -----------------------------------------------------------------------------------------------------


def series_of(values: Sequence[Any], kind: FieldKind) -> pd.Series[Any]:
    """Return a column of the values of a field."""
    column: pd.Series[Any] = pd.Series(values, dtype=cast(Any, kind.pandas))
    return column


def _stacked(tables: Sequence[pa.Table], name: str, kind: FieldKind) -> pd.Series[Any]:
    # One conversion for all runs: for a thousand of them, one each would take seconds.
    columns = [table.column(name) for table in tables]
    if len({column.type for column in columns}) > 1:  # text, as a dictionary where it repeats
        columns = [column.cast(kind.arrow) for column in columns]
    chunks = [chunk for column in columns for chunk in column.chunks]
    column = pa.chunked_array(chunks, columns[0].type).unify_dictionaries()
    stacked: pd.Series[Any] = column.to_pandas().astype(kind.pandas)
    return stacked


def _repeated(names: Sequence[str], sizes: Sequence[int]) -> pd.Series[Any]:
    column: pd.Series[Any] = pd.Series(list(names), dtype="str").repeat(list(sizes)).reset_index(drop=True)
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
