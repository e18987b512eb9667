"""A run folder as plain data, also while it is still being written (:mod:`dnad_ray.run_folder.layout`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dnad_ray.errors import DamagedRunError, RunFolderError, UserError, one_line
from dnad_ray.run_folder.layout import (
    MARKER_KIND,
    RUN_SCHEMA,
    config_file,
    genotype_file,
    history_file,
    is_safe_name,
    marker_file,
    snapshot_files,
    snapshot_name,
    snapshots_folder,
    status_file,
    table_file,
    trial_entries,
)
from dnad_ray.run_folder.snapshot_table import ARROW_SCHEMA, checked_record, merge, parse_snapshots
from dnad_ray.run_folder.states import state_of
from dnad_ray.storage import parquet_reader, yaml_reader
from dnad_ray.storage.files import is_inside, read_file
from dnad_ray.storage.places import Place, address, place, reached
from dnad_ray.storage.yaml_reader import parse_yaml
from search_spaces import json_reader
from search_spaces.genotype import MAX_BYTES as MAX_GENOTYPE_BYTES
from search_spaces.genotype import Genotype
from search_spaces.json_reader import parse_json

__all__ = [
    "RunContents",
    "check_marker",
    "in_few",
    "is_run",
    "read_final_step",
    "read_genotype",
    "read_json",
    "read_run",
    "read_status",
    "status_in",
]

_LARGEST_MARKER = 100_000
_MOST_EPOCHS = 200_000
_MOST_PROBLEMS = 3  # of one kind in one trial; of more, the number is told
_LONGEST_NAME = 200


@dataclass(frozen=True)
class RunContents:
    """Everything that a run folder holds, as plain data.

    Attributes:
        path: The folder.
        name: Name of the run.
        config: The resolved configuration as nested dictionaries.
        table: One row per snapshot (columns as ``SNAPSHOT_COLUMNS``), ordered by trial, step and rung;
            one for each three of them.
        history: For each trial its epoch reports, in order.
        status: For each trial ``{"state": ..., "reason": ..., ...}``; the state is a member of
            :class:`dnad_ray.run_folder.states.TrialState`.
        problems: One sentence for each file that could not be read.
    """

    path: Place
    name: str
    config: dict[str, Any]
    table: pa.Table
    history: dict[str, list[dict[str, Any]]]
    status: dict[str, dict[str, Any]]
    problems: tuple[str, ...]

    @cached_property
    def snapshots(self) -> list[dict[str, Any]]:
        """The rows of the table as dictionaries."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows


def is_run(path: Place) -> bool:
    """Whether ``path`` is a folder that :func:`create_run` made."""
    return marker_file(path).is_file()


def check_marker(folder: Place) -> None:
    """Check that the marker of a run can be read.

    Raises:
        RunFolderError: If it cannot, or if it is that of something else or of a newer version.
    """
    _read_marker(folder)


def read_run(path: str | Place) -> RunContents:
    """Read a run folder, finished or not.

    Raises:
        RunFolderError: If the folder is missing, holds no run, or was written by a newer version; a
            ``DamagedRunError`` if its marker cannot be read.
    """
    folder = place(path)
    marker = _read_marker(folder)
    problems: list[str] = []
    try:
        config = parse_yaml(read_file(config_file(folder), yaml_reader.MAX_BYTES), "config.yaml")
    except (OSError, UserError) as error:
        problems.append(f"config.yaml cannot be read: {one_line(error)}")
        config = {}
    history: dict[str, list[dict[str, Any]]] = {}
    status: dict[str, dict[str, Any]] = {}
    stored = _read_parquet(folder, problems)
    table = table_file(folder)
    made = table.stat().st_mtime_ns if isinstance(table, Path) and table.is_file() else 0
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    for trial in _trial_folders(folder, problems):
        known = _names_of(stored, trial.name)
        wrong: list[str] = []
        for file in snapshot_files(folder, trial.name):
            if file.stem in known and _is_older(file, made):
                continue  # the table was made of it
            row = _read_snapshot(file, wrong)
            if row is not None:
                rows[(row["trial"], row["step"], row["rung"])] = row
        problems += in_few(wrong, f"snapshots of trial {trial.name} are left out")
        history[trial.name] = _read_history(folder, trial.name, problems)
        status[trial.name] = status_in(status_file(folder, trial.name), problems)
    return RunContents(
        path=folder,
        name=str(marker.get("name", folder.name))[:_LONGEST_NAME],
        config=config if isinstance(config, dict) else {},
        table=merge(stored, rows.values()),
        history=history,
        status=status,
        problems=tuple(problems),
    )


def read_status(folder: Place, trial: str) -> dict[str, Any]:
    """Return the status of a trial; its ``state`` is a member of ``TrialState``, UNKNOWN without a status file."""
    return status_in(status_file(folder, trial), [])


def read_final_step(folder: Place, trial: str) -> int | None:
    """Return the step of the final snapshot of a trial, None where it has none."""
    for file in snapshot_files(folder, trial)[-1:]:
        row = _read_snapshot(file, [])
        if row is not None and row["kind"] == "final":
            return int(row["step"])
    return None


