"""The run folder: who may write what, and how it is read back, also while it is still being written.

Layout of a run folder::

    config.yaml                          the complete, resolved configuration; written first
    run.json                             marker, schema, name, version
    trials/<trial>/snapshots/<step>.json one file per snapshot, renamed into place: a killed trial loses none
    trials/<trial>/checkpoints/<step>/   the newest two states of the search, to continue from
    trials/<trial>/history.json          one entry per epoch
    trials/<trial>/status.json           its state, why, and what it changes in the configuration
    genotypes/<digest>.json              every architecture that a snapshot names
    snapshots.parquet, front.json, report.html   made when the command ends, also where it was interrupted
    live.html, live.js                   a page that redraws itself while the run goes on, and what it draws
    tensorboard/<trial>/                 event files, for TensorBoard

Writers replay after a resume, and after a network cut an old worker may still write: every file is therefore
written whole under a temporary name and renamed (or put at once, into an object store), and a snapshot that stands
is not written again.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from upath import UPath

from dnad_ray import parquet_reader, yaml_reader
from dnad_ray.errors import ResourceError, RunFolderError, UserError, one_line
from dnad_ray.files import is_inside, read_file
from dnad_ray.places import Place, address, place, put, reached
from dnad_ray.records import Snapshot
from dnad_ray.snapshot_table import ARROW_SCHEMA, SAFE_NAME, checked_record, merge, parse_snapshots
from dnad_ray.yaml_reader import parse_yaml
from search_spaces import json_reader
from search_spaces.genotype import MAX_BYTES as MAX_GENOTYPE_BYTES
from search_spaces.genotype import Genotype
from search_spaces.json_reader import parse_json

__all__ = [
    "RunContents",
    "Write",
    "append_bytes",
    "create_run",
    "free_folder",
    "is_run",
    "list_trials",
    "on_disk",
    "read_final_step",
    "read_genotype",
    "read_run",
    "read_status",
    "write_bytes",
    "write_config",
    "write_history",
    "write_json",
    "write_parquet",
    "write_snapshot",
    "write_status",
]

Write: TypeAlias = Callable[[Place, bytes], None]
"""Writes a file, as :func:`write_bytes` does."""

RUN_SCHEMA = 1
_KIND = "dnad-ray run"
_LARGEST_MARKER = 100_000
_LONGEST_NAME = 200


@dataclass(frozen=True)
class RunContents:
    """Everything that a run folder holds, as plain data.

    Attributes:
        path: The folder.
        name: Name of the run.
        config: The resolved configuration as nested dictionaries.
        table: One row per snapshot (columns as :data:`dnad_ray.records.SNAPSHOT_COLUMNS`), ordered by trial and step;
            one per (trial, step).
        history: For each trial its epoch reports, in order.
        status: For each trial ``{"state": ..., "reason": ..., ...}``.
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


# -- reading ----------------------------------------------------------------------------------------------------


def is_run(path: Place) -> bool:
    """Whether ``path`` is a folder that :func:`create_run` made."""
    return (path / "run.json").is_file()


def read_run(path: str | Place) -> RunContents:
    """Read a run folder, finished or not.

    Raises:
        RunFolderError: If the folder is missing, holds no run, or was written by a newer version.
    """
    folder = place(path)
    marker = _read_marker(folder)
    problems: list[str] = []
    try:
        config = parse_yaml(read_file(folder / "config.yaml", yaml_reader.MAX_BYTES), "config.yaml")
    except (OSError, UserError) as error:
        problems.append(f"config.yaml cannot be read: {one_line(error)}")
        config = {}
    history: dict[str, list[dict[str, Any]]] = {}
    status: dict[str, dict[str, Any]] = {}
    stored = _read_parquet(folder, problems)
    table = folder / "snapshots.parquet"
    made = table.stat().st_mtime_ns if isinstance(table, Path) and table.is_file() else 0
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for trial in _trial_folders(folder, problems):
        steps = _steps_of(stored, trial.name)
        for file in _sorted(trial.glob("snapshots/*.json")):
            if file.stem.isdecimal() and int(file.stem) in steps and _is_older(file, made):
                continue  # the table was made of it
            row = _read_snapshot(file, problems)
            if row is not None:
                rows[(row["trial"], row["step"])] = row
        history[trial.name] = _read_json(trial / "history.json", list, [], problems)
        status[trial.name] = {"state": "unknown"} | _read_json(trial / "status.json", dict, {}, problems)
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
    """Return the status of a trial, ``{"state": "unknown"}`` where none was written yet."""
    status: dict[str, Any] = _read_json(folder / "trials" / trial / "status.json", dict, {}, [])
    return {"state": "unknown"} | status


