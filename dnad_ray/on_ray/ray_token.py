"""What of Ray's is private to its user: its token and the folder of its session; Ray itself makes neither so."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["keep_session_private", "keep_token_private"]


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


def keep_session_private(address_info: Mapping[str, Any]) -> None:
    """Take the folder of a Ray that this process started from other users: logs and sockets lie in it.

    Ray makes it with mode 0777, so that every user of the machine could replace what is in it.

    Args:
        address_info: That of the context that ``ray.init`` returned.
    """
    with contextlib.suppress(OSError):  # another Ray may have removed it
        Path(str(address_info["session_dir"])).chmod(0o700)


def _make(file: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)  # has mode 0600
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # of two that start at the same time, both use the first token
            os.link(temporary, file)  # never a part of a token
    finally:
        Path(temporary).unlink()
