"""Writing a run folder (:mod:`dnad_ray.run_folder.layout` says what is where).

Writers replay after a resume, and after a network cut an old worker may still write: every file is therefore
written whole under a temporary name and renamed (or put at once, into an object store), and a snapshot that exists
is not written again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.images import ImagesRecord, write_images
from dnad_ray.run_folder.layout import (
    MARKER_KIND,
    RUN_SCHEMA,
    checked_name,
    config_file,
    genotype_file,
    history_file,
    job_status_file,
    lock_file,
    marker_file,
    measured_file,
    result_file,
    snapshot_file,
    status_file,
    table_file,
)
from dnad_ray.run_folder.reading import RunContents, is_run, read_run
from dnad_ray.run_folder.records import Measurement, Retrained, Snapshot
from dnad_ray.run_folder.snapshot_table import ARROW_SCHEMA
from dnad_ray.run_folder.states import TrialState
from dnad_ray.storage.checksums import BLANK, CHECKSUM, with_checksum
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.storage.files import Write, write_bytes, write_json
from dnad_ray.storage.places import Place, absolute, address, place, reached
from search_spaces.genotype import Genotype

__all__ = [
    "create_run",
    "free_folder",
    "write_config",
    "write_history",
    "write_job_status",
    "write_measurement",
    "write_parquet",
    "write_result",
    "write_snapshot",
    "write_status",
]


def write_result(run: Place, record: Retrained) -> None:
    """Store the record of a job that is at its end."""
    write_json(result_file(run, record.job), record.to_dict())


def write_measurement(run: Place, record: Measurement) -> Place:
    """Store a measurement; it replaces an earlier one of the same network on the same device."""
    data = record.to_dict()
    subject = {name: value for name, value in data.items() if name not in _MEASURED}
    file = measured_file(run, f"{record.digest}-{digest_of_data(subject)}")
    write_json(file, data)
    return file


_MEASURED = frozenset({"run", "repeats", "latency_p50", "latency_p90", "latency_p99", "peak_memory"})


def free_folder(path: str | Place) -> Place:
    """Return the absolute folder of a run that is to be made; nothing is made yet.

    Raises:
        RunFolderError: If the folder holds a run or anything else, or its name is not a safe one.
    """
    try:
        folder = absolute(place(path, "--out"), "--out")
        checked_name(folder.name, "run name (last part of --out)")
        there = reached(folder, "--out")
        holds_run = there and is_run(folder)
        # A command that was killed before it made the run may have left its lock.
        is_free = not there or (
            folder.is_dir() and {path.name for path in folder.iterdir()} <= {lock_file(folder).name}
        )
    except OSError as error:
        raise RunFolderError("--out", address(place(path)), f"a folder that can be read ({error.strerror})") from error
    if holds_run:
        raise RunFolderError("--out", address(place(path)), "a folder without a run; add --resume to continue that one")
    if not is_free:
        raise RunFolderError("--out", address(place(path)), "a new or empty folder")
    return folder


def create_run(path: str | Place, config: Mapping[str, Any], version: str, images: ImagesRecord | None = None) -> Place:
    """Make a run folder that holds its marker, its configuration and the record of its images.

    Args:
        path: The folder; its parents are made too.
        config: The resolved configuration as plain data.
        version: Version of the package that runs.
        images: The images that it uses; None leaves their record out.

    Returns:
        The absolute folder.

    Raises:
        RunFolderError: If the folder holds a run or anything else, cannot be written, or its name is not a safe one.
    """
    folder = free_folder(path)
    try:
        write_config(folder, config)
        if images is not None:
            write_images(folder, images)
        # The marker comes last: a folder that has it has a configuration too.
        write_json(
            marker_file(folder), {"kind": MARKER_KIND, "schema": RUN_SCHEMA, "name": folder.name, "version": version}
        )
    except OSError as error:
        raise RunFolderError(
            "--out", address(place(path)), f"a folder that can be made and written ({error.strerror})"
        ) from error
    return folder


def write_config(folder: Place, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml`` with the fields in their declared order, and a checksum as its last line."""
    text = f"{yaml.safe_dump(dict(config), sort_keys=False)}# {CHECKSUM}: {BLANK}\n"
    write_bytes(config_file(folder), with_checksum(text.encode()))


def write_snapshot(folder: Place, snapshot: Snapshot, genotype: Genotype, write: Write | None = None) -> bool:
    """Store a snapshot and its genotype; whole or not at all.

    Args:
        folder: The run folder.
        snapshot: The record.
        genotype: Its architecture.
        write: Writes the files in this order; None for :func:`write_bytes`.

    Returns:
        False if the record existed already (a step that was replayed after a resume), else True.
    """
    if snapshot.digest != genotype.digest:
        raise ValueError(f"snapshot names {snapshot.digest}, the genotype is {genotype.digest}")
    file = snapshot_file(folder, snapshot.trial, snapshot.step, snapshot.rung)
    if file.exists():
        return False
    architecture = genotype_file(folder, snapshot.digest)
    if not architecture.exists():
        (write or write_bytes)(architecture, genotype.pruned().to_json().encode())
    write_json(file, snapshot.to_dict(), write)
    return True


def write_history(folder: Place, trial: str, history: Iterable[Mapping[str, Any]], write: Write | None = None) -> None:
    """Replace the epoch reports of a trial, by :func:`write_bytes` unless something else is to write."""
    write_json(history_file(folder, trial), [dict(entry) for entry in history], write)


def write_status(folder: Place, trial: str, state: str, *, write: Write | None = None, **details: Any) -> None:
    """Replace the status of a trial.

    Args:
        folder: The run folder.
        trial: Name of the trial.
        state: A value of :class:`dnad_ray.run_folder.states.TrialState`, or one of its members.
        write: Writes the file; None for :func:`write_bytes`.
        **details: ``overrides``, the ``reason`` of anything but a plain end, and facts about the attempt.
    """
    write_json(status_file(folder, trial), _status(state, details), write)


def write_job_status(run: Place, job: str, state: str, **details: Any) -> None:
    """Replace the status of a job of retraining, as :func:`write_status` does that of a trial."""
    write_json(job_status_file(run, job), _status(state, details))


def _status(state: str, details: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": TrialState(state).value, **details}


def write_parquet(folder: Place, contents: RunContents | None = None) -> int:
    """Gather all snapshots of a run into ``snapshots.parquet``; returns how many there are.

    Args:
        folder: The run folder.
        contents: What it holds, where that has just been read; None to read it.
    """
    table = (contents or read_run(folder)).table.cast(ARROW_SCHEMA)
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({CHECKSUM: BLANK})
    write_bytes(table_file(folder), with_checksum(buffer.getvalue().to_pybytes()))
    return int(table.num_rows)
