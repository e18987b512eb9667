"""Reading the part of a run folder that holds retrained networks and measurements.

No torch and no Ray in here: reports read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dnad_ray.errors import UserError, one_line
from dnad_ray.run_folder.layout import SAFE_NAME, job_history_file, job_status_file, measured_files, result_files
from dnad_ray.run_folder.reading import read_json, run_name, status_in
from dnad_ray.run_folder.records import Measurement, Retrained
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.files import is_inside, read_file
from dnad_ray.storage.places import Place, absolute, place

__all__ = ["read_job_history", "read_job_status", "read_measurements", "read_retrained"]

_MAX_BYTES = 2**20
_LONGEST_TEXT = 1_000


def read_retrained(run: str | Place) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records of all retrained networks of a run folder, and a sentence per file that cannot be read.

    Args:
        run: The run folder; one without retrained networks has no records.

    Returns:
        Plain data with the keys of :data:`dnad_ray.run_folder.records.RETRAINED_COLUMNS`, ordered by job.
    """
    folder = place(run)
    return _read(folder, result_files(folder), lambda data: Retrained.from_dict(data).to_dict())


def read_measurements(run: str | Place) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the measurements of a run folder as :func:`read_retrained` does its records."""
    folder = place(run)
    return _read(folder, measured_files(folder), lambda data: Measurement.from_dict(data).to_dict())


def read_job_status(run: Place, job: str) -> dict[str, Any]:
    """Return the status of a job as :func:`dnad_ray.run_folder.reading.read_status` does that of a trial."""
    return status_in(job_status_file(run, job), [])


def read_job_history(run: Place, job: str) -> list[dict[str, Any]]:
    """Return the entries of a job's epochs so far, none where none was written yet."""
    entries: list[Any] = read_json(job_history_file(run, job), list, [], [])
    return [entry for entry in entries if isinstance(entry, dict)]


def _read(
    folder: Place, files: list[Place], parse: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    records, problems, names = [], [], {absolute(folder).name, run_name(folder)}
    for file in sorted(files, key=lambda path: (path.parent.name, path.name)):
        # The folder may come from an untrusted source: links out of it and wrong types are refused.
        if not is_inside(file, folder) or not SAFE_NAME.fullmatch(file.parent.name):
            problems.append(f"{file.parent.name}/{file.name} is no file of a run and is left out")
            continue
        try:
            data = parse_record(read_file(file, _MAX_BYTES), file.name)
            if not isinstance(data, dict):
                raise TypeError(f"it holds a {type(data).__name__}")
            record = parse(data)
            if record.get("job", file.parent.name) != file.parent.name:  # it becomes a path
                raise TypeError(f"it is of another job, {record['job']!r}")
            if record["run"] not in names:
                raise TypeError(f"it is of another run, {record['run'][:100]!r}")
            for name, value in record.items():
                if isinstance(value, str) and len(value) > _LONGEST_TEXT:
                    raise TypeError(f"{name} has {len(value):,} characters")
        except (OSError, UserError, KeyError, TypeError) as error:
            problems.append(f"{file.parent.name}/{file.name} cannot be read: {one_line(error)}")
            continue
        records.append(record)
    return records, problems
