"""The token by which Ray's processes authenticate; Ray itself does not make its file private."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

__all__ = ["keep_token_private"]


def keep_token_private() -> None:
    """Create ``~/.ray/auth_token`` with mode 0600, or set that mode if the file exists.

    Ray creates the file with the user's default mode, which usually lets every user of the machine read it. With the
    token, one can run code in the cluster. Nothing is done if the token comes from an environment variable.
    """
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys() or os.environ.get("RAY_AUTH_MODE") == "disabled":
        return
    file = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # if the home is not writable, Ray's own message is clearer
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
        with contextlib.suppress(FileExistsError):  # of two that start at the same time, both use the first token
            os.link(temporary, file)  # never a part of a token
    finally:
        Path(temporary).unlink()
