"""Reading files that others may have made: only regular ones, no larger than they may be, not by a link.

A named pipe would be waited for without end, a device has no end, and a link in somebody's run folder could show a
file of ours in a report.
"""

from __future__ import annotations

import errno
import os
import stat

from upath import UPath

from dnad_ray.errors import UserError
from dnad_ray.places import Place, address

__all__ = ["FileError", "is_inside", "read_file"]


class FileError(UserError):
    """A file is none that may be read here."""


def read_file(file: Place, max_bytes: int, *, follow_links: bool = False) -> bytes:
    """Return the content of a regular file.

    Args:
        file: The file; what is at a URL can be too large, but is no link of the reader's own machine.
        max_bytes: Most bytes that it may have.
        follow_links: Whether the file may be a link; where its user named it, and not in a folder of somebody.

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
        return _bounded(stream.read(max_bytes + 1), file, max_bytes)  # it may grow while it is read


def _bounded(content: bytes, file: Place, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise FileError("file", f"{address(file)} of more than {max_bytes:,} bytes", f"at most {max_bytes:,} bytes")
    return content


def is_inside(path: Place, folder: Place) -> bool:
    """Whether a path, with all its links followed, lies in a folder; links are a matter of disks."""
    return isinstance(path, UPath) or isinstance(folder, UPath) or path.resolve().is_relative_to(folder.resolve())
