"""Safe file access: regular files of a limited size are read, no links; files are written whole or not at all.

A named pipe would block forever, a device never ends, and a link in a run folder of another person could copy a private
file into a report.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from upath import UPath

from dnad_ray.errors import ResourceError, UserError
from dnad_ray.storage.checksums import marked, with_checksum
from dnad_ray.storage.places import Place, address, put

__all__ = [
    "FileError",
    "Write",
    "append_bytes",
    "is_inside",
    "on_disk",
    "read_file",
    "write_bytes",
    "write_json",
]


class FileError(UserError):
    """A file that must not be read: a link, a device, or too large."""


def read_file(file: Place, max_bytes: int, *, follow_links: bool = False) -> bytes:
    """Return the content of a regular file.

    Args:
        file: The file; a file at a URL can be too large, but is no link on this machine.
        max_bytes: Most bytes that it may have.
        follow_links: Whether the file may be a link: True only for files that the user named.

    Raises:
        FileError: If it is a link, a pipe, a device or a folder, or is larger.
        OSError: If it is missing or cannot be read.
    """
    if isinstance(file, UPath):
        with file.open("rb") as remote:
            return _bounded(remote.read(max_bytes + 1), file, max_bytes)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(file, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileError("file", str(file), "a file, not a link") from None
        raise
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileError("file", str(file), "a regular file")
        if status.st_size > max_bytes:
            raise _too_large(file, max_bytes)
        return _bounded(stream.read(max_bytes + 1), file, max_bytes)  # it may grow while it is read


def _bounded(content: bytes, file: Place, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise _too_large(file, max_bytes)
    return content


def _too_large(file: Place, max_bytes: int) -> FileError:
    return FileError("file", f"{address(file)} of more than {max_bytes:,} bytes", f"at most {max_bytes:,} bytes")


def is_inside(path: Place, folder: Place) -> bool:
    """Whether a path, with all its links followed, lies in a folder; links are a matter of disks."""
    if isinstance(path, UPath) or isinstance(folder, UPath):
        return True
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle lead nowhere; Python before 3.13 raises the latter for them
        return False


Write: TypeAlias = Callable[[Place, bytes], None]
"""Writes a file, as :func:`write_bytes` does."""


def write_json(file: Place, data: Any, write: Write | None = None) -> None:
    """Write plain data as JSON with a checksum, whole or not at all; NaN and infinity are refused.

    :func:`dnad_ray.storage.checksums.parse_record` reads it.
    """
    text = json.dumps(marked(data), indent=1, allow_nan=False) + "\n"
    (write or write_bytes)(file, with_checksum(text.encode()))


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
    """Append to a file that only one process writes; a reader may see a part of ``content``.

    It does not wait for the disk: only for files that can be made again from the records of a run.
    """
    if content:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(content)