def list_trials(folder: Place) -> list[str]:
    """Return the names of the trials that a run folder knows of, sorted; none where there is no such folder."""
    return sorted(path.name for path in folder.glob("trials/*") if path.is_dir())


def read_final_step(folder: Place, trial: str) -> int | None:
    """Return the step of the final snapshot of a trial, None where it has none."""
    for file in _sorted(folder.glob(f"trials/{trial}/snapshots/*.json"))[-1:]:
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
    file = root if digest is None else root / "genotypes" / f"{_safe(digest, 'digest')}.json"
    try:
        content = read_file(file, MAX_GENOTYPE_BYTES, follow_links=digest is None)
    except OSError as error:
        raise RunFolderError("genotype", address(file), "a readable genotype JSON file") from error
    found = Genotype.from_json(content, origin=address(file))
    if digest is not None and found.digest != digest:
        raise RunFolderError("genotype", address(file), f"the genotype of its name; it holds {found.digest}")
    return found


def _sorted(places: Iterable[Place]) -> list[Place]:
    return sorted(places, key=lambda path: path.name)


def _read_marker(folder: Place) -> dict[str, Any]:
    try:
        if not (reached(folder) and folder.is_dir()):
            raise RunFolderError("run folder", address(folder), "an existing run folder")
        marker = parse_json(read_file(folder / "run.json", _LARGEST_MARKER), "run.json")
    except RunFolderError:
        raise
    except (OSError, UserError) as error:
        raise RunFolderError(
            "run folder", address(folder), "a folder made by `dnad-ray search` or `dnad-ray sweep` (it has a run.json)"
        ) from error
    if not isinstance(marker, dict) or marker.get("kind") != _KIND:
        raise RunFolderError("run folder", address(folder), f"a folder whose run.json has kind {_KIND!r}")
    schema = marker.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= RUN_SCHEMA:
        raise RunFolderError("run schema", schema, f"1 to {RUN_SCHEMA} (newer runs need a newer dnad-ray)")
    return marker


def _read_parquet(folder: Place, problems: list[str]) -> pa.Table:
    file = folder / "snapshots.parquet"
    try:
        return parse_snapshots(read_file(file, parquet_reader.MAX_BYTES), file.name)
    except FileNotFoundError:
        pass
    except (OSError, UserError, KeyError, TypeError) as error:
        problems.append(f"{file.name} cannot be read: {one_line(error)}")
    return ARROW_SCHEMA.empty_table()


def _steps_of(stored: pa.Table, trial: str) -> set[int]:
    return set(stored.column("step").filter(pc.equal(stored.column("trial"), trial)).to_pylist())


def _is_older(file: Place, moment: int) -> bool:
    """Whether a file of this machine was written before; of a remote one, to ask takes as long as to read it."""
    return isinstance(file, Path) and file.lstat().st_mtime_ns < moment


def _read_snapshot(file: Place, problems: list[str]) -> dict[str, Any] | None:
    row = _read_json(file, dict, None, problems)
    try:
        return None if row is None else checked_record(row)
    except (UserError, KeyError, TypeError) as error:
        problems.append(f"{file.name} is not a snapshot: {one_line(error)}")
        return None


def _trial_folders(folder: Place, problems: list[str]) -> list[Place]:
    """Return the folders of the trials; those that a link takes out of the run are left out."""
    trials = []
    for trial in _sorted(path for path in folder.glob("trials/*") if path.is_dir()):
        if not all(is_inside(path, folder) for path in (trial, trial / "snapshots")):
            problems.append(f"{trial.name} is a link out of the run folder and is left out")
        elif not SAFE_NAME.fullmatch(trial.name):
            problems.append(f"{trial.name!r} is no name of a trial and is left out")
        else:
            trials.append(trial)
    return trials


def _read_json(file: Place, kind: type, default: Any, problems: list[str]) -> Any:
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


# -- writing ----------------------------------------------------------------------------------------------------


def free_folder(path: str | Place) -> Place:
    """Return the absolute folder of a run that is to be made; nothing is made yet.

    Raises:
        RunFolderError: If the folder holds a run or anything else, or its name is not a safe one.
    """
    try:
        folder = place(path, "--out").resolve()
        _safe(folder.name, "run name (last part of --out)")
        there = reached(folder, "--out")
        holds_run = there and is_run(folder)
        is_free = not there or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise RunFolderError("--out", address(place(path)), f"a folder that can be read ({error.strerror})") from error
    if holds_run:
        raise RunFolderError("--out", address(place(path)), "a folder without a run; add --resume to continue that one")
    if not is_free:
        raise RunFolderError("--out", address(place(path)), "a new or empty folder")
    return folder