def read_genotype(path: str | Place, digest: str | None = None) -> Genotype:
    """Read a genotype file, or the genotype ``digest`` of the run folder ``path``.

    Raises:
        GenotypeError: If the file is not a genotype or is of a newer schema.
        RunFolderError: If there is no such file.
    """
    root = place(path, "genotype")
    file = root if digest is None else genotype_file(root, digest)
    try:
        content = read_file(file, MAX_GENOTYPE_BYTES, follow_links=digest is None)
    except OSError as error:
        raise RunFolderError("genotype", address(file), "a readable genotype JSON file") from error
    found = Genotype.from_json(content, origin=address(file))
    if digest is not None and found.digest != digest:
        raise RunFolderError("genotype", address(file), f"the genotype of its name; it holds {found.digest}")
    return found


def _read_marker(folder: Place) -> dict[str, Any]:
    try:
        if not (reached(folder) and folder.is_dir()):
            raise RunFolderError("run folder", address(folder), "an existing run folder")
        marker = parse_json(read_file(marker_file(folder), _LARGEST_MARKER), "run.json")
    except RunFolderError:
        raise
    except FileNotFoundError as error:
        raise RunFolderError(
            "run folder", address(folder), "a folder made by `dnad-ray search` or `dnad-ray sweep` (it has a run.json)"
        ) from error
    except (OSError, UserError) as error:
        given = f"{address(folder)}, whose run.json cannot be read ({one_line(error)[:200]})"
        raise DamagedRunError("run folder", given, "a folder made by `dnad-ray search` or `dnad-ray sweep`") from error
    if not isinstance(marker, dict) or marker.get("kind") != MARKER_KIND:
        raise RunFolderError("run folder", address(folder), f"a folder whose run.json has kind {MARKER_KIND!r}")
    schema = marker.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= RUN_SCHEMA:
        raise RunFolderError("run schema", schema, f"1 to {RUN_SCHEMA} (newer runs need a newer dnad-ray)")
    return marker


def _read_parquet(folder: Place, problems: list[str]) -> pa.Table:
    file = table_file(folder)
    try:
        return parse_snapshots(read_file(file, parquet_reader.MAX_BYTES), file.name)
    except FileNotFoundError:
        pass
    except (OSError, UserError, KeyError, TypeError) as error:
        problems.append(f"{file.name} cannot be read: {one_line(error)}")
    return ARROW_SCHEMA.empty_table()


def _names_of(stored: pa.Table, trial: str) -> set[str]:
    """Return the names, without suffix, of the snapshot files of a trial whose records are in the table."""
    rows = stored.filter(pc.equal(stored.column("trial"), trial))
    pairs = zip(rows.column("step").to_pylist(), rows.column("rung").to_pylist(), strict=True)
    return {snapshot_name(step, rung) for step, rung in pairs}


def _is_older(file: Place, moment: int) -> bool:
    """Whether a local file is older than a moment in nanoseconds; False for a remote file, which is read as fast."""
    return isinstance(file, Path) and file.lstat().st_mtime_ns < moment


def _read_snapshot(file: Place, problems: list[str]) -> dict[str, Any] | None:
    row = read_json(file, dict, None, problems)
    try:
        return None if row is None else checked_record(row)
    except (UserError, KeyError, TypeError) as error:
        problems.append(f"{file.name} is not a snapshot: {one_line(error)}")
        return None


def _read_history(folder: Place, trial: str, problems: list[str]) -> list[Any]:
    entries: list[Any] = read_json(history_file(folder, trial), list, [], problems)
    if len(entries) > _MOST_EPOCHS:
        problems.append(f"history.json of trial {trial} holds {len(entries):,} epochs; {_MOST_EPOCHS:,} are read")
    return entries[:_MOST_EPOCHS]


def in_few(problems: list[str], others: str) -> list[str]:
    """Return the first few of many sentences, and how many ``others`` there are.

    >>> in_few(["a", "b", "c", "d", "e"], "files are left out")
    ['a', 'b', 'c', '2 more files are left out']
    """
    more = len(problems) - _MOST_PROBLEMS
    return [*problems[:_MOST_PROBLEMS], f"{more:,} more {others}"] if more > 0 else problems


def _trial_folders(folder: Place, problems: list[str]) -> list[Place]:
    """Return the folders of the trials, without links to folders outside the run."""
    trials = []
    for trial in sorted(trial_entries(folder), key=lambda path: path.name):
        if not trial.is_dir():
            continue
        if not is_safe_name(trial.name):
            problems.append(f"{trial.name!r} is no name of a trial and is left out")
        elif not all(is_inside(path, folder) for path in (trial, snapshots_folder(folder, trial.name))):
            problems.append(f"{trial.name} is a link out of the run folder and is left out")
        else:
            trials.append(trial)
    return trials


def status_in(file: Place, problems: list[str]) -> dict[str, Any]:
    """Return the content of a status file, with ``state`` as a ``TrialState``; UNKNOWN if the file is missing."""
    status: dict[str, Any] = read_json(file, dict, {}, problems)
    return status | {"state": state_of(status.get("state"))}


def read_json(file: Place, kind: type, default: Any, problems: list[str]) -> Any:
    """Read a JSON file of a run folder, which may be missing or untrusted.

    Args:
        file: The file.
        kind: What it must hold, ``dict`` or ``list``.
        default: Returned if the file is missing or cannot be read.
        problems: Gets a sentence if it cannot be read.
    """
    try:
        data = parse_json(read_file(file, json_reader.MAX_BYTES), file.name)
        if isinstance(data, kind):
            return data
        problems.append(f"{file.name} holds a {type(data).__name__}, not a {kind.__name__}")
    except FileNotFoundError:
        pass
    except (OSError, UserError) as error:
        problems.append(f"{address(file)} cannot be read: {one_line(error)}")
    return default
