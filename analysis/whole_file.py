"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dnad_ray.places import Place, put

__all__ = ["write_whole"]


def write_whole(file: Place, content: bytes) -> None:
    """Write a file under a temporary name and rename it into place; a remote one is put.

    Raises:
        OSError: If it cannot be written; what was there is there still.
    """
    if not isinstance(file, Path):
        put(file, content)
        return
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)  # mkstemp makes it private; reports are for sharing
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
