"""Where a file may be written that the user named: a report, a drawing, a chart, a table, an exported network."""

from __future__ import annotations

import stat
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import NoReturn

from upath import UPath

from dnad_ray.errors import UserError
from dnad_ray.run_folder.reading import is_run
from dnad_ray.storage.places import Place, address, place

__all__ = ["PAGES", "output_file"]

PAGES = (".html", ".htm")
"""Suffixes of reports and drawings."""

_RECORDS = frozenset({".json", ".parquet", ".safetensors", ".yaml"})  # of a run folder, which nothing may replace


def output_file(
    out: str | PathLike[str] | Place, suffixes: Collection[str], *, argument: str = "--out", what: str = "a file"
) -> Place:
    """Return the place of a file that is to be written: a new file, or a regular one that is to be replaced.

    A link of the user's is followed. One in a run folder, which may come from others, is never followed: the caller
    replaces it.

    Args:
        out: A path or URL that the user gave.
        suffixes: Those that the file may have, in lower case.
        argument: Name of the argument, for error messages.
        what: What is written, for error messages.

    Returns:
        The place to write to, by :func:`dnad_ray.storage.files.write_bytes` or another way that replaces a whole file.

    Raises:
        UserError: If it lies in no folder, is a folder, a pipe or a device, has another suffix, or is a record in a
            run folder.
    """
    file = place(out, argument)

    def refuse() -> NoReturn:
        allowed = f"{what} in an existing folder, with the suffix {' or '.join(suffixes)}; no pipe, no device, and "
        raise UserError(argument, address(file), f"{allowed}no record of a run")

    if isinstance(file, UPath):
        if file.suffix.lower() not in suffixes:
            refuse()
        if file.suffix.lower() in _RECORDS and is_run(file.parent) and file.exists():
            refuse()
        return file
    try:
        target = file.parent.resolve() / file.name
        if not _in_run(target):
            target = target.resolve()
        found = target.lstat().st_mode if target.is_symlink() or target.exists() else None
        is_regular = found is None or stat.S_ISREG(found) or (stat.S_ISLNK(found) and _in_run(target))
        if target.suffix.lower() not in suffixes or not target.parent.is_dir() or not is_regular:
            refuse()
        if found is not None and target.suffix.lower() in _RECORDS and _in_run(target):
            refuse()
    except (OSError, RuntimeError):  # a circle of links; Python 3.13 has no error for it
        refuse()
    return target


def _in_run(file: Path) -> bool:
    return any(is_run(folder) for folder in file.parents)
