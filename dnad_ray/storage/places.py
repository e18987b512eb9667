"""Locations of run folders: a path on a disk, or a URL of fsspec (``s3://``, ``gs://``, ``sftp://``, ...).

A *place* has the methods of :class:`pathlib.Path`, so code for run folders does not need to know which of the two it
has. The differences are handled here: accepted values, how a file is replaced, how a folder is removed.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import fsspec
from fsspec.registry import known_implementations
from upath import UPath
from upath.implementations.cloud import CloudPath

from dnad_ray.errors import RunFolderError, one_line

__all__ = ["Place", "absolute", "address", "place", "put", "reached", "remove_folder"]

Place: TypeAlias = Path | UPath
"""A path on a disk, or a URL."""

_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)(?P<chain>::.*)?://(?P<authority>[^/]*)")
_OF_ONE_PROCESS = frozenset({"memory", "data"})


def place(given: str | os.PathLike[str] | UPath, argument: str = "run folder") -> Place:
    """Turn a path or URL into a place; nothing is opened.

    Args:
        given: A path, or a URL without a password.
        argument: Name of the argument, for error messages.

    Raises:
        RunFolderError: If no file system of that protocol is known or installed, if other processes could not see
            it, or if it holds a password or the character NUL.

    >>> place("runs/demo").as_posix(), place("file:///data/demo").as_posix()
    ('runs/demo', '/data/demo')
    """
    if isinstance(given, UPath):
        return given
    if "\0" in (text := os.fspath(given)):
        raise RunFolderError(argument, text, "a path or URL without the character NUL")
    match = _URL.match(text)
    if match is None:
        return Path(text)
    protocol = match["protocol"].lower()
    if ":" in match["authority"].rpartition("@")[0]:
        # It would be visible in reports, logs and the list of processes.
        shown = text.replace(match["authority"].rpartition("@")[0], "...")
        raise RunFolderError(argument, shown, "a URL without a password; fsspec takes it from its configuration files")
    if match["chain"] or protocol in _OF_ONE_PROCESS:
        raise RunFolderError(
            argument, text, "a path, or a URL that every process of a run can open, as s3://bucket/run"
        )
    if protocol in ("file", "local"):
        return Path(text[match.end("protocol") + len("://") :])
    _check_installed(protocol, text, argument)
    # Listings change under our hands: other processes write into the folder.
    return UPath(text, use_listings_cache=False)


def address(where: Place) -> str:
    """Return the text from which :func:`place` makes the same place in any process; ``str`` of a URL may lack the host.

    >>> address(place("runs/demo"))
    'runs/demo'
    >>> address(place("ftp://ann@host:2121/runs") / "demo")
    'ftp://ann@host:2121/runs/demo'
    """
    text, host = str(where), "" if isinstance(where, Path) else where.storage_options.get("host")
    if isinstance(where, Path) or not host or not text.startswith(f"{where.protocol}:///"):
        return text
    user, port = where.storage_options.get("username"), where.storage_options.get("port")
    authority = f"{user}@" * bool(user) + str(host) + f":{port}" * bool(port)
    return text.replace(":///", f"://{authority}/", 1)


def absolute(where: Place, argument: str = "run folder") -> Place:
    """Return the absolute place, with its links followed.

    Raises:
        RunFolderError: If its links go in a circle.
    """
    try:
        return where.resolve()
    except (OSError, RuntimeError) as error:
        raise RunFolderError(argument, address(where), f"a path that leads somewhere ({one_line(error)})") from error


def reached(where: Place, argument: str = "run folder") -> bool:
    """Whether something is there.

    Raises:
        RunFolderError: If the storage does not answer, or does not let us in.
    """
    try:
        return bool(where.exists())
    except Exception as error:  # clients of storages have exceptions of their own: no key, no host, no such bucket
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise RunFolderError(argument, address(where), f"storage that answers and may be read ({reason})") from error


def put(file: UPath, content: bytes) -> None:
    """Write a remote file, whole or not at all.

    An object is there when it is complete; other storages get it under a temporary name and rename it.

    Raises:
        OSError: If that fails.
    """
    try:
        if isinstance(file, CloudPath):
            file.fs.pipe_file(file.path, content)
            return
        # With a connection of its own: one of FTP or SSH cannot be shared with the thread that the path came from.
        file = UPath(file.path, protocol=file.protocol, **file.storage_options)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.parent / f".{file.name}.{uuid4().hex}"
        try:
            file.fs.pipe_file(temporary.path, content)
            file.fs.mv(temporary.path, file.path)
        except BaseException:
            if temporary.exists():
                temporary.unlink()
            raise
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{address(file)} cannot be written ({type(error).__name__}: {one_line(error)})") from error


def remove_folder(folder: Place) -> None:
    """Remove a folder and its content; files that cannot be removed stay."""
    if isinstance(folder, UPath):
        try:
            folder.fs.rm(folder.path, recursive=True)
        except Exception:  # noqa: BLE001 - as shutil with ignore_errors
            return
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _check_installed(protocol: str, text: str, argument: str) -> None:
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise RunFolderError(
            argument, text, "a path, or a URL of a protocol that fsspec knows, as s3, gs or sftp"
        ) from None
    except ImportError as error:
        entry: dict[str, Any] = known_implementations.get(protocol, {})
        package = str(entry.get("class", "")).partition(".")[0]
        hint = one_line(error) if package in ("", "fsspec") else f"pip install {package}"
        raise RunFolderError(argument, text, f"a protocol whose package is installed ({hint})") from None
