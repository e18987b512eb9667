"""The one way into a run folder for commands that write: no links that lead out of it, and one command at a time.

On a disk the lock is one of the kernel (``flock``), which ends with its process, also over NFS. Object stores have
none, and some file systems have it for one machine only. The lock file therefore says who holds it, and the holder
writes it again every 20 seconds: another machine takes it over when it is two minutes old.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from upath import UPath

from dnad_ray.errors import RunFolderError, UserError
from dnad_ray.run_folder.layout import lock_file
from dnad_ray.storage.files import is_inside, read_file, write_bytes
from dnad_ray.storage.places import Place, address
from search_spaces.json_reader import parse_json

__all__ = ["check_links", "writing_to"]

BEAT_SECONDS = 20.0
"""Time between two signs of life of the holder of a lock."""
STALE_SECONDS = 120.0
"""After this time without one, another machine takes the lock over."""

_MAX_BYTES = 10_000
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()
"""Descriptors of the locks of this process. A forked process closes them, or it would hold the locks after our end."""


def _close_all() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_all)


@contextlib.contextmanager
def writing_to(run: Place) -> Iterator[None]:
    """Hold a run folder, or another folder that results are written into, against other commands.

    Args:
        run: The folder; it exists.

    Raises:
        RunFolderError: If a link in it leads out of it, another command writes to it, or it cannot be written.
    """
    check_links(run)
    file = lock_file(run)
    descriptor = None if isinstance(file, UPath) else _locked(file)
    try:
        _check_holder(file, descriptor)
        mine = {"pid": os.getpid(), "host": platform.node(), "machine": _machine(), "since": time.time()}
        stop = threading.Event()
        _write(file, descriptor, mine)
        thread = threading.Thread(target=_beat, args=(file, descriptor, mine, stop), daemon=True, name="lock")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            with contextlib.suppress(Exception):  # clients of storages have exceptions of their own
                file.unlink()
    finally:
        if descriptor is not None:
            _held.discard(descriptor)
            os.close(descriptor)


def check_links(folder: Place) -> None:
    """Check that no link below a folder leads out of it, however deep it is; links are a matter of disks.

    Raises:
        RunFolderError: If one does.
    """
    todo = [folder] if isinstance(folder, Path) else []
    while todo:
        try:
            entries = list(os.scandir(todo.pop()))
        except OSError as error:
            raise RunFolderError("run folder", str(folder), f"a folder that can be read ({error.strerror})") from error
        for entry in entries:
            if entry.is_symlink():
                if not is_inside(Path(entry.path), folder):
                    raise RunFolderError("run folder", entry.path, "a run without links that lead out of it")
            elif entry.is_dir():
                todo.append(Path(entry.path))


def _locked(file: Path) -> int | None:
    """Open and lock a file on a disk; None where its file system has no locks."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError as error:
            allowed = f"a folder that can be written ({error.strerror})"
            raise RunFolderError("run folder", address(file.parent), allowed) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RunFolderError("run folder", str(file), "a regular file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = file.exists() and os.fstat(descriptor).st_ino == file.stat().st_ino
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return None
            raise _refusal(file, _holder(file)) from None
        if is_there:  # its holder may have removed it before we had the lock
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)


def _check_holder(file: Place, descriptor: int | None) -> None:
    """Raise where the file names a holder that may be alive, on a machine whose locks we do not see."""
    holder = _holder(file)
    if not holder or (descriptor is not None and holder.get("machine") == _machine()):
        return  # the kernel that had its lock gave it to us
    age = time.time() - _number(holder.get("beat"))
    if abs(age) < STALE_SECONDS:  # the clocks of two machines differ
        raise _refusal(file, holder, STALE_SECONDS - age)


def _refusal(file: Place, holder: dict[str, Any], wait: float | None = None) -> RunFolderError:
    who = ""
    if holder:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_number(holder.get("since"))))
        who = f", which process {holder.get('pid')} on {str(holder.get('host'))[:100]} writes to since {since}"
    allowed = "a run that no other command writes to"
    if wait is not None:
        allowed += f"; if that process was killed, try again in {wait:.0f} seconds"
    return RunFolderError("run folder", address(file.parent) + who, allowed)


def _holder(file: Place) -> dict[str, Any]:
    """Return what a lock file says, nothing where it is missing, empty or none."""
    try:
        holder = parse_json(read_file(file, _MAX_BYTES), file.name)
    except (OSError, UserError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(file: Place, descriptor: int | None, mine: dict[str, Any]) -> None:
    content = json.dumps({**mine, "beat": time.time()}).encode()
    if descriptor is None:
        write_bytes(file, content)
        return
    with contextlib.suppress(OSError):  # such as a full disk: the lock is held all the same
        os.ftruncate(descriptor, os.pwrite(descriptor, content, 0))  # in place: the lock is of this very file


def _beat(file: Place, descriptor: int | None, mine: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # such as a full disk; the next one may succeed
            _write(file, descriptor, mine)


def _machine() -> str:
    """Return what tells running kernels apart, so that containers of one machine count as one."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 2**40 else 0.0
