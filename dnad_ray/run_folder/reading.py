"""A run folder as plain data, also while it is still being written (:mod:`dnad_ray.run_folder.layout`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dnad_ray.errors import DamagedRunError, RunFolderError, UserError, one_line
from dnad_ray.run_folder.images import ImagesRecord, read_images
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
from dnad_ray.run_folder.states import STATUS_KINDS, state_of
from dnad_ray.storage import parquet_reader, yaml_reader
from dnad_ray.storage.checksums import ChecksumError, check_yaml, parse_record
from dnad_ray.storage.files import is_inside, read_file
from dnad_ray.storage.places import Place, absolute, address, place, reached
from dnad_ray.storage.yaml_reader import parse_yaml
from search_spaces import json_reader
from search_spaces.genotype import MAX_BYTES as MAX_GENOTYPE_BYTES
from search_spaces.genotype import Genotype

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
    "run_name",
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
        images: Classes, numbers and fingerprint of the images; None for a run of a version that did not keep them.
    """

    path: Place
    name: str
    config: dict[str, Any]
    table: pa.Table
    history: dict[str, list[dict[str, Any]]]
    status: dict[str, dict[str, Any]]
    problems: tuple[str, ...]
    images: ImagesRecord | None = None

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
    _read_marker(folder, [])


def run_name(folder: Place) -> str:
    """Return the name of a run, which its records have: that of its folder when it was made.

    >>> run_name(place("runs/none"))
    'none'
    """
    try:
        return _name_in(_read_marker(folder, []), folder)
    except RunFolderError:
        return folder.name


def read_run(path: str | Place) -> RunContents:
    """Read a run folder, finished or not.

    Raises:
        RunFolderError: If the folder is missing, holds no run, or was written by a newer version; a
            ``DamagedRunError`` if its marker cannot be read.
    """
    folder = place(path)
    problems: list[str] = []
    name = _name_in(_read_marker(folder, problems), folder)
    try:
        content = read_file(config_file(folder), yaml_reader.MAX_BYTES)
        check_yaml(content, "config.yaml")
        config = parse_yaml(content, "config.yaml")
    except (OSError, UserError) as error:
        problems.append(f"config.yaml cannot be read: {one_line(error)}")
        config = {}
    names = {absolute(folder).name, name}
    images = None
    try:
        images = read_images(folder)
    except RunFolderError as error:
        problems.append(f"images.json cannot be read: {one_line(error)}")
    history: dict[str, list[dict[str, Any]]] = {}
    status: dict[str, dict[str, Any]] = {}
    stored = _read_parquet(folder, names, problems)
    table = table_file(folder)
    made = table.stat().st_mtime_ns if isinstance(table, Path) and table.is_file() else 0
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    for trial in _trial_folders(folder, problems):
        status[trial.name] = status_in(status_file(folder, trial.name), problems)
        seed = _seed_in(status[trial.name])
        mine = stored.filter(pc.equal(stored.column("trial"), trial.name))
        if seed is not None and mine.num_rows and not pc.all(pc.equal(mine.column("seed"), seed)).as_py():
            is_other = pc.and_(pc.equal(stored.column("trial"), trial.name), pc.not_equal(stored.column("seed"), seed))
            stored = _left_out(stored, pc.invert(is_other), problems)
            mine = mine.filter(pc.equal(mine.column("seed"), seed))
        known = _names_of(mine)
        wrong: list[str] = []
        for file in snapshot_files(folder, trial.name):
            if file.stem in known and _is_older(file, made):
                continue  # the table was made of it
            row = _read_snapshot(file, wrong)
            if row is None:
                continue
            if row["run"] not in names or row["trial"] != trial.name or seed not in (None, row["seed"]):
                wrong.append(f"{trial.name}/{file.name} is left out: {_origin_of(row)} recorded it")
                continue
            rows[(row["trial"], row["step"], row["rung"])] = row
        problems += in_few(wrong, f"snapshots of trial {trial.name} are left out")
        history[trial.name] = _read_history(folder, trial.name, problems)
    return RunContents(
        path=folder,
        name=name,
        config=config if isinstance(config, dict) else {},
        table=merge(stored, rows.values()),
        history=history,
        status=status,
        problems=tuple(problems),
        images=images,
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


def _read_marker(folder: Place, problems: list[str]) -> dict[str, Any]:
    """Return what the marker says; where its checksum is another, only that the folder is a run."""
    try:
        if not (reached(folder) and folder.is_dir()):
            raise RunFolderError("run folder", address(folder), "an existing run folder")
        content = read_file(marker_file(folder), _LARGEST_MARKER)
        try:
            marker = parse_record(content, "run.json")
        except ChecksumError as error:
            problems.append(f"run.json is not believed: {one_line(error)}")
            return {}
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


def _name_in(marker: dict[str, Any], folder: Place) -> str:
    return str(marker.get("name", folder.name))[:_LONGEST_NAME]


def _origin_of(row: Mapping[str, Any]) -> str:
    return f"trial {row['trial']} of run {row['run']!r} under seed {row['seed']}"


def _left_out(table: pa.Table, is_ours: Any, problems: list[str]) -> pa.Table:
    """Return the rows of a table that are the run's, with a sentence about the others."""
    others = table.filter(pc.invert(is_ours))
    if others.num_rows:
        origin = _origin_of(others.slice(0, 1).to_pylist()[0])
        problems.append(f"snapshots.parquet: {others.num_rows:,} rows are left out, the first one of {origin}")
        return table.filter(is_ours)
    return table


def _seed_in(status: dict[str, Any]) -> int | None:
    seed = status.get("overrides", {}).get("seed")
    return seed if type(seed) is int else None


def _read_parquet(folder: Place, names: set[str], problems: list[str]) -> pa.Table:
    file = table_file(folder)
    try:
        table = parse_snapshots(read_file(file, parquet_reader.MAX_BYTES), file.name)
        return _left_out(table, pc.is_in(table.column("run"), pa.array(sorted(names))), problems)
    except FileNotFoundError:
        pass
    except (OSError, UserError, KeyError, TypeError) as error:
        problems.append(f"{file.name} cannot be read: {one_line(error)}")
    return ARROW_SCHEMA.empty_table()


def _names_of(rows: pa.Table) -> set[str]:
    """Return the names, without suffix, of the files of the snapshots of one trial."""
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
    wrong = [name for name, kind in STATUS_KINDS.items() if name in status and not _is_of(status[name], kind)]
    for name in wrong:
        problems.append(f"{address(file)}: {name} is no {STATUS_KINDS[name].__name__} and is left out")
        del status[name]
    return status | {"state": state_of(status.get("state"))}


def _is_of(value: object, kind: type) -> bool:
    return type(value) in (int, float) if kind is float else type(value) is kind


def read_json(file: Place, kind: type, default: Any, problems: list[str]) -> Any:
    """Read a JSON file of a run folder, which may be missing or untrusted.

    Args:
        file: The file.
        kind: What it must hold, ``dict`` or ``list``.
        default: Returned if the file is missing or cannot be read.
        problems: Gets a sentence if it cannot be read.
    """
    try:
        data = parse_record(read_file(file, json_reader.MAX_BYTES), file.name)
        if isinstance(data, kind):
            return data
        problems.append(f"{file.name} holds a {type(data).__name__}, not a {kind.__name__}")
    except FileNotFoundError:
        pass
    except (OSError, UserError) as error:
        problems.append(f"{address(file)} cannot be read: {one_line(error)}")
    return default