def create_run(path: str | Place, config: Mapping[str, Any], version: str) -> Place:
    """Make a run folder that holds its marker and its configuration.

    Args:
        path: The folder; its parents are made too.
        config: The resolved configuration as plain data.
        version: Version of the package that runs.

    Returns:
        The absolute folder.

    Raises:
        RunFolderError: If the folder holds a run or anything else, cannot be written, or its name is not a safe one.
    """
    folder = free_folder(path)
    try:
        write_config(folder, config)
        # The marker comes last: a folder that has it has a configuration too.
        write_json(folder / "run.json", {"kind": _KIND, "schema": RUN_SCHEMA, "name": folder.name, "version": version})
    except OSError as error:
        raise RunFolderError(
            "--out", address(place(path)), f"a folder that can be made and written ({error.strerror})"
        ) from error
    return folder


def write_config(folder: Place, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml`` with the fields in their declared order."""
    write_bytes(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())


def write_snapshot(folder: Place, snapshot: Snapshot, genotype: Genotype, write: Write | None = None) -> bool:
    """Store a snapshot and its genotype; whole or not at all.

    Args:
        folder: The run folder.
        snapshot: The record.
        genotype: Its architecture.
        write: Writes the files in this order; None for :func:`write_bytes`.

    Returns:
        False if the record stood there already (a step that was replayed after a resume), else True.
    """
    if snapshot.digest != genotype.digest:
        raise ValueError(f"snapshot names {snapshot.digest}, the genotype is {genotype.digest}")
    file = folder / "trials" / _safe(snapshot.trial, "trial name") / "snapshots" / f"{snapshot.step:08d}.json"
    if file.exists():
        return False
    architecture = folder / "genotypes" / f"{snapshot.digest}.json"
    if not architecture.exists():
        (write or write_bytes)(architecture, genotype.pruned().to_json().encode())
    write_json(file, snapshot.to_dict(), write)
    return True


def write_history(folder: Place, trial: str, history: Iterable[Mapping[str, Any]], write: Write | None = None) -> None:
    """Replace the epoch reports of a trial, by :func:`write_bytes` unless something else is to write."""
    file = folder / "trials" / _safe(trial, "trial name") / "history.json"
    write_json(file, [dict(entry) for entry in history], write)


def write_status(folder: Place, trial: str, state: str, *, write: Write | None = None, **details: Any) -> None:
    """Replace the status of a trial.

    Args:
        folder: The run folder.
        trial: Name of the trial.
        state: ``pending`` (chosen, not begun), ``running``, ``interrupted`` (a signal), ``paused`` (a time budget was
            spent), ``failed``, or one that a resume leaves alone: ``finished``, ``stopped`` (the loss diverged),
            ``dominated`` (the scheduler).
        write: Writes the file; None for :func:`write_bytes`.
        **details: ``overrides``, the ``reason`` of anything but a plain end, and facts about the attempt.
    """
    write_json(folder / "trials" / _safe(trial, "trial name") / "status.json", {"state": state, **details}, write)


def write_parquet(folder: Place) -> int:
    """Gather all snapshots of a run into ``snapshots.parquet``; returns how many there are."""
    table = read_run(folder).table.cast(ARROW_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_bytes(folder / "snapshots.parquet", buffer.getvalue().to_pybytes())
    return int(table.num_rows)


def write_json(file: Place, data: Any, write: Write | None = None) -> None:
    """Write plain data as JSON, whole or not at all; NaN is refused because JSON has none."""
    (write or write_bytes)(file, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(file: Place, content: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it into place; a remote file is put.

    Raises:
        ResourceError: If there is no space left.
    """
    if isinstance(file, UPath):
        put(file, content)
        return
    temporary = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private; a shared storage path is read by others
        Path(temporary).replace(file)
    except BaseException as error:  # an interrupt too leaves no temporary file behind
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                "space on the disk of", str(file.parent), "enough room; nothing was half-written"
            ) from error
        raise


def on_disk(folder: object) -> bool:
    """Whether a run folder is one of this machine's file system, where a file can grow."""
    return isinstance(folder, Path)


def append_bytes(file: Path, content: bytes) -> None:
    """Add to the end of a file that one process alone writes; a reader may see a part of ``content``.

    Nothing waits for the disk: it is for what can be made again from the records of a run.
    """
    if content:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(content)


def _safe(name: str, what: str) -> str:
    if not SAFE_NAME.fullmatch(name) or ".." in name:
        raise RunFolderError(what, name, "1 to 100 letters, digits, '.', '_' or '-', not starting with a dot, no '..'")
    return name
