"""The secret that Ray's processes show each other: made readable for its user alone, which Ray does not see to."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

__all__ = ["keep_token_private"]


def keep_token_private() -> None:
    """Make ``~/.ray/auth_token`` with mode 0600 where there is none, and take others' rights from one that is there.

    Ray itself makes it with the rights that the user's files have by default, mostly readable for everybody on the
    machine, and whoever has it can run code in the cluster. Nothing is done where the token comes from elsewhere.
    """
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or os.environ.get("RAY_AUTH_MODE") == "disabled":
        return
    file = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # a home that cannot be written: Ray says so better
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            _make(file)
        status = file.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            file.chmod(0o600)


def _make(file: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)  # has mode 0600
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # of two that start at once, the first one's is everybody's
            os.link(temporary, file)  # whole, or not there
    finally:
        Path(temporary).unlink()
