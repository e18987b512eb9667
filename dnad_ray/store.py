"""The run folder: who may write what, and how it is read back, also while it is still being written.

Layout of a run folder::

    config.yaml                          the complete, resolved configuration; written first
    run.json                             marker, schema, name, version
    trials/<trial>/snapshots/<step>.json one file per snapshot, renamed into place: a killed trial loses none
    trials/<trial>/history.json          one entry per epoch
    trials/<trial>/status.json           running, finished or failed, and why
    genotypes/<digest>.json              every architecture that a snapshot names
    snapshots.parquet, front.json, report.html   made when the command ends, also where it was interrupted
    live.html, live.js                   a page that redraws itself while the run goes on, and what it draws
    tensorboard/<trial>/                 event files, for TensorBoard

Writers replay after a resume, and after a network cut an old worker may still write: every file is therefore
written whole under a temporary name and renamed, and a snapshot that stands is not written again.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dnad_ray.errors import ResourceError, RunFolderError, one_line
from dnad_ray.records import SNAPSHOT_COLUMNS, Snapshot
from search_spaces.genotype import Genotype

__all__ = [
    "RunContents",
    "append_bytes",
    "create_run",
    "free_folder",
    "is_run",
    "on_disk",
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

RUN_SCHEMA = 1
_KIND = "dnad-ray run"
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class RunContents:
    """Everything that a run folder holds, as plain data.

    Attributes:
        path: The folder.
        name: Name of the run.
        config: The resolved configuration as nested dictionaries.
        snapshots: One dictionary per snapshot (keys as :data:`dnad_ray.records.SNAPSHOT_COLUMNS`), ordered by
            trial and step; one per (trial, step).
        history: For each trial its epoch reports, in order.
        status: For each trial ``{"state": ..., "reason": ..., ...}``.
        problems: One sentence for each file that could not be read.
    """

    path: Path
    name: str
    config: dict[str, Any]
    snapshots: list[dict[str, Any]]
    history: dict[str, list[dict[str, Any]]]
    status: dict[str, dict[str, Any]]
    problems: tuple[str, ...]


# -- reading ----------------------------------------------------------------------------------------------------


def is_run(path: Path) -> bool:
    """Whether ``path`` is a folder that :func:`create_run` made."""
    return (path / "run.json").is_file()


def read_run(path: str | Path) -> RunContents:
    """Read a run folder, finished or not.

    Raises:
        RunFolderError: If the folder is missing, holds no run, or was written by a newer version.
    """
    folder = Path(path)
    marker = _read_marker(folder)
    problems: list[str] = []
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"config.yaml cannot be read: {one_line(error)}")
        config = {}
    history: dict[str, list[dict[str, Any]]] = {}
    status: dict[str, dict[str, Any]] = {}
    rows = {(row["trial"], row["step"]): row for row in _read_parquet(folder, problems)}
    for trial in sorted(path for path in folder.glob("trials/*") if path.is_dir()):
        for file in sorted(trial.glob("snapshots/*.json")):
            row = _read_snapshot(file, problems)
            if row is not None:
                rows[(row["trial"], row["step"])] = row
        history[trial.name] = _read_json(trial / "history.json", list, [], problems)
        status[trial.name] = {"state": "unknown"} | _read_json(trial / "status.json", dict, {}, problems)
    return RunContents(
        path=folder,
        name=str(marker.get("name", folder.name)),
        config=config if isinstance(config, dict) else {},
        snapshots=[rows[key] for key in sorted(rows)],
        history=history,
        status=status,
        problems=tuple(problems),
    )


def read_status(folder: Path, trial: str) -> dict[str, Any]:
    """Return the status of a trial, ``{"state": "unknown"}`` where none was written yet."""
    status: dict[str, Any] = _read_json(folder / "trials" / trial / "status.json", dict, {}, [])
    return {"state": "unknown"} | status


def read_genotype(path: str | Path, digest: str | None = None) -> Genotype:
    """Read a genotype file, or the genotype ``digest`` of the run folder ``path``.

    Raises:
        GenotypeError: If the file is not a genotype or is of a newer schema.
        RunFolderError: If there is no such file.
    """
    file = Path(path) if digest is None else Path(path) / "genotypes" / f"{_safe(digest, 'digest')}.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError("genotype", str(file), "a readable genotype JSON file") from error
    return Genotype.from_json(text, origin=str(file))


def _read_marker(folder: Path) -> dict[str, Any]:
    try:
        if not folder.is_dir():
            raise RunFolderError("run folder", str(folder), "an existing run folder")
        marker = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except RunFolderError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(
            "run folder", str(folder), "a folder made by `dnad-ray search` or `dnad-ray sweep` (it has a run.json)"
        ) from error
    if not isinstance(marker, dict) or marker.get("kind") != _KIND:
        raise RunFolderError("run folder", str(folder), f"a folder whose run.json has kind {_KIND!r}")
    schema = marker.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= RUN_SCHEMA:
        raise RunFolderError("run schema", schema, f"1 to {RUN_SCHEMA} (newer runs need a newer dnad-ray)")
    return marker


def _read_parquet(folder: Path, problems: list[str]) -> list[dict[str, Any]]:
    file = folder / "snapshots.parquet"
    if not file.exists():
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return [Snapshot.from_dict(row).to_dict() for row in rows]
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        problems.append(f"{file.name} cannot be read: {one_line(error)}")
        return []


def _read_snapshot(file: Path, problems: list[str]) -> dict[str, Any] | None:
    row = _read_json(file, dict, None, problems)
    try:
        return None if row is None else Snapshot.from_dict(row).to_dict()
    except (KeyError, TypeError) as error:
        problems.append(f"{file.name} is not a snapshot: {one_line(error)}")
        return None


def _read_json(file: Path, kind: type, default: Any, problems: list[str]) -> Any:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(data, kind):
            return data
        problems.append(f"{file.name} holds a {type(data).__name__}, not a {kind.__name__}")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{file} cannot be read: {one_line(error)}")
    return default


# -- writing ----------------------------------------------------------------------------------------------------


def free_folder(path: str | Path) -> Path:
    """Return the absolute folder of a run that is to be made; nothing is made yet.

    Raises:
        RunFolderError: If the folder holds a run or anything else, or its name is not a safe one.
    """
    try:
        folder = Path(path).resolve()
        _safe(folder.name, "run name (last part of --out)")
        holds_run = is_run(folder)
        is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise RunFolderError("--out", str(path), f"a folder that can be read ({error.strerror})") from error
    if holds_run:
        raise RunFolderError("--out", str(path), "a folder without a run; add --resume to continue that one")
    if not is_free:
        raise RunFolderError("--out", str(path), "a new or empty folder")
    return folder


def create_run(path: str | Path, config: Mapping[str, Any], version: str) -> Path:
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
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, config)
        # The marker comes last: a folder that has it has a configuration too.
        write_json(folder / "run.json", {"kind": _KIND, "schema": RUN_SCHEMA, "name": folder.name, "version": version})
    except OSError as error:
        raise RunFolderError("--out", str(path), f"a folder that can be made and written ({error.strerror})") from error
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml`` with the fields in their declared order."""
    write_bytes(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False).encode())


def write_snapshot(folder: Path, snapshot: Snapshot, genotype: Genotype) -> bool:
    """Store a snapshot and its genotype; whole or not at all.

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
        write_bytes(architecture, genotype.pruned().to_json().encode())
    write_json(file, snapshot.to_dict())
    return True


def write_history(folder: Path, trial: str, history: Iterable[Mapping[str, Any]]) -> None:
    """Replace the epoch reports of a trial."""
    write_json(folder / "trials" / _safe(trial, "trial name") / "history.json", [dict(entry) for entry in history])


def write_status(folder: Path, trial: str, state: str, **details: Any) -> None:
    """Replace the status of a trial: ``running``, ``finished`` or ``failed``, with a ``reason`` where it failed."""
    write_json(folder / "trials" / _safe(trial, "trial name") / "status.json", {"state": state, **details})


def write_parquet(folder: Path) -> int:
    """Gather all snapshots of a run into ``snapshots.parquet``; returns how many there are."""
    rows = read_run(folder).snapshots
    table = pa.Table.from_pylist([{name: row[name] for name in SNAPSHOT_COLUMNS} for row in rows], schema=_ARROW)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_bytes(folder / "snapshots.parquet", buffer.getvalue().to_pybytes())
    return len(rows)


def write_json(file: Path, data: Any) -> None:
    """Write plain data as JSON, whole or not at all; NaN is refused because JSON has none."""
    write_bytes(file, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it into place.

    Raises:
        ResourceError: If there is no space left.
    """
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
    if not _SAFE_NAME.fullmatch(name) or ".." in name:
        raise RunFolderError(what, name, "1 to 100 letters, digits, '.', '_' or '-', not starting with a dot, no '..'")
    return name


_TYPES = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
_ARROW = pa.schema([(name, _TYPES.get(str(Snapshot.__annotations__[name]), pa.string())) for name in SNAPSHOT_COLUMNS])
